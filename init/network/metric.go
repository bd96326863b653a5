package network

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Routes of a link that say no metric have one of these: those of the link that came first
// are preferred, and all of them to those of router advertisements (1024).
const (
	firstMetric = 100
	ranks       = 900
)

func metric(f Facts) int { return firstMetric + f.Rank }

// RankOf is the rank of a link that comes when others have these: behind them all. Where so
// many have come and gone that there is none, it takes a place that one has left.
func RankOf(others []int) int {
	rank := 0
	for _, r := range others {
		rank = max(rank, r+1)
	}
	if rank < ranks {
		return rank
	}
	for rank = 0; rank < ranks-1 && slices.Contains(others, rank); rank++ {
	}
	return rank
}

// Apart gives each of several links' routes a metric that no other route to the same network
// has: the kernel would keep only one of the two, whichever came last. A route that comes
// too late has the next one that is free.
func Apart(links [][]Route) [][]Route {
	type place struct {
		to     netip.Prefix
		metric int
	}
	taken := make(map[place]bool)
	all := make([][]Route, len(links))
	for i, routes := range links {
		for _, r := range routes {
			for step := 1; taken[place{r.To, r.Metric}]; r.Metric += step {
				if uint32(r.Metric) >= math.MaxUint32-1 {
					step = -1
				}
			}
			taken[place{r.To, r.Metric}] = true
			all[i] = append(all[i], r)
		}
	}
	return all
}

// keepApart finds a metric for each route that a link may get.
func (m *manager) keepApart(now time.Time) {
	links := slices.SortedFunc(maps.Values(m.links), func(a, b *link) int { return cmp.Compare(a.facts.Rank, b.facts.Rank) })
	all := make([][]Route, len(links))
	for i, l := range links {
		all[i] = Want(l.entry, l.facts, l.leases, now).Routes
	}
	for i, apart := range Apart(all) {
		links[i].metrics = make(map[Route]int)
		for j, r := range apart {
			links[i].metrics[all[i][j].asked()] = r.Metric
		}
	}
}

// apart are these of the link's routes with the metrics that keep them apart from all others.
func (l *link) apart(routes []Route) []Route {
	routes = slices.Clone(routes)
	for i, r := range routes {
		routes[i].Metric = l.metrics[r.asked()]
	}
	return routes
}

// asked is the route as settings or a server ask for it.
func (r Route) asked() Route {
	r.OnLink = false
	return r
}
