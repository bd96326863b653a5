// Package network brings the node's wired links up and keeps them so.
//
// In come the settings of node.yaml and what the kernel tells about links; out go
// addresses, routes and MTUs in the kernel, resolv.conf, hosts and hostname in
// /run/kogge/etc, and [control.Network] in /run/kogge for the console, the clock and the
// agent.
//
// A link that its entry gives no address has those of whoever made it, such as a container
// with a tunnel: they are left alone.
//
// A link that an earlier run of the same boot set up, and that no entry of the
// settings matches any more, is put back as it was found: down and without addresses.
// Of a link of somebody else's only what we gave it goes.
// The package leaves alone every other link that no entry matches (containers' links
// and bridges are the agent's), routes that others made, IP forwarding, and
// the kernel's host name, which PID 1 sets. It speaks DHCP itself, by [dhcp]; addresses and
// routes of IPv6 router advertisements are the kernel's work, and resolvers and search
// domains from them (RFC 8106) are taken over.
//
// An address is asked for before it is used, announced, and defended later. One that
// somebody else has is named in the link's problem and not used, a lease is declined; but
// both three times in a row at most, as it may be a stranger who says so. The kernel asks
// for the IPv6 addresses that it makes up. One that it gives up is claimed in the same way,
// the kernel's time being the first of the three.
//
// With several uplinks, what others ask by one is answered by the same. Two links that lead to
// different networks of the same addresses are named in each other's problem, once it is sure:
// what one link says of its addresses, and what it asks for those of another when a switch has
// had the time to pass it on, is heard by another that leads to the same network.
//
// A link without a carrier keeps what it has. The kernel passes over its routes, and its
// resolvers are asked last, until the cable is back. What routers said before goes once
// one has spoken and has not said it again, or none has for a minute.
package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/network/advert"
	"kogge.example/init/network/claim"
	"kogge.example/init/network/dhcp"
	"kogge.example/init/nodeconfig"
)

// Paths says where Run writes.
type Paths struct {
	Etc string // folder for resolv.conf, hosts and hostname
	Run string // folder for control.Network
}

// NodePaths are the paths on a node.
var NodePaths = Paths{Etc: control.RunDir + "/etc", Run: control.RunDir}

// readyAfter is how long a boot waits for a first address before it goes on, and for a link
// before it says that there is none. Tests are in a hurry.
var readyAfter = 10 * time.Second

// resync is how often the kernel's state is compared with the wanted one even if
// no message came: netlink may drop some.
const resync = time.Minute

// Run keeps the network as cfg says until ctx ends, and then leaves it as it is:
// containers go on serving while this service restarts. A lease that an earlier
// run of the same boot wrote to the status file is kept. Run tells the supervisor
// READY once there is an address, or after ten seconds. The error is about the
// machinery (no netlink, nowhere to write); a link without network is none.
func Run(ctx context.Context, cfg nodeconfig.Config, paths Paths) error {
	ctx, cancel := context.WithCancel(ctx)
	k, err := openKernel(ctx)
	if err != nil {
		cancel()
		return err
	}
	m := &manager{
		cfg: cfg, paths: paths, kernel: k,
		links: make(map[int]*link), one: make(map[pair]bool), had: make(map[string]bool), leases: make(chan leaseEvent), heard: make(chan claim.Heard, 16),
	}
	// The kernel's messages end with ctx; the clients are waited for.
	defer func() {
		cancel()
		for _, l := range m.links {
			l.stop()
		}
	}()
	if old, err := control.ReadNetwork(paths.Run); err == nil {
		m.before = old.Interfaces
		for _, i := range m.before {
			for _, l := range []*control.Lease{i.Lease, i.Lease6} {
				if l != nil {
					l.At(time.Now(), uptime())
				}
			}
		}
	}
	if err := k.loopbackUp(); err != nil {
		return err
	}
	if err := writeNames(paths.Etc, cfg.Hostname); err != nil {
		return err
	}
	return m.loop(ctx)
}

