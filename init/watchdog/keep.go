package watchdog

import (
	"fmt"
	"strings"
	"time"
)

// Beat is what one turn of the supervisor loop says about PID 1.
type Beat struct {
	// At is when the loop sent it.
	At time.Time
	// Stuck names the vital services that neither live nor die: killed long ago
	// and still there, which only a kernel in trouble brings about.
	Stuck []string
}

// Verdict says whether beat b earns a ping at now, from a device with the given
// timeout; if not, why.
func Verdict(b Beat, now time.Time, timeout time.Duration) (ping bool, why string) {
	if age := now.Sub(b.At); age > timeout {
		// Whatever lay this long on the way says nothing about now.
		return false, fmt.Sprintf("the supervisor's last beat is %v old, the timeout is %v", age.Round(time.Second), timeout)
	}
	if len(b.Stuck) > 0 {
		return false, "vital services cannot be killed: " + strings.Join(b.Stuck, ", ")
	}
	return true, ""
}

// Keep pings for each beat that earns it, until beats is closed. It never pings
// by itself. The reason of a refused ping goes to say, once for each new reason.
func (d *Dog) Keep(beats <-chan Beat, say func(string)) {
	last := ""
	for b := range beats {
		if d.hw == nil {
			continue
		}
		ping, why := Verdict(b, time.Now(), d.timeout)
		if ping {
			if err := d.Ping(); err != nil {
				why = err.Error()
			}
		}
		if why != "" && why != last {
			say("watchdog: no ping: " + why)
		}
		last = why
	}
}

// While pings as long as f runs, but not longer than limit: for the steps of a
// boot that take their time, such as a file system check, before there is a
// supervisor loop to beat. It runs f on the caller's goroutine and start (as
// guard.Go does it) the pings on another.
func (d *Dog) While(limit time.Duration, start func(name string, f func()), f func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	start("watchdog", func() {
		defer close(gone)
		tick := time.NewTicker(d.Interval())
		defer tick.Stop()
		end := time.After(limit)
		for {
			_ = d.Ping() // what it cannot feed will bite: no reason to end a boot early
			select {
			case <-tick.C:
			case <-end:
				return
			case <-done:
				return
			}
		}
	})
	defer func() {
		close(done)
		<-gone
	}()
	f()
}
