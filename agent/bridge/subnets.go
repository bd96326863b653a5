package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/agent/workload"
)

// pools are what the networks' subnets are taken from, in this order, where node.yaml
// names none. They are private (RFC 1918) and rarely handed out.
var pools = []netip.Prefix{
	netip.MustParsePrefix("10.88.0.0/16"),
	netip.MustParsePrefix("172.29.0.0/16"),
	netip.MustParsePrefix("192.168.128.0/17"),
	netip.MustParsePrefix("10.188.0.0/16"),
}

// subnetBits is the size of a subnet: 253 containers.
const subnetBits = 24

// ErrNoSubnet means that the node has addresses in or routes into all that there is for
// containers.
var ErrNoSubnet = errors.New("all subnets for containers are in use on this node's network: say in node.yaml where they may be (containers.pool)")

// ground is what subnets are chosen on: where they may lie, and what is there by now.
type ground struct {
	pools []netip.Prefix
	given bool // by node.yaml
	taken []obstacle
	ours  []netip.Prefix // subnets of networks of ours
	last  subnets        // which networks had
}

// obstacle is a network that the node has an address in or a route to, or one host. A
// subnet of containers that overlaps with it would keep the node from reaching it.
type obstacle struct {
	netip.Prefix
	what string // it is, for people
	own  bool   // an address of the node's
}

// patience is for how long something has to be in the way of a network before that moves.
// Leases, routes and servers come by the word of others, and may be gone at once.
const patience = 30 * time.Second

// conflict is why a network cannot stay in its subnet.
type conflict struct {
	why string // for people; "": there is none
	// sure is one that no time makes better: an address of the node's, which a container
	// could have as well, or what node.yaml says.
	sure bool
}

// moves says whether a network is to move for c, which began at since.
func (c conflict) moves(since, now time.Time) bool {
	return c.why != "" && (c.sure || now.Sub(since) >= patience)
}

// due says whether a network is to move for c by now. Whoever calls it has the lock.
func (b *Bridges) due(network string, c conflict) bool {
	if c.why == "" {
		delete(b.since, network)
		return false
	}
	now := b.now()
	if _, known := b.since[network]; !known {
		b.since[network] = now
	}
	return c.moves(b.since[network], now)
}

// everywhere is how many bits a route has at least that says where a network is: shorter
// ones, as 0.0.0.0/0, or 0.0.0.0/1 of a tunnel, are for all that is nowhere else.
const everywhere = 8

// hinders says whether a subnet in the pool cannot overlap with o. What is wider than a
// pool that node.yaml gives does not count: within it, the pool is said to be free.
func (g ground) hinders(pool netip.Prefix, o obstacle) bool {
	if g.given {
		return o.Bits() >= pool.Bits()
	}
	return o.Bits() >= everywhere
}

// choose returns a subnet that is free: the one that the network had last, or else the
// first that none had, or else the first.
func (g ground) choose(network string) (netip.Prefix, error) {
	free := func(s netip.Prefix) bool { return !slices.ContainsFunc(g.ours, s.Overlaps) && g.conflict(s).why == "" }
	if had := g.last[network]; g.possible(had) && free(had) {
		return had, nil
	}
	var first netip.Prefix
	for _, pool := range g.pools {
		for s := netip.PrefixFrom(pool.Masked().Addr(), subnetBits); pool.Contains(s.Addr()); s = after(s) {
			if !free(s) {
				continue
			}
			if !g.last.has(s) {
				return s, nil
			}
			if !first.IsValid() {
				first = s
			}
		}
	}
	if !first.IsValid() {
		return netip.Prefix{}, ErrNoSubnet
	}
	return first, nil
}

// possible says whether s is one of those that choose goes through.
func (g ground) possible(s netip.Prefix) bool {
	return s.IsValid() && s.Bits() == subnetBits && s == s.Masked() &&
		slices.ContainsFunc(g.pools, func(p netip.Prefix) bool { return p.Bits() <= s.Bits() && p.Contains(s.Addr()) })
}

// conflict is what keeps s from being a subnet of containers (any longer).
func (g ground) conflict(s netip.Prefix) (c conflict) {
	i := slices.IndexFunc(g.pools, func(p netip.Prefix) bool { return p.Contains(s.Addr()) })
	if i < 0 && g.given {
		return conflict{why: "is not in containers.pool", sure: true}
	}
	pool := s
	if i >= 0 {
		pool = g.pools[i]
	}
	for _, o := range g.taken {
		if !s.Overlaps(o.Prefix) || !g.hinders(pool, o) {
			continue
		}
		if c.why == "" {
			c.why = fmt.Sprintf("overlaps with %s, %s", o.Prefix, o.what)
		}
		c.sure = c.sure || o.own
	}
	return c
}

