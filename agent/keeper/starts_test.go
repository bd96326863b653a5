package keeper

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/workload"
)

// crowdedEngine counts the starts that go on at a time. The ones that hang end with their context.
type crowdedEngine struct {
	*fakeEngine
	hangs []string
	takes time.Duration // a start

	mu             sync.Mutex // guards what follows
	now, most, all int
}

func (e *crowdedEngine) Start(ctx context.Context, c workload.Container, i workload.Instance, at workload.Namespaces) error {
	e.mu.Lock()
	e.now, e.all = e.now+1, e.all+1
	e.most = max(e.most, e.now)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.now--
	}()
	if slices.Contains(e.hangs, c.ID) {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(e.takes)
	return e.fakeEngine.Start(ctx, c, i, at)
}

// crowd runs so many containers with an engine.
func crowd(t *testing.T, e *crowdedEngine, containers int, turn time.Duration) *bench {
	t.Helper()
	var wanted []workload.Container
	for n := range containers {
		c := web(workload.Always)
		c.ID = fmt.Sprintf("web%02d", n)
		wanted = append(wanted, c)
	}
	b := &bench{engine: e.fakeEngine, network: &fakeNetwork{attached: map[string]bool{}}, status: make(chan workload.Status, 1)}
	b.keeper = &Keeper{Engine: e, Network: b.network, Tick: 10 * time.Millisecond, turn: turn, Report: b.report}
	b.end = sync.OnceFunc(keep(t, b.keeper, wanted...))
	t.Cleanup(b.end)
	return b
}

func running(s workload.Status) (n int) {
	for _, u := range s.Units {
		if u.State == workload.Running {
			n++
		}
	}
	return n
}

// TestStartsAtOnce: of fifty containers a few start at a time.
func TestStartsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock stands still while anybody could begin
		e := &crowdedEngine{fakeEngine: newFake(), takes: time.Second}
		b := crowd(t, e, 50, 0)
		b.until(t, "all to run", func(s workload.Status) bool { return running(s) == 50 })
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.most != startsAtOnce || e.all != 50 {
			t.Errorf("%d starts, %d of them at a time", e.all, e.most)
		}
	})
}

// TestHangingStarts: starts that hang hold up the others for their turn, and no longer.
func TestHangingStarts(t *testing.T) {
	t.Parallel()
	e := &crowdedEngine{fakeEngine: newFake(), hangs: []string{"web00", "web01", "web02", "web03", "web04"}}
	b := crowd(t, e, 20, 10*time.Millisecond)
	b.until(t, "the others to run", func(s workload.Status) bool { return running(s) == 15 })
}