// manager is the state of the service. One goroutine owns it.
type manager struct {
	cfg       nodeconfig.Config
	paths     Paths
	kernel    *kernel
	links     map[int]*link // those that an entry matches, by index
	leases    chan leaseEvent
	heard     chan claim.Heard
	own       map[string]bool     // MAC addresses of this node's links
	one       map[pair]bool       // links that are known to lead to one network
	before    []control.Interface // from the status file of an earlier run
	problem   string              // of the rules between several uplinks, once logged
	ready     bool
	synced    time.Time        // when the last sync began
	late      bool             // the links that there are have had their time to show up
	entries   string           // what is wrong with the entries
	had       map[string]bool  // words of entries that had a wired link in this run
	unmatched string           // which of them no link matches, once logged
	told      string           // status, as the supervisor knows it
	last      *control.Network // as written; nil: not yet
}

// link is one link that the settings are about.
type link struct {
	facts   Facts
	entry   nodeconfig.Interface
	leases  Leases
	dhcp    *dhcp.Conversation // nil: none
	mode    dhcp.Mode          // of dhcp6
	dhcp6   *dhcp.Conversation // nil: none
	plugs   int                // how often it has come
	plugged time.Time          // when it has come last
	asked   int                // how many of the questions for twins have been due since
	inquiry inquiry            // which routers are there
	deaf    bool               // it listens to none, and nothing is left of what they said
	routers advert.Known       // what they have named
	metrics map[Route]int      // of routes that it may get, as asked for
	own     []netip.Prefix     // addresses that it has of us
	refused []Made             // addresses that the kernel made up and gave up
	problem string             // the last operation that did not work, once logged
	claims  map[netip.Addr]claim.Claim
	voice   *claim.Socket // nil: two machines cannot have one address here, or nobody can be heard
	v4, v6  declined
	twins   string // what is wrong with other links of the same addresses, once logged
	// overhears are addresses of other links that would be heard here if all were one network.
	overhears []netip.Addr
}

// leaseEvent says that link index now has this lease, or none.
type leaseEvent struct {
	index int
	v6    bool
	lease *control.Lease
}

func (l *link) stop() {
	l.dhcp.Stop()
	l.dhcp6.Stop()
	l.dhcp, l.dhcp6 = nil, nil
	if l.voice != nil {
		l.voice.Close()
		l.voice = nil
	}
}

// sync reads the links, brings each to its wanted state and writes what came of it.
func (m *manager) sync(ctx context.Context) error {
	m.synced = time.Now()
	v, err := m.kernel.look()
	if err != nil {
		return err
	}
	all := v.facts()
	flags, err := m.kernel.flags()
	if err != nil {
		return err
	}
	seen := make(map[int]bool)
	m.own = make(map[string]bool)
	for _, facts := range all {
		m.own[facts.MAC] = true
	}
	// What has been away may come back elsewhere.
	m.before = slices.DeleteFunc(m.before, func(i control.Interface) bool {
		return !slices.ContainsFunc(all, func(f Facts) bool { return i.Name == f.Name && i.MAC == f.MAC })
	})
	for _, facts := range all {
		entry, ok := Match(m.cfg.Interfaces(), facts)
		if !ok {
			m.leave(facts, v)
			continue
		}
		seen[facts.Index] = true
		m.had[entry.Match] = m.had[entry.Match] || facts.Wired
		l := m.links[facts.Index]
		if l != nil {
			facts.MTU, facts.Rank = l.facts.MTU, l.facts.Rank
		}
		if l == nil || l.facts.Name != facts.Name || l.facts.MAC != facts.MAC {
			l, facts = m.meet(l, facts, entry)
		}
		if facts.Carrier != l.facts.Carrier {
			m.plug(l, facts)
		}
		l.facts = facts
		m.converse(ctx, l, flags[facts.Index])
	}
	for index, l := range m.links {
		if !seen[index] {
			log.Printf("network: %s is gone", l.facts.Name)
			l.stop()
			m.moved(index)
			delete(m.links, index)
		}
	}
	m.share(time.Now())
	m.keepApart(time.Now())
	changed := false
	for _, index := range slices.Sorted(maps.Keys(m.links)) {
		l := m.links[index]
		changed = m.apply(l, v) || changed
		for _, v := range []*dhcp.Conversation{l.dhcp, l.dhcp6} {
			if v != nil {
				v.TellCarrier(dhcp.Carrier{Up: l.facts.Carrier, Plugs: l.plugs})
			}
		}
	}
	if changed {
		if v, err = m.kernel.look(); err != nil {
			return err
		}
	}
	m.direct(v)
	if m.late {
		m.nameUnmatched(all)
	}
	return m.publish(v)
}

