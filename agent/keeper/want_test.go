package keeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// want tells the Keeper of another set.
func (b *bench) want(t *testing.T, set ...workload.Container) {
	t.Helper()
	if err := b.keeper.Want(set, 0); err != nil {
		t.Fatal(err)
	}
}

// TestStopSurvivesWant: a container that an operator stopped stays stopped when others
// come and go, and also when its own description changes.
func TestStopSurvivesWant(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always))
	b.until(t, "web to run", unitStates("web running"))
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "web to stop", unitStates("web stopped"))
	job := workload.Container{ID: "job", Image: "job"}
	b.want(t, web(workload.Always), job)
	b.until(t, "job to run", unitStates("job running", "web stopped"))
	other := web(workload.Always)
	other.Env = []string{"A=1"}
	b.want(t, other, job)
	b.want(t, other)
	b.until(t, "job to go", func(s workload.Status) bool { return unitStates("web stopped")(s) && f.names() == "" })
	if f.did("start web") != 1 {
		t.Errorf("web was started, stopped or not:\n%s", strings.Join(f.log, "\n"))
	}
	b.ask(t, "web", workload.WantStarted)
	b.until(t, "web to start as it is wanted now", func(s workload.Status) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return unitStates("web running")(s) && f.there["web"] != nil && f.there["web"].Spec == other.Hash()
	})
}

// TestExitsSurviveWant: what a container has behind it, its exits and the pause that
// they led to, is not forgotten because something else is applied, 200 times in a row
// while it fails again and again; one whose description changes begins anew.
func TestExitsSurviveWant(t *testing.T) {
	t.Parallel()
	f := newFake()
	flaps := web(workload.Always)
	b := run(t, f, flaps)
	b.until(t, "it to run", unitStates("web running"))
	f.exit(t, "web", 1)
	b.until(t, "the first pause", func(s workload.Status) bool { return unitStates("web backoff")(s) && s.Units[0].Exits == 1 })
	exits := 1
	for i := range 200 {
		job := workload.Container{ID: "job", Image: fmt.Sprintf("job%d", i%3)}
		set := []workload.Container{flaps, job}
		if i%4 == 0 {
			set = set[:1]
		}
		b.want(t, set...)
		if i%80 == 79 {
			b.until(t, "it to run again", func(s workload.Status) bool { return s.Units[len(s.Units)-1].State == workload.Running })
			f.exit(t, "web", 1)
			exits++
		}
		b.until(t, "the set", func(s workload.Status) bool {
			u := s.Units[len(s.Units)-1]
			if u.Exits < exits-1 {
				t.Fatalf("%d exits are known of %d", u.Exits, exits)
			}
			return len(s.Units) == len(set) && u.State == workload.Backoff && u.Exits == exits
		})
	}
	if started := f.did("start web"); started != exits {
		t.Errorf("%d starts, %d exits", started, exits)
	}
	other := flaps
	other.Env = []string{"A=1"}
	b.want(t, other)
	b.until(t, "the other one, without a pause", func(s workload.Status) bool { return unitStates("web running")(s) && s.Units[0].Exits == 0 })
}

// TestWantLeavesAlone: an apply neither touches nor asks again what it is not about: a
// start that waits for its image, a health check, an older instance that drains.
func TestWantLeavesAlone(t *testing.T) {
	t.Parallel()
	f := newFake()
	r := &blockedPull{fakeEngine: f, began: make(chan struct{}, 10), over: make(chan struct{})}
	f.missing["later"] = true
	network := &fakeNetwork{attached: map[string]bool{}}
	status := make(chan workload.Status, 1000)
	k := &Keeper{Engine: r, Network: network, Tick: 10 * time.Millisecond, Report: func(s workload.Status) { status <- s }}
	pulls := workload.Container{ID: "pulls", Image: "later", Restart: workload.Restart{Policy: workload.Always}}
	checked := quickly(web(workload.Always))
	end := keep(t, k, pulls, checked)
	defer end()
	until := func(what string, ok func(workload.Status) bool) {
		t.Helper()
		for limit := time.After(30 * time.Second); ; {
			select {
			case s := <-status:
				if ok(s) {
					return
				}
			case <-limit:
				t.Fatalf("waited for %s: %s\n%s", what, k.Snapshot(), strings.Join(f.log, "\n"))
			}
		}
	}
	<-r.began
	until("the check to pass", func(s workload.Status) bool { return s.Units[1].Health.State == workload.Healthy })
	healthy := true
	for i := range 10 {
		extra := workload.Container{ID: fmt.Sprintf("z%d", i), Image: "z"}
		if err := k.Want([]workload.Container{pulls, checked, extra}, 0); err != nil {
			t.Fatal(err)
		}
		until("the other one to run", func(s workload.Status) bool {
			healthy = healthy && s.Units[1].Health.State == workload.Healthy && s.Units[0].State == workload.Starting
			return len(s.Units) == 3 && s.Units[2].ID == extra.ID && s.Units[2].State == workload.Running
		})
	}
	if !healthy {
		t.Error("the health check began again, or the start")
	}
	f.mu.Lock()
	f.missing["later"] = false
	f.mu.Unlock()
	close(r.over)
	until("the pull to end", func(s workload.Status) bool { return s.Units[0].State == workload.Running })
	if len(r.began) != 0 || f.did("start web") != 1 || f.did("list") != 11 {
		t.Errorf("%d more pulls, %d starts of web:\n%s", len(r.began), f.did("start web"), strings.Join(f.log, "\n"))
	}
}

