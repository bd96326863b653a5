package etcd

import (
	"crypto/tls"
	"fmt"
	"maps"
	"sync"
	"time"

	"kogge.example/agent/etcd/membership"
)

// guests are the seats whose nodes are let in, and spoken with: those that the roster has run
// etcd, and those that etcd lists. One that the roster does not have any more is needed until
// the leader has removed it, and may be the leader.
type guests struct {
	verify func(tls.ConnectionState) (int, error) // Config's

	listed map[int]time.Time // when etcd listed a seat last; of the goroutine that looks

	mu sync.Mutex // guards in
	in map[int]bool
}

// goodbye is how long a seat may ask after it was removed: it hears of that by asking.
const goodbye = time.Minute

// note takes note of who counts now. Without a list of its own a node lets in those that are
// leaving: it does not know whether one of them still leads.
func (g *guests) note(f Facts, list []membership.Member, now time.Time) {
	if g.listed == nil {
		g.listed = make(map[int]time.Time)
	}
	for _, l := range list {
		g.listed[l.Seat] = now
	}
	maps.DeleteFunc(g.listed, func(_ int, at time.Time) bool { return now.Sub(at) >= goodbye })
	in := make(map[int]bool)
	for _, s := range f.Seats {
		in[s.Number] = true
	}
	for seat := range g.listed {
		in[seat] = true
	}
	if len(list) == 0 {
		for _, seat := range f.Leaving {
			in[seat] = true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in = in
}

// seat says which seat a connection is with, if that has to do with etcd.
func (g *guests) seat(state tls.ConnectionState) (int, error) {
	seat, err := g.verify(state)
	if err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.in[seat] {
		return 0, fmt.Errorf("seat %d does not run etcd", seat)
	}
	return seat, nil
}
