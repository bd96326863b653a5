package keeper

import (
	"cmp"
	"context"
	"errors"
	"log"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/workload"
)

// reconnect is the pause before containerd is asked again.
const reconnect = 500 * time.Millisecond

// session lasts as long as containerd does, and as the networks stay where they are: it
// finds out what is there, makes it what is wanted and keeps it so. It returns why it had
// to end.
func (k *Keeper) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	k.workers = new(sync.WaitGroup)
	defer k.leave(k.workers)
	defer cancel()
	found, err := k.Engine.List(ctx)
	if err != nil {
		return err
	}
	k.trouble = ""
	k.awaitStrays(ctx)
	k.workers.Go(func() {
		if err := k.Engine.Lost(ctx); err != nil {
			k.send(ctx, event{kind: Lost, err: err})
		}
	})
	k.leaving = make(map[string]*leaver)
	k.subnets = make(map[string]workload.Subnet)
	for _, u := range k.units {
		u.now.At = nil
	}
	k.arrange(ctx, found, nil, nil)
	return k.loop(ctx)
}

// patience is how long the end of a session waits for what it began: a deletion in
// containerd is not broken off for half a minute.
const patience = 45 * time.Second

// errStray ends a session, as what an earlier one began may have changed what is there.
var errStray = errors.New("something that was given up has come to its end")

// leave waits for the workers of a session that is over. What does not end, although its
// session has, keeps the instance that it has to do with, and nothing else.
func (k *Keeper) leave(workers *sync.WaitGroup) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		workers.Wait()
	}()
	select {
	case <-over:
	case <-time.After(cmp.Or(k.patience, patience)):
		log.Print("workloads: a start or a removal was given up and does not end: its container waits for that, all others go on")
		k.strays = append(k.strays, over)
	}
}

// awaitStrays ends the session when a worker of an earlier one has come to its end.
func (k *Keeper) awaitStrays(ctx context.Context) {
	k.strays = slices.DeleteFunc(k.strays, func(over chan struct{}) bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	})
	for _, over := range k.strays {
		k.workers.Go(func() {
			select {
			case <-over:
				k.send(ctx, event{kind: Lost, err: errStray})
			case <-ctx.Done():
			}
		})
	}
}

// arrange goes from what is there to what is wanted: for the units that wait, all of
// them in a new session, and for what nobody wants, former and half among it.
func (k *Keeper) arrange(ctx context.Context, found []workload.Found, former, half []workload.Record) {
	k.linkAll(found)
	k.choose(ctx, found)
	leave := k.unwanted(found, former, half)
	k.assignAll()
	// Before anything starts: the table keeps networks apart. What was found running
	// stays published meanwhile.
	k.publish = true
	k.publishPorts()
	k.sweep(ctx, leave)
	k.adopt(ctx)
	k.refresh()
	k.generation, k.seen, k.ahead = k.revised, true, false
}

// rest is the pause before the next session. It returns false when ctx ends.
func (k *Keeper) rest(ctx context.Context) bool {
	over := time.After(reconnect)
	for {
		k.report()
		select {
		case <-ctx.Done():
			return false
		case <-over:
			return true
		case <-k.changed:
			k.revise(ctx, nil) // the next session finds what is there
		case r := <-k.requests:
			k.take(ctx, r, false)
		}
	}
}

func (k *Keeper) loop(ctx context.Context) error {
	tick := time.NewTicker(k.Tick)
	defer tick.Stop()
	var again <-chan time.Time // when a set is tried once more
	for {
		k.publishPorts()
		k.report()
		var timer <-chan time.Time
		if next, ok := k.next(); ok {
			timer = time.After(next.Sub(k.Now()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-k.events:
			if k.stale(e) {
				continue
			}
			switch e.kind {
			case Lost:
				return e.err
			case swept:
				k.tidy(e)
			default:
				k.handle(ctx, e)
			}
		case <-k.changed:
			again = k.change(ctx)
		case <-again:
			again = k.change(ctx)
		case r := <-k.requests:
			k.take(ctx, r, true)
		case <-timer:
			k.sweepAgain(ctx)
			for id, u := range k.units {
				e := event{id: id, kind: Timer}
				if u.State == workload.Running {
					k.step(ctx, event{id: id, health: Due})
				}
				k.step(ctx, e)
			}
			k.advance(ctx)
		case <-tick.C:
			if err := k.follow(); err != nil {
				return err
			}
			k.refresh()
		}
	}
}

// stale says whether e is about a run that is over, or a container that is not wanted
// any more.
func (k *Keeper) stale(e event) bool {
	if e.id == "" {
		return false
	}
	u := k.units[e.id]
	return u == nil || e.run != 0 && e.run != u.run || e.name != "" && (u.old == nil || e.name != u.old.Name)
}

// next is when a pause ends or a test is due, whichever comes first.
func (k *Keeper) next() (earliest time.Time, ok bool) {
	for _, l := range k.leaving {
		if !l.next.IsZero() && (!ok || l.next.Before(earliest)) {
			earliest, ok = l.next, true
		}
	}
	for _, u := range k.units {
		var all [3]time.Time
		switch {
		case u.State == workload.Backoff || u.State == workload.Stopping:
			all[0] = u.NotBefore
		case u.State == workload.Running && !u.check.Testing:
			all[0] = u.check.Next
		}
		switch {
		case u.Old == Draining || u.Old == Leaving:
			all[1] = u.Until
		case u.Old == Serving && u.State == workload.Running && len(u.health.Test) == 0:
			all[2] = u.Since.Add(drain)
		}
		for _, t := range all {
			if !t.IsZero() && (!ok || t.Before(earliest)) {
				earliest, ok = t, true
			}
		}
	}
	return earliest, ok
}