// plug has a link's cable have come or gone, as facts say.
func (m *manager) plug(l *link, facts Facts) {
	now, event := time.Now(), claim.CarrierDown
	if facts.Carrier {
		event = claim.CarrierUp
	}
	m.moved(facts.Index)
	for a := range l.claims {
		l.step(a, event, "", now)
	}
	if !facts.Carrier {
		l.inquiry = inquiry{} // nobody can answer
		return
	}
	// What is not in use may be of the network where the cable was.
	l.refused = slices.DeleteFunc(l.refused, func(m Made) bool {
		a := m.Prefix.Addr()
		return !a.IsLinkLocalUnicast() && !l.claims[a].InUse()
	})
	l.plugs++
	l.plugged, l.asked = now, 0
	m.inquire(l, l.plugs > 1, now)
}

// nameUnmatched says once which entries of the settings no link matches.
func (m *manager) nameUnmatched(all []Facts) {
	text, wrong := Unmatched(m.cfg.Network, all, m.had)
	if text != "" && text != m.unmatched {
		log.Printf("network: %s", text)
	}
	if m.unmatched, m.entries = text, ""; wrong {
		m.entries = text
	}
}

// meet makes the state of a link that is there for the first time, as what it is now: was is
// what it was under another name or MAC address, or nil. It asks for everything anew then, but
// has been set up by us.
func (m *manager) meet(was *link, facts Facts, entry nodeconfig.Interface) (*link, Facts) {
	l := &link{entry: entry, claims: make(map[netip.Addr]claim.Claim)}
	if was != nil {
		was.stop()
		l.own = was.own
	} else {
		var others []int
		for _, o := range m.links {
			others = append(others, o.facts.Rank)
		}
		facts.Rank = RankOf(others)
		if old := m.earlier(facts); old != nil {
			m.forget(old)
			if entry.DHCP && old.Lease != nil && time.Now().Before(old.Lease.Expires()) {
				l.leases.V4 = old.Lease
			}
			if old.Lease6 != nil && time.Now().Before(old.Lease6.Expires()) {
				l.leases.V6 = old.Lease6
			}
			if entry.IPv6 == nodeconfig.IPv6Auto {
				l.routers.Add(advert.Named{Lifetime: untilAsked, Resolvers: old.Resolvers, Domains: old.Domains}, time.Now())
			}
			facts.MTU, l.own = cmp.Or(old.FirstMTU, facts.MTU), old.Own
			if !facts.Carrier {
				l.plugs = 1 // the cable was in for the earlier run, and may come back elsewhere
			}
		}
	}
	m.links[facts.Index] = l
	log.Printf("network: %s: %s, matches %q", facts.Name, facts.MAC, entry.Match)
	if facts.ARP {
		mac, _ := net.ParseMAC(facts.MAC) // Open says what is wrong with it
		var err error
		if l.voice, err = claim.Open(facts.Index, mac, m.heard); err != nil {
			log.Printf("network: %s: %v", facts.Name, err)
		}
	}
	return l, facts
}