// blockedPull has a registry that takes its time.
type blockedPull struct {
	*fakeEngine
	began, over chan struct{}
}

func (b *blockedPull) Pull(ctx context.Context, _, _ string, report func(workload.Progress)) error {
	b.began <- struct{}{}
	report(workload.Progress{})
	select {
	case <-b.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestWantGoneAndBack: what was taken out of the set while it started, ran, or was on
// its way out, and is put back, runs in the end, once, and nothing of it is left when
// it goes for good.
func TestWantGoneAndBack(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, version(1))
	for i := range 100 {
		switch i % 4 {
		case 0:
			b.want(t)
		case 1:
			b.want(t, version(1+i%3))
		case 2:
			b.want(t, version(1), workload.Container{ID: "job", Image: "job", Networks: []workload.Attachment{{Network: fmt.Sprintf("n%d", i%5)}}})
		case 3:
			b.want(t, version(2))
			b.until(t, "it to run", func(s workload.Status) bool { return unitStates("web running")(s) || i%8 == 3 })
		}
	}
	b.want(t, version(2))
	b.until(t, "one to stay", func(s workload.Status) bool {
		return unitStates("web running")(s) && !s.Units[0].OldServes && f.names() == s.Units[0].Instance
	})
	b.network.mu.Lock()
	if len(b.network.attached) != 1 || len(b.network.made) != 1 {
		t.Errorf("attached: %v, networks: %v", b.network.attached, b.network.made)
	}
	b.network.mu.Unlock()
	b.want(t)
	b.until(t, "it to go", func(s workload.Status) bool {
		b.network.mu.Lock()
		defer b.network.mu.Unlock()
		return len(s.Units) == 0 && f.names() == "" && len(b.network.attached) == 0 && len(b.network.made) == 0
	})
}

// TestWantWithoutContainerd: a set that comes while containerd is away is what there is
// when it is back.
func TestWantWithoutContainerd(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always), workload.Container{ID: "job", Image: "job"})
	b.until(t, "both", unitStates("job running", "web running"))
	b.ask(t, "job", workload.WantStopped)
	b.until(t, "job to stop", unitStates("job stopped", "web running"))
	f.away()
	b.until(t, "trouble", func(s workload.Status) bool { return s.Trouble != "" })
	b.want(t, workload.Container{ID: "db", Image: "db"}, workload.Container{ID: "job", Image: "job"})
	b.until(t, "the set", unitStates("db waiting", "job stopped"))
	f.back()
	b.until(t, "it to be so", func(s workload.Status) bool { return unitStates("db running", "job stopped")(s) && f.names() == "db" })
}

// TestWantNewImage: what an image's name stands for may have changed.
func TestWantNewImage(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always), workload.Container{ID: "job", Image: "job"})
	b.until(t, "both", unitStates("job running", "web running"))
	f.mu.Lock()
	f.images["job"] = "newer"
	f.mu.Unlock()
	b.want(t, web(workload.Always), workload.Container{ID: "job", Image: "job"})
	b.until(t, "the newer one", func(s workload.Status) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, old := f.there["job"]
		n := f.there["job_2"]
		return unitStates("job running", "web running")(s) && !old && n != nil && n.Image == "sha256:jobnewer"
	})
	if f.did("start web") != 1 {
		t.Error("web was started anew")
	}
}

// TestWantNetworkTurns: a network that becomes internal is made so under those that are
// on it.
func TestWantNetworkTurns(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := run(t, f, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	inside := web(workload.Always)
	inside.Networks = []workload.Attachment{{Network: "default", Internal: true}}
	b.want(t, inside)
	b.until(t, "the other one", func(s workload.Status) bool { return unitStates("web running")(s) && f.names() == "web_2" })
	b.network.mu.Lock()
	defer b.network.mu.Unlock()
	if b.network.made["default"].Network != (workload.Network{Name: "default", Internal: true}) {
		t.Errorf("made: %+v", b.network.made["default"])
	}
}

// TestWantBeforeRun: an error changes nothing, and before Run nothing is asked.
func TestWantBeforeRun(t *testing.T) {
	var k Keeper
	if err := errors.Join(k.Want(nil, 0), k.Want([]workload.Container{web(workload.No)}, 0)); err != nil {
		t.Error(err)
	}
	if err := k.Want([]workload.Container{web(workload.No), web(workload.No)}, 0); err == nil || len(k.set) != 1 {
		t.Errorf("two of one name: %v, wanted: %v", err, k.set)
	}
}
