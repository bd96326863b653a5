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

// gatedEngine is an engine whose removals and starts take until a test lets them end.
type gatedEngine struct {
	*fakeEngine
	gates   sync.Mutex // guards what follows
	removal map[string]chan struct{}
	start   map[string]chan struct{}
	list    map[string]chan struct{} // by ""
	begun   chan string              // "remove NAME", "start NAME" or "list", of those that wait
}

// hold makes the removals, or starts, of an instance wait until release is called.
func (g *gatedEngine) hold(of *map[string]chan struct{}, name string) (release func()) {
	gate := make(chan struct{})
	g.gates.Lock()
	defer g.gates.Unlock()
	if *of == nil {
		*of = make(map[string]chan struct{})
	}
	(*of)[name] = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (g *gatedEngine) Remove(ctx context.Context, name, signal string, grace time.Duration) error {
	g.gates.Lock()
	gate := g.removal[name]
	g.gates.Unlock()
	if gate != nil && slices.Contains(strings.Fields(g.names()), name) {
		g.begun <- "remove " + name
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.fakeEngine.Remove(ctx, name, signal, grace)
}

// List shows what was there when it was called.
func (g *gatedEngine) List(ctx context.Context) ([]workload.Found, error) {
	all, err := g.fakeEngine.List(ctx)
	g.gates.Lock()
	gate := g.list[""]
	g.gates.Unlock()
	if gate != nil {
		g.begun <- "list"
		<-gate
	}
	return all, err
}

// Start goes on, as containerd may, when its caller has gone.
func (g *gatedEngine) Start(ctx context.Context, c workload.Container, i workload.Instance, n workload.Namespaces) error {
	g.gates.Lock()
	gate := g.start[i.Name]
	g.gates.Unlock()
	if gate != nil {
		g.begun <- "start " + i.Name
		<-gate
		ctx = context.WithoutCancel(ctx)
	}
	return g.fakeEngine.Start(ctx, c, i, n)
}

func runGated(t *testing.T, wanted ...workload.Container) (*bench, *gatedEngine) {
	t.Helper()
	g := &gatedEngine{fakeEngine: newFake(), begun: make(chan string, 100)}
	b := &bench{engine: g.fakeEngine, network: &fakeNetwork{attached: map[string]bool{}}, status: make(chan workload.Status, 1)}
	b.keeper = &Keeper{Engine: g, Network: b.network, Tick: 10 * time.Millisecond, Report: b.report}
	b.end = sync.OnceFunc(keep(t, b.keeper, wanted...))
	t.Cleanup(b.end)
	return b, g
}

// withVolume is a container that no second one may run beside.
func withVolume() workload.Container {
	c := web(workload.Always)
	c.Volumes = []workload.Volume{{Name: "data", Target: "/data"}}
	return c
}

// TestLeavingIsWaitedFor: a container that is taken out and put back while its instance
// still ends waits for that: two would write to one volume.
func TestLeavingIsWaitedFor(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, withVolume())
	b.until(t, "it to run", unitStates("web running"))
	release := g.hold(&g.removal, "web")
	defer release()
	b.want(t)
	<-g.begun
	b.want(t, withVolume())
	b.until(t, "it to be about to start", unitStates("web starting"))
	for range 20 { // nothing happens, which is no condition to wait for
		b.until(t, "a report", unitStates("web starting"))
	}
	if got := g.names(); got != "web" {
		t.Fatalf("there are %s on one volume", got)
	}
	release()
	b.until(t, "it to run again", func(s workload.Status) bool {
		return unitStates("web running")(s) && len(strings.Fields(g.names())) == 1
	})
}

// TestStray: a start that does not end, whatever is said to it, keeps its own container and
// nobody else, also when containerd comes and goes; and what comes of it later is not left.
func TestStray(t *testing.T) {
	t.Parallel()
	b, g := runGated(t)
	release := g.hold(&g.start, "web")
	defer release()
	other := web(workload.Always)
	other.ID = "other"
	b.keeper.patience = time.Millisecond // Run has nothing to do before the first Want
	b.want(t, web(workload.Always), other)
	<-g.begun
	b.until(t, "the other one to run", unitStates("other running", "web starting"))
	for range 2 {
		b.engine.away()
		b.until(t, "the session to end", func(s workload.Status) bool { return s.Trouble != "" })
		b.engine.back()
		b.until(t, "the other one to run", unitStates("other running", "web starting"))
	}
	b.want(t, other)
	third := web(workload.Always)
	third.ID, third.Ports = "third", nil
	b.want(t, other, third)
	b.until(t, "a third one to run", unitStates("other running", "third running"))
	release()
	b.until(t, "nothing to be left of what nobody wants", func(workload.Status) bool { return g.names() == "other third" })
}

// TestBackWhileTheOldOneGoes: the older instance, which has handed over and is on its way
// out, is not taken for what is wanted when its description comes back.
func TestBackWhileTheOldOneGoes(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, version(1))
	b.until(t, "the first one", unitStates("web running"))
	release := g.hold(&g.removal, "web")
	defer release()
	b.want(t, version(2))
	b.until(t, "the second one", func(s workload.Status) bool { return s.Units[0].Instance == "web_2" && !s.Units[0].OldServes })
	if got := <-g.begun; got != "remove web" {
		t.Fatal(got)
	}
	b.want(t, version(1))
	b.until(t, "the second one to go on", func(s workload.Status) bool { return s.Units[0].Instance == "web_2" && s.Units[0].OldServes })
	release()
	b.until(t, "the first one again", func(s workload.Status) bool {
		u := s.Units[0]
		return u.State == workload.Running && u.Instance == "web" && !u.OldServes && g.names() == "web"
	})
}

