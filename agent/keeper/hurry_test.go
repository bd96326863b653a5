package keeper

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// runStill is runGated by a clock that stands still: no pause ends by itself. on lets so much
// time pass.
func runStill(t *testing.T, wanted ...workload.Container) (b *bench, g *gatedEngine, on func(time.Duration)) {
	t.Helper()
	b, g = runGated(t)
	b.end()
	began := time.Now()
	var passed atomic.Int64
	b.keeper = &Keeper{
		Engine: g, Network: b.network, Tick: 10 * time.Millisecond, Report: b.keeper.Report,
		Now: func() time.Time { return began.Add(time.Duration(passed.Load())) },
	}
	b.end = sync.OnceFunc(keep(t, b.keeper, wanted...))
	t.Cleanup(b.end)
	return b, g, func(d time.Duration) { passed.Add(int64(d)) }
}

// TestHurriedStop: a stop that failed is tried again at once when somebody asks once more.
func TestHurriedStop(t *testing.T) {
	t.Parallel()
	b, g, _ := runStill(t, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	g.clings(1)
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "it to cling", func(s workload.Status) bool { return strings.Contains(s.String(), "web stopping: it clings") })
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "it to have stopped", unitStates("web stopped"))
}

// TestHurriedReplacing: so is the removal of an old instance that another one waits for,
// whatever is asked.
func TestHurriedReplacing(t *testing.T) {
	t.Parallel()
	for _, want := range []workload.Want{workload.WantStarted, workload.WantRestarted} {
		b, g, _ := runStill(t, withVolume())
		b.until(t, "it to run", unitStates("web running"))
		g.clings(1)
		other := withVolume()
		other.Env = []string{"A=1"}
		b.want(t, other)
		b.until(t, "it to say why", func(s workload.Status) bool {
			return unitStates("web replacing")(s) && s.Units[0].Reason == "web could not be removed: it clings"
		})
		b.ask(t, "web", want)
		b.until(t, "it to run", func(s workload.Status) bool { return unitStates("web running")(s) && s.Units[0].Reason == "" })
	}
}

// TestHurriedOld: so is that of one that has handed over; until it has gone, the one that
// runs says why not.
func TestHurriedOld(t *testing.T) {
	t.Parallel()
	b, g, on := runStill(t, version(1))
	passing := func(ok func(workload.Status) bool) func(workload.Status) bool {
		return func(s workload.Status) bool { on(drain / 20); return ok(s) }
	}
	b.until(t, "it to run", unitStates("web running"))
	g.clings(1)
	b.want(t, version(2))
	b.until(t, "the old one to cling", passing(func(s workload.Status) bool {
		return unitStates("web running")(s) && s.Units[0].Instance == "web_2" && s.Units[0].Reason == "web could not be removed: it clings"
	}))
	for range 20 { // it goes on saying so, which is no condition to wait for
		b.until(t, "a report", func(workload.Status) bool { return true })
		if s := b.keeper.Snapshot(); !strings.Contains(s.Units[0].Reason, "it clings") {
			t.Fatalf("it says %q", s.Units[0].Reason)
		}
	}
	b.ask(t, "web", workload.WantStarted)
	b.until(t, "it to have gone", func(s workload.Status) bool {
		return unitStates("web running")(s) && s.Units[0].Reason == "" && g.names() == "web_2"
	})
	if g.did("start web_2") != 1 {
		t.Errorf("it was started anew: %s", strings.Join(g.log, ", "))
	}
}
