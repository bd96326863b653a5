package gossip

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
)

func atRest(t testing.TB, count int) *network {
	state := large(t, count)
	return newNetwork(t, state, func(int) Ledger { return still{state} })
}

// TestSpread brings what one node says to all others: by gossip alone, in small and large
// fleets.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		nodes int
		limit time.Duration
	}{{4, time.Second}, {100, 5 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			n := atRest(t, c.nodes)
			n.run(func() {
				for _, one := range n.nodes {
					one.sayAll()
				}
				took := n.within(2*time.Minute, "all know all", func() bool { return n.agree(3 * c.nodes) })
				t.Logf("%d nodes: all know all after %s", c.nodes, took)
				time.Sleep(time.Hour)
				e := n.nodes[1].sayStatus(1)
				took = n.within(c.limit, "news to all", func() bool { return n.have(e) })
				t.Logf("%d nodes: news to all after %s", c.nodes, took)
				for _, one := range n.nodes {
					if s := one.engine.Stats(); s.Refused > 0 || s.Away > 0 {
						t.Errorf("%s has refused what is honest: %+v", one.name, s)
					}
				}
			})
		})
	}
}

// idle is a fleet in an hour in which nothing happens but that each node signs its status once:
// bytes on the wire of each node, sorted.
func idle(t testing.TB, count, votes int) (bytes []int) {
	state := large(t, count)
	for i := range state.Roster.Seats {
		state.Roster.Seats[i].Vote = i < votes
	}
	n := newNetwork(t, state, func(int) Ledger { return still{state} })
	objects := 3 * count
	if count > 100 {
		objects = count // the memory of one machine
	}
	n.run(func() {
		for _, one := range n.nodes {
			time.Sleep(time.Hour / time.Duration(4*count))
			if objects == count {
				one.sayStatus(0)
			} else {
				one.sayAll()
			}
		}
		n.within(time.Hour, "all know all", func() bool { return n.agree(objects) })
		hour := func() {
			for _, one := range n.nodes {
				time.Sleep(time.Hour / time.Duration(count))
				one.sayStatus(0)
			}
		}
		hour()
		for _, one := range n.nodes {
			one.bytes.Store(0)
		}
		hour()
		for _, one := range n.nodes {
			bytes = append(bytes, int(one.bytes.Load()))
		}
		slices.Sort(bytes)
		if !n.agree(objects) {
			t.Error("they do not know the same")
		}
		sessions, dropped := 0, make(map[string]uint64)
		for _, one := range n.nodes {
			s := one.engine.Stats()
			sessions += s.Sessions
			for why, n := range s.Dropped {
				dropped[why] += n
			}
		}
		t.Logf("%d nodes, %d votes: %.1f sessions each; ended: %v", count, votes, float64(sessions)/float64(count), dropped)
	})
	return bytes
}

func mean(all []int) int {
	sum := 0
	for _, n := range all {
		sum += n
	}
	return sum / len(all)
}

var more = flag.Int("nodes", 0, "count an idle hour of so many nodes, too")

// TestIdleHour counts what a fleet costs in which nothing happens.
func TestIdleHour(t *testing.T) {
	fleets := [][2]int{{4, 4}, {100, 100}, {100, 5}}
	if *more > 0 {
		fleets = append(fleets, [2]int{*more, 100})
	}
	for _, c := range fleets {
		synctest.Test(t, func(t *testing.T) {
			bytes := idle(t, c[0], c[1])
			t.Logf("%d nodes, %d votes: %s a node and idle hour on average, %s half of them at most, %s the busiest", c[0], c[1], kB(mean(bytes)), kB(bytes[len(bytes)/2]), kB(bytes[len(bytes)-1]))
			if c[0] <= 100 && mean(bytes) > 150_000 {
				t.Error("more than 150 kB")
			}
		})
	}
}

func kB(n int) string { return fmt.Sprintf("%.1f kB", float64(n)/1000) }

