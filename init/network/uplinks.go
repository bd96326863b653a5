package network

import (
	"cmp"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
)

// Uplink is a link of ours as far as it is a way out: by its default routes to everything, by
// others to a network.
type Uplink struct {
	Link      int // its index
	Name      string
	Addresses []netip.Addr
	Defaults  []Route        // to everything, of either family and whoever made them
	Near      []Route        // to networks, also those on the link itself
	Networks  []netip.Prefix // of Near, those on the link itself in which it has an address
}

// Rule sends packets of the node, or of a container, by a table of routes.
type Rule struct {
	Priority int
	V6       bool
	From     netip.Addr   // they come from this address; or, if it is not valid:
	Link     int          // they answer what came in by this link; 0: all packets
	To       netip.Prefix // they go there; not valid: anywhere
	Table    int
}

// Priorities of our rules, before that of the main table (32766). No others are in between.
const (
	firstRule   = 28997
	finerAt     = firstRule     // the main table, within a network that several links lead to: what is nearer still
	nearFromAt  = firstRule + 1 // to such a network, from an address of a link
	nearAnswers = firstRule + 2 // to such a network, answers of containers
	specificAt  = firstRule + 3 // the main table, without default routes: what is near is found as ever
	fromAt      = firstRule + 4 // from an address of an uplink
	answersAt   = firstRule + 5 // answers of containers
	lastRule    = answersAt
	mainTable   = 254 // RT_TABLE_MAIN
	firstTable  = 27000
	tablesCount = 1 << 16
)

// mostNear bounds the routes of a link that count, and mostShared those of its own table: both
// come from routers, too, which may be strangers.
const mostNear, mostShared = 256, 16

// tableOf is the table with the routes of one link.
func tableOf(link int) int { return firstTable + link%tablesCount }

// RulesOf has what others ask by one link answered by the same one, where another leads to
// them, too. Packets from an address of a link leave by it, and so do answers of containers,
// which agent/bridge marks with the index of the link where the question came in.
//
// Of two or more links with default routes all have such rules for what is far: the routers of
// a provider drop what bears the address of another. For what is near they come before the main
// table, which has one link only for each network, and are for networks that links share: the
// routers of two LANs may come from one shop. Where there is nothing to choose, there is no rule.
//
// A link without a carrier is passed over in its table, too: the main table follows.
func RulesOf(links []Uplink) (rules []Rule, routes map[int][]Route) {
	routes = make(map[int][]Route)
	for _, v6 := range []bool{false, true} {
		var those []Uplink
		ways := 0
		for _, u := range links {
			u = u.family(v6)
			u.Addresses = slices.DeleteFunc(u.Addresses, netip.Addr.IsLinkLocalUnicast)
			// A table has one route of each metric: of several routers that of the lowest address.
			slices.SortFunc(u.Defaults, func(a, b Route) int { return cmp.Or(cmp.Compare(a.Metric, b.Metric), a.Via.Compare(b.Via)) })
			u.Defaults = slices.CompactFunc(u.Defaults, func(a, b Route) bool { return a.Metric == b.Metric })
			ways += btoi(len(u.Defaults) > 0)
			those = append(those, u)
		}
		if ways > 1 {
			rules = append(rules, Rule{Priority: specificAt, V6: v6, Table: mainTable})
		}
		for _, u := range those {
			own := func(from, answers int) {
				for _, a := range u.Addresses {
					rules = append(rules, Rule{Priority: from, V6: v6, From: a, Table: tableOf(u.Link)})
				}
				if !v6 { // published ports are IPv4
					rules = append(rules, Rule{Priority: answers, Link: u.Link, Table: tableOf(u.Link)})
				}
			}
			if shared := u.shared(those); len(shared) > 0 {
				own(nearFromAt, nearAnswers)
				for _, r := range shared {
					for _, a := range u.Addresses {
						rules = append(rules, Rule{Priority: finerAt, V6: v6, From: a, To: r.To, Table: mainTable})
					}
				}
				routes[u.Link] = append(routes[u.Link], shared...)
			}
			if ways > 1 && len(u.Defaults) > 0 {
				own(fromAt, answersAt)
				routes[u.Link] = append(routes[u.Link], u.Defaults...)
			}
		}
	}
	slices.SortFunc(rules, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(btoi(a.V6), btoi(b.V6)), cmp.Compare(a.Priority, b.Priority), a.From.Compare(b.From),
			cmp.Compare(a.Link, b.Link), a.To.Compare(b.To), cmp.Compare(a.Table, b.Table))
	})
	return slices.Compact(rules), routes // two links may have one address
}

