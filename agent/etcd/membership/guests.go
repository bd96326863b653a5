package membership

import (
	"maps"
	"time"
)

// Guests say whom a member's door lets in: the seats that the roster has run etcd, and those that
// etcd lists. One that the roster does not have any more is needed until the leader has removed
// it, and may be the leader.
type Guests struct {
	listed map[int]time.Time // when etcd listed a seat last
}

// Goodbye is how long a seat may ask after it was removed: it hears of that by asking.
const Goodbye = time.Minute

// Note is who is let in now. leaving are seats that the roster has had run etcd. A node without a
// list of its own lets them in, too: it does not know whether one of them still leads.
func (g *Guests) Note(seats []Seat, leaving []int, list []Member, now time.Time) map[int]bool {
	if g.listed == nil {
		g.listed = make(map[int]time.Time)
	}
	for _, l := range list {
		g.listed[l.Seat] = now
	}
	maps.DeleteFunc(g.listed, func(_ int, at time.Time) bool { return now.Sub(at) >= Goodbye })
	in := make(map[int]bool)
	for _, s := range seats {
		in[s.Number] = true
	}
	for seat := range g.listed {
		in[seat] = true
	}
	if len(list) == 0 {
		for _, seat := range leaving {
			in[seat] = true
		}
	}
	return in
}
