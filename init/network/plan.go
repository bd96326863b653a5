package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// Facts are what the kernel says about a link.
type Facts struct {
	Index   int
	Name    string
	MAC     string // as 52:54:00:12:34:56
	Carrier bool   // a cable with something at its other end
	Wired   bool   // Ethernet with hardware (or a virtual machine's) behind it
	ARP     bool   // an Ethernet, where two machines may have one address
	MTU     int    // bytes, as the link had it when it was first seen
	Rank    int    // among the links that are ours, as they came: 0 is preferred
}

// ethernet says whether the link has an Ethernet address, without which nobody speaks DHCP.
func (f Facts) ethernet() bool { return len(f.MAC) == len("52:54:00:12:34:56") }

// foreign says whether whoever made the link gives it its addresses: the entry has none for
// it. Addresses that are not ours, and its MTU, are left alone then.
func foreign(e nodeconfig.Interface, f Facts) bool {
	return len(e.Addresses) == 0 && !(e.DHCP && f.ethernet())
}

// Route is a route that this package makes.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // zero: on the link itself
	Metric int
	// OnLink reaches Via although no address of the link has it in its network.
	OnLink bool
}

// State is how a link is, or is to be. As a wish, MTU 0 leaves the MTU as it is.
type State struct {
	Up        bool
	MTU       int
	IPv6      nodeconfig.IPv6
	PassOver  bool // routes do not count while there is no carrier
	Addresses []netip.Prefix
	// Deprecated is one of Addresses from which nothing new is to be sent. As a fact, one
	// of them is enough.
	Deprecated netip.Prefix
	// Made are addresses that the kernel made up. As a wish, those that it gave up and that
	// are to come back.
	Made    []Made
	Taken   []netip.Prefix // IPv6 addresses that the kernel found to be somebody else's; no wish
	Routes  []Route
	Problem string // what of the wish cannot be; no fact
}

// Made is an IPv6 address that the kernel made up: the link-local one, or one in a network
// that a router advertises.
type Made struct {
	Prefix           netip.Prefix
	Valid, Preferred time.Time // until when; zero: for ever
	Tentative        bool      // the kernel still asks whether somebody has it
	Temporaries      bool      // the kernel makes up temporary addresses beside it
}

// mostMade bounds what a hostile router can have us keep beside the link-local address; the
// kernel makes up no more.
const mostMade = 16

// Recall says which addresses the kernel made up and gave up, since somebody else says that
// they are his, and that are good still. Those of before are taken over; more is a new one,
// or nil. How long each is good for is what was said last.
func Recall(before []Made, more *Made, actual State, now time.Time) []Made {
	all := slices.Clone(before)
	fresh := slices.Clone(actual.Made)
	if more != nil {
		fresh = append(fresh, *more)
		if len(all) < mostMade && !slices.ContainsFunc(all, more.same) {
			all = append(all, *more)
		}
	}
	for _, p := range actual.Taken {
		if made := (Made{Prefix: p}); p.Addr().IsLinkLocalUnicast() && !slices.ContainsFunc(all, made.same) {
			all = append(all, made)
		}
	}
	for i, made := range all {
		if there := slices.IndexFunc(fresh, made.same); there >= 0 {
			all[i] = fresh[there]
		}
	}
	return slices.DeleteFunc(all, func(made Made) bool { return !made.Valid.IsZero() && !now.Before(made.Valid) })
}

func (m Made) same(o Made) bool { return m.Prefix == o.Prefix }

// Op is one change of a link. Exactly one field is set.
type Op struct {
	IPv6         nodeconfig.IPv6
	PassOver     bool
	MTU          int
	Up           bool
	DelRoute     *Route
	DelAddress   netip.Prefix
	AddAddress   netip.Prefix
	Restore      *Made
	Deprecate    netip.Prefix
	ReplaceRoute *Route
	Down         bool
}

// Match returns the entry that counts for a link: by MAC address, by name, by
// pattern, "wired", in this order. The loopback and the containers' links have none.
func Match(entries []nodeconfig.Interface, f Facts) (nodeconfig.Interface, bool) {
	best, rank := nodeconfig.Interface{}, 0
	for _, e := range entries {
		if r := rankOf(e, f); r > rank {
			best, rank = e, r
		}
	}
	return best, rank > 0
}

// rankOf says how exactly an entry means a link; 0: not at all.
func rankOf(e nodeconfig.Interface, f Facts) int {
	pattern, _ := path.Match(e.Match, f.Name) // nodeconfig refused bad patterns
	switch {
	case f.Name == "lo" || nodeconfig.OfContainers(f.Name):
		return 0
	case e.Match == f.MAC:
		return 4
	case e.Match == f.Name:
		return 3
	case e.Match == nodeconfig.Wired:
		return btoi(f.Wired)
	}
	return 2 * btoi(pattern)
}

