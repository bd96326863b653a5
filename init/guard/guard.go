// Package guard starts the goroutines of PID 1.
//
// A function comes in and runs; a panic goes out as lines in the kernel log and
// one request to reboot, which the supervisor takes from [Broken]. Guard leaves
// alone what the panic was about: nothing is retried. A panic that nobody
// fetches within [Limit] ends in a forced reboot, so that a broken PID 1 never
// lingers, with a hardware watchdog or without.
package guard

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is how long after a panic the machine may take for a clean reboot.
const Limit = 3 * time.Minute

// kmsgLine is what the kernel takes as one record, less its prefix.
const kmsgLine = 900

var broken = make(chan string, 1)

// ErrPanic is PID 1's own fault.
var ErrPanic = errors.New("PID 1 is broken")

// Broken receives one line for the first panic of a guarded goroutine. Whoever
// receives it reboots the machine.
func Broken() <-chan string { return broken }

// Go runs f in a goroutine of its own; name stands in the log if it panics.
func Go(name string, f func()) {
	go func() {
		defer Recover(name)
		f()
	}()
}

// Within runs f and waits for it, but no longer than limit: a disk that does not answer is
// nobody's to wait for. name stands in the log if f panics or takes longer.
func Within(limit time.Duration, name string, f func()) {
	done := make(chan struct{})
	Go(name, func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
	case <-time.After(limit):
		Kmsg(name + ": not done within " + limit.String())
	}
}

// Recover is deferred by a goroutine that was not started by [Go], above all by
// main: it turns a panic into a request to reboot.
func Recover(name string) {
	v := recover()
	if v == nil {
		return
	}
	what := fmt.Sprintf("panic in %s: %v", name, v)
	Kmsg(what + "\n" + string(debug.Stack()))
	select {
	case broken <- what:
	default: // the first one has asked already
	}
	if os.Getpid() == 1 {
		time.AfterFunc(Limit, func() {
			Kmsg("nobody rebooted after the panic in " + name + ", forcing it")
			_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		})
	}
}

// Priorities of kernel log records: facility 3 (daemons) times eight, plus the
// severity. Source: Documentation/ABI/testing/dev-kmsg.
const (
	priorityShown = "<26>" // critical: the kernel shows it on the console
	priorityInfo  = "<30>" // kept, not shown
)

// Kmsg writes text to the kernel log so that the console shows it, a record for each of its
// lines, and to standard error where there is no kernel log to write to. It never blocks.
func Kmsg(text string) { write(priorityShown, text) }

// Note keeps text in the kernel log, as Kmsg does, without showing it.
func Note(text string) { write(priorityInfo, text) }

func write(priority, text string) {
	fd, err := unix.Open("/dev/kmsg", unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil || os.Getpid() != 1 { // a test must not fill the log of its host
		if err == nil {
			unix.Close(fd)
		}
		fmt.Fprintln(os.Stderr, text)
		return
	}
	defer unix.Close(fd)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if len(line) > kmsgLine {
			line = line[:kmsgLine]
		}
		_, _ = unix.Write(fd, []byte(priority+"kogge: "+line))
	}
}
