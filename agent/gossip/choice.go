package gossip

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// outbound is how many sessions a node keeps of its own, so that one that nobody can reach
// takes part, too.
const outbound = 3

// others is how many seats without a vote a node tries where too few voters answer.
const others = 16

// order is in which order a node prefers its peers: voters, then a few of the others, each by
// a hash of both keys and a random number of this run. It is another one for each node, so that
// sessions spread over the voters, and nobody can make himself a key that comes first.
func order(seats roster.Roster, fleet document.Hash, self signed.Key, random uint64) (voters, rest []roster.Seat) {
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

// targets are the peers to which a node has sessions of its own: the first voters that can be
// used, of different domains as far as there are so many, and others where voters are few. Each
// turn leaves out one more of the first: a node that is surrounded by censors gets away from
// them.
func targets(voters, rest []roster.Seat, turn int, usable func(roster.Seat) bool) (chosen []roster.Seat) {
	if n := len(voters); n > 0 {
		voters = slices.Concat(voters[turn%n:], voters[:turn%n])
	}
	take := func(from []roster.Seat, apart bool) {
		for _, s := range from {
			same := func(c roster.Seat) bool { return c.Key == s.Key || apart && c.DomainOf() == s.DomainOf() }
			if len(chosen) < outbound && !slices.ContainsFunc(chosen, same) && usable(s) {
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

// peer is what a node remembers of a seat, however many sessions it opens.
type peer struct {
	failures int       // to reach it, in a row
	again    time.Time // not before then
	faults   int       // for which it was sent away
	last     time.Time // of those
	away     time.Time // until then
	demerits int       // that may be mishaps

	unasked bucket // bytes that it may send without being asked
	served  bucket // bytes that it may have sent to it
	pulled  bucket // bytes that it was asked for
	vain    bucket // answers of it that said nothing new

	gave     time.Time // when it was asked for an entry the last time
	missed   int       // entries that it was asked for and did not bring in time
	looked   wire.Head // the last head of it that was compared with the ledger here
	lookedAt time.Time
}

// What a peer waits that cannot be reached, and one that was sent away.
const (
	firstAgain, lastAgain = 5 * time.Second, 15 * time.Minute
	firstAway, lastAway   = time.Minute, 12 * time.Hour
	// forgiven is after how long without a fault one of them is forgotten.
	forgiven = 24 * time.Hour
)

// failed notes that it could not be reached. spread is from 0 to 1, by chance.
func (p *peer) failed(now time.Time, spread float64) {
	wait := grown(firstAgain, lastAgain, p.failures)
	p.failures++
	p.again = now.Add(wait/2 + time.Duration(spread*float64(wait/2)))
}

// reached notes that it was.
func (p *peer) reached() { p.failures, p.again = 0, time.Time{} }

// sendAway notes a fault, for which it is kept away: each time for longer.
func (p *peer) sendAway(now time.Time) {
	if !p.last.IsZero() {
		p.faults = max(0, p.faults-int(now.Sub(p.last)/forgiven))
	}
	p.away = now.Add(grown(firstAway, lastAway, p.faults))
	p.faults++
	p.last = now
}

// grown is a time that doubles with each of so many times.
func grown(first, last time.Duration, times int) time.Duration {
	for range min(times, 30) {
		if first *= 2; first >= last {
			return last
		}
	}
	return first
}