// earlier is what an earlier run of this service left of a link; nil: it was not one
// of its links, or they are forgotten.
func (m *manager) earlier(facts Facts) *control.Interface {
	i := slices.IndexFunc(m.before, func(i control.Interface) bool { return i.Name == facts.Name && i.MAC == facts.MAC })
	if i < 0 {
		return nil
	}
	old := m.before[i]
	return &old
}

// forget has a link have no past any more: it is this run's from now on, or nobody's.
func (m *manager) forget(old *control.Interface) {
	m.before = slices.DeleteFunc(m.before, func(i control.Interface) bool { return i.Name == old.Name && i.MAC == old.MAC })
}

// leave puts back a link that an earlier run set up and that is none of ours now.
func (m *manager) leave(facts Facts, v view) {
	old := m.earlier(facts)
	if old == nil {
		return
	}
	actual, err := v.state(facts)
	if err == nil {
		want := State{MTU: old.FirstMTU, IPv6: actual.IPv6}
		if old.Foreign {
			want = actual
			want.Addresses, want.Routes = without(actual.Addresses, old.Own), nil
			actual.Taken = nil // ours are not set before we have asked
		}
		_, err = m.change(facts, want, actual)
	}
	if err != nil {
		log.Printf("network: give up %s: %v", facts.Name, err)
		return // once more at the next change
	}
	log.Printf("network: %s is no longer configured", facts.Name)
	m.forget(old)
}

// without are those of all that are not among those.
func without(all, those []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return slices.Contains(those, p) })
}

// change brings a link from its actual to its wanted state, as far as it can; changed says
// whether there was anything to do.
func (m *manager) change(facts Facts, want, actual State) (changed bool, err error) {
	var all []error
	ops := Diff(want, actual)
	for _, op := range ops {
		if err := m.kernel.do(facts, op); err != nil {
			all = append(all, fmt.Errorf("%s: %w", op, err))
		}
	}
	return len(ops) > 0, errors.Join(all...)
}

