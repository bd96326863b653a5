package gossip

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/gossip/choice"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/golden"
)

// TestTargets shows to whom nodes open sessions: voters of different domains, by turns.
func TestTargets(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct {
		what    string
		count   int
		votes   int
		domains int
		gone    []int
		turns   int
	}{
		{"a fleet of one", 1, 1, 1, nil, 1}, {"a fleet of two", 2, 2, 2, nil, 1}, {"a fleet of three", 3, 3, 3, nil, 2}, {"four in one house", 4, 4, 1, nil, 2},
		{"nine in three houses", 9, 9, 3, nil, 4}, {"nine in three houses, and two voters do not answer", 9, 9, 3, []int{2, 3}, 1},
		{"twelve with two voters", 12, 2, 12, nil, 1}, {"twelve, and no voter answers", 12, 3, 12, []int{1, 2, 3}, 1},
	} {
		fmt.Fprintln(&out, c.what)
		s := large(t, c.count)
		for i := range s.Roster.Seats {
			s.Roster.Seats[i].Vote, s.Roster.Seats[i].Domain = i < c.votes, fmt.Sprintf("d%d", i%c.domains)
		}
		for turn := range c.turns {
			for _, self := range []int{1, c.count} {
				voters, rest := choice.Order(s.Roster, document.HashOf([]byte("fleet")), s.Roster.Seats[self-1].Key, 1)
				fmt.Fprintf(&out, "    turn %d, n%d:", turn, self)
				for _, seat := range choice.Targets(voters, rest, turn, func(seat roster.Seat) bool { return !slices.Contains(c.gone, seat.Number) }) {
					fmt.Fprintf(&out, " %s (%s)", seat.Name, seat.Domain)
				}
				fmt.Fprintln(&out)
			}
		}
	}
	golden.Compare(t, "targets.txt", out.String())
}

// TestTargetsSpread wants that no voter has many more sessions than another.
func TestTargetsSpread(t *testing.T) {
	s := large(t, 300)
	chosen := make(map[int]int)
	for _, seat := range s.Roster.Seats {
		voters, rest := choice.Order(s.Roster, s.Fleet(), seat.Key, 1)
		for _, target := range choice.Targets(voters, rest, 0, func(roster.Seat) bool { return true }) {
			chosen[target.Number]++
		}
	}
	most := 0
	for number, n := range chosen {
		if most = max(most, n); number > 100 {
			t.Errorf("seat %d has no vote, and is chosen", number)
		}
	}
	if len(chosen) < 99 || most > 25 {
		t.Errorf("%d voters are chosen, one of them %d times: 900 sessions for 100 voters", len(chosen), most)
	}
}

// TestTargetsRuns: which voters a node chooses first is another matter in each run, so that no
// key is made to come first.
func TestTargetsRuns(t *testing.T) {
	s := large(t, 50)
	first := make(map[int]bool)
	for run := range uint64(200) {
		voters, _ := choice.Order(s.Roster, s.Fleet(), s.Roster.Seats[0].Key, run)
		first[voters[0].Number] = true
	}
	if len(first) < 40 {
		t.Errorf("in 200 runs %d of 49 voters come first", len(first))
	}
	a := New(Config{Self: s.Roster.Seats[0].Key, Ledger: still{s}, Kinds: notice.Kinds()})
	b := New(Config{Self: s.Roster.Seats[0].Key, Ledger: still{s}, Kinds: notice.Kinds()})
	if slices.EqualFunc(a.voters, b.voters, func(a, b roster.Seat) bool { return a.Number == b.Number }) {
		t.Error("two runs choose alike")
	}
}

// TestPeer walks through what a peer waits.
func TestPeer(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var p peer
	for i, want := range []time.Duration{firstAgain, 10 * time.Second, 20 * time.Second, 40 * time.Second} {
		p.failed(now, 1)
		if got := p.again.Sub(now); got != want {
			t.Errorf("failure %d: %s, and %s is wanted", i, got, want)
		}
	}
	for range 40 {
		p.failed(now, 0.5)
	}
	if got := p.again.Sub(now); got != lastAgain*3/4 {
		t.Errorf("after many failures: %s", got)
	}
	if p.reached(); !p.again.IsZero() || p.failures != 0 {
		t.Errorf("reached: %+v", p)
	}
	for i, want := range []time.Duration{firstAway, 2 * time.Minute, 4 * time.Minute} {
		p.sendAway(now)
		if got := p.away.Sub(now); got != want {
			t.Errorf("fault %d: %s, and %s is wanted", i, got, want)
		}
	}
	for range 40 {
		p.sendAway(now)
	}
	if got := p.away.Sub(now); got != lastAway {
		t.Errorf("after many faults: %s", got)
	}
	p.sendAway(now.Add(50 * forgiven))
	if got := p.away.Sub(now.Add(50 * forgiven)); got != firstAway {
		t.Errorf("a fault after long: %s", got)
	}
}