// TestGivenUpStartComesUp: a start that was given up and succeeds all the same leaves
// nothing behind, and until then nobody gets its address.
func TestGivenUpStartComesUp(t *testing.T) {
	t.Parallel()
	b, g := runGated(t)
	release := g.hold(&g.start, "web")
	defer release()
	b.want(t, web(workload.Always))
	<-g.begun
	wrong := web(workload.Always)
	wrong.Image = "typo"
	g.mu.Lock()
	g.missing["typo"] = true
	g.mu.Unlock()
	other := web(workload.Always)
	other.ID, other.Ports = "aaa", nil
	b.want(t, other, wrong)
	b.until(t, "the other one", func(s workload.Status) bool { return len(s.Units) == 2 && s.Units[0].State == workload.Running })
	if at := b.keeper.Snapshot().Units[0].At; len(at) != 1 || at[0].Addr.String() == "10.88.0.2" {
		t.Errorf("it is at %v, where a start that was given up may come up", at)
	}
	release()
	b.until(t, "what came up to go", func(s workload.Status) bool {
		return unitStates("aaa running", "web backoff")(s) && g.names() == "aaa" && g.did("remove web") == 1
	})
}

// TestStoppedMovesNetwork: a stopped container whose network went and came back as another
// one starts at an address of that.
func TestStoppedMovesNetwork(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, web(workload.Always))
	b.until(t, "it to run", unitStates("web running"))
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "it to stop", unitStates("web stopped"))
	moved := web(workload.Always)
	moved.Networks = []workload.Attachment{{Network: "n2"}}
	networks := func(want string) func(workload.Status) bool {
		return func(workload.Status) bool {
			b.network.mu.Lock()
			defer b.network.mu.Unlock()
			_, there := b.network.made[want]
			return there && len(b.network.made) == 1
		}
	}
	b.want(t, moved, workload.Container{ID: "job", Image: "job", Networks: moved.Networks})
	b.until(t, "its network to go", networks("n2"))
	b.want(t, web(workload.Always), workload.Container{ID: "job", Image: "job", Networks: moved.Networks}, workload.Container{ID: "late", Image: "late", Networks: web(workload.No).Networks})
	b.until(t, "all of it", func(s workload.Status) bool { return len(s.Units) == 3 && s.Units[1].State == workload.Running })
	b.ask(t, "web", workload.WantStarted)
	b.until(t, "it to start", func(s workload.Status) bool { return s.Units[2].State == workload.Running })
	b.network.mu.Lock()
	defer b.network.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.there["web"].At; len(at) != 1 || !b.network.made["default"].Contains(at[0].Addr) {
		t.Errorf("network %v, it is at %v", b.network.made["default"].Prefix, at)
	}
}

