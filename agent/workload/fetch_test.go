package workload

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// Pull is that of a registry which has nothing.
func (f *fakeEngine) Pull(context.Context, string, string, func(Progress)) error { return errMissing }

// errMissing is what a registry's client says.
var errMissing = errors.New("not in the registry")

func (f *fakeEngine) Lacks(ctx context.Context, c Container) error {
	_, err := f.Digest(ctx, c.Image)
	return err
}

// registryEngine is a containerd in memory whose images come as the test says.
type registryEngine struct {
	*fakeEngine
	pull func(ctx context.Context, report func(Progress)) error

	mu    sync.Mutex
	asked int
}

func (r *registryEngine) Pull(ctx context.Context, image, _ string, report func(Progress)) error {
	r.mu.Lock()
	r.asked++
	r.mu.Unlock()
	if err := r.pull(ctx, report); err != nil {
		return err
	}
	r.fakeEngine.mu.Lock()
	delete(r.missing, image)
	r.fakeEngine.mu.Unlock()
	return nil
}

func (r *registryEngine) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// keepPulling runs a keeper of one container, whose image is not there at first.
func keepPulling(t *testing.T, r *registryEngine) *Keeper {
	t.Helper()
	r.fakeEngine = newFake()
	r.missing["web:1"] = true
	k := &Keeper{Engine: r, Network: &fakeNetwork{attached: map[string]bool{}}}
	t.Cleanup(keep(t, k, Container{ID: "web", Image: "web:1", Restart: Restart{Policy: Always}}))
	return k
}

// when waits until the container's status is as wanted.
func when(t *testing.T, k *Keeper, what string, is func(Status, UnitStatus) bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s := k.Snapshot()
		if len(s.Units) == 1 && is(s, s.Units[0]) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("waited for %s, and it is %+v", what, s)
		}
	}
}

// TestPullBeforeStart: progress is the reason, a pull does not hold up the node, and
// what fails is tried again.
func TestPullBeforeStart(t *testing.T) {
	steps := make(chan error)
	r := &registryEngine{pull: func(ctx context.Context, report func(Progress)) error {
		report(Progress{})
		report(Progress{Done: 45_200_000, Total: 99_100_000})
		select {
		case err := <-steps:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	k := keepPulling(t, r)
	const reason = "pulling 45.2 of 99.1 MB"
	when(t, k, "progress", func(s Status, u UnitStatus) bool {
		return u.State == Starting && u.Reason == reason && u.Pull != nil && u.Pull.Done == 45_200_000 && s.Settled
	})
	steps <- errors.New("registry.example answers 503 Service Unavailable: back at noon")
	when(t, k, "backoff", func(_ Status, u UnitStatus) bool {
		return u.State == Backoff && strings.Contains(u.Reason, "not on this node: registry.example answers 503 Service Unavailable: back at noon")
	})
	when(t, k, "the second try", func(_ Status, u UnitStatus) bool { return u.Reason == reason })
	steps <- nil
	when(t, k, "running", func(_ Status, u UnitStatus) bool { return u.State == Running && u.Reason == "" && u.Pull == nil })
	if n := r.times(); n != 2 {
		t.Errorf("pulled %d times", n)
	}
}

// TestStopWhilePulling: a request to stop ends the pull.
func TestStopWhilePulling(t *testing.T) {
	r := &registryEngine{pull: func(ctx context.Context, report func(Progress)) error {
		report(Progress{})
		<-ctx.Done()
		return ctx.Err()
	}}
	k := keepPulling(t, r)
	when(t, k, "the pull", func(_ Status, u UnitStatus) bool { return u.Reason == "pulling" })
	if err := k.Request(t.Context(), "web", WantStopped); err != nil {
		t.Fatal(err)
	}
	when(t, k, "stopped", func(_ Status, u UnitStatus) bool { return u.State == Stopped })
}
