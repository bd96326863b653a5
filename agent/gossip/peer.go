package gossip

import (
	"time"

	"kogge.example/agent/bucket"
	"kogge.example/agent/gossip/wire"
)

// peer is what a node remembers of a seat, however many sessions it opens.
type peer struct {
	failures int       // to reach it, in a row
	again    time.Time // not before then
	faults   int       // for which it was sent away
	last     time.Time // of those
	away     time.Time // until then
	demerits int       // that may be mishaps

	unasked bucket.Bucket // bytes that it may send without being asked
	served  bucket.Bucket // bytes that it may have sent to it
	pulled  bucket.Bucket // bytes that it was asked for
	papers  bucket.Bucket // how often it is asked for papers
	vain    bucket.Bucket // answers of it that said nothing new

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