// TestGoneBehindItsRemoval: a start that waits for the removal of an instance of its name
// ends with the wish for it, also where the removal is over before the Keeper has heard of
// either.
func TestGoneBehindItsRemoval(t *testing.T) {
	t.Parallel()
	b, g := runGated(t, version(1))
	b.until(t, "it to run", unitStates("web running"))
	next := func(want string) {
		t.Helper()
		for got := range g.begun {
			if got == want {
				return
			}
		}
	}
	first := g.hold(&g.removal, "web")
	defer first()
	b.want(t)
	next("remove web")
	b.want(t, version(1)) // beside the one that goes
	b.until(t, "the second one", func(s workload.Status) bool { return unitStates("web running")(s) && s.Units[0].Instance == "web_2" })
	second := g.hold(&g.removal, "web_2")
	defer second()
	b.want(t)
	next("remove web_2")
	b.want(t, version(1))
	b.until(t, "the third one to be on its way", unitStates("web starting"))
	looked, started := g.hold(&g.list, ""), g.hold(&g.start, "web_2")
	defer looked()
	defer started()
	b.want(t)
	next("list") // from here on the Keeper hears nothing
	second()
	// The removal ends, and with it whatever kept the third one from starting.
	deadline := time.After(200 * time.Millisecond)
wait:
	for {
		select {
		case got := <-g.begun:
			if got == "start web_2" {
				break wait // it must be taken away then
			}
		case <-deadline:
			break wait // it waits on: that nothing happens is no condition to wait for
		}
	}
	looked()
	started()
	first()
	b.until(t, "nothing to be left", func(s workload.Status) bool {
		b.network.mu.Lock()
		defer b.network.mu.Unlock()
		return len(s.Units) == 0 && g.names() == "" && len(b.network.attached) == 0
	})
}

// TestSetWaitsForLook: an engine that cannot list its containers at the moment ends no
// start that is under way, and gets the set later.
func TestSetWaitsForLook(t *testing.T) {
	t.Parallel()
	b, g := runGated(t)
	b.end()
	slow := workload.Container{ID: "slow", Image: "slow"}
	release := g.hold(&g.start, "slow")
	defer release()
	unlisted := &unlistedEngine{gatedEngine: g}
	b.keeper = &Keeper{Engine: unlisted, Network: b.network, Tick: 10 * time.Millisecond, Report: b.keeper.Report}
	end := keep(t, b.keeper, web(workload.Always), slow)
	defer end()
	defer release() // before the end, which waits for it
	b.until(t, "one to run and one to be on its way", unitStates("slow starting", "web running"))
	unlisted.fail(3)
	b.want(t, web(workload.Always), slow, workload.Container{ID: "job", Image: "job"})
	b.until(t, "the set", unitStates("job running", "slow starting", "web running"))
	release()
	b.until(t, "the slow one", unitStates("job running", "slow running", "web running"))
	if g.did("start web") != 1 || g.did("start slow") != 1 || g.did("remove") != 0 || unlisted.left() != 0 {
		t.Errorf("got:\n%s", strings.Join(g.log, "\n"))
	}
}

// unlistedEngine fails to list a number of times.
type unlistedEngine struct {
	*gatedEngine
	mu    sync.Mutex
	fails int
}

func (u *unlistedEngine) fail(n int) { u.mu.Lock(); u.fails = n; u.mu.Unlock() }

func (u *unlistedEngine) left() int { u.mu.Lock(); defer u.mu.Unlock(); return u.fails }

func (u *unlistedEngine) List(ctx context.Context) ([]workload.Found, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fails > 0 {
		u.fails--
		return nil, errAway
	}
	return u.gatedEngine.List(ctx)
}
