package gateway

import (
	"time"

	"kogge.example/update/fleet/notice"
)

// bucket says how much of something there may be per time. A full one has spent nothing.
type bucket struct {
	rate  float64 // that comes back, a second
	most  float64 // that it holds
	spent float64 // of it
	at    time.Time
}

// take spends one if there is one, and says otherwise how long until there is.
func (b *bucket) take(now time.Time) (wait time.Duration) {
	if !b.at.IsZero() && now.After(b.at) {
		b.spent = max(0, b.spent-b.rate*now.Sub(b.at).Seconds())
	}
	if b.at.IsZero() || now.After(b.at) {
		b.at = now // a clock that goes back gives nothing
	}
	if over := b.spent + 1 - b.most; over > 0 {
		return time.Duration(over / b.rate * float64(time.Second))
	}
	b.spent++
	return 0
}

// guest is what a seat has used up: to come anew gives it nothing.
type guest struct {
	visits, frames, puts, lists, refusals bucket
	away                                  time.Time // it is refused until then
	slow                                  time.Time // it is told no list until then
	seen                                  time.Time
}

func newGuest() *guest {
	return &guest{
		visits:   bucket{rate: 0.1, most: 20},
		frames:   bucket{rate: 5, most: 100},
		puts:     bucket{rate: 1 / notice.Pace.Seconds(), most: notice.Burst},
		lists:    bucket{rate: 1. / 30, most: 8},
		refusals: bucket{rate: 0.2, most: 32}, // what honest nodes may get wrong: above that it is a flood
	}
}

// banned is how long a seat is refused that floods a gateway.
const banned = time.Minute
