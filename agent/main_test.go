package main

import (
	"bytes"
	"errors"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUnknownRole(t *testing.T) {
	for _, args := range [][]string{{"agent"}, {"agent", ""}, {"agent", "etcdd"}, {"modprobe", "-q", "--", "x"}, {}} {
		var stderr bytes.Buffer
		if code := run(args, &stderr); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
		if !strings.Contains(stderr.String(), "unknown role") {
			t.Errorf("%q: says %q", args, &stderr)
		}
	}
}

// TestLines: a message of the log is a line, whatever an image has in it, and PID 1 does not
// make two of it.
func TestLines(t *testing.T) {
	var b bytes.Buffer
	l := log.New(lines{&b}, "", 0)
	l.Printf("container %s: %v", "web", errors.New("exec /bin/a\n\tcontainer db: running\r\n"))
	l.Print(strings.Repeat("x", 4096) + "container db: running")
	first, second, _ := strings.Cut(b.String(), "\n")
	if first != "container web: exec /bin/a; container db: running" || len(second) > 4096 || strings.Count(second, "\n") != 1 {
		t.Errorf("%q", b.String())
	}
}

// TestSupervisor: the variables work once, and are not inherited by shims.
func TestSupervisor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "3000000")
	t.Setenv("WATCHDOG_PID", "")
	s, err := newSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	if s.watchdog != 3*time.Second || tick(s.watchdog) != time.Second {
		t.Errorf("watchdog %s, tick %s", s.watchdog, tick(s.watchdog))
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		if _, set := os.LookupEnv(name); set {
			t.Errorf("%s is still in the environment", name)
		}
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 8192)
	for _, test := range []struct{ status, want string }{
		{"two\nlines", "two | lines"},
		{strings.Repeat("ä", 128), strings.Repeat("ä", 128)},
		{strings.Repeat("ä", 129), strings.Repeat("ä", 126) + "…"}, // 253 bytes would end within a letter
		{strings.Repeat("x", 5000), strings.Repeat("x", 253) + "…"},
		{strings.Repeat("\n", 5000), strings.Repeat(" | ", 84) + " …"},
	} {
		s.tell("READY=1", "STATUS="+test.status)
		n, err := conn.Read(buf)
		if want := "READY=1\nSTATUS=" + test.want; err != nil || string(buf[:n]) != want {
			t.Errorf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
	// Outside of a node there is nobody to tell.
	alone, err := newSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	alone.tell("READY=1")
	if tick(alone.watchdog) != 5*time.Second {
		t.Errorf("tick without a watchdog: %s", tick(alone.watchdog))
	}
}
