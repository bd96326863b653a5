package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
)

// walker proposes at random, much of which cannot be decided.
type walker struct {
	*ledgertest.Fleet
	t   testing.TB
	rnd *rand.Rand
}

// some are numbers of seats that there may be, in order.
func (w *walker) some(most int) (numbers []int) {
	for range 1 + w.rnd.IntN(most) {
		numbers = append(numbers, 1+w.rnd.IntN(w.Log.State().Roster.Given+1))
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

func (w *walker) any(number int) roster.Seat {
	if s, there := w.Log.State().Roster.Seat(number); there && w.rnd.IntN(8) > 0 {
		return s
	}
	return ledgertest.Seat(w.t, number, fmt.Sprintf("n%d", number))
}

func (w *walker) propose() ledger.Value {
	s, coin := w.Log.State(), func() bool { return w.rnd.IntN(3) == 0 }
	der := [][]byte{nil, ca(w.t, "ca-second"), ca(w.t, "ca-third")}[w.rnd.IntN(3)]
	return value(func(v *ledger.Value) {
		switch w.rnd.IntN(13) {
		case 0, 1, 2:
			d := &decision.Seat{}
			for _, n := range append(w.some(2), s.Roster.Given+1) {
				seat := w.any(n)
				seat.Vote, seat.Spare, seat.Domain = !coin(), coin() && !seat.Member, []string{"", "attic"}[w.rnd.IntN(2)]
				d.Seats = append(d.Seats, seat)
			}
			d.Seats = d.Seats[w.rnd.IntN(len(d.Seats)):]
			if coin() {
				d.Rule = roster.TwoThirds
			}
			v.Seat = d
		case 3, 4:
			v.Unseat = &decision.Unseat{Seats: w.some(2), CA: der}
			if coin() {
				v.Unseat.Members = w.some(1)
			}
		case 5:
			d := &decision.Replace{Old: w.some(1)[0], CA: der}
			d.New = w.any(d.Old)
			d.New.Number, d.New.Key, d.New.Journal = s.Roster.Given+1, ledgertest.Key(w.t, ledgertest.Replacing(d.New.Name)), roster.ID{byte(s.Roster.Given + 1), 1}
			v.Replace = d
		case 6:
			v.Isolate = &decision.Isolate{Seats: w.some(2), Lift: coin()}
		case 7:
			v.Rule = &decision.Rule{Rule: roster.Majority}
		case 8:
			v.TUFRoot = &decision.TUFRoot{Number: 1 + w.rnd.IntN(4), Root: document.HashOf([]byte{byte(w.rnd.IntN(4))})}
		case 9:
			v.Members = &decision.Members{Members: w.some(4), Spares: w.some(3)}
		case 10:
			p := fleet.DefaultPolicy()
			p.Votes, p.Trial = 1+w.rnd.IntN(20), coin()
			p.Trial = p.Trial && coin()
			v.Policy = &p
		case 11:
			v.CA = &decision.CA{Certificate: ca(w.t, "ca-second")}
		case 12:
			v.Operators = list(fmt.Sprintf("bob%d", w.rnd.IntN(3)), fleet.Roles[w.rnd.IntN(3)]).Operators
		}
	})
}

// known is what a chair could know: all that would help, or not all of it.
func (w *walker) known(v ledger.Value, id document.Hash) (all [][]byte) {
	s := w.Log.State()
	add := func(raw []byte) {
		if w.rnd.IntN(6) > 0 {
			all = append(all, raw)
		}
	}
	seats := []roster.Seat{}
	if v.Seat != nil {
		seats = v.Seat.Seats
	} else if v.Replace != nil {
		seats = append(seats, v.Replace.New)
	}
	for _, seat := range seats {
		add(w.Request(w.t, seat))
	}
	for _, n := range s.Awaited {
		if seat, there := s.Roster.Seat(n); there {
			add(w.OpinionOf(w.t, seat, id))
		}
	}
	if v.Isolate != nil {
		add(w.Answer(id, true, "hanse", "", 1, 2))
	}
	return all
}

// TestWalk has fleets decide at random for a while. Whatever is decided, seats keep their numbers, no rule
// falls back by itself, no decision changes more than it may, and another computer comes to the same state.
func TestWalk(t *testing.T) {
	decided := make(map[decision.Kind]int)
	refused := 0
	for seed := range uint64(24) {
		w := &walker{Fleet: ledgertest.Founded(t, 1+int(seed%8), 1), t: t, rnd: rand.New(rand.NewPCG(seed, 1))}
		owner := make(map[int]string) // by number of a seat: its key, for ever
		for range 80 {
			before := w.Log.State()
			v := w.propose()
			p := w.Proposal(t, v)
			resting, evidence, err := before.Gather(p, w.known(v, proposal.ID(p)))
			if err == nil {
				err = w.Decides(t, resting, evidence)
				if err != nil {
					t.Errorf("seed %d: a chair gathers what is refused: %v", seed, err)
				}
			}
			after := w.Log.State()
			if err != nil {
				if refused++; after.Height != before.Height {
					t.Fatalf("seed %d: height %d after %v", seed, after.Height, err)
				}
				continue
			}
			decided[v.Kind()]++
			if wrong := unsound(before, after, v, owner); wrong != nil {
				t.Fatalf("seed %d, height %d, %s: %v\n%s", seed, after.Height, v.Kind(), wrong, v.Encode())
			}
		}
		l, err := replay(w.Genesis, w.Entries)
		if err != nil || tell(l.State()) != tell(w.Log.State()) {
			t.Fatalf("seed %d: another computer: %v", seed, err)
		}
		recalled := ledger.New(w.Genesis)
		for _, e := range w.Entries {
			if err := recalled.Recall(e); err != nil {
				t.Fatalf("seed %d: recalled: %v", seed, err)
			}
		}
		if tell(recalled.State()) != tell(w.Log.State()) {
			t.Fatalf("seed %d: recalled it is another state", seed)
		}
	}
	t.Logf("%d refused; decided: %v", refused, decided)
	if len(decided) < 10 || refused < 100 {
		t.Errorf("too little was tried: %v, %d refused", decided, refused)
	}
}

// unsound says what a decision has done that none may.
func unsound(before, after ledger.State, v ledger.Value, keys map[int]string) error {
	if err := after.Roster.Check(); err != nil {
		return err
	}
	a, b := before.Roster, after.Roster
	if changed := roster.Changed(a, b); len(changed) > a.MostChanged() && v.Replace == nil {
		return fmt.Errorf("it changes %v of %d votes", changed, a.Votes())
	}
	for _, s := range b.Seats {
		if was, ok := keys[s.Number]; ok && was != string(s.Key) {
			return fmt.Errorf("seat %d gets another key", s.Number)
		}
		keys[s.Number] = string(s.Key)
	}
	switch {
	case b.Given < a.Given:
		return fmt.Errorf("numbers go back to %d", b.Given)
	case b.Rule != a.Rule && v.Rule == nil && !(v.Seat != nil && a.Votes() < 4 && b.Votes() >= 4 && b.Rule == roster.TwoThirds):
		return fmt.Errorf("the rule becomes %s with %d votes", b.Rule, b.Votes())
	case after.TUFNumber < before.TUFNumber:
		return fmt.Errorf("the TUF root goes back to %d", after.TUFNumber)
	case after.Policy.Trial != before.Policy.Trial:
		return fmt.Errorf("it is a trial: %t", after.Policy.Trial)
	case b.Votes() > after.Policy.Votes:
		return fmt.Errorf("%d votes, and the policy allows %d", b.Votes(), after.Policy.Votes)
	}
	for _, c := range a.Seats {
		if _, stays := b.Seat(c.Number); !stays && before.NeedsCA(c.Number) && after.NodeCA.Equal(before.NodeCA) {
			return fmt.Errorf("seat %d leaves with the key of the node CA", c.Number)
		}
	}
	for _, n := range slices.Concat(after.Isolated, after.Awaited) {
		if _, there := b.Seat(n); !there {
			return fmt.Errorf("seat %d is not there, and is isolated or awaited", n)
		}
	}
	return nil
}
