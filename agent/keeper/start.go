package keeper

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// startLimit is generous: a slow disk unpacks nothing here, but a slow machine
// runs three programs.
const startLimit = 2 * time.Minute

// How many containers may be starting at a time. A start is three programs, some 20 MiB and
// seconds of a small processor: fifty of them together take the memory of a node from its
// other containers, and none of them comes to its end within its limit. One that hangs counts
// among them for startTurn, and holds up nobody for longer.
const (
	startsAtOnce = 4
	startTurn    = 15 * time.Second
)

// starts returns when one more container may be starting, until leave.
func (k *Keeper) starts(ctx context.Context) (leave func(), err error) {
	select {
	case k.beginning <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	free := sync.OnceFunc(func() { <-k.beginning })
	over := time.AfterFunc(cmp.Or(k.turn, startTurn), free)
	return func() { over.Stop(); free() }, nil
}

func (k *Keeper) start(ctx context.Context, u *unit) {
	err := k.assign(u)
	c, i, v, old, run, lives := u.want, u.now, k.view(u, u.now), u.Old == Serving, u.run, u.lives
	before := k.removals(c.ID, i.Name)
	whole, cancel := context.WithCancel(ctx)
	u.cancel = cancel
	k.workers.Go(func() {
		defer cancel()
		if err == nil {
			err = workload.Denied(c, k.Allow)
		}
		// Before what is left of it goes: of a pull that fails nobody should notice.
		if err == nil {
			err = k.fetch(whole, c, func(p workload.Progress) { k.send(ctx, event{id: c.ID, run: run, pull: &p}) })
		}
		if err == nil {
			c, err = k.Engine.Complete(whole, c)
		}
		if err == nil {
			err = workload.Denied(c, k.Allow) // its image may need more
		}
		if err == nil && old && !c.Beside(k.health(whole, c)) {
			k.send(ctx, event{id: c.ID, run: run, kind: MustGo})
			return
		}
		if err == nil && len(before) > 0 && !c.Beside(k.health(whole, c)) {
			err = awaitGone(whole, before)
		}
		var took time.Duration
		var check workload.Health
		if err == nil {
			took, check, err = k.begin(whole, c, i, v, lives)
		}
		if err != nil {
			k.send(ctx, event{id: c.ID, run: run, kind: StartFailed, err: err})
			return
		}
		k.send(ctx, event{id: c.ID, run: run, kind: Started, took: took, check: check})
	})
}

// begin takes away what is left of the instance i of c, which may still live, and starts it.
// took is the time from there to the running process: container, network, task.
func (k *Keeper) begin(ctx context.Context, c workload.Container, i workload.Instance, v workload.View, lives bool) (took time.Duration, check workload.Health, err error) {
	defer k.locks.queue(i.Name)()()
	if err := ctx.Err(); err != nil {
		return 0, workload.Health{}, err // given up: what follows in the queue has nothing to take away
	}
	limited, done := context.WithTimeout(ctx, c.StopGrace+startLimit)
	err = k.makeWay(limited, *workload.RecordOf(c, i), lives)
	done()
	if err != nil {
		return 0, workload.Health{}, err
	}
	leave, err := k.starts(ctx)
	if err != nil {
		return 0, workload.Health{}, err
	}
	defer leave()
	ctx, done = context.WithTimeout(ctx, startLimit)
	defer done()
	began := time.Now()
	if err := k.Engine.Prepare(c, i.Name); err != nil {
		return 0, workload.Health{}, err
	}
	if err := k.Engine.WriteFiles(c, i.Name, v); err != nil {
		return 0, workload.Health{}, err
	}
	// Beside the start: it reads the image's configuration.
	var own workload.Health
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { own = k.health(ctx, c) })
	var place workload.Namespaces // the node's
	if !c.Shares(rights.HostNetwork) {
		more, _ := c.Beyond() // if they are too many, c is not apart
		if place, err = k.Network.Attach(i.Name, i.At, k.Apart && c.Apart(), more); err != nil {
			return 0, workload.Health{}, err
		}
	}
	if err := k.Engine.Start(ctx, c, i, place); err != nil {
		return 0, workload.Health{}, err
	}
	took = time.Since(began)
	beside.Wait()
	return took, own, nil
}

// makeWay removes what is left of an instance. Of one that may still live it is told that it
// is to stop.
func (k *Keeper) makeWay(ctx context.Context, r workload.Record, lives bool) error {
	if lives {
		return k.remove(ctx, k.tell(ctx, r))
	}
	return k.try(ctx, &ending{Record: r}, r.StopGrace, k.Now())
}

// drop takes a container away at an operator's request, and waits until earlier instances of
// it have gone: it has not stopped before.
func (k *Keeper) drop(ctx context.Context, u *unit) {
	id, run, before := u.want.ID, u.run, k.removals(u.want.ID, "")
	var all []*ending
	var locks []func() func()
	for _, r := range u.records() {
		all, locks = append(all, k.end(ctx, r)), append(locks, k.locks.queue(r.Name))
	}
	k.workers.Go(func() {
		errs := make([]error, len(all))
		var both sync.WaitGroup
		for i, e := range all {
			both.Go(func() {
				defer locks[i]()()
				errs[i] = k.takeAway(ctx, e)
			})
		}
		both.Wait()
		if err := errors.Join(append(errs, awaitGone(ctx, before))...); err != nil {
			k.send(ctx, event{id: id, run: run, kind: RemoveFailed, err: err})
			return
		}
		k.send(ctx, event{id: id, run: run, kind: Removed})
	})
}

// watch waits for the exit of a running container; ctx is that of its run. When
// waiting itself fails, only a look at everything tells whether the container is gone
// or containerd is.
func (k *Keeper) watch(ctx context.Context, u *unit) {
	id, name, run := u.want.ID, u.now.Name, u.run
	k.workers.Go(func() {
		code, err := k.Engine.Wait(ctx, name)
		e := exit(id, code)
		if err != nil {
			e = event{id: id, kind: Lost, err: err}
		}
		e.run = run
		k.send(ctx, e)
	})
}
