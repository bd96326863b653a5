package vote

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/golden"
)

// four is seat 1 of four at height 2, whose chairs are seats 3, 4, 1, 2 in rounds 0 to 3. What
// happens to it, and what it does, is told in out.
type four struct {
	h     ballot.Height
	s     State
	names map[document.Hash]string
	out   *strings.Builder

	memory journal.Memory // what the journal says
}

func (f *four) hash(name string) document.Hash {
	if name == "nil" {
		return ballot.Nil
	}
	h := document.HashOf([]byte(name))
	f.names[h] = name
	return h
}

func (f *four) begin(m journal.Memory) {
	m.Title = journal.Title{Fleet: f.h.Fleet}
	f.memory = m
	f.s, _ = New(1, m)
	f.give("height 2 begins", Begin{f.h})
}

// boot is a seat that q others have answered: nothing is lacking.
func (f *four) boot() {
	f.begin(journal.Memory{})
	f.answers(2, 2)
	f.answers(3, 2)
}

func (f *four) answers(by int, at int64) {
	f.give(fmt.Sprintf("seat %d answers from height %d", by, at), Answered{ballot.Answer{By: by, At: at}})
}

// cut has the power fail, and the seat start from its journal.
func (f *four) cut() {
	f.begin(f.memory)
	f.answers(2, 2)
	f.answers(3, 2)
}

// time is a time-out of the round.
func (f *four) time(k ballot.Kind) {
	f.give("time, "+k.String(), Timeout{f.h.Number, f.s.Round, k})
}

func (f *four) item(name string) { f.give("item "+name, Item{f.hash(name)}) }

func (f *four) judged(name string, valid bool) {
	f.give(fmt.Sprintf("%s is valid: %v", name, valid), Judged{f.h.Number, f.s.Round, f.hash(name), valid})
}

func (f *four) proposal(round int32, name string, valid int32) {
	b := &ballot.Ballot{Words: f.h.Words(ballot.Proposal, round, f.hash(name), valid), Seat: f.h.Chair(round)}
	f.give(fmt.Sprintf("seat %d: proposal, round %d, %s, valid round %d", b.Seat, round, name, valid), Received{b})
}

func (f *four) votes(k ballot.Kind, round int32, name string, seats ...int) {
	for _, seat := range seats {
		b := &ballot.Ballot{Words: f.h.Words(k, round, f.hash(name), ballot.Fresh), Seat: seat}
		f.give(fmt.Sprintf("seat %d: %s, round %d, %s", seat, k, round, name), Received{b})
	}
}

// fails has the q precommits for nothing, and the time, that end a round.
func (f *four) fails(round int32) {
	f.votes(ballot.Precommit, round, "nil", 2, 3, 4)
	f.time(ballot.Precommit)
}

// locked is a seat that has locked X in round 0 and is in round 1.
func (f *four) locked() {
	f.boot()
	f.item("X")
	f.proposal(0, "X", -1)
	f.judged("X", true)
	f.votes(ballot.Prevote, 0, "X", 1, 2, 3)
	f.fails(0)
}

func (f *four) give(what string, e Event) {
	s, effects := Step(f.s, e)
	f.s = s
	fmt.Fprintf(f.out, "  %s\n", what)
	for _, e := range effects {
		if p, ok := e.(Persist); ok {
			f.memory = f.memory.With(p.Record)
		}
		fmt.Fprintf(f.out, "      %s\n", f.effect(e))
	}
}

func (f *four) effect(e Effect) string {
	switch e := e.(type) {
	case Persist:
		switch r := e.Record; {
		case r.Lock != nil:
			return fmt.Sprintf("persist %s %s, and the lock with %d prevotes", r.Ballot.Kind, f.names[r.Ballot.Value], len(r.Lock.Prevotes))
		case r.Ballot != nil:
			return fmt.Sprintf("persist %s %s", r.Ballot.Kind, f.names[r.Ballot.Value])
		case r.Head != nil:
			return fmt.Sprintf("persist head %d", r.Head.Height)
		}
		return fmt.Sprintf("persist abstain to %d, behind: %v", e.Record.Abstain, e.Record.Behind)
	case Send:
		return fmt.Sprintf("send %s, round %d, %s, valid round %d", e.Ballot.Kind, e.Ballot.Round, f.names[e.Ballot.Value], e.Ballot.ValidRound)
	case Timer:
		return fmt.Sprintf("timer %s, round %d, %v", e.Step, e.Round, e.After)
	case Judge:
		return "judge " + f.names[e.Value]
	case Ask:
		return "ask"
	case Decide:
		return fmt.Sprintf("DECIDE %s by %d, round %d", f.names[e.Value], len(e.Certificate.Seats), e.Certificate.Round)
	case Expose:
		return fmt.Sprintf("EXPOSE seat %d: %s %s and %s", e.Proof.One.Seat, e.Proof.One.Kind, f.names[e.Proof.One.Value], f.names[e.Proof.Other.Value])
	case Lack:
		return "LACK"
	case Fork:
		return fmt.Sprintf("FORK at %d: %s and %s", e.Height, f.names[e.One], f.names[e.Other])
	}
	return fmt.Sprintf("%#v", e)
}

