package vote

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// private are the keys of the seats, by number.
func private(seat int) ed25519.PrivateKey { return ledgertest.Private(fmt.Sprintf("n%d", seat)) }

// height is one that n seats decide.
func height(t testing.TB, n int, number int64) ballot.Height {
	h := ballot.Height{
		Fleet: document.HashOf([]byte("fleet")), Number: number, Record: record(number-1, "decided"), Tree: record(number-1, "tree"), Roster: record(int64(n), "roster"),
		Quorum: roster.RuleFor(n).Quorum(n),
	}
	if n > 3 {
		h.Liars = (n - 1) / 3
	}
	for i := 1; i <= n; i++ {
		h.Voters = append(h.Voters, roster.Seat{Number: i, Key: ledgertest.Must[signed.Key](t)(signed.KeyOf(private(i).Public().(ed25519.PublicKey)))})
	}
	return h
}

// record is the hash of some record of a height.
func record(height int64, what string) document.Hash {
	return document.HashOf(fmt.Appendf(nil, "%s %d", what, height))
}

// world is seats that run in one process: who is cut off hears nothing, and all else arrives.
type world struct {
	t       testing.TB
	h       ballot.Height
	seats   []State
	journal [][]byte
	next    []int64
	mail    []letter
	timers  []timer
	decided []map[int64]document.Hash
	rounds  int32
}

type letter struct {
	to    int // index
	event Event
}

type timer struct {
	at int
	Timer
}

func newWorld(t testing.TB, n int) *world {
	w := &world{t: t, h: height(t, n, 2)}
	for i := range n {
		w.seats = append(w.seats, State{})
		w.journal = append(w.journal, journal.Begun(journal.Title{Fleet: w.h.Fleet, Key: w.h.Voters[i].Key}))
		w.next = append(w.next, 0)
		w.decided = append(w.decided, make(map[int64]document.Hash))
	}
	for i := range n {
		w.boot(i)
	}
	for i, s := range w.seats {
		if s.Asking { // again, as all have booted now
			w.carryOut(i, []Effect{Ask{}})
		}
	}
	return w
}

// boot starts a seat from its journal.
func (w *world) boot(i int) {
	m, err := journal.Replay(w.journal[i])
	if err != nil {
		w.t.Fatal(err)
	}
	w.next[i] = m.Next
	w.timers = slices.DeleteFunc(w.timers, func(t timer) bool { return t.at == i })
	s, effects := New(i+1, m)
	w.seats[i] = s
	w.carryOut(i, effects)
	w.give(i, Begin{w.h})
}

// give lets an event happen to a seat.
func (w *world) give(i int, e Event) {
	s, effects := Step(w.seats[i], e)
	w.seats[i] = s
	w.carryOut(i, effects)
}

func (w *world) carryOut(i int, effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Persist:
			w.journal[i] = append(w.journal[i], journal.Append(w.next[i], e.Record)...)
			w.next[i]++
		case Send:
			b := e.Ballot.Sign(private(i + 1))
			w.rounds = max(w.rounds, b.Round)
			for to := range w.seats {
				w.mail = append(w.mail, letter{to, Received{b}})
			}
		case Timer:
			w.timers = append(w.timers, timer{i, e})
		case Judge:
			w.mail = append(w.mail, letter{i, Judged{e.Height, e.Round, e.Value, true}})
		case Ask:
			q := ballot.Question{Seat: i + 1}
			for other, s := range w.seats {
				if other != i && s.At.Number > 0 {
					a, err := ballot.OpenAnswer(s.Answer(q).Sign(private(other+1)).Bytes(), w.h, q)
					if err != nil {
						w.t.Fatal(err)
					}
					w.mail = append(w.mail, letter{i, Answered{a}})
				}
			}
		case Decide:
			w.decided[i][w.seats[i].At.Number] = e.Value
			w.check(e)
		default:
			w.t.Fatalf("seat %d: %#v", i+1, e)
		}
	}
}

// check verifies a certificate.
func (w *world) check(d Decide) {
	for _, s := range d.Certificate.Seats {
		b := ballot.Ballot{Words: w.h.Words(ballot.Precommit, d.Certificate.Round, d.Value, ballot.Fresh), Seat: s.By, Signature: s.Signature}
		if err := b.Verify(w.h.Voters[w.h.Index(s.By)].Key); err != nil {
			w.t.Fatal(err)
		}
	}
	if len(d.Certificate.Seats) < w.h.Quorum {
		w.t.Fatalf("%d signatures", len(d.Certificate.Seats))
	}
}

// deliver lets all mail arrive, but to and from seats that are cut off.
func (w *world) deliver(cut ...int) {
	for len(w.mail) > 0 {
		l := w.mail[0]
		w.mail = w.mail[1:]
		if !slices.Contains(cut, l.to) {
			w.give(l.to, l.event)
		}
	}
}

// expire lets the oldest time-out happen, and says whether there was one.
func (w *world) expire() bool {
	if len(w.timers) == 0 {
		return false
	}
	t := w.timers[0]
	w.timers = w.timers[1:]
	w.give(t.at, t.Timeout)
	return true
}

// TestDecides runs fleets of 1 to 7 over a few heights; then with f seats off.
func TestDecides(t *testing.T) {
	for n := 1; n <= 7; n++ {
		for off := 0; off <= n-height(t, n, 1).Quorum; off++ {
			w := newWorld(t, n)
			cut := make([]int, off)
			for i := range cut {
				cut[i] = i
			}
			w.deliver()
			for number := int64(2); number < 6; number++ {
				w.rounds = 0
				for i := range w.seats {
					w.give(i, Item{record(number, "item")})
				}
				w.mail = slices.DeleteFunc(w.mail, func(l letter) bool { r, ok := l.event.(Received); return ok && slices.Contains(cut, r.Ballot.Seat-1) })
				undecided := func() bool {
					for i, s := range w.seats {
						if s.Phase != Decided && !slices.Contains(cut, i) {
							return true
						}
					}
					return false
				}
				for w.deliver(cut...); undecided(); w.deliver(cut...) {
					if w.rounds > int32(off+1) || !w.expire() {
						t.Fatalf("%d of %d seats are off, height %d: nothing is decided in %d rounds", off, n, number, w.rounds)
					}
				}
				for i := range w.seats {
					if got := w.decided[i][number]; got != record(number, "item") && !slices.Contains(cut, i) {
						t.Fatalf("seat %d of %d decides %s at height %d", i+1, n, got.Short(), number)
					}
				}
				w.h = height(t, n, number+1)
				w.h.Record = record(number, "decided")
				for i := range w.seats {
					w.give(i, Begin{w.h})
				}
			}
		}
	}
}

// TestPrecommitBytes wants a precommit to be what the ledger's certificates are made of.
func TestPrecommitBytes(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	s := f.Log.State()
	r := ledgertest.Must[ledger.Record](t)(s.Next(ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{ledgertest.Operator(t, "carol", "reader")}}}))
	h := s.Ballots()
	if got, want := h.Words(ballot.Precommit, 7, r.Hash(), ballot.Fresh).Message(), ledger.PrecommitBytes(r, 7, s.Tree); string(got) != string(want) {
		t.Errorf("%q\nis not\n%q", got, want)
	}
	if h.Quorum != 3 || h.Liars != 1 || len(h.Voters) != 4 || h.Number != 4 {
		t.Errorf("%+v", h)
	}
}
