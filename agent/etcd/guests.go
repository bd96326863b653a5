package etcd

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"kogge.example/agent/etcd/membership"
)

// guests are the seats whose nodes are let in, and spoken with.
type guests struct {
	verify func(tls.ConnectionState) (int, error) // Config's
	known  membership.Guests                      // of the goroutine that looks

	mu sync.Mutex // guards in
	in map[int]bool
}

// note takes note of who counts now.
func (g *guests) note(f Facts, list []membership.Member, now time.Time) {
	in := g.known.Note(f.Seats, f.Leaving, list, now)
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
