package keeper

import (
	"context"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// busyEngine is one whose containerd takes its time to say what is there, once it is held.
type busyEngine struct {
	*fakeEngine
	held chan chan struct{} // of size 1: whoever asks waits for what is in it
	came chan struct{}
}

func (b busyEngine) List(ctx context.Context) ([]workload.Found, error) {
	select {
	case over := <-b.held:
		b.came <- struct{}{}
		<-over
	default:
	}
	return b.fakeEngine.List(ctx)
}

// TestBehind: while containerd still looks for what there is, a status is one of the set
// before; once it has the generation of the next, a container that is replaced is no more
// said to run.
func TestBehind(t *testing.T) {
	t.Parallel()
	f := newFake()
	other := web(workload.Always)
	other.Env = []string{"A=1"}
	busy := busyEngine{f, make(chan chan struct{}, 1), make(chan struct{})}
	status := make(chan workload.Status, 1000)
	k := &Keeper{Engine: busy, Network: &fakeNetwork{attached: map[string]bool{}}, Tick: 10 * time.Millisecond, Report: func(s workload.Status) { status <- s }}
	defer keep(t, k, web(workload.Always))()
	until := func(what string, ok func(workload.Status) bool) workload.Status {
		t.Helper()
		for limit := time.After(30 * time.Second); ; {
			select {
			case s := <-status:
				if ok(s) {
					return s
				}
			case <-limit:
				t.Fatalf("waited for %s: %s", what, k.Snapshot())
			}
		}
	}
	until("it to run", unitStates("web running"))
	over := make(chan struct{})
	busy.held <- over
	if err := k.Want([]workload.Container{other}, 7); err != nil {
		t.Fatal(err)
	}
	<-busy.came
	if s := k.Snapshot(); s.Generation != 0 || !unitStates("web running")(s) {
		t.Errorf("before the Keeper has looked: generation %d, %s", s.Generation, s)
	}
	close(over)
	s := until("the next generation", func(s workload.Status) bool { return s.Generation == 7 })
	if s.Units[0].State == workload.Running && !s.Units[0].OldServes {
		t.Errorf("of generation 7: %s, as if nothing were to be done", s)
	}
	until("the new one to run alone", func(s workload.Status) bool { return unitStates("web running")(s) && !s.Units[0].OldServes })
}
