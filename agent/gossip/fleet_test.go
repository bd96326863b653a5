package gossip

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
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
func idle(t testing.TB, count int) (bytes []int) {
	n := atRest(t, count)
	n.run(func() {
		for i, one := range n.nodes {
			time.Sleep(time.Hour / time.Duration(4*count))
			one.sayAll()
			_ = i
		}
		n.within(time.Hour, "all know all", func() bool { return n.agree(3 * count) })
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
		if !n.agree(3 * count) {
			t.Error("they do not know the same")
		}
		var sessions, dropped = 0, make(map[string]uint64)
		for _, one := range n.nodes {
			s := one.engine.Stats()
			sessions += s.Sessions
			for why, n := range s.Dropped {
				dropped[why] += n
			}
		}
		t.Logf("%d nodes: %.1f sessions each; ended: %v", count, float64(sessions)/float64(count), dropped)
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

// TestIdleHour counts what a fleet costs in which nothing happens.
func TestIdleHour(t *testing.T) {
	for _, count := range []int{4, 100} {
		synctest.Test(t, func(t *testing.T) {
			bytes := idle(t, count)
			t.Logf("%d nodes: %s a node and idle hour on average, %s at most", count, kB(mean(bytes)), kB(bytes[len(bytes)-1]))
			if mean(bytes) > 150_000 {
				t.Error("more than 150 kB")
			}
		})
	}
}

func kB(n int) string { return fmt.Sprintf("%.1f kB", float64(n)/1000) }
