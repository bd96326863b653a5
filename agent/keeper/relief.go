package keeper

import (
	"context"
	"fmt"
	"log"
	"time"

	"kogge.example/agent/workload"
)

// fitness says of an instance that runs whether it is Fit or Unfit to take over; "" is
// not yet. Without a health check it has to run for as long as its predecessor would
// drain.
func fitness(tested bool, h workload.HealthState, since, now time.Time) Event {
	switch {
	case tested && h == workload.Healthy, !tested && now.Sub(since) >= drain:
		return Fit
	case tested && h == workload.Unhealthy:
		return Unfit
	}
	return ""
}

// considerHandover lets a new instance take over from the old one, or takes it away again.
func (k *Keeper) considerHandover(ctx context.Context, u *unit) {
	if u.State != workload.Running || u.Old != Serving {
		return
	}
	switch e := fitness(len(u.health.Test) > 0, u.check.State, u.Since, k.Now()); e {
	case Fit:
		k.step(ctx, event{id: u.want.ID, kind: Fit})
	case Unfit:
		k.step(ctx, event{id: u.want.ID, kind: Unfit, err: fmt.Errorf("unhealthy: %s", lastLine(u.output))})
	}
}

// relieve follows when the new instance has taken over: the loop publishes it, and step
// tells its peers.
func (k *Keeper) relieve(ctx context.Context, u *unit) {
	name := u.old.Name
	log.Printf("container %s: %s takes over from %s", u.want.ID, u.now.Name, name)
	if u.anew {
		u.anew = false
		k.replaced(u.want.ID)
	}
	k.workers.Go(func() {
		// So that an agent that starts meanwhile goes on from here. One that comes before
		// finds both, and asks the new one again whether it is up to it.
		if err := k.Engine.Relieve(ctx, name); err != nil && ctx.Err() == nil {
			complain(err)
		}
	})
}

// discard takes the new instance away: the old one goes on.
func (k *Keeper) discard(ctx context.Context, u *unit) {
	e, lock := k.end(ctx, u.record()), k.locks.queue(u.now.Name)
	k.workers.Go(func() {
		defer lock()()
		if err := k.takeAway(ctx, e); err != nil && ctx.Err() == nil {
			complain(err) // the next start tries again
		}
	})
}

// removeOld stops the old instance and takes it away.
func (k *Keeper) removeOld(ctx context.Context, u *unit) {
	id, old, lock := u.want.ID, k.end(ctx, *u.old), k.locks.queue(u.old.Name)
	k.workers.Go(func() {
		e := event{id: id, kind: OldRemoved, name: old.Name}
		unlock := lock()
		err := k.takeAway(ctx, old)
		unlock()
		if err != nil {
			if ctx.Err() == nil {
				log.Printf("workloads: %s; next try in %s", clings(old.Name, err), longest)
			}
			e.kind, e.err = OldStuck, err
		}
		k.send(ctx, e)
	})
}

// watchOld waits for the exit of the old instance.
func (k *Keeper) watchOld(ctx context.Context, u *unit) {
	id, name := u.want.ID, u.old.Name
	k.workers.Go(func() {
		code, err := k.Engine.Wait(ctx, name)
		if err != nil {
			return // what is found of it tells, when containerd is back
		}
		log.Printf("container %s: the old one, %s, ended with %s", id, name, ended(code, k.because(name)))
		k.send(ctx, event{id: id, kind: OldExited, name: name})
	})
}

// record is what there is to know of u's instance.
func (u *unit) record() workload.Record {
	return *workload.RecordOf(u.want, u.now)
}

// records are what there is to know of u's instances.
func (u *unit) records() []workload.Record {
	all := []workload.Record{u.record()}
	if u.old != nil {
		all = append(all, *u.old)
	}
	return all
}
