package keeper

import (
	"cmp"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"kogge.example/agent/nameserver"
	"kogge.example/agent/workload"
)

// networks are all that containers are to be on, and those that older instances still
// are on, what leaves and there among them, by name.
func (k *Keeper) networks(there ...workload.Found) []workload.Network {
	all := make(map[string]workload.Network)
	add := func(attached []workload.Attachment) {
		for _, a := range attached {
			internal := a.Internal && !a.External
			all[a.Network] = workload.Network{Name: a.Network, Internal: internal || all[a.Network].Internal}
		}
	}
	for _, u := range k.units {
		add(u.want.Networks)
	}
	older := func(r workload.Record) {
		for _, a := range r.Networks {
			if _, wanted := all[a.Network]; !wanted { // else it is as it is wanted now
				add([]workload.Attachment{a})
			}
		}
	}
	for _, u := range k.units {
		if u.old != nil {
			older(*u.old)
		}
	}
	for _, l := range k.leaving {
		older(l.Record)
	}
	for _, f := range there {
		older(f.Record)
	}
	return slices.SortedFunc(maps.Values(all), func(a, b workload.Network) int { return cmp.Compare(a.Name, b.Name) })
}

// link makes a network, if it is not there as it is wanted.
func (k *Keeper) link(n workload.Network) error {
	if subnet, ok := k.subnets[n.Name]; ok && subnet.Network == n {
		return nil
	}
	made, err := k.Network.Make([]workload.Network{n})
	if err != nil {
		return err
	}
	k.subnets[n.Name], k.publish = made[n.Name], true
	return nil
}

// linkAll makes the networks that are wanted, and finds those of what runs, also of what
// nobody wants: it has time to end what it has begun.
func (k *Keeper) linkAll(found []workload.Found) {
	var there []workload.Found
	for _, f := range found {
		if u := k.units[f.ID]; f.Task == workload.Alive && (u == nil || u.State == workload.Waiting) {
			there = append(there, f)
		}
	}
	for _, n := range k.networks(there...) {
		if err := k.link(n); err != nil {
			complain(err)
		}
	}
}

// assignAll gives every container that has no places on its networks free ones. One that
// gets none says so when it is to start. One that is still where it was has its places
// until its next start.
func (k *Keeper) assignAll() {
	for _, id := range k.ids {
		u := k.units[id]
		if u.State != workload.Waiting && len(u.now.At) > 0 {
			continue
		}
		if err := k.assign(u); err != nil {
			log.Printf("container %s: %s", id, workload.Line(err.Error()))
		}
	}
}

// fits says whether c can have these places, and nobody else has them.
func (k *Keeper) fits(c workload.Container, at []workload.Address) bool {
	used := k.used()
	return slices.EqualFunc(at, c.Networks, func(a workload.Address, b workload.Attachment) bool {
		return a.Network == b.Network && !used[a.Addr] && k.subnets[a.Network].Contains(a.Addr)
	})
}

// reached says whether an instance can still be reached where it is.
func (k *Keeper) reached(f workload.Found) bool {
	return !slices.ContainsFunc(f.At, func(a workload.Address) bool { return !k.subnets[a.Network].Contains(a.Addr) })
}

// used are the addresses that somebody has.
func (k *Keeper) used() map[netip.Addr]bool {
	used := make(map[netip.Addr]bool)
	take := func(i workload.Instance) {
		for _, a := range i.At {
			used[a.Addr] = true
		}
	}
	for _, u := range k.units {
		take(u.now)
		if u.old != nil {
			take(u.old.Instance)
		}
	}
	for _, l := range k.leaving {
		take(l.Instance)
	}
	return used
}

// assign gives u a place on each of its networks, if it has none.
func (k *Keeper) assign(u *unit) error {
	if slices.EqualFunc(u.now.At, u.want.Networks, func(a workload.Address, b workload.Attachment) bool {
		subnet, made := k.subnets[a.Network] // it may be another one by now
		return a.Network == b.Network && made && subnet.Contains(a.Addr)
	}) {
		return nil
	}
	used, all := k.used(), k.networks()
	var at []workload.Address
	for _, a := range u.want.Networks {
		i := slices.IndexFunc(all, func(n workload.Network) bool { return n.Name == a.Network })
		if err := k.link(all[i]); err != nil {
			return err
		}
		addr, err := workload.Free(k.subnets[a.Network].Prefix, used)
		if err != nil {
			return fmt.Errorf("network %s: %w", a.Network, err)
		}
		at = append(at, workload.Address{Network: a.Network, Addr: addr})
	}
	u.now.At = at
	return nil
}

