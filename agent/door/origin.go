package door

import (
	"cmp"
	"net/netip"
)

// origin is where a connection comes from. Networks take turns, and within each the smaller
// ones that it is made of: who has a wide one to himself has one turn of it, however many
// addresses he calls from. An address from which a caller of the fleet came is a network of
// its own: it waits for none of its neighbours.
type origin struct {
	host netip.Addr
	net  network   // of which [maxOfAddress] is: the host, or its IPv6 link
	all  []network // that it is in, from the widest to the host
}

// network is one of them, with the link of what is local to it.
type network struct {
	netip.Prefix
	link string
}

// The sizes of networks, in bits of their addresses, the host's last: of IPv6 what a provider
// has and what it gives to customers, large and small, and then one link, of which a single
// machine may have every address.
var (
	sizes4 = []int{16, 24, 32}
	sizes6 = []int{32, 40, 48, 56, 64, 128}
)

// originOf is that of an address; familiar says that a caller of the fleet came from there.
func originOf(a netip.Addr, familiar bool) origin {
	a = a.Unmap()
	o := origin{host: a}
	sizes := sizes4
	if a.Is6() {
		sizes = sizes6
	}
	if familiar {
		sizes = sizes[len(sizes)-1:]
	}
	for _, bits := range sizes {
		p, _ := a.WithZone("").Prefix(bits) // the zero one is of no address
		o.all = append(o.all, network{p, a.Zone()})
	}
	o.net = o.all[len(o.all)-1]
	if a.Is6() && !familiar {
		o.net = o.all[len(o.all)-2]
	}
	return o
}

// crowd are those who wait, or are served, by network.
type crowd map[network]*share

// share is what a network has of it. It is forgotten with the last one.
type share struct {
	count int // of places or turns
	last  int // number of its last turn; 0: none, as long as one of them is there
}

// add takes one in. What it returns are the shares of its networks, while it is there.
func (c crowd) add(o origin) []*share {
	all := make([]*share, 0, len(o.all))
	for _, n := range o.all {
		s := c[n]
		if s == nil {
			s = &share{}
			c[n] = s
		}
		s.count++
		all = append(all, s)
	}
	return all
}

// remove takes one out.
func (c crowd) remove(o origin) {
	for _, n := range o.all {
		s := c[n]
		if s.count--; s.count == 0 {
			delete(c, n)
		}
	}
}

// turn notes that turn number n was one's, which is out of it already.
func (c crowd) turn(o origin, n int) {
	for _, net := range o.all {
		if s := c[net]; s != nil {
			s.last = n
		}
	}
}

// earlier says whether a had its turn longer ago than b: the widest network, then the next.
func earlier(a, b []*share) bool {
	return compare(a, b, func(s *share) int { return s.last }) < 0
}

// larger says whether a has more than b: the widest network, then the next.
func larger(a, b []*share) bool {
	return compare(a, b, func(s *share) int { return s.count }) > 0
}

func compare(a, b []*share, of func(*share) int) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		if c := cmp.Compare(of(a[i]), of(b[i])); c != 0 {
			return c
		}
	}
	return 0
}
