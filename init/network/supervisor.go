package network

import (
	"log"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// watchdogTicks returns a channel that ticks as often as the supervisor wants to
// hear from us, or never.
func watchdogTicks() (<-chan time.Time, func()) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(every / 2)
	return t.C, t.Stop
}

// tellReady tells the supervisor how we stand, when that has changed; the first
// time says as well that we are ready.
func (m *manager) tellReady(status string) {
	if status == m.told {
		return
	}
	m.told = status
	state := "STATUS=" + status
	if !m.ready {
		m.ready = true
		state = daemon.SdNotifyReady + "\n" + state
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Printf("network: tell supervisor: %v", err)
	}
}
