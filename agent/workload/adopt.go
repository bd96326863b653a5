package workload

import (
	"context"
	"log"
	"net/netip"
	"slices"
	"time"

	"kogge.example/agent/workload/bridge"
)

// address gives every wanted container the address it had, or a free one.
func (k *Keeper) address(found []Found) error {
	used := make(map[netip.Addr]bool)
	for _, f := range found {
		u := k.units[f.ID]
		if u == nil || u.addr.IsValid() || len(f.At) != 1 {
			continue
		}
		if a := f.At[0].Addr; k.Subnet.Contains(a) && !used[a] {
			u.addr, used[a] = a, true
		}
	}
	for _, u := range k.units {
		if u.addr.IsValid() {
			used[u.addr] = true
		}
	}
	for _, id := range k.names() {
		if u := k.units[id]; !u.addr.IsValid() {
			a, err := bridge.Free(k.Subnet, used)
			if err != nil {
				return err
			}
			u.addr, used[a] = a, true
		}
	}
	return nil
}

// sweep takes away what nobody wants: containers of an earlier configuration, those that
// the node allows no more, and networks of containers that are gone.
func (k *Keeper) sweep(ctx context.Context, found []Found) {
	attached, err := k.Network.Attached()
	if err != nil {
		log.Printf("workloads: %v", err)
	}
	// After a boot there is no port map to correct, and none is needed yet.
	k.publish = len(attached) > 0 || err != nil
	wanted := make(map[string]bool)
	for _, u := range k.units {
		wanted[u.name] = Denied(u.want, k.Allow) == nil
	}
	gone := make(map[string]bool)
	for _, name := range attached {
		gone[name] = !wanted[name]
	}
	for _, f := range found {
		gone[f.Name] = !wanted[f.Name]
	}
	for name, yes := range gone {
		if !yes {
			continue
		}
		k.workers.Go(func() {
			if err := k.remove(ctx, name); err != nil && ctx.Err() == nil {
				log.Printf("workloads: remove: %v", err)
			}
		})
	}
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
	for _, id := range k.names() {
		u := k.units[id]
		f := byName[u.name]
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
// and address. An image that is no longer there does not end what runs.
func (k *Keeper) current(ctx context.Context, u *unit, f Found) bool {
	if f.Spec != u.want.Hash() || !slices.Equal(f.At, u.instance().At) {
		return false
	}
	digest, err := k.Engine.Digest(ctx, u.want.Image)
	return err != nil || digest == f.Image
}
