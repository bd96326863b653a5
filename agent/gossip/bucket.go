package gossip

import "time"

// bucket says how much of something there may be per time. The zero one has nothing to give.
type bucket struct {
	rate  float64 // that comes back, a second
	most  float64 // that it holds
	spent float64 // of it
	at    time.Time
}

// now is the bucket at a time: some of what was spent has come back. A clock that goes back
// gives nothing.
func (b *bucket) now(at time.Time) {
	if b.at.IsZero() || at.Before(b.at) {
		b.at = at
		return
	}
	b.spent = max(0, b.spent-b.rate*at.Sub(b.at).Seconds())
	b.at = at
}

// take spends n if there is so much; false: it spends nothing.
func (b *bucket) take(n int, at time.Time) bool {
	b.now(at)
	if b.spent+float64(n) > b.most {
		return false
	}
	b.spent += float64(n)
	return true
}

// owe spends n whether or not there is so much. A debt is no larger than what the bucket holds:
// it is over in time, whatever was spent.
func (b *bucket) owe(n int, at time.Time) {
	b.now(at)
	b.spent = min(b.spent+float64(n), 2*b.most)
}

// wait is how long until there is n; at once if it never holds so much and is full.
func (b *bucket) wait(n int, at time.Time) time.Duration {
	b.now(at)
	over := b.spent + min(float64(n), b.most) - b.most
	if over <= 0 || b.rate <= 0 {
		return 0
	}
	return time.Duration(over / b.rate * float64(time.Second))
}