// Unmatched says which entries no link matches, and which wired links no entry is about: one
// may be meant by the other. It is "" if there is no such entry. Where no link is left over, the
// entry may be about one that a container makes later, or that other boards have: it is wrong
// only if there is no link for any entry, or if the entry had a wired one: that has failed. had
// are the words of entries that had.
func Unmatched(entries []nodeconfig.Interface, links []Facts, had map[string]bool) (text string, wrong bool) {
	var without, spare []string
	for _, e := range entries {
		if !slices.ContainsFunc(links, func(f Facts) bool { return rankOf(e, f) > 0 }) {
			without = append(without, strconv.Quote(e.Match))
			wrong = wrong || had[e.Match]
		}
	}
	if len(without) == 0 {
		return "", false
	}
	for _, f := range links {
		if _, ok := Match(entries, f); !ok && f.Wired {
			spare = append(spare, fmt.Sprintf("%s (%s)", f.Name, f.MAC))
		}
	}
	text = fmt.Sprintf("no link matches %s of node.yaml", strings.Join(without, ", "))
	if len(spare) > 0 {
		text += ": no entry is about " + strings.Join(spare, ", ")
	}
	return text, wrong || len(spare) > 0 || len(without) == len(entries)
}

// Leases are what the DHCP servers of a link gave it, nil for none.
type Leases struct{ V4, V6 *control.Lease }

// ipv6MTU is the least that a link may have for IPv6 (RFC 8200, section 5); with less the kernel
// ends IPv6 there.
const ipv6MTU = 1280

// Want says how a link is to be at a time, given its entry and its leases. The addresses of
// without are not to be used, nor routes that rest on them. Apart has the metrics of routes.
func Want(e nodeconfig.Interface, f Facts, leases Leases, now time.Time, without ...netip.Addr) State {
	want := State{Up: true, MTU: cmp.Or(e.MTU, f.MTU), IPv6: cmp.Or(e.IPv6, nodeconfig.IPv6Auto), PassOver: true}
	want.Addresses = slices.Clone(e.Addresses)
	lease := leases.V4
	if !e.DHCP {
		lease = nil
	}
	leased := func(p netip.Prefix) bool {
		ours := func(o netip.Prefix) bool { return o.Addr() == p.Addr() }
		if !p.IsValid() || slices.ContainsFunc(want.Addresses, ours) {
			return false
		}
		want.Addresses = append(want.Addresses, p)
		return true
	}
	if lease != nil {
		leased(lease.Address)
	}
	if l := leases.V6; l != nil && want.IPv6 == nodeconfig.IPv6Auto && leased(l.Address) && !now.Before(l.Since.Add(l.Preferred)) {
		want.Deprecated = l.Address
	}
	all := slices.Clone(want.Addresses)
	want.Addresses = slices.DeleteFunc(want.Addresses, func(p netip.Prefix) bool { return slices.Contains(without, p.Addr()) })
	// sender says whether the link has an address to send by the route from. Where none is
	// configured, others are: those of the kernel, or of another link.
	sender := func(r Route) bool {
		same := func(p netip.Prefix) bool { return p.Addr().Is4() == r.To.Addr().Is4() }
		return !slices.ContainsFunc(all, same) || slices.ContainsFunc(want.Addresses, same)
	}
	add := func(r Route) {
		if sender(r) && !slices.ContainsFunc(want.Routes, func(o Route) bool { return o.asked() == r.asked() }) {
			want.Routes = append(want.Routes, r)
		}
	}
	reachable := func(via netip.Addr) bool {
		return via.IsLinkLocalUnicast() && via.Is6() ||
			slices.ContainsFunc(want.Addresses, func(p netip.Prefix) bool { return p.Contains(via) })
	}
	for _, via := range e.Gateway {
		add(Route{To: everything(via), Via: via, Metric: metric(f), OnLink: !reachable(via)})
	}
	for _, r := range e.Routes {
		add(Route{To: r.To, Via: r.Via, Metric: cmp.Or(int(r.Metric), metric(f)), OnLink: r.Via.IsValid() && !reachable(r.Via)})
	}
	if lease != nil {
		if e.MTU == 0 && lease.MTU > 0 {
			want.MTU = lease.MTU
			if want.IPv6 != nodeconfig.IPv6Off && lease.MTU < ipv6MTU {
				want.MTU = ipv6MTU
				want.Problem = fmt.Sprintf("the DHCP server asks for an MTU of %d and IPv6 needs %d, which is used: "+
					`say "ipv6: off" or "mtu" in this link's entry of node.yaml`, lease.MTU, ipv6MTU)
			}
		}
		for _, r := range lease.Routes {
			add(Route{To: r.To, Via: r.Via, Metric: metric(f), OnLink: r.Via.IsValid() && !reachable(r.Via)})
		}
	}
	return want
}

