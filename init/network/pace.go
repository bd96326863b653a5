package network

import "time"

// pace grants turns: many at once, as when links come up, but on average so many a second.
type pace struct {
	spent float64 // turns that have not been made up for
	last  time.Time
}

const (
	turnsPerSecond = 10
	turnsAtOnce    = 60
)

// take takes a turn and returns how long to wait for it.
func (p *pace) take(now time.Time) time.Duration {
	p.spent = max(0, p.spent-now.Sub(p.last).Seconds()*turnsPerSecond) + 1
	p.last = now
	return time.Duration(max(0, p.spent-turnsAtOnce) / turnsPerSecond * float64(time.Second))
}
