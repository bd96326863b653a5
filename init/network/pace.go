package network

import "time"

// pace grants turns of work: many at once, as when links come up, but on average so many a second.
type pace struct {
	spent float64 // turns that have not been made up for
	last  time.Time
}

const (
	turnsPerSecond = 10
	turnsAtOnce    = 60
	hearing        = 0.02 // turns that it takes to hear of something, a neighbour's packet mostly
)

// take takes so many turns and returns how long to wait for them.
func (p *pace) take(now time.Time, turns float64) time.Duration {
	p.spent = max(0, p.spent-now.Sub(p.last).Seconds()*turnsPerSecond) + turns
	p.last = now
	return time.Duration(max(0, p.spent-turnsAtOnce) / turnsPerSecond * float64(time.Second))
}
