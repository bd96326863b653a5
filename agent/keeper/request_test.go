package keeper

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

func (b *bench) ask(t *testing.T, id string, want workload.Want) {
	t.Helper()
	if err := b.keeper.Request(t.Context(), id, want); err != nil {
		t.Fatal(err)
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always), workload.Container{ID: "job", Image: "job"})
	b.until(t, "both running", unitStates("job running", "web running"))

	b.ask(t, "web", workload.WantStopped)
	b.until(t, "web to stop", unitStates("job running", "web stopped"))
	if n := b.network.published(); n != 0 {
		t.Errorf("%d ports lead to a container that was stopped", n)
	}
	b.ask(t, "web", workload.WantStopped) // already
	b.ask(t, "web", workload.WantStarted)
	b.until(t, "web to start", unitStates("job running", "web running"))

	b.ask(t, "web", workload.WantRestarted)
	b.until(t, "web to start again", func(s workload.Status) bool {
		return unitStates("job running", "web running")(s) && f.did("start web") == 3
	})
	u := b.keeper.Snapshot().Units[1]
	if u.Exits != 0 || u.Restarts != 2 || u.Reason != "" || u.Image != "hello" || len(u.Ports) != 1 || len(u.At) != 1 || u.StartedAt.IsZero() {
		t.Errorf("status of web: %+v", u)
	}

	f.exit(t, "job", 7)
	b.until(t, "job to end", unitStates("job ended", "web running"))
	if u := b.keeper.Snapshot().Units[0]; u.ExitCode != 7 || u.Reason != "exit code 7" || !u.StartedAt.IsZero() {
		t.Errorf("status of job: %+v", u)
	}
	b.ask(t, "job", workload.WantStarted)
	b.until(t, "job to run again", unitStates("job running", "web running"))

	if err := b.keeper.Request(t.Context(), "nobody", workload.WantStopped); !errors.Is(err, workload.ErrUnknown) {
		t.Errorf("of a container that is not there: %v", err)
	}
	if err := b.keeper.Request(t.Context(), "web", "sunk"); err == nil {
		t.Error("anything can be wanted")
	}
	b.end()
	if err := b.keeper.Request(t.Context(), "web", workload.WantStopped); !errors.Is(err, ErrOver) {
		t.Errorf("after the end: %v", err)
	}
}

// TestStopHolds: what was stopped stays so while containerd comes and goes, and a stop
// that was asked for while it was away is carried out when it is back.
func TestStopHolds(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always), workload.Container{ID: "db", Image: "db", Restart: workload.Restart{Policy: workload.Always}})
	b.until(t, "both running", unitStates("db running", "web running"))
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "db to stop", unitStates("db stopped", "web running"))
	f.away()
	b.until(t, "trouble", func(s workload.Status) bool { return s.Trouble != "" })
	b.ask(t, "web", workload.WantStopped)
	if err := b.keeper.Request(t.Context(), "web", workload.WantRestarted); !errors.Is(err, ErrAway) {
		t.Errorf("restart without containerd: %v", err)
	}
	if err := b.keeper.Request(t.Context(), "db", workload.WantStarted); !errors.Is(err, ErrAway) {
		t.Errorf("start without containerd: %v", err)
	}
	f.back()
	b.until(t, "both stopped", func(s workload.Status) bool { return unitStates("db stopped", "web stopped")(s) && s.Trouble == "" })
	if f.did("start db") != 1 || f.did("start web") != 1 {
		t.Errorf("got:\n%s", strings.Join(f.log, "\n"))
	}
}

// TestStopDuringStart: a start that does not end is given up.
func TestStopDuringStart(t *testing.T) {
	t.Parallel()
	f := newFake()
	k := &Keeper{Engine: &blockedEngine{fakeEngine: f}, Network: &fakeNetwork{attached: map[string]bool{}}}
	b := runOn(t, f, &fakeNetwork{attached: map[string]bool{}})
	b.end()
	status := make(chan workload.Status, 100)
	k.Report = func(s workload.Status) {
		select {
		case status <- s:
		default:
		}
	}
	end := keep(t, k, web(workload.Always))
	for s := range status {
		if unitStates("web starting")(s) {
			break
		}
	}
	if err := k.Request(t.Context(), "web", workload.WantStopped); err != nil {
		t.Fatal(err)
	}
	for s := range status {
		if unitStates("web stopped")(s) {
			break
		}
	}
	end()
}

// blockedEngine starts nothing.
type blockedEngine struct{ *fakeEngine }

func (b *blockedEngine) Start(ctx context.Context, _ workload.Container, _ workload.Instance, _ workload.Namespaces) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestStopFails: a container that cannot be stopped is tried again.
func TestStopFails(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always))
	b.until(t, "web running", unitStates("web running"))
	f.mu.Lock()
	f.stubborn = 1
	f.mu.Unlock()
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "the trouble to show", func(s workload.Status) bool { return strings.Contains(s.String(), "web stopping: it clings") })
	b.until(t, "web to stop", unitStates("web stopped"))
}

// TestRequestWaits: nobody there to ask.
func TestRequestWaits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	var k Keeper
	if err := k.Request(ctx, "web", workload.WantStopped); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before Run: %v", err)
	}
	if s := k.Snapshot(); len(s.Units) > 0 {
		t.Errorf("before Run: %v", s)
	}
}
