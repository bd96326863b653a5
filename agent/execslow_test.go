package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// stuck is an output whose reader stops after the first bytes.
type stuck struct {
	came, free chan struct{}
	once       sync.Once
}

func (s *stuck) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.came) })
	<-s.free
	return len(p), nil
}

// execSlowReader has a command write far more than its caller reads: it waits, and the
// agent keeps no more than a little of it.
func execSlowReader(t *testing.T, e *execs) {
	memory := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.node.services["agent"].Process.Pid))
		must(t, err)
		var kib int
		for line := range strings.Lines(string(text)) {
			_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &kib)
		}
		return kib
	}
	written := func() (bytes int) {
		for _, pid := range commands(t) {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
			must(t, err)
			for line := range strings.Lines(string(text)) {
				_, _ = fmt.Sscanf(line, "wchar: %d", &bytes)
			}
		}
		return bytes
	}
	writing := func() bool { // and waits for somebody to read
		for _, pid := range commands(t) {
			calls, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
			must(t, err)
			for _, call := range calls {
				if text, err := os.ReadFile(call); err == nil && strings.HasPrefix(string(text), fmt.Sprintf("%d 0x1 ", unix.SYS_WRITE)) {
					return true
				}
			}
		}
		return false
	}
	before := memory()
	s := &stuck{came: make(chan struct{}), free: make(chan struct{})}
	r := e.run(t, e.ada, func(r *called) { r.Stdout = s }, "flood")
	<-s.came
	last, looks := 0, 0
	until(t, "the command to wait", func() bool {
		now := written()
		if now != last || !writing() {
			last, looks = now, 0
		}
		looks++
		return looks > 15 // in the same write each time
	})
	if last == 0 || last > 4<<20 {
		t.Errorf("%d bytes were written to a reader who does not read", last)
	}
	if more := memory() - before; more > 16<<10 {
		t.Errorf("the agent took %d KiB more", more)
	}
	t.Logf("%d bytes are on their way", last)
	close(s.free)
	until(t, "the command to go on", func() bool { return written() > 4*last })
	r.cancel()
	<-r.done
	t.Logf("the agent has %d KiB more than before", memory()-before)
}
