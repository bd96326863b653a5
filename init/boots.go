package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kogge.example/init/guard"
	"kogge.example/init/shutdown"
	"kogge.example/update/memory"
)

// historyFile is the history of boots: a line when the node comes up, one when the boot
// is assessed, and one when it goes down in order. A boot without that lost its power,
// or was reset.
var historyFile = filepath.Join(memory.Dir, memory.HistoryFile)

func (n *node) noteBoot() error {
	return n.note(memory.Event{
		Kind: memory.KindUp, Slot: n.slot(), Release: n.boot.Version, Board: n.boot.Board,
		Kernel: strings.TrimSpace(string(readOptional("/proc/sys/kernel/osrelease"))),
		Trial:  n.boot.Trial, Left: n.boot.TriesLeft,
	})
}

// noteEnd notes why the node goes down. Nobody is left to hear that this did not work.
func (n *node) noteEnd(how shutdown.How, err error) {
	e := memory.Event{Kind: memory.KindDown, End: string(how), Seconds: int(sinceStart() / time.Second)}
	if err != nil {
		e.Why = err.Error()
	}
	if errors.Is(err, guard.ErrPanic) {
		e.End = memory.EndCrashed
	}
	_ = n.note(e)
}

// note adds a line about this boot to the history. After a power cut it has the line
// or not.
func (n *node) note(e memory.Event) error {
	if !n.persist {
		return nil
	}
	if e.Boot == "" {
		e.Boot = bootID()
	}
	e.Time = time.Now().UTC().Truncate(time.Second)
	if err := os.MkdirAll(memory.Dir, 0o700); err != nil {
		return err
	}
	n.noting.Lock()
	defer n.noting.Unlock()
	return memory.Append(historyFile, e)
}

// bootID is the kernel's name of this boot.
func bootID() string {
	return strings.TrimSpace(string(readOptional("/proc/sys/kernel/random/boot_id")))
}

// sinceStart is the time since the kernel started.
func sinceStart() time.Duration {
	first, _, _ := strings.Cut(string(readOptional("/proc/uptime")), " ")
	d, _ := time.ParseDuration(first + "s")
	return d
}
