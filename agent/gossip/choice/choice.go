// Package choice says to which peers a node opens sessions.
package choice

import (
	"bytes"
	"encoding/binary"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Outbound is how many sessions a node keeps of its own, so that one that nobody can reach
// takes part, too.
const Outbound = 3

// others is how many seats without a vote a node tries where too few voters answer.
const others = 16

// Order is in which order a node prefers its peers: voters, then a few of the others, each by
// a hash of both keys and a random number of this run. It is another one for each node, so that
// sessions spread over the voters, and nobody can make himself a key that comes first.
func Order(seats roster.Roster, fleet document.Hash, self signed.Key, random uint64) (voters, rest []roster.Seat) {
	run := binary.BigEndian.AppendUint64(nil, random)
	ranks := make(map[signed.Key]document.Hash)
	for _, s := range seats.Seats {
		if s.Key == self {
			continue
		}
		ranks[s.Key] = document.HashOf(document.Message("kogge/gossip-peer/v1", fleet[:], []byte(self), []byte(s.Key), run))
		if s.Vote {
			voters = append(voters, s)
		} else {
			rest = append(rest, s)
		}
	}
	byRank := func(a, b roster.Seat) int {
		ra, rb := ranks[a.Key], ranks[b.Key]
		return bytes.Compare(ra[:], rb[:])
	}
	slices.SortFunc(voters, byRank)
	slices.SortFunc(rest, byRank)
	return voters, rest[:min(len(rest), others)]
}

// Targets are the peers to which a node has sessions of its own: the first voters that can be
// used, of different domains as far as there are so many, and others where voters are few. Each
// turn leaves out one more of the first: a node that is surrounded by censors gets away from
// them.
func Targets(voters, rest []roster.Seat, turn int, usable func(roster.Seat) bool) (chosen []roster.Seat) {
	if n := len(voters); n > 0 {
		voters = slices.Concat(voters[turn%n:], voters[:turn%n])
	}
	take := func(from []roster.Seat, apart bool) {
		for _, s := range from {
			same := func(c roster.Seat) bool { return c.Key == s.Key || apart && c.DomainOf() == s.DomainOf() }
			if len(chosen) < Outbound && !slices.ContainsFunc(chosen, same) && usable(s) {
				chosen = append(chosen, s)
			}
		}
	}
	take(voters, true)
	take(voters, false)
	take(rest, true)
	take(rest, false)
	return chosen
}
