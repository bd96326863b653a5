package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/shutdown"
)

// Leaving is the file in [Config.Dir] that says, while it exists, that the whole
// machine is ending, and how.
const Leaving = "leaving"

// ask begins the end of the machine. The first one who asks decides how.
func (s *supervisor) ask(how shutdown.How, why string) {
	if s.ending != "" {
		return
	}
	now := time.Now()
	s.ending, s.changed = how, true
	// Before any service is told to stop: one that stops because the whole node
	// does may have more to end than itself.
	if err := os.WriteFile(filepath.Join(s.cfg.Dir, Leaving), []byte(how+"\n"), 0o644); err != nil {
		s.cfg.Degraded.Add("announce the end", err)
	}
	s.endBy = now.Add(s.cfg.Budget.Share(now, servicesShare))
	s.say(fmt.Sprintf("%s: %s", how, why))
}

// end stops the services that nobody needs any more, dependents first. It
// returns true when all are stopped, or when their time is over and what was left
// of them has been killed.
func (s *supervisor) end(now time.Time) bool {
	for again := true; again; { // what has no process stops at once and may free another
		again = false
		for _, u := range slices.Backward(s.units) {
			needed := slices.ContainsFunc(s.units, func(o *unit) bool {
				return o.life.State != Stopped && slices.Contains(o.After, u.Name)
			})
			if needed || u.life.State == Stopped || u.life.State == Stopping && u.life.Goal == Stopped {
				continue
			}
			// Whoever stops later needs time as well.
			u.life.StopTimeout = min(u.life.StopTimeout, s.endBy.Sub(now)/2)
			s.apply(u, Stop, now)
			again = true
		}
	}
	if !slices.ContainsFunc(s.units, func(u *unit) bool { return u.life.State != Stopped }) {
		return true
	}
	if now.Before(s.endBy) {
		return false
	}
	for _, u := range s.units {
		s.kill(u)
	}
	s.say("services did not stop in time")
	return true
}

// line is what the console says about a change.
func (u *unit) line(e Event, action Action) string {
	text := "service " + u.Name + ": " + string(u.life.State)
	switch {
	case action == Kill:
		return "service " + u.Name + ": does not stop, killed"
	case e == Exited && (u.life.State == Backoff || u.life.State == Failed):
		text = fmt.Sprintf("%s: %s, exit %d in a row, next try in %v",
			text, u.lastExit, u.life.Exits, pause(u.life.Exits))
	case action == Abort:
		text += ": no sign of life, aborted"
	case action == Terminate && u.life.Goal == Backoff:
		text += fmt.Sprintf(": not ready within %v", u.life.StartTimeout)
	case action == Start && u.life.State == Starting, u.life.State == Running && u.life.Notify:
	case u.life.State == Running:
		text += fmt.Sprintf(", pid %d", u.pid)
	}
	return text
}

// describe says how a process ended.
func describe(status syscall.WaitStatus) string {
	switch {
	case status.Signaled() && status.CoreDump():
		return fmt.Sprintf("killed by %s (core dumped)", unix.SignalName(status.Signal()))
	case status.Signaled():
		return fmt.Sprintf("killed by %s", unix.SignalName(status.Signal()))
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