// TestLines tells what a seat does about each line of the paper, and each difference from it.
func TestLines(t *testing.T) {
	pre, com := ballot.Prevote, ballot.Precommit
	told, err := os.ReadFile("testdata/lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, c := range []struct {
		line string
		run  func(f *four)
	}{
		{"boot: q answers, then what the queue has", func(f *four) { f.item("X"); f.boot(); f.item("X") }},
		{"11 to 18: the chair puts forward its item, fresh", func(f *four) {
			f.boot()
			f.item("X")
			f.fails(0)
			f.fails(1)
		}},
		{"16: the chair puts forward what a quorum has prevoted", func(f *four) {
			f.locked()
			f.fails(1)
		}},
		{"22, 23: a fresh proposal is judged, and prevoted", func(f *four) { f.boot(); f.item("X"); f.proposal(0, "X", -1); f.judged("X", true) }},
		{"26: it is invalid", func(f *four) { f.boot(); f.item("X"); f.proposal(0, "X", -1); f.judged("X", false) }},
		{"26: the seat is locked on another one", func(f *four) { f.locked(); f.proposal(1, "Y", -1) }},
		{"22: the seat is locked on the same: nobody is asked", func(f *four) { f.locked(); f.proposal(1, "X", -1) }},
		{"28, 30: a later quorum of prevotes frees from the lock", func(f *four) {
			f.locked()
			f.fails(1)
			f.fails(2)
			f.votes(pre, 1, "Y", 2, 3, 4)
			f.proposal(3, "Y", 1)
		}},
		{"28: the quorum of prevotes is waited for", func(f *four) {
			f.boot()
			f.item("X")
			f.fails(0)
			f.proposal(1, "Y", 0)
			f.votes(pre, 0, "Y", 2, 3, 4)
		}},
		{"32: an earlier quorum of prevotes does not free from the lock", func(f *four) {
			f.boot()
			f.item("X")
			f.fails(0)
			f.proposal(1, "X", -1)
			f.judged("X", true)
			f.votes(pre, 1, "X", 1, 2, 3)
			f.fails(1)
			f.fails(2)
			f.votes(pre, 0, "Y", 2, 3, 4)
			f.proposal(3, "Y", 0)
		}},
		{"34, 61: q prevotes that do not agree, and time", func(f *four) {
			f.boot()
			f.item("X")
			f.proposal(0, "X", -1)
			f.judged("X", true)
			f.votes(pre, 0, "X", 1, 2)
			f.votes(pre, 0, "nil", 4)
			f.time(pre)
		}},
		{"36, 38: a quorum of prevotes is locked, and the lock kept with what it rests on", func(f *four) {
			f.boot()
			f.item("X")
			f.proposal(0, "X", -1)
			f.judged("X", true)
			f.votes(pre, 0, "X", 1, 2, 3)
		}},
		{"36: without the proposal there is none", func(f *four) {
			f.boot()
			f.item("X")
			f.time(ballot.Proposal)
			f.votes(pre, 0, "X", 2, 3, 4)
			f.proposal(0, "X", -1)
		}},
		{"42: a quorum after the precommit is valid, not locked; difference 3: in a past round, too", func(f *four) {
			f.boot()
			f.item("Z")
			f.time(ballot.Proposal)
			f.votes(pre, 0, "nil", 1, 2, 3)
			f.proposal(0, "X", -1)
			f.fails(0)
			f.votes(pre, 0, "X", 2, 3, 4)
			f.fails(1)
		}},
		{"44: q prevotes for nothing", func(f *four) { f.boot(); f.item("X"); f.time(ballot.Proposal); f.votes(pre, 0, "nil", 1, 2, 4) }},
		{"47, 65: q precommits, and time", func(f *four) { f.boot(); f.item("X"); f.fails(0) }},
		{"49: q precommits decide, of a past round, too", func(f *four) {
			f.boot()
			f.item("X")
			f.fails(0)
			f.votes(com, 0, "X", 2, 3, 4)
		}},
		{"55: f+1 others are in a later round", func(f *four) { f.boot(); f.votes(pre, 2, "nil", 2); f.votes(com, 2, "nil", 3) }},
		{"57: no proposal in time", func(f *four) { f.boot(); f.item("X"); f.time(ballot.Proposal) }},
		{"difference 1: a proposal of nil, and one of who is not the chair", func(f *four) {
			f.boot()
			f.item("X")
			f.proposal(0, "nil", -1)
			f.give("seat 2 puts forward Y", Received{&ballot.Ballot{Words: f.h.Words(ballot.Proposal, 0, f.hash("Y"), -1), Seat: 2}})
		}},
		{"difference 4: a double voter counts for each, and is shown once", func(f *four) {
			f.boot()
			f.item("X")
			f.proposal(0, "X", -1)
			f.judged("X", true)
			f.votes(pre, 0, "nil", 4)
			f.votes(pre, 0, "X", 4, 1, 2)
			f.votes(com, 0, "nil", 4)
			f.votes(com, 0, "X", 4)
		}},
		{"difference 5: who abstains takes no step, and learns", func(f *four) {
			f.begin(journal.Memory{Behind: true})
			f.answers(2, 2)
			f.answers(3, 2)
			f.item("X")
			f.proposal(0, "X", -1)
			f.votes(pre, 0, "X", 2, 3, 4)
			f.votes(com, 0, "X", 2, 3, 4)
		}},
		{"an own ballot that the journal lacks stops the seat in the middle of a height", func(f *four) {
			f.boot()
			f.item("X")
			f.votes(pre, 0, "Y", 1)
			f.proposal(0, "X", -1)
			f.votes(pre, 0, "Y", 1)
			f.answers(2, 2)
			f.answers(3, 1)
		}},
		{"an answer from a height that this ledger does not reach is not counted", func(f *four) {
			f.begin(journal.Memory{})
			f.answers(2, 1<<40)
			f.answers(3, 2)
			f.answers(4, 2)
			f.item("X")
		}},
		{"a locked seat boots: the lock is there, and what it rests on", func(f *four) {
			f.locked()
			f.cut()
			f.votes(com, 1, "nil", 2, 3)
			f.proposal(1, "Y", -1)
		}},
		{"a locked seat boots, and follows who proposes the value again", func(f *four) {
			f.locked()
			f.cut()
			f.votes(com, 1, "nil", 2, 3)
			f.proposal(1, "X", 0)
		}},
		{"a ballot of another roster, or of another history, is none of this height", func(f *four) {
			f.boot()
			f.item("X")
			f.proposal(0, "X", -1)
			f.judged("X", true)
			f.h.Roster = f.hash("another roster")
			f.votes(pre, 0, "X", 2, 3, 4)
			f.votes(com, 0, "X", 2, 3, 4)
		}},
		{"a journal that is ahead of the ledger", func(f *four) {
			f.begin(journal.Memory{Head: journal.Head{Height: 2, Record: f.hash("two")}})
			f.answers(2, 2)
			f.answers(3, 2)
			f.item("X")
		}},
		{"a ledger with another record than the journal", func(f *four) { f.begin(journal.Memory{Head: journal.Head{Height: 1, Record: f.hash("one")}}) }},
		{"two decisions at one height", func(f *four) { f.boot(); f.votes(com, 0, "X", 2, 3, 4); f.votes(com, 0, "Y", 2, 3, 4) }},
		{"after 3N rounds without news the seat rests, and goes on at news", func(f *four) {
			f.boot()
			f.item("X")
			for round := range int32(12) {
				f.fails(round)
			}
			f.give("news", News{})
		}},
	} {
		from := out.Len()
		f := &four{h: height(t, 4, 2), names: map[document.Hash]string{ballot.Nil: "nil"}, out: &out}
		f.names[f.h.Record] = "the ledger's"
		fmt.Fprintf(&out, "%s\n", c.line)
		c.run(f)
		fmt.Fprintf(&out, "  = %s, round %d, %s; locked %s in %d, valid %s in %d\n\n", f.s.Phase, f.s.Round, f.s.Step,
			f.names[f.s.Locked.Value], f.s.Locked.Round, f.names[f.s.Valid.Value], f.s.Valid.Round)
		if !golden.Updating() && !strings.Contains(string(told), out.String()[from:]) {
			t.Errorf("it does otherwise: %s", c.line)
		}
	}
	golden.Compare(t, "lines.txt", out.String())
}

