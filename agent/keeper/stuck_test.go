package keeper

import (
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// clings has so many removals fail.
func (f *fakeEngine) clings(times int) { f.mu.Lock(); f.stubborn = times; f.mu.Unlock() }

// TestRemovalFails: what nobody wants and cannot be removed is shown with the reason, keeps
// its network, and is removed later.
func TestRemovalFails(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	g.clings(1 << 30)
	b.want(t)
	b.until(t, "it to say why", func(s workload.Status) bool {
		return len(s.Leaving) == 1 && s.Leaving[0].State == workload.Stopping && s.Leaving[0].Reason == "web could not be removed: it clings"
	})
	b.network.mu.Lock()
	if len(b.network.made) != 1 || !b.network.attached["web"] {
		t.Errorf("networks %v, on them %v, while it is there", b.network.made, b.network.attached)
	}
	b.network.mu.Unlock()
	tries := g.did("remove web")
	b.ask(t, "web", workload.WantStopped) // at once, then
	b.until(t, "another try", func(s workload.Status) bool { return len(s.Leaving) == 1 && g.did("remove web") > tries })
	g.clings(0)
	b.until(t, "it to be gone", func(s workload.Status) bool {
		b.network.mu.Lock()
		defer b.network.mu.Unlock()
		return len(s.Leaving) == 0 && g.names() == "" && len(b.network.made) == 0
	})
}

// TestRemovalFailsAgain: as long as the earlier instance cannot be removed, no other one of
// it starts on its volume, however often that is tried.
func TestRemovalFailsAgain(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, withVolume())
	b.until(t, "it to run", unitStates("web running"))
	g.clings(2)
	b.want(t)
	b.until(t, "it to cling", func(s workload.Status) bool { return len(s.Leaving) == 1 && s.Leaving[0].Reason != "" })
	b.want(t, withVolume())
	b.until(t, "it to say what it waits for", func(s workload.Status) bool {
		return len(s.Units) == 1 && strings.Contains(s.Units[0].Reason, "web could not be removed: it clings")
	})
	b.until(t, "it to run again", func(s workload.Status) bool {
		if there := strings.Fields(g.names()); len(there) > 1 {
			t.Fatalf("there are %q on one volume", there)
		}
		return unitStates("web running")(s)
	})
}

// TestStopIsHonest: what is told to stop has not stopped while an earlier instance of it
// cannot be removed.
func TestStopIsHonest(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, withVolume())
	b.until(t, "it to run", unitStates("web running"))
	g.clings(2)
	b.want(t)
	b.until(t, "it to cling", func(s workload.Status) bool { return len(s.Leaving) == 1 && s.Leaving[0].Reason != "" })
	b.want(t, withVolume())
	b.until(t, "it to wait", unitStates("web starting"))
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "it to have stopped", func(s workload.Status) bool {
		stopped := unitStates("web stopped")(s)
		if there := g.names(); stopped && there != "" {
			t.Fatalf("stopped, and there is %q", there)
		}
		return stopped
	})
}

// TestReplacingSaysWhy: so does one that is to take the place of what cannot be removed.
func TestReplacingSaysWhy(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, withVolume())
	b.until(t, "it to run", unitStates("web running"))
	g.clings(1)
	other := withVolume()
	other.Env = []string{"A=1"}
	b.want(t, other)
	b.until(t, "it to say why", func(s workload.Status) bool {
		return unitStates("web replacing")(s) && strings.HasPrefix(s.Units[0].Reason, "web could not be removed: it clings")
	})
}

// TestStartTakesTheName: a start that takes away what could not be removed under its own name
// is not undone by the next try of that removal.
func TestStartTakesTheName(t *testing.T) {
	t.Parallel()
	b, g := runGated(t)
	release := g.hold(&g.start, "web")
	defer release()
	b.want(t, withVolume())
	<-g.begun
	other := withVolume()
	other.Env = []string{"A=1"}
	if err := b.keeper.Want([]workload.Container{other}, 7); err != nil { // its name is that of the start that is given up
		t.Fatal(err)
	}
	b.until(t, "it to be about to start", func(s workload.Status) bool { return s.Generation == 7 })
	g.clings(1)
	release()
	b.until(t, "its removal to fail", unitStates("web backoff"))
	release = g.hold(&g.start, "web")
	defer release()
	b.ask(t, "web", workload.WantStarted)
	<-g.begun
	for due := time.Now().Add(delay(1)); time.Now().Before(due); { // while it starts
		b.until(t, "a report", unitStates("web starting"))
	}
	release()
	b.until(t, "it to run, and nothing to leave", func(s workload.Status) bool {
		return unitStates("web running")(s) && len(b.keeper.Snapshot().Leaving) == 0
	})
	removals := g.did("remove web")
	b.want(t, other, workload.Container{ID: "job", Image: "job"})
	b.until(t, "another one", unitStates("job running", "web running"))
	if g.did("remove web") != removals || g.names() != "job web" {
		t.Errorf("it was removed %d times after its start; there are %s", g.did("remove web")-removals, g.names())
	}
}
