package keeper

import (
	"context"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/workload"
)

// standing is what others may depend on of a container.
type standing struct {
	State  workload.State
	Exit   int  // if it has ended
	Failed bool // its last start or run did not go well
	Tested bool // it has a health check
	Health workload.HealthState
}

// verdict is whether a container may start now, as far as one other is concerned.
type verdict string

const (
	met   verdict = "met"
	later verdict = "later" // it may come to that by itself
	never verdict = "never" // somebody has to do something
)

// judge says whether d is met by the container it names, there says whether that one
// is wanted on this node at all, and in words why it is not met. It is pure; the
// table of its answers lies in testdata/order.txt.
//
// An optional dependency is met by whatever is not on its way: one that is missing,
// stopped, sick or fails does not keep others from starting.
func judge(d workload.Dependency, s standing, there bool) (verdict, string) {
	v, why := judgeRequired(d, s, there)
	fails := s.Failed || d.Condition == workload.WhenHealthy && s.Health == workload.Unhealthy
	if d.Optional && (v == never || v == later && fails) {
		return met, ""
	}
	return v, why
}

// judgeRequired is judge of what is not optional.
func judgeRequired(d workload.Dependency, s standing, there bool) (verdict, string) {
	switch {
	case !there:
		return never, fmt.Sprintf(workload.DependsOn+"%s, which no project of this node has", d.ID)
	case s.State == workload.Stopped || s.State == workload.Stopping:
		return never, fmt.Sprintf(workload.DependsOn+"%s, which was stopped", d.ID)
	case d.Condition == workload.WhenCompleted:
		switch {
		case s.State == workload.Ended && s.Exit == 0:
			return met, ""
		case s.State == workload.Ended:
			return never, fmt.Sprintf(workload.DependsOn+"%s, which ended with exit code %d", d.ID, s.Exit)
		}
		return later, fmt.Sprintf(workload.WaitsFor+"%s to complete (%s)", d.ID, s.State)
	case d.Condition == workload.WhenHealthy:
		switch {
		case !s.Tested && s.State == workload.Running:
			return never, fmt.Sprintf(workload.DependsOn+"%s to be healthy, and it has no health check", d.ID)
		case s.State == workload.Ended:
			return never, fmt.Sprintf(workload.DependsOn+"%s to be healthy, and it ended with exit code %d", d.ID, s.Exit)
		case s.State == workload.Running && s.Health == workload.Healthy:
			return met, ""
		case s.State == workload.Running:
			return later, fmt.Sprintf(workload.WaitsFor+"%s to be healthy (%s)", d.ID, s.Health)
		}
		return later, fmt.Sprintf(workload.WaitsFor+"%s to be healthy (%s)", d.ID, s.State)
	case s.State == workload.Running, s.State == workload.Ended: // one that has ended has been started
		return met, ""
	}
	return later, fmt.Sprintf(workload.WaitsFor+"%s to start (%s)", d.ID, s.State)
}

// allowed is judge over all that u depends on: what is worst comes first.
func (k *Keeper) allowed(u *unit) (v verdict, why string) {
	v = met
	for _, d := range u.want.After {
		other := k.units[d.ID]
		var s standing
		if other != nil {
			s = other.standing()
		}
		switch one, text := judge(d, s, other != nil); {
		case one == never:
			return never, text
		case one == later && v == met:
			v, why = later, text
		}
	}
	return v, why
}

func (u *unit) standing() standing {
	return standing{
		State: u.State, Exit: u.code, Failed: u.Exits > 0 && u.State == workload.Backoff,
		Tested: len(u.health.Test) > 0, Health: u.check.State,
	}
}

// advance starts what has waited for others and need wait no longer, and restarts
// what goes by one that was replaced.
func (k *Keeper) advance(ctx context.Context) {
	for _, id := range k.ids {
		u := k.units[id]
		if u.State != workload.Pending && !(u.State == workload.Running && u.follow) {
			continue
		}
		v, why := k.allowed(u)
		switch {
		case u.State == workload.Pending && v == met:
			k.step(ctx, event{id: id, kind: Ready})
		case u.State == workload.Pending:
			if u.reason != why {
				log.Printf("container %s: %s", id, why)
			}
			u.reason = why
		case v == met:
			k.step(ctx, event{id: id, kind: RestartAsked})
		}
	}
}

// replaced notes for those that go by u that there is a new one of it.
func (k *Keeper) replaced(id string) {
	for _, other := range k.units {
		follows := func(d workload.Dependency) bool { return d.ID == id && d.Restart }
		if other.State == workload.Running && slices.ContainsFunc(other.want.After, follows) {
			other.follow = true
		}
	}
}

// settled says whether everything that u depends on had its first start: what it
// still waits for then is theirs to do, not the node's.
func (k *Keeper) settled(u *unit) bool {
	if u.tried {
		return true
	}
	if u.State != workload.Pending {
		return false
	}
	return !slices.ContainsFunc(u.want.After, func(d workload.Dependency) bool {
		other := k.units[d.ID]
		return other != nil && !other.tried && other.State != workload.Pending
	})
}

// Stop stops all containers, each by its own signal and grace, and is for the end of
// the node; call it after Run has returned. What depends on others goes before them,
// for as long as the deadline of ctx leaves time: nobody is waited for longer than
// until a container's own grace, and at most half of all the time, is left.
func (k *Keeper) Stop(ctx context.Context) {
	gone := make(map[string]chan struct{}, len(k.units))
	for id := range k.units {
		gone[id] = make(chan struct{})
	}
	var all sync.WaitGroup
	for id, u := range k.units {
		all.Go(func() {
			defer close(gone[id])
			k.await(ctx, u, gone)
			if u.old != nil {
				all.Go(func() { k.stop(ctx, *u.old) })
			}
			k.stop(ctx, u.record())
		})
	}
	for _, l := range k.leaving {
		all.Go(func() { k.stop(ctx, l.Record) })
	}
	all.Wait()
}

func (k *Keeper) stop(ctx context.Context, r workload.Record) {
	if err := k.Engine.Remove(ctx, r.Name, r.StopSignal, r.StopGrace); err != nil {
		complain(fmt.Errorf("stop: %w", err))
	}
}

// await waits until what depends on u has gone, or it is time for u to go.
func (k *Keeper) await(ctx context.Context, u *unit, gone map[string]chan struct{}) {
	var over <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		timer := time.NewTimer(left - min(u.want.StopGrace+time.Second, left/2))
		defer timer.Stop()
		over = timer.C
	}
	for id, other := range k.units {
		if !slices.ContainsFunc(other.want.After, func(d workload.Dependency) bool { return d.ID == u.want.ID }) {
			continue
		}
		select {
		case <-gone[id]:
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}
