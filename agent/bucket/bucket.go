// Package bucket bounds how much of something there may be per time: a token bucket that knows no
// clock of its own.
package bucket

import "time"

// Bucket says how much of something there may be per time. It begins full; the zero one has
// nothing to give.
type Bucket struct {
	Rate  float64 // that comes back, a second
	Most  float64 // that it holds
	spent float64 // of it
	at    time.Time
}

// now is the bucket at a time: some of what was spent has come back. A clock that goes back
// gives nothing.
func (b *Bucket) now(at time.Time) {
	if b.at.IsZero() || at.Before(b.at) {
		b.at = at
		return
	}
	b.spent = max(0, b.spent-b.Rate*at.Sub(b.at).Seconds())
	b.at = at
}

// Take spends n if there is so much; false: it spends nothing.
func (b *Bucket) Take(n int, at time.Time) bool {
	b.now(at)
	if b.spent+float64(n) > b.Most {
		return false
	}
	b.spent += float64(n)
	return true
}

// Owe spends n whether or not there is so much. A debt is no larger than what the bucket holds:
// it is over in time, whatever was spent.
func (b *Bucket) Owe(n int, at time.Time) {
	b.now(at)
	b.spent = min(b.spent+float64(n), 2*b.Most)
}

// Wait is how long until there is n; at once if it never holds so much and is full.
func (b *Bucket) Wait(n int, at time.Time) time.Duration {
	b.now(at)
	over := b.spent + min(float64(n), b.Most) - b.Most
	if over <= 0 || b.Rate <= 0 {
		return 0
	}
	return time.Duration(over / b.Rate * float64(time.Second))
}

// One spends one if there is one, and says otherwise how long until there is.
func (b *Bucket) One(at time.Time) (wait time.Duration) {
	if b.Take(1, at) {
		return 0
	}
	return b.Wait(1, at)
}

// Refund gives one back that was spent.
func (b *Bucket) Refund() { b.spent = max(0, b.spent-1) }
