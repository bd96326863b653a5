package client

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/golden"
)

// seats are n1 to n…: the first ones are members, and then there are spares.
func seats(t testing.TB, count, members, spares int) (r roster.Roster) {
	for i := 1; i <= count; i++ {
		name := fmt.Sprintf("n%d", i)
		r.Seats = append(r.Seats, roster.Seat{Number: i, Name: name, Key: ledgertest.Key(t, name), Member: i <= members, Spare: i > members && i <= members+spares})
	}
	return r
}

func names(order []roster.Seat) string {
	var all []string
	for _, s := range order {
		all = append(all, s.Name)
	}
	return strings.Join(all, " ")
}

// TestChoose has the order of each node of a small fleet.
func TestChoose(t *testing.T) {
	var b strings.Builder
	r := seats(t, 6, 3, 1)
	for _, running := range [][]int{nil, {1, 2, 3}, {1, 2}, {1, 2, 4}, {6}} {
		for _, s := range r.Seats {
			fmt.Fprintf(&b, "running %v, %s: %s\n", running, s.Name, names(Choose(r, s.Key, running)))
		}
	}
	golden.Compare(t, "choose.txt", b.String())
	if got := Choose(seats(t, 2, 0, 0), r.Seats[0].Key, nil); len(got) != 0 {
		t.Errorf("nobody runs etcd: %v", got)
	}
}

// TestEven spreads nodes over the members; where one goes, only its nodes move.
func TestEven(t *testing.T) {
	const nodes = 3000
	r := seats(t, 5, 5, 0)
	count := make(map[int]int)
	for n := range nodes {
		self := ledgertest.Key(t, fmt.Sprintf("follower %d", n))
		first := Choose(r, self, []int{1, 2, 3, 4, 5})[0]
		count[first.Number]++
		if now := Choose(r, self, []int{1, 2, 3, 5})[0]; first.Number != 4 && now.Number != first.Number {
			t.Fatalf("a node of seat %d moves to %d when 4 goes", first.Number, now.Number)
		}
	}
	for seat, n := range count {
		if n < nodes/5*8/10 || n > nodes/5*12/10 {
			t.Errorf("seat %d has %d of %d", seat, n, nodes)
		}
	}
}

// TestSpread grows with the fleet, within bounds.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, roster.MaxSeats).Draw(t, "seats")
		d := Spread(n)
		if d < 500*time.Millisecond || d > 20*time.Second || d > Spread(n+1) {
			t.Fatalf("%d: %s", n, d)
		}
		if p := part(d); p < d/2 || p > d+1 {
			t.Fatalf("%s of %s", p, d)
		}
	})
}

// TestOrderIsWhole wants each that may have a gateway exactly once.
func TestOrderIsWhole(t *testing.T) {
	r := seats(t, 9, 5, 2)
	rapid.Check(t, func(t *rapid.T) {
		running := rapid.SliceOf(rapid.IntRange(1, 12)).Draw(t, "running")
		got := Choose(r, r.Seats[rapid.IntRange(0, 8).Draw(t, "self")].Key, running)
		var numbers []int
		for _, s := range got {
			numbers = append(numbers, s.Number)
		}
		slices.Sort(numbers)
		if !slices.Equal(numbers, []int{1, 2, 3, 4, 5, 6, 7}) {
			t.Fatalf("%v", numbers)
		}
	})
}