// TestBehind cuts the power between an own ballot that the journal lacks and the answers: the seat is
// behind as before, whatever of this is on the disk.
func TestBehind(t *testing.T) {
	h := height(t, 4, 2)
	lost := &ballot.Ballot{Words: h.Words(ballot.Prevote, 0, record(2, "item"), ballot.Fresh), Seat: 1}
	s, _ := New(1, journal.Memory{Title: journal.Title{Fleet: h.Fleet}})
	m := journal.Memory{}
	persist := func(effects []Effect) {
		for _, e := range effects {
			if p, ok := e.(Persist); ok {
				m = m.With(p.Record)
			}
		}
	}
	give := func(e Event) {
		after, effects := Step(s, e)
		s = after
		persist(effects)
	}
	give(Begin{h})
	give(Received{lost})
	if !s.Asking || !s.Behind || !s.Mute() || s.Abstain != 3 || !m.Behind || m.Abstain != 3 {
		t.Errorf("%+v\n%+v", s, m)
	}
	again, effects := New(1, m) // the power was cut
	s = again
	if len(effects) != 1 || effects[0] != (Lack{}) {
		t.Errorf("after the cut: %+v", effects)
	}
	h7 := height(t, 4, 7) // five heights were decided meanwhile
	give(Begin{h7})
	give(Answered{ballot.Answer{By: 2, At: 7}})
	if !s.Asking {
		t.Error("two answers of three are enough")
	}
	give(Answered{ballot.Answer{By: 2, At: 7}})
	if !s.Asking {
		t.Error("a seat that answers twice counts twice")
	}
	give(Answered{ballot.Answer{By: 4, At: 6}})
	if s.Asking || s.Abstain != 8 || m.Behind || m.Abstain != 8 || !s.Mute() {
		t.Errorf("%+v\n%+v", s, m)
	}
	give(Begin{height(t, 4, 8)})
	if !s.Mute() {
		t.Error("it votes at height 8")
	}
	give(Begin{height(t, 4, 9)})
	if s.Mute() {
		t.Error("it abstains at height 9")
	}
}

