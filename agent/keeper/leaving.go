package keeper

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"slices"
	"time"

	"kogge.example/agent/workload"
)

// leaver is an instance that nobody wants, until it is no more: as often as it cannot be
// taken away, that is tried again.
type leaver struct {
	workload.Record
	try    *removal
	fails  int       // tries that failed
	reason string    // why the last one did, in words; "" before that
	next   time.Time // when the next try begins; zero while one goes on
}

// removal is one try to take a leaver away.
type removal struct {
	name string
	over chan struct{} // closed when the instance is no more, or could not be taken away: then err is set
	err  error
}

func newRemoval(name string) *removal { return &removal{name: name, over: make(chan struct{})} }

// sweep takes away what nobody wants, and the networks that nobody is on.
func (k *Keeper) sweep(ctx context.Context, all map[string]*leaver) {
	for _, l := range all {
		l.try = newRemoval(l.Name)
		k.begins(ctx, l)
	}
	k.prune()
}

// begins begins l's try.
func (k *Keeper) begins(ctx context.Context, l *leaver) {
	l.next = time.Time{}
	try, lock, e := l.try, k.locks.queue(l.Name), k.end(ctx, l.Record)
	k.workers.Go(func() {
		// Until the loop has heard of it: it takes what leaves for what will be gone.
		defer lock()()
		try.err = k.takeAway(ctx, e)
		close(try.over)
		k.send(ctx, event{name: try.name, kind: swept, err: try.err})
	})
}

// swept is an event of no unit: the instance of that name, which nobody wants, has gone, or
// could not be taken away.
const swept Event = "swept"

// tidy gives the places of a swept instance free, and its networks where it was the last. One
// that is still there keeps them, and is swept once more after a pause.
func (k *Keeper) tidy(e event) {
	if l := k.leaving[e.name]; l != nil && e.err != nil {
		l.fails++
		pause := delay(l.fails)
		l.try, l.next = newRemoval(l.Name), k.Now().Add(pause)
		l.reason = clings(l.Name, e.err)
		log.Printf("workloads: %s; next try in %s", l.reason, pause)
		return
	}
	delete(k.leaving, e.name)
	k.prune()
}

// clings says of an instance that it is still there, and why.
func clings(name string, err error) string {
	return workload.Line(fmt.Sprintf("%s could not be removed: %v", name, err))
}

// sweepAgain begins the tries that are due. What is just being started takes away itself what
// has its name.
func (k *Keeper) sweepAgain(ctx context.Context) {
	for _, l := range k.leaving {
		switch {
		case l.next.IsZero() || k.Now().Before(l.next):
		case k.starting(l.Name):
			l.next = k.Now().Add(delay(l.fails))
		default:
			k.begins(ctx, l)
		}
	}
}

// starting says whether an instance of that name is just being started.
func (k *Keeper) starting(name string) bool {
	for _, u := range k.units {
		if u.State == workload.Starting && u.now.Name == name {
			return true
		}
	}
	return false
}

// hurry has what could not be removed of the container id tried again at once, be it a leaver,
// the container that is to stop or its old instance, and says whether there is any.
func (k *Keeper) hurry(id string) (any bool) {
	now := func(pause *time.Time) {
		if !pause.IsZero() {
			*pause, any = k.Now(), true
		}
	}
	for _, l := range k.leavers(id) {
		now(&l.next)
	}
	if u := k.units[id]; u != nil && u.State == workload.Stopping {
		now(&u.NotBefore)
	}
	if u := k.units[id]; u != nil && u.Old == Leaving {
		now(&u.Until)
	}
	return any
}

// awaitGone waits until earlier instances of a container are no more, each with a grace of
// its own: two of them must not share what only one can have. One that could not be taken
// away is an error; whoever asks again waits for the next try.
func awaitGone(ctx context.Context, all []*removal) error {
	for _, r := range all {
		select {
		case <-r.over:
			if r.err != nil {
				return fmt.Errorf("%s has to go first: %w", r.name, r.err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// removals are the tries of all leavers of a container that go on or come next. Of its
// instance own none comes next: whoever starts that takes away what has its name.
func (k *Keeper) removals(id, own string) (all []*removal) {
	for _, l := range k.leavers(id) {
		if l.Name != own || l.next.IsZero() {
			all = append(all, l.try)
		}
	}
	return all
}

// leavers are the instances of a container that nobody wants any more.
func (k *Keeper) leavers(id string) (all []*leaver) {
	for _, name := range workload.Instances(id) {
		if l := k.leaving[name]; l != nil {
			all = append(all, l)
		}
	}
	return all
}

// leftovers is the status of what leaves of containers that nobody wants.
func (k *Keeper) leftovers() (all []workload.UnitStatus) {
	for _, l := range k.leaving {
		if l.ID == "" || k.units[l.ID] != nil {
			continue // somebody's who is not known any more, or said of the one that is wanted
		}
		all = append(all, workload.UnitStatus{
			ID: l.ID, Instance: l.Name, State: workload.Stopping, At: l.At, Reason: k.goes(l.ID),
		})
	}
	slices.SortFunc(all, func(a, b workload.UnitStatus) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Instance, b.Instance))
	})
	return slices.CompactFunc(all, func(a, b workload.UnitStatus) bool { return a.ID == b.ID })
}

// goes says of a container what of it is to go: why that could not be, or when it is killed;
// "" is nothing.
func (k *Keeper) goes(id string) string {
	for _, l := range k.leavers(id) {
		if l.reason != "" {
			return l.reason
		}
	}
	if u := k.units[id]; u != nil && u.Old == Leaving && u.State != workload.Stopping && u.stuck != "" {
		return u.stuck
	}
	return k.ends(id)
}
