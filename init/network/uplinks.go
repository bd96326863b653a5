package network

import (
	"cmp"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
)

// Uplink is a link with default routes, by which others may reach the node.
type Uplink struct {
	Link      int // its index
	Addresses []netip.Addr
	Defaults  []Route // to everything, of either family and whoever made them
}

// Rule sends packets of the node, or of a container, by a table of routes.
type Rule struct {
	Priority int
	V6       bool
	From     netip.Addr // they come from this address; or, if it is not valid:
	Link     int        // they answer what came in by this link; 0: all packets
	Table    int
}

// Priorities of our rules, before that of the main table (32766). No others are in between.
const (
	firstRule   = 29000
	specificAt  = firstRule     // the main table, without default routes: what is near is found as ever
	fromAt      = firstRule + 1 // from an address of an uplink
	answersAt   = firstRule + 2 // answers of containers
	lastRule    = answersAt
	mainTable   = 254 // RT_TABLE_MAIN
	firstTable  = 27000
	tablesCount = 1 << 16
)

// tableOf is the table with the default routes of one link.
func tableOf(link int) int { return firstTable + link%tablesCount }

// RulesOf has what others ask by one uplink answered by the same one, where there are two
// or more: the routers of a provider drop what bears the address of another. Packets from
// an address of an uplink leave by it, and so do answers of containers, which agent/bridge
// marks with the index of the link where the question came in. With one uplink per family
// there is nothing to choose, and no rule.
//
// An uplink without a carrier is passed over in its table, too: the main table follows.
func RulesOf(uplinks []Uplink) (rules []Rule, routes map[int][]Route) {
	routes = make(map[int][]Route)
	for _, v6 := range []bool{false, true} {
		var those []Uplink
		for _, u := range uplinks {
			u.Defaults = slices.DeleteFunc(slices.Clone(u.Defaults), func(r Route) bool { return r.To.Addr().Is6() != v6 })
			u.Addresses = slices.DeleteFunc(slices.Clone(u.Addresses), func(a netip.Addr) bool { return a.Is6() != v6 || a.IsLinkLocalUnicast() })
			// A table has one route of each metric: of several routers that of the lowest address.
			slices.SortFunc(u.Defaults, func(a, b Route) int { return cmp.Or(cmp.Compare(a.Metric, b.Metric), a.Via.Compare(b.Via)) })
			u.Defaults = slices.CompactFunc(u.Defaults, func(a, b Route) bool { return a.Metric == b.Metric })
			if len(u.Defaults) > 0 {
				those = append(those, u)
			}
		}
		if len(those) < 2 {
			continue
		}
		rules = append(rules, Rule{Priority: specificAt, V6: v6, Table: mainTable})
		for _, u := range those {
			for _, a := range u.Addresses {
				rules = append(rules, Rule{Priority: fromAt, V6: v6, From: a, Table: tableOf(u.Link)})
			}
			if !v6 { // published ports are IPv4
				rules = append(rules, Rule{Priority: answersAt, Link: u.Link, Table: tableOf(u.Link)})
			}
			routes[u.Link] = append(routes[u.Link], u.Defaults...)
		}
	}
	slices.SortFunc(rules, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(btoi(a.V6), btoi(b.V6)), cmp.Compare(a.Priority, b.Priority), a.From.Compare(b.From), cmp.Compare(a.Link, b.Link))
	})
	return rules, routes
}

// direct has answers leave by the uplink of the question.
func (m *manager) direct() {
	var uplinks []Uplink
	for _, index := range slices.Sorted(maps.Keys(m.links)) {
		if u, err := m.kernel.uplink(m.links[index].facts); err == nil { // else it is about to go
			uplinks = append(uplinks, u)
		}
	}
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
	text := fmt.Sprintf("%s %d: from %s lookup %d", family, r.Priority, what, r.Table)
	if r.Table == mainTable {
		text += " but default routes"
	}
	return text
}