// TestBounds has a liar who signs ballots of ever later rounds, and for ever other values: what is
// kept of it stays small, and those who are honest are heard all the same.
func TestBounds(t *testing.T) {
	h := height(t, 4, 2)
	s, _ := Step(State{Self: 1, Locked: none, Valid: none}, Begin{h})
	kept := func() (n int) {
		for _, r := range s.rounds {
			for i, seat := range h.Voters {
				n += len(r.of(i, seat.Number))
			}
		}
		return n
	}
	give := func(k ballot.Kind, round int32, value document.Hash, seat int) {
		s, _ = Step(s, Received{&ballot.Ballot{Words: h.Words(k, round, value, ballot.Fresh), Seat: seat}})
	}
	for i := range int32(3000) {
		value := record(int64(i), "junk")
		give(ballot.Prevote, 0, value, 4)
		give(ballot.Precommit, 0, value, 4)
		give(ballot.Prevote, i+1, value, 4)
		give(ballot.Proposal, i*4+1, value, 4) // whose turn it is
	}
	if n := kept(); n > 40 || len(s.rounds) > 10 || s.Phase != Idle {
		t.Errorf("%d ballots in %d rounds are kept of a liar, %s", n, len(s.rounds), s.Phase)
	}
	value := record(2, "item")
	for _, seat := range []int{2, 3} {
		give(ballot.Precommit, 0, value, seat)
	}
	give(ballot.Precommit, 0, value, 4) // its third and more, and now it counts
	if s.Phase != Decided {
		t.Errorf("%s: two honest seats and a liar have signed it", s.Phase)
	}
}
