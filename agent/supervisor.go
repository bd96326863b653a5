package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"
)

// supervisor is PID 1 as a service sees it: a socket for sd_notify, and how often
// it wants to hear from us. Outside of a node there is none, and nothing is told.
type supervisor struct {
	// watchdog is how long PID 1 waits for WATCHDOG=1; 0: it does not.
	watchdog time.Duration
	conn     *net.UnixConn
}

// newSupervisor reads NOTIFY_SOCKET and WATCHDOG_USEC and takes them out of the
// environment: shims and runc inherit ours, and runc would take the socket for the
// container's and wait for it to be ready. (go-systemd's SdNotify reads the
// variable at each call, hence the socket of our own.)
//
// Source: sd_notify(3), sd_watchdog_enabled(3).
func newSupervisor() (*supervisor, error) {
	watchdog, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return nil, fmt.Errorf("watchdog settings: %w", err)
	}
	s := &supervisor{watchdog: watchdog}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return s, nil
	}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, err
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	s.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	return s, nil
}

// tell sends assignments ("READY=1") and says whether they went off. What cannot be
// sent within a second is lost: PID 1 draws its own conclusion from silence.
func (s *supervisor) tell(assignments ...string) bool {
	if s.conn == nil {
		return true
	}
	for i, a := range assignments {
		name, value, _ := strings.Cut(strings.ReplaceAll(a, "\n", " | "), "=")
		assignments[i] = name + "=" + cut(value, maxStatus)
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err := s.conn.Write([]byte(strings.Join(assignments, "\n")))
	return err == nil
}

// maxStatus is how many bytes of a STATUS= PID 1 keeps. A message above 4096 bytes it
// drops whole.
const maxStatus = 256

// cut is text of at most limit bytes, with … where something is missing.
func cut(text string, limit int) string {
	const more = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}