// family is the link as one family sees it.
func (u Uplink) family(v6 bool) Uplink {
	other := func(r Route) bool { return r.To.Addr().Is6() != v6 }
	u.Addresses = slices.DeleteFunc(slices.Clone(u.Addresses), func(a netip.Addr) bool { return a.Is6() != v6 })
	u.Defaults = slices.DeleteFunc(slices.Clone(u.Defaults), other)
	u.Near = slices.DeleteFunc(slices.Clone(u.Near), other)
	u.Networks = slices.DeleteFunc(slices.Clone(u.Networks), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
	return u
}

// shared are the link's routes to what others of these lead to as well: to the same network, or
// where both have an address in networks that overlap. That one lies within another by a
// route is by intent.
func (u Uplink) shared(links []Uplink) []Route {
	var all []Route
	// The longer the network, the more it counts; then the lower metric.
	near := slices.SortedStableFunc(slices.Values(u.Near), func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.To.Bits(), a.To.Bits()), a.To.Compare(b.To), cmp.Compare(a.Metric, b.Metric), a.Via.Compare(b.Via))
	})
	for _, r := range near[:min(len(near), mostNear)] {
		for _, o := range links {
			if o.Link == u.Link {
				continue
			}
			for _, n := range o.Near[:min(len(o.Near), mostNear)] {
				if r.To != n.To && !(r.To.Overlaps(n.To) && slices.Contains(u.Networks, r.To) && slices.Contains(o.Networks, n.To)) {
					continue
				}
				part := longer(r.To, n.To)
				if len(all) < mostShared && !slices.ContainsFunc(all, func(s Route) bool { return s.To == part }) {
					all = append(all, Route{To: part, Via: r.Via, Metric: r.Metric, OnLink: r.OnLink})
				}
			}
		}
	}
	return all
}

// longer is what two networks that overlap have in common: the smaller one.
func longer(a, b netip.Prefix) netip.Prefix {
	if a.Bits() > b.Bits() {
		return a
	}
	return b
}

// direct has answers leave by the link of the question, and finds out which links are twins.
func (m *manager) direct(v view) {
	var uplinks []Uplink
	for _, index := range slices.Sorted(maps.Keys(m.links)) {
		f := m.links[index].facts
		if _, err := v.link(f); err == nil { // else it is about to go
			uplinks = append(uplinks, v.uplink(f))
		}
	}
	m.tell(uplinks)
	rules, routes := RulesOf(uplinks)
	problem := ""
	if err := m.kernel.direct(rules, routes); err != nil && len(rules) > 0 { // a kernel without rules is fine for one
		problem = err.Error()
	}
	if problem != "" && problem != m.problem {
		log.Printf("network: several uplinks: %s", problem)
	}
	m.problem = problem
}

// String shows a rule the way ip(8) does.
func (r Rule) String() string {
	family, what := "IPv4", "all"
	if r.V6 {
		family = "IPv6"
	}
	switch {
	case r.From.IsValid():
		what = r.From.String()
	case r.Link != 0:
		what = fmt.Sprintf("all mark %d", r.Link)
	}
	if r.To.IsValid() {
		what += " to " + r.To.String()
	}
	text := fmt.Sprintf("%s %d: from %s lookup %d", family, r.Priority, what, r.Table)
	switch longest := r.passesOver(); {
	case longest == 0:
		text += " but default routes"
	case longest > 0:
		text += fmt.Sprintf(" but routes of %d bits or less", longest)
	}
	return text
}

// passesOver is the length of networks up to which the table's routes do not count: 0 for
// default routes alone, less than that for none.
func (r Rule) passesOver() int {
	switch {
	case r.To.IsValid():
		return r.To.Bits()
	case r.Priority <= specificAt:
		return 0
	}
	return -1
}