// everything is the network of all addresses of a's family.
func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Diff lists what brings a link from its actual to its wanted state, in an order
// that works: IPv6 before the link is up (else it autoconfigures first), what
// leaves before what comes, addresses before the routes that need them.
func Diff(want, actual State) []Op {
	var ops []Op
	if want.IPv6 != actual.IPv6 {
		ops = append(ops, Op{IPv6: want.IPv6})
	}
	if want.PassOver && !actual.PassOver {
		ops = append(ops, Op{PassOver: true})
	}
	if want.MTU != 0 && want.MTU != actual.MTU {
		ops = append(ops, Op{MTU: want.MTU})
	}
	if want.Up && !actual.Up {
		ops = append(ops, Op{Up: true})
	}
	for _, r := range actual.Routes {
		if !slices.ContainsFunc(want.Routes, func(w Route) bool { return w.To == r.To && w.Metric == r.Metric }) {
			ops = append(ops, Op{DelRoute: &r})
		}
	}
	// One that is taken leaves, as the kernel would not use it again by itself. The link-local
	// one waits for that until it is given back: the kernel makes it up once.
	for _, a := range actual.Taken {
		if !a.Addr().IsLinkLocalUnicast() || slices.ContainsFunc(want.Made, Made{Prefix: a}.same) || slices.Contains(want.Addresses, a) {
			ops = append(ops, Op{DelAddress: a})
		}
	}
	// An address that only changed its prefix length leaves first, or the kernel
	// would keep both.
	for _, a := range actual.Addresses {
		if !slices.Contains(want.Addresses, a) {
			ops = append(ops, Op{DelAddress: a})
		}
	}
	for _, a := range want.Addresses {
		if !slices.Contains(actual.Addresses, a) {
			ops = append(ops, Op{AddAddress: a})
		}
	}
	for _, m := range want.Made {
		if !slices.ContainsFunc(actual.Made, m.same) {
			ops = append(ops, Op{Restore: &m})
		}
	}
	if want.Deprecated.IsValid() && want.Deprecated != actual.Deprecated {
		ops = append(ops, Op{Deprecate: want.Deprecated})
	} else if actual.Deprecated.IsValid() && !want.Deprecated.IsValid() && slices.Contains(want.Addresses, actual.Deprecated) {
		ops = append(ops, Op{AddAddress: actual.Deprecated})
	}
	for _, r := range ordered(want.Routes) {
		// The kernel does not tell OnLink for every route: it is no difference.
		same := func(a Route) bool { return a.To == r.To && a.Via == r.Via && a.Metric == r.Metric }
		if !slices.ContainsFunc(actual.Routes, same) {
			ops = append(ops, Op{ReplaceRoute: &r})
		}
	}
	if actual.Up && !want.Up {
		ops = append(ops, Op{Down: true})
	}
	return ops
}

// ordered puts routes on the link itself before those that go through a router:
// the router may be behind one of them.
func ordered(routes []Route) []Route {
	routes = slices.Clone(routes)
	slices.SortStableFunc(routes, func(a, b Route) int {
		return cmp.Compare(btoi(a.Via.IsValid()), btoi(b.Via.IsValid()))
	})
	return routes
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// String says what the operation does, as a log line has it.
func (op Op) String() string {
	switch {
	case op.IPv6 != "":
		return "set ipv6 " + string(op.IPv6)
	case op.PassOver:
		return "pass over routes while there is no carrier"
	case op.MTU != 0:
		return fmt.Sprintf("set mtu %d", op.MTU)
	case op.Up:
		return "set up"
	case op.DelRoute != nil:
		return "remove route " + op.DelRoute.String()
	case op.DelAddress.IsValid():
		return "remove address " + op.DelAddress.String()
	case op.AddAddress.IsValid():
		return "add address " + op.AddAddress.String()
	case op.Restore != nil:
		return "give back address " + op.Restore.Prefix.String()
	case op.Deprecate.IsValid():
		return "send no more from address " + op.Deprecate.String()
	case op.ReplaceRoute != nil:
		return "set route " + op.ReplaceRoute.String()
	case op.Down:
		return "set down"
	}
	return "nothing"
}

// String shows a route the way ip(8) does.
func (r Route) String() string {
	var b strings.Builder
	b.WriteString(r.To.String())
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	fmt.Fprintf(&b, " metric %d", r.Metric)
	if r.OnLink {
		b.WriteString(" onlink")
	}
	return b.String()
}
