package door

import "net/netip"

// origin is where a connection comes from. Machines share their turns with their network,
// which in IPv6 a single machine may have every address of; within it each has its own. An
// address from which a caller of the fleet came is a network of its own: it waits for none
// of its neighbours.
type origin struct {
	net, host netip.Addr // net is the first address of the network; both have the link, where they are local to it
}

// originOf is that of an address; familiar says that a caller of the fleet came from there.
func originOf(a netip.Addr, familiar bool) origin {
	a = a.Unmap()
	o := origin{net: a, host: a}
	if a.Is6() && !familiar {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			o.net = p.Addr().WithZone(a.Zone())
		}
	}
	return o
}

// all are those whose turn it is when it is the origin's.
func (o origin) all() []netip.Addr {
	if o.net == o.host {
		return []netip.Addr{o.host}
	}
	return []netip.Addr{o.net, o.host}
}

// crowd counts those that wait, or are served, by network and by host.
type crowd map[netip.Addr]int

func (c crowd) add(o origin, n int) {
	for _, a := range o.all() {
		if c[a] += n; c[a] == 0 {
			delete(c, a)
		}
	}
}

// served says when networks and hosts had their last turn, by the number of the turn.
type served map[netip.Addr]int

// before says whether o had its turn longer ago than other: its network, then its host.
func (s served) before(o, other origin) bool {
	if s[o.net] != s[other.net] {
		return s[o.net] < s[other.net]
	}
	return s[o.host] < s[other.host]
}

// turn returns what is remembered after turn number count was o's. Who does not wait is
// forgotten, and comes before all who do the next time.
func (s served) turn(o origin, count int, waits crowd) served {
	now := served{}
	for a := range waits {
		now[a] = s[a]
	}
	for _, a := range o.all() {
		if _, waits := now[a]; waits {
			now[a] = count
		}
	}
	return now
}