// front is where an instance is called from outside: on a network that its answers can
// leave, if it is on one.
func (k *Keeper) front(i workload.Instance) (addr netip.Addr) {
	for _, a := range i.At {
		if !k.subnets[a.Network].Internal {
			return a.Addr
		}
		if !addr.IsValid() {
			addr = a.Addr
		}
	}
	return addr
}

// places are addresses for people.
func places(at []workload.Address) string {
	var b strings.Builder
	for _, a := range at {
		fmt.Fprintf(&b, ", %s on %s", a.Addr, a.Network)
	}
	return b.String()
}

// view is what the instance i of u sees. A name that it knows by two networks has its
// address on the first of them; its own is its own.
func (k *Keeper) view(u *unit, i workload.Instance) workload.View {
	v := workload.View{Outside: k.outside(i)}
	known := make(map[string]bool) // names of one container, each behind its ID
	for n, a := range i.At {
		if n == 0 && k.Names != nil {
			v.Resolver = k.subnets[a.Network].Gateway()
		}
		for _, id := range k.ids {
			addr, called := k.units[id].on(a.Network)
			if id == u.want.ID {
				addr, called = a.Addr, u.want.Called(a.Network)
			}
			called = slices.DeleteFunc(called, func(name string) bool { return known[id+" "+name] })
			if len(called) == 0 {
				continue
			}
			for _, name := range called {
				known[id+" "+name] = true
			}
			if own := strings.ToLower(u.want.Hostname); id == u.want.ID && slices.Contains(called, own) {
				// What comes first is what it takes for its own name.
				called = append([]string{own}, slices.DeleteFunc(called, func(name string) bool { return name == own })...)
			}
			v.Peers = append(v.Peers, workload.Peer{Addr: addr, Names: called})
		}
	}
	return v
}

// outside says whether one of an instance's networks leads outside.
func (k *Keeper) outside(i workload.Instance) bool {
	return slices.ContainsFunc(i.At, func(a workload.Address) bool { return !k.subnets[a.Network].Internal })
}

// serving is the instance of u that others are led to.
func (u *unit) serving() workload.Instance {
	if u.Old == Serving {
		return u.old.Instance
	}
	return u.now
}

// on is where u is on a network, and what it is called there; nothing if it is not.
func (u *unit) on(network string) (netip.Addr, []string) {
	for _, a := range u.serving().At {
		if a.Network == network {
			return a.Addr, u.want.Called(network)
		}
	}
	return netip.Addr{}, nil
}

// table is what the node's name server is to know.
func (k *Keeper) table() nameserver.Table {
	t := nameserver.Table{Clients: make(map[netip.Addr]nameserver.Client)}
	for _, n := range k.networks() {
		subnet, ok := k.subnets[n.Name]
		if !ok {
			continue
		}
		one := nameserver.Network{Name: n.Name, Device: subnet.Device, Prefix: subnet.Prefix, Gateway: subnet.Gateway(), Names: make(map[string][]netip.Addr)}
		for _, id := range k.ids {
			u := k.units[id]
			addr, called := u.on(n.Name)
			for _, name := range called {
				one.Names[name] = append(one.Names[name], addr)
			}
		}
		t.Networks = append(t.Networks, one)
	}
	for _, u := range k.units {
		k.clients(t.Clients, u, u.now)
		if u.old != nil {
			k.clients(t.Clients, u, u.old.Instance)
		}
	}
	return t
}

// clients puts in how the name server has to treat the instance i of u.
func (k *Keeper) clients(all map[netip.Addr]nameserver.Client, u *unit, i workload.Instance) {
	c := nameserver.Client{Name: u.want.ID, Outside: k.outside(i), Servers: u.want.DNS}
	for _, a := range i.At {
		c.Networks = append(c.Networks, a.Network)
	}
	for _, a := range i.At {
		all[a.Addr] = c
	}
}
