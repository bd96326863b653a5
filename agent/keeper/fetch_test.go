package keeper

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// Pull is that of a registry which has nothing.
func (f *fakeEngine) Pull(context.Context, string, string, func(workload.Progress)) error {
	return errMissing
}

// errMissing is what a registry's client says.
var errMissing = errors.New("not in the registry")

func (f *fakeEngine) CheckImage(ctx context.Context, c workload.Container) error {
	_, err := f.Digest(ctx, c.Image)
	return err
}

// registryEngine is a containerd in memory whose images come as the test says.
type registryEngine struct {
	*fakeEngine
	pull func(ctx context.Context, report func(workload.Progress)) error

	mu    sync.Mutex
	asked int
}

func (r *registryEngine) Pull(ctx context.Context, image, _ string, report func(workload.Progress)) error {
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
	t.Cleanup(keep(t, k, workload.Container{ID: "web", Image: "web:1", Restart: workload.Restart{Policy: workload.Always}}))
	return k
}

// when waits until the container's status is as wanted.
func when(t *testing.T, k *Keeper, what string, is func(workload.Status, workload.UnitStatus) bool) {
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
	r := &registryEngine{pull: func(ctx context.Context, report func(workload.Progress)) error {
		report(workload.Progress{})
		report(workload.Progress{Done: 45_200_000, Total: 99_100_000})
		select {
		case err := <-steps:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	k := keepPulling(t, r)
	const reason = "pulling 45.2 of 99.1 MB"
	when(t, k, "progress", func(s workload.Status, u workload.UnitStatus) bool {
		return u.State == workload.Starting && u.Reason == reason && u.Pull != nil && u.Pull.Done == 45_200_000 && s.Settled
	})
	steps <- errors.New("registry.example answers 503 Service Unavailable: back at noon")
	when(t, k, "backoff", func(_ workload.Status, u workload.UnitStatus) bool {
		return u.State == workload.Backoff && strings.Contains(u.Reason, "not on this node: registry.example answers 503 Service Unavailable: back at noon")
	})
	when(t, k, "the second try", func(_ workload.Status, u workload.UnitStatus) bool { return u.Reason == reason })
	steps <- nil
	when(t, k, "running", func(_ workload.Status, u workload.UnitStatus) bool {
		return u.State == workload.Running && u.Reason == "" && u.Pull == nil
	})
	if n := r.times(); n != 2 {
		t.Errorf("pulled %d times", n)
	}
}

// TestStopWhilePulling: a request to stop ends the pull.
func TestStopWhilePulling(t *testing.T) {
	r := &registryEngine{pull: func(ctx context.Context, report func(workload.Progress)) error {
		report(workload.Progress{})
		<-ctx.Done()
		return ctx.Err()
	}}
	k := keepPulling(t, r)
	when(t, k, "the pull", func(_ workload.Status, u workload.UnitStatus) bool { return u.Reason == "pulling" })
	if err := k.Request(t.Context(), "web", workload.WantStopped); err != nil {
		t.Fatal(err)
	}
	when(t, k, "stopped", func(_ workload.Status, u workload.UnitStatus) bool { return u.State == workload.Stopped })
}
