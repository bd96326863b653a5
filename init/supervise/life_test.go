package supervise

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

// TestLifeTable prints what every state makes of every event; the diff of that
// table is the review.
func TestLifeTable(t *testing.T) {
	zero := time.Unix(1000, 0)
	newOne := func(notify bool) Life {
		s := Service{Notify: notify}
		if notify {
			s.WatchdogTimeout = 30 * time.Second
		}
		return newLife(s, zero)
	}
	step := func(l Life, e Event, after time.Duration) Life {
		l, _ = l.Step(e, l.Since.Add(after))
		return l
	}
	plain := step(newOne(false), Unblocked, 0)
	starting := step(newOne(true), Unblocked, 0)
	ready := step(starting, Ready, time.Second)
	failed := plain
	for range maxExits {
		failed = step(failed, Exited, time.Second)
		if failed.State == Backoff {
			failed = step(failed, Timer, pause(failed.Exits))
		}
	}
	retried := step(failed, Timer, pause(failed.Exits))
	states := []struct {
		name string
		life Life
	}{
		{"waiting", newOne(false)},
		{"waiting, notify", newOne(true)},
		{"starting", starting},
		{"running", plain},
		{"running, watchdog", ready},
		{"running after 5 exits", retried},
		{"backoff", step(plain, Exited, time.Second)},
		{"failed", failed},
		{"stopping to stop", step(plain, Stop, 0)},
		{"stopping to restart", step(plain, Restart, 0)},
		{"stopping as hung", step(ready, Hung, 0)},
		{"stopping, killed", step(step(plain, Stop, 0), Timer, defaultStop)},
		{"stopped", step(step(plain, Stop, 0), Exited, 0)},
	}
	var b strings.Builder
	b.WriteString("state                  event          → state     action     exits  due        ping by  goal\n")
	for _, s := range states {
		b.WriteString("\n")
		for _, e := range []struct {
			event Event
			after time.Duration
		}{
			{Unblocked, time.Second},
			{Ready, time.Second},
			{Pinged, time.Second},
			{Hung, time.Second},
			{Exited, time.Second},
			{Exited, 2 * time.Minute},
			{Timer, time.Millisecond},
			{Timer, 10 * time.Minute},
			{Stop, time.Second},
			{Restart, time.Second},
		} {
			now := s.life.Since.Add(e.after)
			got, action := s.life.Step(e.event, now)
			event := string(e.event)
			switch e.after {
			case time.Millisecond:
				event += " early"
			case 2 * time.Minute, 10 * time.Minute:
				event += " late"
			}
			until := func(t time.Time) string {
				if t.IsZero() {
					return "-"
				}
				return t.Sub(now).String()
			}
			goal := string(got.Goal)
			if goal == "" {
				goal = "-"
			}
			fmt.Fprintf(&b, "%-22s %-14s → %-9s %-10s %5d  %-10s %-8s %s\n",
				s.name, event, got.State, action, got.Exits, until(got.Due), until(got.PingBy), goal)
		}
	}
	golden.Compare(t, "life.txt", b.String())
}

// TestPauses prints the day of a service that exits after a second, for ever.
func TestPauses(t *testing.T) {
	var b strings.Builder
	l, _ := newLife(Service{}, time.Unix(0, 0)).Step(Unblocked, time.Unix(0, 0))
	for range 11 {
		var a Action
		l, _ = l.Step(Exited, l.Since.Add(time.Second))
		fmt.Fprintf(&b, "exit %d: %s for %v, failing %v, stuck %v\n",
			l.Exits, l.State, l.Next().Sub(l.Since), l.Failing(), l.Stuck(l.Next()))
		if l, a = l.Step(Timer, l.Next()); a != Start || l.State != Running {
			t.Fatalf("after the pause: %s %s", l.State, a)
		}
	}
	l, _ = l.Step(Timer, l.Next())
	fmt.Fprintf(&b, "a minute of running: %s, exits %d, failing %v\n", l.State, l.Exits, l.Failing())
	golden.Compare(t, "pauses.txt", b.String())
}

// TestStuck is a process that SIGKILL does not end.
func TestStuck(t *testing.T) {
	now := time.Unix(0, 0)
	l, _ := newLife(Service{}, now).Step(Unblocked, now)
	l, _ = l.Step(Stop, now)
	kills := 0
	for end := now.Add(defaultStop + 2*time.Minute); l.Next().Before(end); {
		var a Action
		now = l.Next()
		if l, a = l.Step(Timer, now); a == Kill {
			kills++
		}
		if want := now.Sub(l.Killed) >= time.Minute; l.Stuck(now) != want {
			t.Errorf("%v after the first SIGKILL stuck is %v", now.Sub(l.Killed), l.Stuck(now))
		}
	}
	if kills != 12 {
		t.Errorf("%d SIGKILL in two minutes, want 12", kills)
	}
	if l, a := l.Step(Exited, now); l.State != Stopped || a != None || l.Stuck(now.Add(time.Hour)) {
		t.Errorf("at last: %+v %s", l, a)
	}
}

func TestCheck(t *testing.T) {
	good := Service{Name: "a", Path: "/bin/a"}
	with := func(change func(*Service)) Service { s := good; change(&s); return s }
	for want, services := range map[string][]Service{
		"": {good},
		`service "A b": a name has 1 to 32 of a-z, 0-9 and inner -`: {with(func(s *Service) { s.Name = "A b" })},
		`service "..": a name has 1 to 32 of a-z, 0-9 and inner -`:  {with(func(s *Service) { s.Name = ".." })},
		"service a: defined twice":                                  {good, good},
		`service a: path "x" is not absolute`:                       {with(func(s *Service) { s.Path = "x" })},
		`service a: starts after "b", which is not defined`:         {with(func(s *Service) { s.After = []string{"b"} })},
		"services wait for each other: a, b": {with(func(s *Service) { s.After = []string{"b"} }),
			with(func(s *Service) { s.Name, s.After = "b", []string{"a"} }), with(func(s *Service) { s.Name = "c" })},
		"service a: keeps capabilities without a limit": {with(func(s *Service) { s.Keep = []int{1} })},
		`service a: socket name "x:y" has a colon`:      {with(func(s *Service) { s.Sockets = []Socket{{Name: "x:y"}} })},
	} {
		got := ""
		if err := Check(services); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("Check(%+v) = %q, want %q", services, got, want)
		}
	}
}
