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
	verify func(tls.ConnectionState) ([]int, error) // Config's
	known  membership.Guests                        // of the goroutine that looks

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

// admit wants a connection to be with a certain seat, or for 0 with any, that has to do with etcd.
// A seat only says which key is its own: that another one says so of the same key takes nothing from it.
func (g *guests) admit(state tls.ConnectionState, want int) error {
	seats, err := g.verify(state)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, seat := range seats {
		if g.in[seat] && (want == 0 || want == seat) {
			return nil
		}
	}
	return fmt.Errorf("it is seat %d, which does not run etcd or was not called", seats)
}
