package part

import (
	"fmt"
	"testing"

	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
)

// TestShunned: of told keys those are of seats that are no more than operators may isolate: a member that
// lies keeps a node from no quorum.
func TestShunned(t *testing.T) {
	r := ledgertest.Founded(t, 7, 1).Log.State().Roster
	tlsKey := func(seat signed.Key) (document.Hash, bool) {
		one, ok := r.ByKey(seat)
		return document.HashOf(fmt.Append(nil, one.Number)), ok && one.Number != 7 // which has not said it yet
	}
	keys := func(seats ...int) (all []string) {
		for _, number := range seats {
			all = append(all, document.HashOf(fmt.Append(nil, number)).String())
		}
		return all
	}
	for _, c := range []struct {
		told []string
		want int
	}{{nil, 0}, {keys(3), 1}, {keys(5, 6, 7), 2}, {keys(4, 5, 6), 0}, {keys(1, 2, 3, 4, 5, 6, 7), 0}, {keys(6, 99, 100, 101), 1}} {
		if got := shunned(c.told, r, tlsKey); len(got) != c.want {
			t.Errorf("%d told keys: %d seats, want %d", len(c.told), len(got), c.want)
		}
	}
}

// TestTurnsToldAway: a node has nothing to do with another one whose TLS key was called revoked by the
// member that let it in, until an operator lets that in; and with all others as before.
func TestTurnsToldAway(t *testing.T) {
	v := liveTold(t, 4, func(v *village) []string { return []string{v.nodes[1].part.node.Key()} })
	v.hand(t, 1)
	last, stolen := v.nodes[3], v.nodes[1].part.node.Key()
	knows := func(number int) bool {
		now, err := control.ReadSeats(last.part.run)
		if err != nil {
			return false
		}
		for _, one := range now.Seats {
			if one.Number == number {
				return one.TLSKey != ""
			}
		}
		return false
	}
	within(t, "it hears the others, and turns n2 away", func() bool {
		return v.heard(t, 1, 4) && v.heard(t, 3, 4) && last.part.turnsAway(stolen) && knows(1) && knows(3) && !knows(2)
	})
	if v.nodes[0].part.turnsAway(stolen) || last.part.turnsAway(v.nodes[0].part.node.Key()) {
		t.Error("somebody else is turned away, or by somebody else")
	}
	must(t, last.part.node.LetIn(stolen))
	last.Look()
	within(t, "it hears n2 again", func() bool { return v.heard(t, 2, 4) && !last.part.turnsAway(stolen) && knows(2) })
}
