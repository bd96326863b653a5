package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/agent/workload"
)

// ending is an instance that is to stop, from when that is decided until it is no more, or
// could not be taken away.
type ending struct {
	workload.Record
	since   time.Time       // when it was told to, or is about to be; guarded by the Keeper's mu, as are
	until   time.Time       // when its grace is over, and
	timer   *time.Timer     // of a grace that ends before its own time; else nil
	patient context.Context // ends with the session, or then
	hurry   context.CancelFunc
}

// end takes down that the instance is to stop, with its own grace or that of the container as
// it is wanted by now, whichever is less. Whoever calls it calls takeAway, which takes it out
// again.
func (k *Keeper) end(ctx context.Context, r workload.Record) *ending {
	if u := k.units[r.ID]; u != nil {
		r.StopGrace = min(r.StopGrace, u.want.StopGrace)
	}
	return k.tell(ctx, r)
}

// tell is end with the instance's own grace; any goroutine may call it.
func (k *Keeper) tell(ctx context.Context, r workload.Record) *ending {
	e := &ending{Record: r, since: k.Now()}
	e.until = e.since.Add(r.StopGrace)
	e.patient, e.hurry = context.WithCancel(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inherit(e)
	k.endings = append(k.endings, e)
	return e
}

// inherit says whether the instance was told to stop before: then its grace goes on. Whoever
// calls it holds mu.
func (k *Keeper) inherit(e *ending) (told bool) {
	since, told := k.told[e.Name]
	if told && since.Before(e.since) {
		e.since = since
		if by := since.Add(e.StopGrace); by.Before(e.until) {
			e.until = by
		}
	}
	return told
}

// hasten has what is to stop of the container id have no more than a grace, counted from
// when it was told to, and says whether there is any.
func (k *Keeper) hasten(id string, grace time.Duration) (any bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.endings {
		if e.ID != id {
			continue
		}
		any = true
		if by := e.since.Add(grace); by.Before(e.until) {
			e.until = by
			if e.timer != nil {
				e.timer.Stop()
			}
			e.timer = time.AfterFunc(by.Sub(k.Now()), e.hurry)
		}
	}
	return any
}

// takeAway stops an instance and leaves nothing of it but its volumes. Whoever calls it
// has the lock of the instance.
func (k *Keeper) takeAway(ctx context.Context, e *ending) error {
	if err := k.remove(ctx, e); err != nil {
		return err
	}
	if err := k.Network.Detach(e.Name); err != nil {
		return err
	}
	return k.Engine.RemoveFiles(e.Name)
}

// remove is takeAway without the network and the files of the instance.
func (k *Keeper) remove(ctx context.Context, e *ending) error {
	at, grace := k.Now(), e.StopGrace
	k.mu.Lock()
	if k.inherit(e) {
		grace = max(0, e.until.Sub(at))
	}
	k.mu.Unlock()
	err := k.try(e.patient, e, grace, at)
	if err != nil && e.patient.Err() != nil && ctx.Err() == nil { // it was hastened
		err = k.try(ctx, e, 0, at)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
	}
	e.hurry()
	k.endings = slices.DeleteFunc(k.endings, func(one *ending) bool { return one == e })
	return err
}

// goesOn forgets that an instance of u was told to stop, as it is wanted as it is; unless it is
// to stop: then its grace goes on.
func (k *Keeper) goesOn(u *unit, name string) {
	if u.Held {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.told, name)
}

// try has the engine remove an instance, and remembers of one that is still there that it was
// told to stop, at that time.
func (k *Keeper) try(ctx context.Context, e *ending, grace time.Duration, at time.Time) error {
	limited, cancel := context.WithTimeout(ctx, grace+startLimit)
	defer cancel()
	err := k.Engine.Remove(limited, e.Name, e.StopSignal, grace)
	_, told := errors.AsType[workload.Told](err)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch _, known := k.told[e.Name]; {
	case err == nil:
		delete(k.told, e.Name)
	case told && !known:
		if k.told == nil {
			k.told = make(map[string]time.Time)
		}
		k.told[e.Name] = at
	}
	return err
}

// ends says of a container what of it is to stop, and when that is killed; "" is nothing.
func (k *Keeper) ends(id string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var last *ending
	for _, e := range k.endings {
		if e.ID == id && (last == nil || e.until.After(last.until)) {
			last = e
		}
	}
	if last == nil {
		return ""
	}
	at := func(t time.Time) string { return t.UTC().Format(time.TimeOnly) }
	return fmt.Sprintf("%s"+workload.ToldAt+"%s, and is killed at %s UTC", last.Name, at(last.since), at(last.until))
}
