package vote

import (
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/golden"
)

// standing is every state that a seat can be in, as far as the answer to an event depends on it.
var standing = []struct {
	name string
	make func(f *four)
}{
	{"booted, and asking", func(f *four) { f.begin(journal.Memory{}) }},
	{"behind, and asking", func(f *four) { f.begin(journal.Memory{Behind: true}) }},
	{"abstaining", func(f *four) { f.begin(journal.Memory{Behind: true}); f.answers(2, 2); f.answers(3, 2) }},
	{"the journal is ahead", func(f *four) {
		f.begin(journal.Memory{Head: journal.Head{Height: 2, Record: f.hash("two")}})
		f.answers(2, 2)
		f.answers(3, 2)
	}},
	{"idle", func(f *four) { f.boot() }},
	{"waits for a proposal", func(f *four) { f.boot(); f.item("X") }},
	{"has asked about X", func(f *four) { f.boot(); f.item("X"); f.proposal(0, "X", -1) }},
	{"has prevoted X", func(f *four) { f.prevoted() }},
	{"has prevoted X, and q do not agree", func(f *four) {
		f.prevoted()
		f.votes(ballot.Prevote, 0, "X", 1, 2)
		f.votes(ballot.Prevote, 0, "nil", 4)
	}},
	{"has precommitted nil", func(f *four) {
		f.boot()
		f.item("X")
		f.time(ballot.Proposal)
		f.votes(ballot.Prevote, 0, "nil", 1, 2, 4)
	}},
	{"has precommitted X", func(f *four) { f.prevoted(); f.votes(ballot.Prevote, 0, "X", 1, 2, 3) }},
	{"has precommitted X, and others nil", func(f *four) {
		f.prevoted()
		f.votes(ballot.Prevote, 0, "X", 1, 2, 3)
		f.votes(ballot.Precommit, 0, "nil", 2, 3)
		f.votes(ballot.Precommit, 0, "X", 1)
	}},
	{"locked on X, in round 1", func(f *four) { f.locked() }},
	{"chair of round 2, with nothing to put forward", func(f *four) {
		f.boot()
		f.votes(ballot.Precommit, 2, "nil", 2, 3)
	}},
	{"resting", func(f *four) {
		f.boot()
		f.item("X")
		for round := range int32(12) {
			f.fails(round)
		}
	}},
	{"decided", func(f *four) { f.boot(); f.votes(ballot.Precommit, 0, "X", 2, 3, 4) }},
	{"halted", func(f *four) { f.begin(journal.Memory{Head: journal.Head{Height: 1, Record: f.hash("one")}}) }},
}

func (f *four) prevoted() {
	f.boot()
	f.item("X")
	f.proposal(0, "X", -1)
	f.judged("X", true)
}

// happening is every event, as far as it differs.
func (f *four) happening() (all []struct {
	name  string
	event Event
}) {
	add := func(name string, e Event) {
		all = append(all, struct {
			name  string
			event Event
		}{name, e})
	}
	ballots := func(seat int, k ballot.Kind, round int32, value string) Event {
		return Received{&ballot.Ballot{Words: f.h.Words(k, round, f.hash(value), ballot.Fresh), Seat: seat}}
	}
	round := f.s.Round
	next := f.h
	next.Number++
	next.Record = f.hash("X")
	add("the next height begins", Begin{next})
	add("item Y", Item{f.hash("Y")})
	add("no item", Item{})
	add("news", News{})
	add("proposal of Y", ballots(f.h.Chair(round), ballot.Proposal, round, "Y"))
	add("prevote of seat 3 for X", ballots(3, ballot.Prevote, round, "X"))
	add("prevote of seat 3 for nil", ballots(3, ballot.Prevote, round, "nil"))
	add("precommit of seat 4 for X", ballots(4, ballot.Precommit, round, "X"))
	add("precommit of seat 4 for nil", ballots(4, ballot.Precommit, round, "nil"))
	add("a later round: seat 4", ballots(4, ballot.Prevote, round+1, "nil"))
	add("an own ballot that it has not cast", ballots(1, ballot.Precommit, round, "Z"))
	add("X is valid", Judged{f.h.Number, round, f.hash("X"), true})
	add("X is invalid", Judged{f.h.Number, round, f.hash("X"), false})
	for k := ballot.Proposal; k <= ballot.Precommit; k++ {
		add("time, "+k.String(), Timeout{f.h.Number, round, k})
	}
	add("time, of the round before", Timeout{f.h.Number, round - 1, ballot.Precommit})
	add("seat 4 answers", Answered{ballot.Answer{By: 4, At: f.h.Number}})
	return all
}

// TestTable gives every event to a seat in every state. What is not listed changes nothing.
func TestTable(t *testing.T) {
	var out strings.Builder
	name := Naming{Seat: func(seat int) byte { return byte(seat) }, Value: func(h document.Hash) byte { return h[0] }}
	for _, state := range standing {
		var before strings.Builder
		f := &four{h: height(t, 4, 2), names: map[document.Hash]string{ballot.Nil: "nil"}, out: &before}
		f.names[f.h.Record] = "the ledger's"
		state.make(f)
		fmt.Fprintf(&out, "%s: %s\n", state.name, f.stands())
		stood, heard := f.s.Key(name)
		for _, e := range f.happening() {
			g := *f
			var effects []Effect
			g.s, effects = Step(f.s, e.event)
			control, more := g.s.Key(name)
			told := []string{}
			for _, e := range effects {
				told = append(told, g.effect(e))
			}
			if s := g.stands(); s != f.stands() {
				told = append(told, "= "+s)
			}
			switch {
			case len(told) > 0:
			case string(control) != string(stood):
				told = append(told, "noted")
			case string(more) != string(heard):
				told = append(told, "heard")
			default:
				continue
			}
			fmt.Fprintf(&out, "    %-36s %s\n", e.name, strings.Join(told, "; "))
			if again, and := f.s.Key(name); string(again) != string(stood) || string(and) != string(heard) {
				t.Errorf("%s: %s changes the state that it was given", state.name, e.name)
			}
		}
		out.WriteString("\n")
	}
	golden.Compare(t, "table.txt", out.String())
}

// stands is how far a seat has come.
func (f *four) stands() string {
	s := fmt.Sprintf("%s %d, round %d, %s", f.s.Phase, f.s.At.Number, f.s.Round, f.s.Step)
	if f.s.Locked != none {
		s += fmt.Sprintf(", locked %s in %d", f.names[f.s.Locked.Value], f.s.Locked.Round)
	}
	if f.s.Valid != none {
		s += fmt.Sprintf(", valid %s in %d", f.names[f.s.Valid.Value], f.s.Valid.Round)
	}
	if f.s.Asking {
		s += ", asking"
	}
	if f.s.Mute() {
		s += ", mute"
	}
	return s
}
