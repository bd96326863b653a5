package vote

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
)

// TestShownPolka has a locked seat show the prevotes behind its lock once their round is over: one of
// them may be a liar's, which showed it to nobody else. Then another seat can follow.
func TestShownPolka(t *testing.T) {
	a := &four{h: height(t, 4, 2), names: make(map[document.Hash]string), out: &strings.Builder{}}
	a.locked()
	seats := func(all []*ballot.Ballot) (by []int) {
		for _, b := range all {
			if b.Kind == ballot.Prevote && b.Round == 0 && b.Value == a.s.Locked.Value {
				by = append(by, b.Seat)
			}
		}
		slices.Sort(by)
		return by
	}
	shown := a.s.Shown()
	if by := seats(shown); len(by) < a.h.Quorum || a.s.Round != 1 || a.s.Valid.Round != 0 {
		t.Fatalf("in round %d, with a quorum of round %d, it shows prevotes of seats %v", a.s.Round, a.s.Valid.Round, by)
	}
	other := &four{h: a.h, names: a.names, out: &strings.Builder{}}
	other.boot()
	other.s.Self = 4
	other.item("Y")
	for round := range int32(2) {
		other.votes(ballot.Precommit, round, "nil", 1, 2, 3)
		other.time(ballot.Precommit)
	}
	for _, b := range shown {
		other.give(fmt.Sprintf("seat 1 shows a ballot of seat %d", b.Seat), Received{b})
	}
	other.proposal(2, "X", 0)
	if own := other.s.Own; len(own) == 0 || own[len(own)-1] != a.h.Words(ballot.Prevote, 2, a.s.Locked.Value, ballot.Fresh) {
		t.Errorf("who sees what it shows does not follow it:\n%s", other.out)
	}
	// While the round is voted about everybody shows his own.
	now := &four{h: a.h, names: a.names, out: &strings.Builder{}}
	now.boot()
	now.item("X")
	now.proposal(0, "X", ballot.Fresh)
	now.judged("X", true)
	now.votes(ballot.Prevote, 0, "X", 1, 2, 3)
	if by := seats(now.s.Shown()); !slices.Equal(by, []int{1}) {
		t.Errorf("in the round itself it shows prevotes of seats %v: its own is enough", by)
	}
}