// TestLossAndPartition loses frames and sessions, parts the fleet, and restarts nodes with
// nothing on their shelves, while all of them say new things. Then it heals.
func TestLossAndPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := atRest(t, 20)
		n.nodes[7].behind, n.nodes[8].behind = true, true
		n.run(func() {
			for _, one := range n.nodes {
				one.sayAll()
			}
			n.lose(0.1)
			for round := range int64(30) {
				switch round {
				case 10:
					n.cut(func(a, b int) bool { return a%2 != b%2 })
				case 20:
					n.cut(nil)
				}
				for i, one := range n.nodes {
					switch {
					case one.engine == nil:
						one.start()
						one.sayAll()
					case (int64(i)+round)%11 == 0:
						one.end()
					default:
						one.sayStatus(round)
					}
				}
				time.Sleep(time.Minute)
			}
			for _, one := range n.nodes {
				if one.engine == nil {
					one.start()
				}
				one.sayAll()
			}
			n.lose(0)
			took := n.within(time.Hour, "all know all", func() bool { return n.agree(3 * len(n.nodes)) })
			t.Logf("all know all %s after it has healed", took)
			last := n.nodes[7].sayStatus(99)
			n.within(5*time.Second, "news from behind a router", func() bool { return n.have(last) })
			last = n.nodes[0].sayStatus(99)
			n.within(5*time.Second, "news to behind a router", func() bool { return n.have(last) })
			for _, one := range n.nodes {
				if away := one.away(); len(away) > 0 {
					t.Errorf("%s keeps honest ones away: %v: %v", one.name, away, one.engine.Stats().Dropped)
				}
			}
		})
	})
}

// away are the seats that a node keeps away.
func (n *node) away() (names []string) {
	n.engine.do(func() {
		for key, p := range n.engine.peers {
			if time.Now().Before(p.away) {
				names = append(names, n.net.byKey[key].name)
			}
		}
	})
	slices.Sort(names)
	return names
}

// lose has so many frames be lost.
func (n *network) lose(loss float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = loss
}

// TestRosterChange drops what a seat has said, and its sessions, when it is unseated, and does
// not take it again.
func TestRosterChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 5)
		ledgers := make(map[int]*moving)
		n := newNetwork(t, state, func(i int) Ledger {
			ledgers[i] = &moving{state: state}
			return ledgers[i]
		})
		n.run(func() {
			for _, one := range n.nodes {
				one.sayAll()
			}
			n.within(10*time.Second, "all know all", func() bool { return n.agree(15) })
			after := state
			after.Height, after.Record = 2, document.HashOf([]byte("record 2"))
			after.Roster.Seats = after.Roster.Seats[:4]
			for i, one := range n.nodes[:4] {
				ledgers[i].set(after)
				one.engine.Advanced()
			}
			lost := n.nodes[4]
			n.within(time.Minute, "the seat is gone", func() bool {
				for _, one := range n.nodes[:4] {
					if s := one.engine.Stats(); s.Objects != 12 || s.Sessions != 3 {
						return false
					}
				}
				return lost.engine.Stats().Sessions == 0
			})
			lost.sayStatus(1)
			time.Sleep(20 * time.Minute)
			for _, one := range n.nodes[:4] {
				if _, ok := one.engine.Object(notice.StatusKind, lost.key); ok {
					t.Errorf("%s has heard it", one.name)
				}
			}
		})
	})
}

// moving is a ledger that a test moves.
type moving struct {
	still
	mu    sync.Mutex // guards state
	state ledger.State
}

func (l *moving) State() ledger.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *moving) set(s ledger.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
}

// TestRefused ends the sessions with a seat that is isolated, at once, and takes it back. What
// it has signed goes on being known.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := atRest(t, 4)
		var isolated atomic.Bool
		for _, one := range n.nodes[:3] {
			one.config = func(c *Config) {
				c.Refuse = func(seat roster.Seat) error {
					if isolated.Load() && seat.Number == 4 {
						return errDown
					}
					return nil
				}
			}
		}
		n.run(func() {
			for _, one := range n.nodes {
				one.sayAll()
			}
			n.within(10*time.Second, "all know all", func() bool { return n.agree(12) })
			isolated.Store(true)
			for _, one := range n.nodes[:3] {
				one.engine.Advanced()
			}
			n.within(2*time.Second, "it has no sessions", func() bool { return n.nodes[3].engine.Stats().Sessions == 0 })
			time.Sleep(time.Hour)
			if s := n.nodes[0].engine.Stats(); s.Objects != 12 || n.nodes[3].engine.Stats().Sessions != 0 {
				t.Errorf("%+v", s)
			}
			isolated.Store(false)
			for _, one := range n.nodes[:3] {
				one.engine.Advanced()
			}
			e := n.nodes[3].sayStatus(1)
			n.within(30*time.Minute, "it is back", func() bool { return n.have(e) })
		})
	})
}
