package client

import (
	"bytes"
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Choose is in which order a node prefers the seats that may have a gateway: its own seat; then
// those that are said to run etcd, and then those that may, each by a hash of both keys. Nobody
// chooses it, so nodes spread evenly; and where one comes or goes, only those nodes move that
// prefer it to all others.
func Choose(seats roster.Roster, self signed.Key, running []int) (order []roster.Seat) {
	ranks := make(map[int]document.Hash)
	for _, s := range seats.Seats {
		if s.Member || s.Spare {
			order = append(order, s)
			ranks[s.Number] = document.HashOf(document.Message("kogge/gateway/v1", []byte(self), []byte(s.Key)))
		}
	}
	class := func(s roster.Seat) int {
		runs := slices.Contains(running, s.Number)
		switch {
		case s.Key == self && (runs || len(running) == 0):
			return 0
		case runs:
			return 1
		case s.Member:
			return 2
		}
		return 3
	}
	slices.SortFunc(order, func(a, b roster.Seat) int {
		ra, rb := ranks[a.Number], ranks[b.Number]
		return cmp.Or(cmp.Compare(class(a), class(b)), bytes.Compare(ra[:], rb[:]))
	})
	return order
}

// Spread is over how long the nodes of a fleet of so many seats come to a gateway, when all of
// them have to at once: a handshake costs a small board some milliseconds.
func Spread(seats int) time.Duration {
	return min(max(time.Duration(seats)*2*time.Millisecond, 500*time.Millisecond), 20*time.Second)
}

// part is a time between half of d and d, by chance.
func part(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
