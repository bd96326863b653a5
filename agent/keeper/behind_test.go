package keeper

import (
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// TestBehind: while containerd still says what there is, a status is one of the set before;
// once it has the generation of the next, a container that is replaced is no more said to run.
func TestBehind(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	release := g.hold(&g.list, "")
	defer release()
	other := web(workload.Always)
	other.Env = []string{"A=1"}
	if err := b.keeper.Want([]workload.Container{other}, 7); err != nil {
		t.Fatal(err)
	}
	<-g.begun
	if s := b.keeper.Snapshot(); s.Generation != 0 || !unitStates("web running")(s) {
		t.Errorf("before the Keeper has looked: generation %d, %s", s.Generation, s)
	}
	release()
	b.until(t, "the next generation", func(s workload.Status) bool {
		if s.Generation == 7 && s.Units[0].State == workload.Running && !s.Units[0].OldServes {
			t.Errorf("of generation 7: %s, as if nothing were to be done", s)
		}
		return s.Generation == 7
	})
}

// TestStillLeaving: a container that nobody wants any more is named for as long as it is
// being stopped.
func TestStillLeaving(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	release := g.hold(&g.removal, "web")
	defer release()
	b.want(t)
	<-g.begun
	b.until(t, "it to leave", func(s workload.Status) bool {
		return len(s.Units) == 0 && len(s.Leaving) == 1 && s.Leaving[0].ID == "web"
	})
	release()
	b.until(t, "it to be gone", func(s workload.Status) bool { return len(s.Leaving) == 0 })
	if left := g.names(); left != "" {
		t.Errorf("%s is there", left)
	}
}

// TestBehindWhileAway: what was removed while containerd is away has not gone: nobody has
// looked what there is of it, nor has an agent that comes back meanwhile.
func TestBehindWhileAway(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, web(workload.Always))
	b.until(t, "it to run", func(s workload.Status) bool { return unitStates("web running")(s) && s.Seen })
	b.engine.away()
	b.until(t, "the session to end", func(s workload.Status) bool { return s.Trouble != "" })
	if err := b.keeper.Want(nil, 7); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the set to be taken up", func(s workload.Status) bool {
		if s.Generation != 0 {
			t.Errorf("generation %d, with %q", s.Generation, g.names())
		}
		if s.Ahead != (len(s.Units) == 0) {
			t.Errorf("ahead: %v, with %d units", s.Ahead, len(s.Units))
		}
		return len(s.Units) == 0
	})
	b.end()
	b.keeper = &Keeper{Engine: g, Network: b.network, Tick: 10 * time.Millisecond, Report: b.keeper.Report}
	if b.keeper.Snapshot().Seen {
		t.Error("it has not begun, and has looked")
	}
	end := keep(t, b.keeper)
	defer end()
	b.until(t, "the next agent's first word", func(s workload.Status) bool {
		if s.Seen {
			t.Errorf("it has looked while containerd is away")
		}
		return s.Trouble != ""
	})
	b.engine.back()
	b.until(t, "it to be seen", func(s workload.Status) bool {
		if s.Seen && len(s.Leaving) == 0 && g.names() != "" {
			t.Errorf("nothing leaves, and there is %s", g.names())
		}
		if s.Seen && s.Ahead {
			t.Error("it has looked, and is ahead")
		}
		return s.Seen
	})
}
