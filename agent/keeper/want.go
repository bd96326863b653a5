package keeper

import (
	"context"
	"fmt"
	"log"
	"maps"
	"slices"
	"time"

	"kogge.example/agent/workload"
)

// Want makes set what the Keeper keeps running, in place of what it was told before. A
// container that is wanted as it was goes on as it is, stopped by request or in a pause
// between its starts too. Any goroutine may call it, also before [Keeper.Run]; it
// returns at once, and of several sets the last one counts: until [Keeper.Snapshot] has its
// generation, it shows what there was before. Two containers of one name are an error, and
// change nothing.
func (k *Keeper) Want(set []workload.Container, generation uint64) error {
	known := make(map[string]bool, len(set))
	for _, c := range set {
		if known[c.ID] {
			return fmt.Errorf("container %s is defined twice", c.ID)
		}
		known[c.ID] = true
	}
	k.init()
	k.mu.Lock()
	k.set, k.newest = slices.Clone(set), generation
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default: // Run was told already and has not looked yet
	}
	return nil
}

// change goes over to another set in the middle of a session. One container that cannot
// be looked at at the moment is no reason to end that, and with it every start and pull:
// then it returns when to try again.
func (k *Keeper) change(ctx context.Context) (again <-chan time.Time) {
	k.behind = true
	found, err := k.Engine.List(ctx)
	if err != nil {
		if ctx.Err() == nil {
			complain(fmt.Errorf("the new set of containers waits: %w", err))
		}
		return time.After(reconnect)
	}
	log.Print("workloads: the set of containers has changed")
	former, half := k.revise(ctx, found)
	k.arrange(ctx, found, former, half)
	for id, u := range k.units { // a newer set may have less patience with what leaves
		k.hasten(id, u.want.StopGrace)
	}
	return nil
}

// revise makes units of the set that is wanted, new ones only where something changed:
// those wait. It returns what such units had before, and those that nobody wants any
// more; half are those of them that were just being started, and may still come up. found
// is nil where containerd is away.
func (k *Keeper) revise(ctx context.Context, found []workload.Found) (former, half []workload.Record) {
	k.behind, k.ahead = false, true
	k.mu.Lock()
	set, generation := k.set, k.newest
	k.mu.Unlock()
	k.revised = generation
	giveUp := func(u *unit) {
		if u.State == workload.Starting {
			half = append(half, u.record())
		}
		former = append(former, k.giveUp(u, found)...)
	}
	units := make(map[string]*unit, len(set))
	for _, c := range set {
		u := k.units[c.ID]
		delete(k.units, c.ID)
		switch {
		case u == nil:
			u = k.newUnit(c)
		case u.want.Hash() == c.Hash() && !k.outdated(ctx, u, found):
		case u.State == workload.Stopping || u.State == workload.Stopped || u.State == workload.Replacing:
			u.want, u.Restart = c, c.Restart // for its next start
		default:
			giveUp(u)
			next := k.newUnit(c)
			next.Held, next.now.Name = u.Held, u.now.Name
			u = next
		}
		units[c.ID] = u
	}
	for _, u := range k.units {
		giveUp(u)
	}
	k.units, k.ids = units, slices.Sorted(maps.Keys(units))
	return former, half
}

func (k *Keeper) newUnit(c workload.Container) *unit {
	return &unit{want: c, Unit: Unit{State: workload.Waiting, Restart: c.Restart}, run: k.nextRun()}
}

func (k *Keeper) nextRun() int {
	k.runs++
	return k.runs
}

// giveUp ends what goes on beside a unit that is wanted no more, or otherwise, and
// returns its instances. One that has handed over already, or is on its way out, must
// not serve again, whether or not containerd knows that by now.
func (k *Keeper) giveUp(u *unit, found []workload.Found) []workload.Record {
	if u.cancel != nil {
		u.cancel()
	}
	if u.Old == Draining || u.Old == Leaving {
		for i := range found {
			found[i].Relieved = found[i].Relieved || found[i].Name == u.old.Name
		}
	}
	if u.now.Name == "" {
		return nil // it was never looked for
	}
	return u.records()
}

// outdated says whether the image that u's instance was made of is not what its name
// stands for by now.
func (k *Keeper) outdated(ctx context.Context, u *unit, found []workload.Found) bool {
	i := slices.IndexFunc(found, func(f workload.Found) bool { return f.Name == u.now.Name })
	if i < 0 || u.State != workload.Running && u.State != workload.Ended {
		return false
	}
	digest, err := k.Engine.Digest(ctx, u.want.Image)
	return err == nil && digest != found[i].Image
}
