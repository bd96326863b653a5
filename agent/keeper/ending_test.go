package keeper

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// deafEngine has containers that nothing ends but SIGKILL.
type deafEngine struct{ *fakeEngine }

func (d deafEngine) Remove(ctx context.Context, name, signal string, grace time.Duration) error {
	d.mu.Lock()
	d.graces = append(d.graces, grace)
	d.mu.Unlock()
	told := grace > 0 && slices.Contains(strings.Fields(d.names()), name)
	if told {
		select {
		case <-time.After(grace):
		case <-ctx.Done():
			return workload.Told{Err: ctx.Err()}
		}
	}
	err := d.fakeEngine.Remove(ctx, name, signal, grace)
	if err != nil && told {
		return workload.Told{Err: err}
	}
	return err
}

// deaf is a container that has an hour to stop, and needs it.
func deaf(id string, grace time.Duration) workload.Container {
	c := withVolume() // so none runs beside it
	c.ID, c.StopGrace, c.Networks = id, grace, []workload.Attachment{{Network: id}}
	c.Ports = nil
	return c
}

func runDeaf(t *testing.T, wanted ...workload.Container) *bench {
	t.Helper()
	f := newFake()
	b := &bench{engine: f, network: &fakeNetwork{attached: map[string]bool{}}, status: make(chan workload.Status, 1)}
	b.keeper = &Keeper{Engine: deafEngine{f}, Network: b.network, Tick: 10 * time.Millisecond, Report: b.report}
	b.end = sync.OnceFunc(keep(t, b.keeper, wanted...))
	t.Cleanup(b.end)
	return b
}

// leaving says whether exactly one container leaves, by its own grace.
func leaving(id string) func(workload.Status) bool {
	return func(s workload.Status) bool {
		return len(s.Leaving) == 1 && s.Leaving[0].ID == id && s.Leaving[0].State == workload.Stopping && strings.Contains(s.Leaving[0].Reason, "is killed at")
	}
}

// TestLeavingIsShown: what was removed and has not stopped yet is shown with the time when
// it will be killed, keeps no network but its own, and is killed when somebody stops it once
// more.
func TestLeavingIsShown(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour), deaf("web", 0))
	b.until(t, "both to run", unitStates("db running", "web running"))
	b.want(t, deaf("web", 0))
	b.until(t, "one to leave", leaving("db"))
	networks := func(want ...string) func(workload.Status) bool {
		return func(workload.Status) bool {
			b.network.mu.Lock()
			defer b.network.mu.Unlock()
			var got []string
			for name := range b.network.made {
				got = append(got, name)
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		}
	}
	b.want(t)
	b.until(t, "the other one's network to go", networks("db"))
	b.want(t, deaf("other", 0))
	b.until(t, "a third one to run", unitStates("other running"))
	b.want(t)
	b.until(t, "its network to go, too", networks("db"))
	if u, err := b.keeper.Snapshot().Find("db"); err != nil || u.State != workload.Stopping {
		t.Errorf("it is %v, %v", u, err)
	}
	if err := b.keeper.Request(t.Context(), "db", workload.WantStarted); err == nil {
		t.Error("it is started, which nobody wants")
	}
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "nothing to be left", func(s workload.Status) bool {
		return len(s.Leaving) == 0 && b.engine.names() == "" && networks()(s)
	})
}

// TestWantedAgainHasLessPatience: what leaves has no more time than the container of its name
// that is wanted by now gives it.
func TestWantedAgainHasLessPatience(t *testing.T) {
	t.Parallel()
	for _, gap := range []bool{false, true} {
		b := runDeaf(t, deaf("db", time.Hour))
		b.until(t, "it to run", unitStates("db running"))
		if gap {
			b.want(t)
			b.until(t, "it to leave", leaving("db"))
		} else {
			b.ask(t, "db", workload.WantRestarted)
		}
		b.want(t, deaf("db", 2*time.Hour)) // no more of it
		b.until(t, "it to wait", func(s workload.Status) bool {
			return len(s.Units) == 1 && s.Units[0].State != workload.Running && strings.Contains(s.Units[0].Reason, "db was told to stop at ") && len(s.Leaving) == 0
		})
		b.want(t, deaf("db", time.Millisecond))
		b.until(t, "it to run again", func(s workload.Status) bool {
			return unitStates("db running")(s) && len(strings.Fields(b.engine.names())) == 1
		})
	}
}

// TestStoppedMeansStopped: what is to stop has not stopped while an earlier instance of it
// lives, and a second request ends that.
func TestStoppedMeansStopped(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.want(t)
	b.until(t, "it to leave", leaving("db"))
	b.want(t, deaf("db", time.Hour))
	b.until(t, "it to wait", unitStates("db starting"))
	b.ask(t, "db", workload.WantStopped)
	for range 10 { // nothing happens, which is no condition to wait for
		b.until(t, "a report", func(s workload.Status) bool { return !unitStates("db stopped")(s) })
	}
	b.until(t, "it to say when", func(s workload.Status) bool {
		return unitStates("db stopping")(s) && strings.Contains(s.Units[0].Reason, "is killed at")
	})
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "it to have stopped", unitStates("db stopped"))
	if got := b.engine.names(); got != "" {
		t.Errorf("there is %s", got)
	}
}

// TestStopTwice: also of what simply runs.
func TestStopTwice(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "it to be told", unitStates("db stopping"))
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "it to have stopped", unitStates("db stopped"))
}

// TestEndTakesLeavers: at the end of the node nothing is left that somebody removed before.
func TestEndTakesLeavers(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.want(t)
	b.until(t, "it to leave", leaving("db"))
	b.end()
	b.keeper.Engine = b.engine // it hears by now
	b.keeper.Stop(t.Context())
	if got := b.engine.names(); got != "" {
		t.Errorf("there is %s", got)
	}
}
