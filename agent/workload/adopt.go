package workload

import (
	"context"
	"log"
	"slices"
	"time"
)

// unwanted are the instances that nobody wants, those of an earlier configuration and
// those that the node allows no more, also where nothing but their network is left.
func (k *Keeper) unwanted(found []Found) map[string]Instance {
	attached, err := k.Network.Attached()
	if err != nil {
		log.Printf("workloads: %v", err)
	}
	wanted := make(map[string]bool)
	for _, u := range k.units {
		wanted[u.now.Name] = Denied(u.want, k.Allow) == nil
	}
	all := make(map[string]Instance)
	for _, name := range attached {
		if !wanted[name] {
			all[name] = Instance{Name: name}
		}
	}
	for _, f := range found {
		if !wanted[f.Name] {
			all[f.Name] = f.Instance
		}
	}
	return all
}

// sweep takes away what nobody wants, and then the networks that are empty.
func (k *Keeper) sweep(ctx context.Context) {
	for name := range k.leaving {
		k.workers.Go(func() {
			if err := k.remove(ctx, name); err != nil && ctx.Err() == nil {
				log.Printf("workloads: remove: %v", err)
			}
			k.send(ctx, event{id: name, kind: swept})
		})
	}
	if len(k.leaving) == 0 {
		k.prune()
	}
}

// swept is an event of no unit: an instance that nobody wants has gone.
const swept Event = "swept"

// tidy gives the places of a swept instance free.
func (k *Keeper) tidy(name string) {
	delete(k.leaving, name)
	if len(k.leaving) == 0 {
		k.prune()
	}
}

// prune removes the networks on which there is nobody any more.
func (k *Keeper) prune() {
	if err := k.Network.Prune(k.networks()); err != nil {
		log.Printf("workloads: %v", err)
	}
	k.publish = true
}

func (k *Keeper) remove(ctx context.Context, name string) error {
	return k.takeAway(ctx, name, "", DefaultStopGrace)
}

// takeAway leaves nothing of an instance but its volumes.
func (k *Keeper) takeAway(ctx context.Context, name, signal string, grace time.Duration) error {
	if err := k.Engine.Remove(ctx, name, signal, grace); err != nil {
		return err
	}
	if err := k.Network.Detach(name); err != nil {
		return err
	}
	return k.Engine.RemoveFiles(name)
}

// adopt tells every unit what was found of it.
func (k *Keeper) adopt(ctx context.Context, found []Found) {
	byName := make(map[string]Found, len(found))
	for _, f := range found {
		byName[f.Name] = f
	}
	for _, id := range k.ids {
		u := k.units[id]
		f := byName[u.now.Name]
		k.publish, u.alive = k.publish || u.alive, false
		if u.State != Waiting {
			continue
		}
		current := f.ID == id && Denied(u.want, k.Allow) == nil && k.current(ctx, u, f)
		switch {
		case f.Task == Alive && current:
			k.step(ctx, event{id: id, kind: Adopted, began: f.Started, check: k.health(ctx, u.want)})
		case (f.Task == Exited || f.Task == Over) && current:
			k.step(ctx, exit(id, f.Exit))
		default:
			u.anew = u.anew || f.Task == Alive
			k.step(ctx, event{id: id, kind: Begin})
		}
	}
	k.advance(ctx)
}

// current says whether what was found is what is wanted: the same settings, image
// and places. An image that is no longer there does not end what runs.
func (k *Keeper) current(ctx context.Context, u *unit, f Found) bool {
	if f.Spec != u.want.Hash() || !slices.Equal(f.At, u.now.At) {
		return false
	}
	digest, err := k.Engine.Digest(ctx, u.want.Image)
	return err != nil || digest == f.Image
}
