package etcd

import (
	"testing"
	"time"
)

// TestReplace: three found etcd at once, the leader is killed, and the spare takes its place. What
// comes back does not disturb them.
func TestReplace(t *testing.T) {
	f := newTestFleet(t, 3, 1, 3)
	f.start(1, 2, 3, 4)
	t.Logf("three found etcd: %s", f.whole(1, 2, 3).Round(time.Millisecond))
	f.put(1, "a", "1")
	lost := f.leader(1, 2, 3)
	var rest []int
	for seat := 1; seat <= 3; seat++ {
		if seat != lost {
			rest = append(rest, seat)
		}
	}
	f.kill(lost)
	began := time.Now()
	f.put(rest[0], "b", "2")
	t.Logf("leader killed, next write: %s", time.Since(began).Round(time.Millisecond))
	f.whole(rest[0], rest[1], 4)
	t.Logf("spare in its place: %s, of which %s are silence", time.Since(began).Round(time.Millisecond), 10*time.Second)
	if got := f.get(4, "b"); got != "2" {
		t.Errorf("the spare has %q", got)
	}
	f.start(lost)
	f.until("the lost one waits", func() bool { s := f.status(lost); return s.Doing != "" && !s.Running && !s.Lost })
	f.put(rest[0], "c", "3")
	f.whole(rest[0], rest[1], 4)
}
