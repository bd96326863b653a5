package keeper

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// choose finds out which of what was found of each container is what is wanted, and
// which older instance still serves in its place.
//
// A wanted one that is there is it. An older one serves if it was there before that and
// nobody has taken over from it: of several the oldest, which was the one that others
// were to replace.
func (k *Keeper) choose(ctx context.Context, found []workload.Found) {
	of := make(map[string][]workload.Found)
	for _, f := range found {
		of[f.ID] = append(of[f.ID], f)
	}
	for _, id := range k.ids {
		u := k.units[id]
		if u.State != workload.Waiting {
			continue
		}
		before := u.now.Name
		u.found, u.old, u.Old, u.now = nil, nil, Alone, workload.Instance{}
		if workload.Denied(u.want, k.Allow) != nil {
			u.now.Name = workload.Instances(id)[0]
			continue
		}
		all := of[id]
		slices.SortFunc(all, func(a, b workload.Found) int {
			return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Name, b.Name))
		})
		all = slices.DeleteFunc(all, func(f workload.Found) bool { _, leaves := k.leaving[f.Name]; return leaves || k.overstays(f) })
		for i, f := range all {
			if !f.Relieved && k.current(ctx, u, f) && (u.found == nil || f.Task == workload.Alive && u.found.Task != workload.Alive) {
				u.found, u.now = &all[i], f.Instance
			}
		}
		for i, f := range all {
			if f.Name == u.now.Name || f.Task != workload.Alive {
				continue
			}
			u.anew = true
			if u.old == nil && !f.Relieved && k.reached(f) && (u.found == nil || f.Started.Before(u.found.Started)) {
				u.old, u.Old = &all[i].Record, Serving
			}
		}
		if u.now.Name == "" {
			u.now.Name = k.nameFor(u, before)
		}
	}
}

// overstays says whether an instance is in the node's user namespace, and node.yaml does not
// allow it any more: what its image needs is not in what is wanted.
func (k *Keeper) overstays(f workload.Found) bool {
	asks := workload.Container{ID: f.ID, Rights: workload.Rights{Host: []rights.Namespace{rights.HostUser}}}
	return f.Together && workload.Denied(asks, k.Allow) != nil
}

// nameFor is the name of u's next instance: before, the one that it had, where the old
// instance has another; a start that was given up may have left something of that name,
// which the next start takes away. Else one that is not just being taken away.
func (k *Keeper) nameFor(u *unit, before string) (name string) {
	both := workload.Instances(u.want.ID)
	if u.old != nil {
		if u.old.Name == both[0] {
			return both[1]
		}
		return both[0]
	}
	if before != "" {
		return before
	}
	if _, leaves := k.leaving[both[0]]; leaves {
		return both[1]
	}
	return both[0]
}

// unwanted are the instances that nobody wants: those of an earlier configuration,
// former among them, and those that the node allows no more, also where nothing but
// their network is left. Those that are leaving already are left out; the next try of one
// that could not be removed comes at once.
//
// half are those whose start was given up. One may come up all the same, so each leaves
// unless it is what serves, also where the next instance has its name again.
func (k *Keeper) unwanted(found []workload.Found, former, half []workload.Record) map[string]*leaver {
	attached, err := k.Network.Attached()
	if err != nil {
		complain(err)
	}
	wanted := make(map[string]bool)
	for _, u := range k.units {
		wanted[u.now.Name] = workload.Denied(u.want, k.Allow) == nil
		if u.old != nil {
			wanted[u.old.Name] = true
		}
	}
	all := make(map[string]*leaver)
	leave := func(r workload.Record) {
		switch l := k.leaving[r.Name]; {
		case l == nil:
			all[r.Name] = &leaver{Record: r}
		case !l.next.IsZero():
			l.next = k.Now() // there may be more of it now
		}
	}
	for _, name := range attached {
		if !wanted[name] {
			leave(workload.Record{Instance: workload.Instance{Name: name}})
		}
	}
	for _, r := range former {
		if !wanted[r.Name] {
			leave(r)
		}
	}
	for _, f := range found {
		if !wanted[f.Name] || k.overstays(f) {
			leave(f.Record)
		}
	}
	serves := make(map[string]bool)
	for _, u := range k.units {
		if u.State == workload.Waiting && u.found != nil {
			serves[u.now.Name] = true
		}
		if u.old != nil {
			serves[u.old.Name] = true
		}
	}
	for _, r := range half {
		if !serves[r.Name] {
			leave(r)
		}
	}
	maps.Copy(k.leaving, all)
	return all
}

// prune removes the networks on which there is nobody any more.
func (k *Keeper) prune() {
	wanted := k.networks()
	if err := k.Network.Prune(wanted); err != nil {
		complain(err)
	}
	maps.DeleteFunc(k.subnets, func(name string, _ workload.Subnet) bool {
		return !slices.ContainsFunc(wanted, func(n workload.Network) bool { return n.Name == name })
	})
	k.publish = true
}

// adopt tells every unit what was found of it.
func (k *Keeper) adopt(ctx context.Context) {
	for _, id := range k.ids {
		u := k.units[id]
		if u.State != workload.Waiting {
			continue
		}
		if u.old != nil {
			k.goesOn(u, u.old.Name)
			k.watchOld(ctx, u)
		}
		switch f := u.found; {
		case f != nil && f.Task == workload.Alive:
			k.goesOn(u, f.Name)
			k.step(ctx, event{id: id, kind: Adopted, began: f.Started, check: k.health(ctx, u.want)})
		case f != nil && (f.Task == workload.Exited || f.Task == workload.Over):
			k.step(ctx, exit(id, f.Exit))
		default:
			k.step(ctx, event{id: id, kind: Begin})
		}
	}
	k.advance(ctx)
}

// current says whether what was found is what is wanted: the same settings, image
// and places. An image that is no longer there does not end what runs.
func (k *Keeper) current(ctx context.Context, u *unit, f workload.Found) bool {
	if f.Spec != u.want.Hash() || !k.fits(u.want, f.At) {
		return false
	}
	digest, err := k.Engine.Digest(ctx, u.want.Image)
	return err != nil || digest == f.Image
}
