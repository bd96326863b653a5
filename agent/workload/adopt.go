package workload

import (
	"cmp"
	"context"
	"log"
	"slices"
)

// choose finds out which of what was found of each container is what is wanted, and
// which older instance still serves in its place.
//
// A wanted one that is there is it. An older one serves if it was there before that and
// nobody has taken over from it: of several the oldest, which was the one that others
// were to replace.
func (k *Keeper) choose(ctx context.Context, found []Found) {
	of := make(map[string][]Found)
	for _, f := range found {
		of[f.ID] = append(of[f.ID], f)
	}
	for _, id := range k.ids {
		u := k.units[id]
		u.found, u.old, u.Old = nil, nil, Alone
		if u.State != Waiting {
			continue
		}
		u.now = Instance{}
		if Denied(u.want, k.Allow) != nil {
			u.now.Name = instances(id)[0]
			continue
		}
		all := of[id]
		slices.SortFunc(all, func(a, b Found) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Name, b.Name)) })
		for i, f := range all {
			if k.current(ctx, u, f) && (u.found == nil || f.Task == Alive && u.found.Task != Alive) {
				u.found, u.now = &all[i], f.Instance
			}
		}
		for i, f := range all {
			if f.Name == u.now.Name || f.Task != Alive {
				continue
			}
			u.anew = true
			if u.old == nil && !f.Relieved && k.reached(f) && (u.found == nil || f.Started.Before(u.found.Started)) {
				u.old, u.Old = &all[i].record, Serving
			}
		}
		for _, name := range instances(id) {
			if u.now.Name == "" && (u.old == nil || u.old.Name != name) {
				u.now.Name = name
			}
		}
	}
}

// unwanted are the instances that nobody wants, those of an earlier configuration and
// those that the node allows no more, also where nothing but their network is left.
func (k *Keeper) unwanted(found []Found) map[string]record {
	attached, err := k.Network.Attached()
	if err != nil {
		log.Printf("workloads: %v", err)
	}
	wanted := make(map[string]bool)
	for _, u := range k.units {
		wanted[u.now.Name] = Denied(u.want, k.Allow) == nil
		if u.old != nil {
			wanted[u.old.Name] = true
		}
	}
	all := make(map[string]record)
	for _, name := range attached {
		if !wanted[name] {
			all[name] = record{Instance: Instance{Name: name}}
		}
	}
	for _, f := range found {
		if !wanted[f.Name] {
			all[f.Name] = f.record
		}
	}
	return all
}

// sweep takes away what nobody wants, and then the networks that are empty.
func (k *Keeper) sweep(ctx context.Context) {
	for name, r := range k.leaving {
		k.workers.Go(func() {
			if err := k.takeAway(ctx, r); err != nil && ctx.Err() == nil {
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

// takeAway stops an instance and leaves nothing of it but its volumes.
func (k *Keeper) takeAway(ctx context.Context, r record) error {
	defer k.hands.on(r.Name)()
	limited, cancel := context.WithTimeout(ctx, r.StopGrace+startLimit)
	defer cancel()
	if err := k.Engine.Remove(limited, r.Name, r.StopSignal, r.StopGrace); err != nil {
		return err
	}
	if err := k.Network.Detach(r.Name); err != nil {
		return err
	}
	return k.Engine.RemoveFiles(r.Name)
}

// adopt tells every unit what was found of it.
func (k *Keeper) adopt(ctx context.Context) {
	for _, id := range k.ids {
		u := k.units[id]
		if u.State != Waiting {
			continue
		}
		if u.old != nil {
			k.watchOld(ctx, u)
		}
		switch f := u.found; {
		case f != nil && f.Task == Alive:
			k.step(ctx, event{id: id, kind: Adopted, began: f.Started, check: k.health(ctx, u.want)})
		case f != nil && (f.Task == Exited || f.Task == Over):
			k.step(ctx, exit(id, f.Exit))
		default:
			k.step(ctx, event{id: id, kind: Begin})
		}
	}
	k.advance(ctx)
}

// current says whether what was found is what is wanted: the same settings, image
// and places. An image that is no longer there does not end what runs.
func (k *Keeper) current(ctx context.Context, u *unit, f Found) bool {
	if f.Spec != u.want.Hash() || !k.fits(u.want, f.At) {
		return false
	}
	digest, err := k.Engine.Digest(ctx, u.want.Image)
	return err != nil || digest == f.Image
}
