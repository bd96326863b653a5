package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/etcd/membership"
)

// roster has exactly these seats run etcd; all others that there are leave.
func (f *testFleet) roster(seats ...int) {
	f.world.Facts.Seats, f.world.Facts.Leaving = nil, nil
	for n := range f.setups {
		if slices.Contains(seats, n) {
			f.world.Facts.Seats = append(f.world.Facts.Seats, membership.Seat{Number: n, Name: fmt.Sprintf("n%d", n)})
		} else {
			f.world.Facts.Leaving = append(f.world.Facts.Leaving, n)
		}
	}
	f.tell()
}

// left waits until a seat's etcd has ended, and its data is put aside.
func (f *testFleet) left(seat int) {
	f.t.Helper()
	f.until(fmt.Sprintf("seat %d is let go", seat), func() bool {
		s := f.status(seat)
		return s.Doing != "" && !s.Running && !Holds(f.setups[seat].Dir)
	})
}

// TestExchange: the roster has another seat run etcd in the place of the only one, and later in the
// place of the one that leads three. Who leaves is let in until the leader has removed him, even if
// he leads, and hears of it; nothing is lost.
func TestExchange(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 1, 0, 1)
	f.start(1)
	f.whole(1)
	f.put(1, "a", "1")
	f.join(2)
	f.roster(2)
	f.start(2)
	t.Logf("the only member: %s", f.whole(2).Round(time.Millisecond))
	f.left(1)
	if got := f.get(2, "a"); got != "1" {
		t.Errorf("the new one has %q", got)
	}
	for seat := 3; seat <= 5; seat++ {
		f.join(seat)
	}
	f.roster(2, 3, 4)
	f.start(3, 4)
	f.whole(2, 3, 4)
	f.put(3, "b", "2")
	leader := f.leader(2, 3, 4)
	next := append(slices.DeleteFunc([]int{2, 3, 4}, func(n int) bool { return n == leader }), 5)
	f.roster(next...)
	f.start(5)
	t.Logf("the leader of three: %s", f.whole(next...).Round(time.Millisecond))
	f.left(leader)
	if got := f.get(5, "b"); got != "2" {
		t.Errorf("the new one has %q", got)
	}
	f.kill(leader) // it comes back later, and is none of etcd's business any more
	f.start(leader)
	f.left(leader)
	f.put(5, "c", "3")
	f.whole(next...)
}

// TestGuests is the table of whom the door lets in, step by step.
func TestGuests(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	asked, stranger := 0, errors.New("nobody")
	g := &guests{verify: func(tls.ConnectionState) ([]int, error) {
		if asked == 9 {
			return nil, stranger
		}
		return []int{7, asked}, nil // 7, who does not run etcd, calls every key its own
	}}
	in := func() string {
		var all []string
		for asked = 1; asked <= 9; asked++ {
			err := g.admit(tls.ConnectionState{}, 0)
			called, other := g.admit(tls.ConnectionState{}, asked), g.admit(tls.ConnectionState{}, asked%8+1)
			if (err == nil) != (called == nil) || other == nil || (asked == 9) != errors.Is(err, stranger) {
				t.Errorf("seat %d: %v; called: %v; another one called: %v", asked, err, called, other)
			}
			if err == nil {
				all = append(all, fmt.Sprint(asked))
			}
		}
		return strings.Join(all, " ")
	}
	if got := in(); got != "" {
		t.Errorf("before anything is known: %s", got)
	}
	facts := func(leaving []int, seats ...int) (f Facts) {
		for _, n := range seats {
			f.Seats = append(f.Seats, membership.Seat{Number: n})
		}
		f.Leaving = leaving
		return f
	}
	for _, c := range []struct {
		when  string
		after time.Duration
		facts Facts
		list  []int
		want  string
	}{
		{"etcd does not run here", 0, facts(nil, 1, 2, 3), nil, "1 2 3"},
		{"one leaves, and may lead", 0, facts([]int{1}, 2, 3, 4), nil, "1 2 3 4"},
		{"etcd runs, and lists it", 0, facts([]int{1, 5}, 2, 3, 4), []int{1, 2, 3}, "1 2 3 4"},
		{"it is removed", time.Second, facts([]int{1, 5}, 2, 3, 4), []int{2, 3, 4}, "1 2 3 4"},
		{"it has heard of it", membership.Goodbye, facts([]int{1, 5}, 2, 3, 4), []int{2, 3, 4}, "2 3 4"},
		{"a learner", 0, facts(nil, 2, 3), []int{2, 3, 9}, "2 3 4"},
	} {
		now = now.Add(c.after)
		var list []membership.Member
		for _, n := range c.list {
			list = append(list, membership.Member{Seat: n})
		}
		g.note(c.facts, list, now)
		if got := in(); got != c.want {
			t.Errorf("%s: %s, want %s", c.when, got, c.want)
		}
	}
}

// TestClaim: a spare, of a lower number than a member, says that this one's TLS key is its own. Nobody
// loses a connection by that, nor is the liar reached where the member answers.
func TestClaim(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 4, 0, 4)
	f.roster(2, 3, 4)
	for i := range f.world.Facts.Seats {
		f.world.Facts.Founders[i] = f.world.Facts.Seats[i].Number
	}
	f.world.Facts.Founders, f.world.Facts.Leaving = f.world.Facts.Founders[:3], nil
	f.world.Facts.Seats = append(f.world.Facts.Seats, membership.Seat{Number: 1, Name: "n1", Spare: true})
	f.tell()
	f.start(1, 2, 3, 4)
	f.whole(2, 3, 4)
	before, leader := f.ids(2), f.leader(2, 3, 4)
	robbed := (leader-1)%3 + 2 // another member
	for id, seat := range f.world.Keys {
		if seat == robbed {
			f.world.Claim = map[string]int{id: 1}
		}
	}
	f.world.Facts.Addresses[1] = f.world.Facts.Addresses[robbed]
	f.tell()
	began := time.Now()
	f.until("the grace is over", func() bool { return time.Since(began) > f.world.Facts.Grace+2*calm })
	f.whole(2, 3, 4)
	f.put(robbed, "a", "1")
	if after := f.ids(2); after != before {
		t.Errorf("members %s after that, %s before", after, before)
	}
	for seat := range f.setups {
		if log, err := os.ReadFile(f.log(seat)); err != nil || strings.Contains(string(log), "connections were cut") {
			t.Errorf("seat %d has cut connections: %v", seat, err)
		}
	}
}

// TestVerdict: data that nobody changes is read once, though a node that waits looks at it each
// second. What could not be read is tried again later.
func TestVerdict(t *testing.T) {
	f := newTestFleet(t, 1, 0, 1)
	f.start(1)
	f.whole(1)
	f.stop(1)
	dir := &folder{dir: f.setups[1].Dir, disk: machine{}, last: &verdict{}}
	data, now := dir.data(0), time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	db := filepath.Join(data, "member", "snap", "db")
	whole, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	change := func(raw []byte, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(db, raw, 0o600), os.Chtimes(db, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(when string, good bool) {
		t.Helper()
		if err := dir.check(data, now); (err == nil) != good {
			t.Errorf("%s: %v", when, err)
		}
	}
	change(whole, now)
	ask("whole", true)
	bad := make([]byte, len(whole))
	change(bad, now)
	ask("nobody has changed it, as far as can be seen", true)
	change(bad, now.Add(time.Second))
	ask("changed", false)
	change(whole, now.Add(time.Second))
	ask("a moment later", false)
	now = now.Add(checkAgain)
	ask("later", true)
}