// apply brings a link to its wanted state; changed says whether there was anything to do. An
// operation that fails is logged once and tried again at the next change, or within a minute.
func (m *manager) apply(l *link, v view) (changed bool) {
	actual, err := v.state(l.facts)
	var problems []string
	if err == nil {
		now := time.Now()
		all := Want(l.entry, l.facts, l.leases, now)
		for _, m := range actual.Made {
			// Of the link-local ones, nothing tells the kernel's from ours.
			if m.Prefix.Addr().IsLinkLocalUnicast() && slices.Contains(all.Addresses, m.Prefix) {
				actual.Addresses = append(actual.Addresses, m.Prefix)
			}
		}
		// What we leave alone is, to us, not there.
		if foreign(l.entry, l.facts) {
			others := func(p netip.Prefix) bool { return !slices.Contains(l.own, p) && !slices.Contains(all.Addresses, p) }
			actual.Addresses = slices.DeleteFunc(actual.Addresses, others)
			if !slices.Contains(actual.Addresses, actual.Deprecated) {
				actual.Deprecated = netip.Prefix{}
			}
			actual.Taken = slices.DeleteFunc(actual.Taken, func(p netip.Prefix) bool {
				theirs := others(p) && !p.Addr().IsLinkLocalUnicast()
				if theirs {
					problems = append(problems, fmt.Sprintf("%s is not used: another machine has it", p.Addr()))
				}
				return theirs
			})
		}
		l.refused = Recall(l.refused, nil, actual, now)
		if all.IPv6 == nodeconfig.IPv6Off {
			l.refused, actual.Made, actual.Taken = nil, nil, nil // they go with it
		}
		unused, made, leave := l.settle(all.Addresses, actual)
		l.own = slices.Clone(all.Addresses)
		l.own = append(l.own, without(actual.Addresses, l.own)...) // until they have gone
		actual.Addresses = append(actual.Addresses, leave...)
		want := Want(l.entry, l.facts, l.leases, now, unused...)
		want.Routes, want.Made = l.apart(want.Routes), made
		if foreign(l.entry, l.facts) {
			want.MTU = l.entry.MTU
		}
		if want.Problem != "" {
			problems = append(problems, want.Problem)
		}
		changed, err = m.change(l.facts, want, actual)
		// What routers said while the link listened to them would stay for days.
		l.deaf = l.deaf && actual.IPv6 == want.IPv6
		if err == nil && !l.deaf && want.IPv6 == nodeconfig.IPv6Static {
			err = m.sweep(l, "its entry says ipv6: static")
			changed, l.deaf = true, err == nil
		}
	}
	for _, d := range []declined{l.v4, l.v6} {
		if d.last != "" {
			problems = append(problems, d.last)
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(l.claims), netip.Addr.Compare) {
		c := l.claims[a]
		if text := c.Dispute(a); text != "" && !(c.Leased && l.declined(a).last != "") {
			problems = append(problems, text)
		}
	}
	if err != nil {
		problems = append(problems, err.Error())
	}
	problem := strings.Join(problems, "; ")
	if problem != "" && problem != l.problem {
		log.Printf("network: %s: %s", l.facts.Name, problem)
	}
	l.problem = problem
	return changed
}

// due ticks when something is to be done next.
func (m *manager) due() <-chan time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, l := range m.links {
		for _, c := range l.claims {
			sooner(c.Next)
		}
		sooner(l.inquiry.next())
		sooner(l.routers.Next(m.synced)) // what has ended since then counts, too
		sooner(l.asksNext())
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}

// converse has the link's DHCP clients be those that the settings and its routers ask for.
func (m *manager) converse(ctx context.Context, l *link, flags dhcp.Flags) {
	if l.entry.DHCP && l.dhcp == nil && l.facts.ethernet() {
		l.dhcp = m.client(ctx, "dhcp", dhcp.NewV4(l.facts.Name, l.facts.MAC, m.cfg.Hostname), l.facts.Index, false, l.leases.V4)
	}
	// Where no router has spoken yet, flags are those of before, and whether a lease holds is
	// the server's to say.
	mode := dhcp.ModeOf(cmp.Or(l.entry.IPv6, nodeconfig.IPv6Auto), flags, l.mode, !l.inquiry.doubted || !l.inquiry.answered)
	if mode == dhcp.NoDHCPv6 {
		l.leases.V6, l.v6 = nil, declined{} // also of an earlier run
	}
	if mode == l.mode && (mode == dhcp.NoDHCPv6) == (l.dhcp6 == nil) {
		return
	}
	l.dhcp6.Stop()
	l.dhcp6, l.mode = nil, mode
	if old := l.leases.V6; old != nil && old.Address.IsValid() != (mode == dhcp.Stateful) {
		l.leases.V6 = nil
	}
	if mode != dhcp.NoDHCPv6 {
		l.dhcp6 = m.client(ctx, "dhcpv6", dhcp.NewV6(l.facts.Name, l.facts.MAC, mode), l.facts.Index, true, l.leases.V6)
	}
}

func (m *manager) client(ctx context.Context, name string, x dhcp.Exchange, index int, v6 bool, lease *control.Lease) *dhcp.Conversation {
	machine := dhcp.Client{State: dhcp.Selecting}
	if lease != nil {
		machine = dhcp.Client{State: dhcp.Confirming, Lease: lease}
	}
	return dhcp.Converse(ctx, name, x, machine, func(ctx context.Context, lease *control.Lease) {
		if lease != nil && lease.SinceBoot == 0 { // else it is one of before, confirmed
			lease.SinceBoot = uptime() - time.Since(lease.Since)
		}
		select {
		case m.leases <- leaseEvent{index, v6, lease}:
		case <-ctx.Done():
		}
	})
}

// addrOf turns the kernel's form of an address into ours, IPv4 always as IPv4.
func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
