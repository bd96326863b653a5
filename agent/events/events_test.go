package events

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/update/golden"
)

// TestRing has a ring turn over: who reads on from a number gets what is kept, and
// learns what is not.
func TestRing(t *testing.T) {
	var r Ring
	if all, missed, _ := r.After(0); len(all) != 0 || missed != 0 {
		t.Errorf("a new ring has %v, %d missed", all, missed)
	}
	add := func(n int) {
		for range n {
			r.Add(Event{Kind: Node, Object: "a"})
		}
	}
	for _, c := range []struct {
		add           int
		after         uint64
		first, missed uint64 // first 0: none
	}{
		{add: 3, after: 0, first: 1},
		{after: 2, first: 3},
		{after: 3},
		{after: 99},
		{add: size, after: 3, first: 4},
		{after: 2, first: 4, missed: 1},
		{after: 0, first: 4, missed: 3},
		{add: 10 * size, after: 500, first: 10*size + 4, missed: 10*size + 3 - 500},
	} {
		add(c.add)
		all, missed, _ := r.After(c.after)
		first := uint64(0)
		if len(all) > 0 {
			first = all[0].Number
		}
		if first != c.first || missed != c.missed || len(all) > size {
			t.Errorf("after %d: %d events from %d, %d missed; want %d, %d", c.after, len(all), first, missed, c.first, c.missed)
		}
		for i, e := range all {
			if e.Number != first+uint64(i) || e.Time.IsZero() {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
	}
}

// TestRingTells wakes every reader that waits, while others add.
func TestRingTells(t *testing.T) {
	var r Ring
	var reading sync.WaitGroup
	for range 10 {
		_, _, more := r.After(0)
		reading.Go(func() {
			for last := uint64(0); last < 500; {
				<-more
				var all []Event
				all, _, more = r.After(last)
				for _, e := range all {
					if e.Number != last+1 {
						t.Errorf("event %d after %d", e.Number, last)
					}
					last = e.Number
				}
			}
		})
	}
	for range 5 {
		reading.Go(func() {
			for range 100 {
				r.Add(Event{Kind: Node})
			}
		})
	}
	reading.Wait()
}

func TestCut(t *testing.T) {
	var r Ring
	r.Add(Event{Text: "two\nlines \xff" + strings.Repeat("x", 1000)})
	all, _, _ := r.After(0)
	if e := all[0]; len(e.Text) > maxText+8 || !strings.HasPrefix(e.Text, "two lines \uFFFDxx") || !strings.HasSuffix(e.Text, "x…") {
		t.Errorf("text %q", e.Text)
	}
}

// TestOfContainers tells the story of some containers, look by look.
func TestOfContainers(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	unit := func(state workload.State, more func(*workload.UnitStatus)) workload.UnitStatus {
		u := workload.UnitStatus{ID: "web", State: state, Image: "example/web:1"}
		if more != nil {
			more(&u)
		}
		return u
	}
	runs := func(second int) workload.UnitStatus {
		return unit(workload.Running, func(u *workload.UnitStatus) { u.StartedAt = began.Add(time.Duration(second) * time.Second) })
	}
	healthy := func(u workload.UnitStatus, s workload.HealthState, output string) workload.UnitStatus {
		u.Health = workload.HealthStatus{State: s, Output: output}
		return u
	}
	exits := func(state workload.State, n int, reason string) workload.UnitStatus {
		return unit(state, func(u *workload.UnitStatus) { u.Exits, u.Reason = n, reason })
	}
	other := unit(workload.Starting, func(u *workload.UnitStatus) { u.Image = "example/web:2" })
	job := workload.UnitStatus{ID: "job", State: workload.Ended, Reason: "exit code 0", Image: "example/job:1"}
	leaves := []workload.UnitStatus{{ID: "web", State: workload.Stopping}}
	second := runs(33)
	second.Image = "example/web:2"
	var table strings.Builder
	var known workload.Status
	var at time.Time
	for i, look := range []struct {
		title string
		s     workload.Status
	}{
		{"the agent starts", workload.Status{Units: []workload.UnitStatus{unit(workload.Waiting, nil)}}},
		{"it was there", workload.Status{Units: []workload.UnitStatus{runs(-60)}}},
		{"nothing", workload.Status{Units: []workload.UnitStatus{runs(-60)}}},
		{"containerd goes away", workload.Status{Trouble: "containerd does not answer", Units: []workload.UnitStatus{unit(workload.Waiting, nil)}}},
		{"containerd comes back", workload.Status{Units: []workload.UnitStatus{runs(-61)}}},
		{"it exits", workload.Status{Units: []workload.UnitStatus{exits(workload.Backoff, 1, "exit code 1")}}},
		{"it is starting", workload.Status{Units: []workload.UnitStatus{exits(workload.Starting, 1, "")}}},
		{"it cannot start", workload.Status{Units: []workload.UnitStatus{exits(workload.Backoff, 2, "image is not on this node")}}},
		{"it starts", workload.Status{Units: []workload.UnitStatus{runs(8)}}},
		{"its check begins", workload.Status{Units: []workload.UnitStatus{healthy(runs(8), workload.HealthStarting, "")}}},
		{"it is well", workload.Status{Units: []workload.UnitStatus{healthy(runs(8), workload.Healthy, "")}}},
		{"it is not", workload.Status{Units: []workload.UnitStatus{healthy(runs(8), workload.Unhealthy, "checking\nexit code 1\n")}}},
		{"it is restarted", workload.Status{Units: []workload.UnitStatus{unit(workload.Starting, nil)}}},
		{"it starts", workload.Status{Units: []workload.UnitStatus{runs(13)}}},
		{"it starts again between two looks", workload.Status{Units: []workload.UnitStatus{runs(14)}}},
		{"it is being stopped", workload.Status{Units: []workload.UnitStatus{unit(workload.Stopping, nil)}}},
		{"it is stopped", workload.Status{Units: []workload.UnitStatus{unit(workload.Stopped, nil)}}},
		{"another image", workload.Status{Units: []workload.UnitStatus{other}}},
		{"another container", workload.Status{Units: []workload.UnitStatus{second, {ID: "job", State: workload.Starting, Image: "example/job:1"}}}},
		{"the job is done", workload.Status{Units: []workload.UnitStatus{second, {ID: "job", State: workload.Ended, Reason: "exit code 0", Image: "example/job:1"}}}},
		{"one is not wanted any more", workload.Status{Units: []workload.UnitStatus{second}}},
		{"nor is the other", workload.Status{Leaving: leaves}},
		{"it has not left", workload.Status{Leaving: leaves}},
		{"it has left", workload.Status{}},
		{"it is wanted again", workload.Status{Units: []workload.UnitStatus{runs(40)}}},
		{"and leaves", workload.Status{Leaving: leaves}},
		{"and is wanted before it has left", workload.Status{Units: []workload.UnitStatus{unit(workload.Starting, nil)}}},
		{"it starts", workload.Status{Units: []workload.UnitStatus{runs(50), job}}},
		{"containerd goes away", workload.Status{Trouble: "containerd does not answer", Units: []workload.UnitStatus{unit(workload.Waiting, nil), job}}},
		{"meanwhile neither is wanted any more", workload.Status{Trouble: "containerd does not answer", Ahead: true}},
		{"then one is", workload.Status{Trouble: "containerd does not answer", Ahead: true, Units: []workload.UnitStatus{unit(workload.Waiting, nil)}}},
		{"then none", workload.Status{Trouble: "containerd does not answer", Ahead: true}},
		{"containerd comes back, and one is there and leaves", workload.Status{Leaving: leaves}},
		{"it has left", workload.Status{}},
	} {
		var all []Event
		all, known = OfContainers(known, look.s, at)
		at = began.Add(time.Duration(i) * time.Second)
		fmt.Fprintln(&table, look.title)
		show(&table, all)
	}
	golden.Compare(t, "containers.txt", table.String())
}

func show(table *strings.Builder, all []Event) {
	for _, e := range all {
		fmt.Fprintf(table, "    %s %s: %s: %s\n", e.Kind, e.Object, e.What, e.Text)
	}
}

// TestOfServices tells that of the node's services.
func TestOfServices(t *testing.T) {
	status := func(services ...control.Service) *control.Status { return &control.Status{Services: services} }
	clock := func(state string, starts int, last string) control.Service {
		return control.Service{Name: "clock", State: state, Starts: starts, LastExit: last, Text: "follows 192.0.2.1"}
	}
	failing := clock("backoff", 9, "exit status 1")
	failing.Failing = true
	degraded := status(clock("running", 10, "exit status 1"))
	degraded.Degraded = []control.Degraded{{What: "watchdog", Why: "no such device"}}
	ending := status(clock("running", 10, "exit status 1"))
	ending.Ending = "reboot"
	var table strings.Builder
	var before *control.Status
	for _, look := range []struct {
		title string
		s     *control.Status
	}{
		{"the agent starts", status(clock("starting", 1, ""))},
		{"it runs", status(clock("running", 1, ""))},
		{"nothing", status(clock("running", 1, ""))},
		{"it was restarted between two looks", status(clock("running", 2, "signal: killed"))},
		{"it exits", status(clock("backoff", 2, "exit status 1"))},
		{"it starts", status(clock("running", 3, "exit status 1"))},
		{"it exits again and again", status(failing)},
		{"it comes back", status(clock("running", 10, "exit status 1"))},
		{"something breaks", degraded},
		{"and is mended, and somebody reboots", ending},
	} {
		fmt.Fprintln(&table, look.title)
		show(&table, OfServices(before, look.s))
		before = look.s
	}
	golden.Compare(t, "services.txt", table.String())
}
