package workload

import (
	"cmp"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"kogge.example/agent/workload/bridge"
	"kogge.example/agent/workload/names"
)

// networks are all that containers are to be on, by name.
func (k *Keeper) networks() []bridge.Network {
	all := make(map[string]bridge.Network)
	for _, u := range k.units {
		for _, a := range u.want.Networks {
			internal := a.Internal && !a.External
			all[a.Network] = bridge.Network{Name: a.Network, Internal: internal || all[a.Network].Internal}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b bridge.Network) int { return cmp.Compare(a.Name, b.Name) })
}

// link makes a network, if it is not there.
func (k *Keeper) link(n bridge.Network) error {
	if _, ok := k.subnets[n.Name]; ok {
		return nil
	}
	made, err := k.Network.Make([]bridge.Network{n})
	if err != nil {
		return err
	}
	k.subnets[n.Name], k.publish = made[n.Name], true
	return nil
}

// locate makes the networks and gives every container its places there: those that it
// had, or free ones. One that gets none says so when it is to start.
func (k *Keeper) locate(found []Found) {
	k.subnets = make(map[string]bridge.Subnet)
	for _, n := range k.networks() {
		if err := k.link(n); err != nil {
			log.Printf("workloads: %v", err)
		}
	}
	for _, u := range k.units {
		u.now.At = nil
	}
	for _, f := range found {
		if u := k.units[f.ID]; u != nil && u.now.Name == f.Name && k.fits(u.want, f.At) {
			u.now.At, u.alive = f.At, f.Task == Alive
		}
	}
	for _, id := range k.ids {
		if err := k.place(k.units[id]); err != nil {
			log.Printf("container %s: %v", id, err)
		}
	}
}

// fits says whether c can have these places, and nobody else has them.
func (k *Keeper) fits(c Container, at []bridge.Address) bool {
	used := k.used()
	return slices.EqualFunc(at, c.Networks, func(a bridge.Address, b Attachment) bool {
		return a.Network == b.Network && !used[a.Addr] && k.subnets[a.Network].Contains(a.Addr)
	})
}

// used are the addresses that somebody has.
func (k *Keeper) used() map[netip.Addr]bool {
	used := make(map[netip.Addr]bool)
	take := func(i Instance) {
		for _, a := range i.At {
			used[a.Addr] = true
		}
	}
	for _, u := range k.units {
		take(u.now)
	}
	for _, i := range k.leaving {
		take(i)
	}
	return used
}

// place gives u a place on each of its networks, if it has none.
func (k *Keeper) place(u *unit) error {
	if len(u.now.At) == len(u.want.Networks) {
		return nil
	}
	used, all := k.used(), k.networks()
	var at []bridge.Address
	for _, a := range u.want.Networks {
		i := slices.IndexFunc(all, func(n bridge.Network) bool { return n.Name == a.Network })
		if err := k.link(all[i]); err != nil {
			return err
		}
		addr, err := bridge.Free(k.subnets[a.Network].Prefix, used)
		if err != nil {
			return fmt.Errorf("network %s: %w", a.Network, err)
		}
		at = append(at, bridge.Address{Network: a.Network, Addr: addr})
	}
	u.now.At = at
	return nil
}

// front is where an instance is called from outside: on a network that its answers can
// leave, if it is on one.
func (k *Keeper) front(i Instance) (addr netip.Addr) {
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
func places(at []bridge.Address) string {
	var b strings.Builder
	for _, a := range at {
		fmt.Fprintf(&b, ", %s on %s", a.Addr, a.Network)
	}
	return b.String()
}

// View is what an instance sees of the networks that it is on.
type View struct {
	Peers []Peer
	// Resolver is the node's name server there; invalid: there is none.
	Resolver netip.Addr
	// Outside says that one of them leads outside.
	Outside bool
}

// Peer is one or several names for an address.
type Peer struct {
	Addr  netip.Addr
	Names []string
}

// view is what u sees. A name that it knows by two networks has its address on the
// first of them.
func (k *Keeper) view(u *unit) View {
	v := View{Outside: k.outside(u)}
	known := make(map[string]bool) // names of one container, each behind its ID
	for i, a := range u.now.At {
		if i == 0 && k.Names != nil {
			v.Resolver = k.subnets[a.Network].Gateway()
		}
		for _, id := range k.ids {
			addr, called := k.units[id].on(a.Network)
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
			v.Peers = append(v.Peers, Peer{addr, called})
		}
	}
	return v
}

// outside says whether one of u's networks leads outside.
func (k *Keeper) outside(u *unit) bool {
	return slices.ContainsFunc(u.now.At, func(a bridge.Address) bool { return !k.subnets[a.Network].Internal })
}

// on is where u is on a network, and what it is called there; nothing if it is not.
func (u *unit) on(network string) (netip.Addr, []string) {
	for _, a := range u.now.At {
		if a.Network == network {
			return a.Addr, u.want.called(network)
		}
	}
	return netip.Addr{}, nil
}

// called are c's names on a network: its service's, its host name, its aliases.
func (c Container) called(network string) []string {
	_, service := Split(c.ID)
	all := []string{service}
	add := func(name string) {
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	add(strings.ToLower(c.Hostname))
	for _, a := range c.Networks {
		if a.Network == network {
			for _, alias := range a.Aliases {
				add(alias)
			}
		}
	}
	return all
}

// table is what the node's name server is to know.
func (k *Keeper) table() names.Table {
	t := names.Table{Clients: make(map[netip.Addr]names.Client)}
	for _, n := range k.networks() {
		subnet, ok := k.subnets[n.Name]
		if !ok {
			continue
		}
		one := names.Network{Name: n.Name, Device: subnet.Device, Prefix: subnet.Prefix, Gateway: subnet.Gateway(), Names: make(map[string][]netip.Addr)}
		for _, id := range k.ids {
			u := k.units[id]
			addr, called := u.on(n.Name)
			for _, name := range called {
				one.Names[name] = append(one.Names[name], addr)
			}
			if len(called) > 0 {
				t.Clients[addr] = k.client(u)
			}
		}
		t.Networks = append(t.Networks, one)
	}
	return t
}

// client is u as the name server has to treat it.
func (k *Keeper) client(u *unit) names.Client {
	c := names.Client{Outside: k.outside(u), Servers: u.want.DNS}
	for _, a := range u.now.At {
		c.Networks = append(c.Networks, a.Network)
	}
	return c
}