// after is the subnet behind s; not a valid one behind the last.
func after(s netip.Prefix) netip.Prefix {
	a := s.Addr().As4()
	for i := 2; i >= 0; i-- {
		if a[i]++; a[i] != 0 {
			return netip.PrefixFrom(netip.AddrFrom4(a), s.Bits())
		}
	}
	return netip.Prefix{}
}

// ground asks the kernel.
func (b *Bridges) ground() (ground, error) {
	g := ground{pools: pools}
	if len(b.Pool) > 0 {
		g.pools, g.given = b.Pool, true
	}
	links, err := list()
	if err != nil {
		return g, err
	}
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	add := func(link int, own bool, all ...netip.Prefix) {
		for _, p := range all {
			switch name := names[link]; {
			case !p.IsValid():
			case strings.HasPrefix(name, Prefix):
				g.ours = append(g.ours, p.Masked())
			default:
				g.taken = append(g.taken, obstacle{p.Masked(), "where link " + name + " leads", own})
			}
		}
	}
	host := func(ip []byte) netip.Prefix {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); !ok || !a.Is4() {
			return netip.Prefix{}
		}
		return netip.PrefixFrom(a, 32)
	}
	all, err := routes()
	if err != nil {
		return g, err
	}
	for _, r := range all {
		to, _ := prefix(r.Dst)
		if refuses(r) {
			if to.IsValid() {
				g.taken = append(g.taken, obstacle{to.Masked(), "which a route of the node refuses", false})
			}
			continue
		}
		add(r.LinkIndex, false, to, host(r.Gw))
		for _, hop := range r.MultiPath {
			add(hop.LinkIndex, false, to, host(hop.Gw))
		}
	}
	// A link that is down has an address and no route.
	addrs, err := addresses()
	if err != nil {
		return g, err
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			add(a.LinkIndex, false, p)
			add(a.LinkIndex, true, netip.PrefixFrom(p.Addr(), 32))
		}
	}
	if b.Asked != nil {
		for _, a := range b.Asked() {
			if a = a.Unmap(); a.Is4() && !a.IsLoopback() {
				g.taken = append(g.taken, obstacle{netip.PrefixFrom(a, 32), "a server that the node asks", false})
			}
		}
	}
	return g, nil
}

// addresses are all IPv4 addresses of the node.
func addresses() ([]netlink.Addr, error) {
	for try := 0; ; try++ {
		all, err := netlink.AddrList(nil, netlink.FAMILY_V4)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 100 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		return all, nil
	}
}

// settle gives m, whose link is there, a subnet that nothing is in the way of. One that it
// has stays if it can, until that is due (see patience), and where there is no other one.
func (b *Bridges) settle(m *made) error {
	g, err := b.ground()
	if err != nil {
		return err
	}
	had := m.Prefix
	if had.IsValid() && !b.due(m.Name, g.conflict(had)) {
		return nil
	}
	g.last = b.last
	next, err := g.choose(m.Name)
	if err != nil {
		if had.IsValid() {
			return nil // Follow says so
		}
		return err
	}
	addr := func(p netip.Prefix) *netlink.Addr {
		return &netlink.Addr{IPNet: ipNet(workload.Subnet{Prefix: p}.Gateway(), p.Bits())}
	}
	if had.IsValid() {
		if err := netlink.AddrDel(m.link, addr(had)); err != nil {
			return fmt.Errorf("bridge %s: remove address %s: %w", m.Device, addr(had), err)
		}
		b.left = append(b.left, had)
	}
	delete(b.since, m.Name)
	m.Prefix = next
	if err := netlink.AddrAdd(m.link, addr(next)); err != nil {
		return fmt.Errorf("bridge %s: add address %s: %w", m.Device, addr(next), err)
	}
	return nil
}

// moving are the networks whose subnets something has been in the way of for long enough,
// by name, and what that is. For those that cannot go elsewhere it is an error.
func (b *Bridges) moving() (all map[string]string, err error) {
	g, err := b.ground()
	if err != nil {
		return nil, err
	}
	_, full := g.choose("") // for any
	var stuck []error
	all = make(map[string]string)
	networks := b.subnets()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range networks {
		c := g.conflict(n.Prefix)
		due := b.due(n.Name, c)
		switch {
		case c.why == "":
		case full != nil:
			stuck = append(stuck, fmt.Errorf("network %s: %s %s: %w", n.Name, n.Prefix, c.why, full))
		case due:
			all[n.Name] = fmt.Sprintf("%s %s", n.Prefix, c.why)
		}
	}
	return all, errors.Join(stuck...)
}
