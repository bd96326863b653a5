package gateway

import (
	"time"

	"kogge.example/agent/bucket"
	"kogge.example/update/fleet/notice"
)

// guest is what a seat has used up: to come anew gives it nothing.
type guest struct {
	visits, frames, puts, lists, refusals bucket.Bucket
	away                                  time.Time // it is refused until then
	slow                                  time.Time // it is told no list until then
	seen                                  time.Time
}

func newGuest() *guest {
	return &guest{
		visits:   bucket.Bucket{Rate: 0.1, Most: 20},
		frames:   bucket.Bucket{Rate: 5, Most: 100},
		puts:     bucket.Bucket{Rate: 1 / notice.Pace.Seconds(), Most: notice.Burst},
		lists:    bucket.Bucket{Rate: 1. / 30, Most: 8},
		refusals: bucket.Bucket{Rate: 0.2, Most: 32}, // what honest nodes may get wrong: above that it is a flood
	}
}

// banned is how long a seat is refused that floods a gateway.
const banned = time.Minute
