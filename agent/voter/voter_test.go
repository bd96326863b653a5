package voter

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/docket"
	"kogge.example/agent/pinned"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/voice"
)

// town is some voters, and what carries their words: at once or after a while, to all or to some.
type town struct {
	t     *testing.T
	fleet *ledgertest.Fleet
	began time.Time
	all   []*neighbour

	mu    sync.Mutex
	apart func(a, b int) bool
	words map[signed.Key]map[string]signed.Envelope
	left  map[document.Hash]int // by how many seats it was dropped
}

// neighbour is one of them.
type neighbour struct {
	town    *town
	seat    roster.Seat
	private ed25519.PrivateKey
	ledger  *pinned.Ledger
	docket  *docket.Store
	journal [][]byte // its file
	next    int64
	writes  int // to it
	cut     int // the write at which the power goes; 0: at none
	number  uint64
	votes   func(decision.Kind) decision.Vote
	voter   *Voter
	stop    context.CancelFunc
	ended   chan struct{}
}

func (n *neighbour) Objects(kind string) (all []signed.Envelope) {
	n.town.mu.Lock()
	defer n.town.mu.Unlock()
	for _, other := range n.town.all {
		if n.town.apart(n.seat.Number, other.seat.Number) {
			continue
		}
		if e, ok := n.town.words[other.seat.Key][kind]; ok {
			all = append(all, e)
		}
	}
	return all
}

func (n *neighbour) Say(kind string, body []byte) error {
	n.town.mu.Lock()
	defer n.town.mu.Unlock()
	n.number++
	e, err := signed.Seal(kind, n.town.fleet.Log.State().Fleet(), n.private, n.number, body)
	if err != nil {
		return err
	}
	for _, k := range voice.Kinds() {
		if k.Name != kind {
			continue
		}
		if err := k.Check(body); err != nil || len(e.Bytes()) > k.Most {
			n.town.t.Errorf("%s says what nobody takes: %d bytes, %v", n.seat.Name, len(e.Bytes()), err)
		}
	}
	n.town.words[n.seat.Key][kind] = e
	for _, other := range n.town.all {
		if other != n && other.voter != nil {
			time.AfterFunc(20*time.Millisecond, other.voter.Look)
		}
	}
	return nil
}

var errCut = errors.New("the power is cut")

func (n *neighbour) Limit(kind string) int { return 48 << 10 }

// Append writes the journal to its disk, which takes a moment.
func (n *neighbour) Append(r journal.Record) error {
	time.Sleep(2 * time.Millisecond)
	if n.writes++; n.writes == n.cut {
		return errCut
	}
	n.journal = append(n.journal, journal.Append(n.next, r))
	n.next++
	return nil
}

func (n *neighbour) Open() []docket.Waiting { return n.docket.Open() }

func (n *neighbour) Known() [][]byte { return n.docket.Known() }

func (n *neighbour) Drop(id document.Hash, why string) {
	n.docket.Drop(id, why)
	n.town.mu.Lock()
	defer n.town.mu.Unlock()
	n.town.left[id]++
}

// Take is the ledger's, and has all others hear of the record.
func (n *neighbour) Take(height int64, e ledger.Entry) error {
	if err := n.ledger.Take(height, e); err != nil {
		return err
	}
	for _, other := range n.town.all {
		if other != n {
			time.AfterFunc(40*time.Millisecond, func() { other.catchUp(n) })
		}
	}
	return nil
}

func (n *neighbour) State() ledger.State { return n.ledger.State() }

// catchUp takes the records that another one has.
func (n *neighbour) catchUp(from *neighbour) {
	n.town.mu.Lock()
	apart := n.town.apart(n.seat.Number, from.seat.Number)
	n.town.mu.Unlock()
	if apart || n.voter == nil { // off
		return
	}
	for h := n.ledger.State().Height + 1; h <= from.ledger.State().Height; h++ {
		e, err := from.ledger.Entry(h)
		if err == nil {
			err = n.ledger.Take(h, e)
		}
		if err != nil {
			n.town.t.Errorf("%s: record %d of %s: %v", n.seat.Name, h, from.seat.Name, err)
		}
	}
	n.voter.Look()
}

// begin starts the voter, or starts it again with what its journal has.
func (n *neighbour) begin(t *testing.T) {
	var raw []byte
	for _, r := range n.journal {
		raw = append(raw, r...)
	}
	memory, err := journal.Replay(raw)
	if err != nil {
		t.Fatal(err)
	}
	n.next = memory.Next
	n.voter = New(Config{
		Self: n.seat.Key, Ledger: n, Journal: n, Memory: memory, Docket: n, Shelf: n,
		Sign:       func(b ballot.Ballot) *ballot.Ballot { return b.Sign(n.private) },
		SignAnswer: func(a ballot.Answer) ballot.Answer { return a.Sign(n.private) },
		Opine: func(o proposal.Opinion) (signed.Envelope, error) {
			n.number++
			return proposal.SealOpinion(n.town.fleet.Log.State().Fleet(), n.private, n.number, o)
		},
		Votes: n.votes, Logf: func(format string, args ...any) {
			t.Logf("%s %s "+format, append([]any{time.Since(n.town.began), n.seat.Name}, args...)...)
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.ended = stop, make(chan struct{})
	go func() {
		defer close(n.ended)
		if err := n.voter.Run(ctx); err != nil && !errors.Is(err, errCut) {
			t.Error(err)
		}
	}()
}

func (n *neighbour) end() {
	n.stop()
	<-n.ended
}

// settled is a town of voters who vote on everything by themselves. It has to be in a bubble.
func settled(t *testing.T, seats int) *town {
	f := ledgertest.Founded(t, seats, 1)
	w := &town{
		t: t, fleet: f, began: time.Now(), apart: func(a, b int) bool { return false },
		words: make(map[signed.Key]map[string]signed.Envelope), left: make(map[document.Hash]int),
	}
	for _, seat := range f.Log.State().Roster.Seats {
		n := &neighbour{
			town: w, seat: seat, private: ledgertest.PrivateOf(seat), votes: func(decision.Kind) decision.Vote { return decision.Vote{Way: decision.Auto} },
			ledger: pinned.Open(filepath.Join(t.TempDir(), seat.Name), f.Genesis),
		}
		n.journal = [][]byte{journal.Begun(journal.Title{ID: seat.Journal, Fleet: f.Log.State().Fleet(), Key: seat.Key})}
		for i, e := range f.Entries {
			if err := n.ledger.Take(int64(i+1), e); err != nil {
				t.Fatal(err)
			}
		}
		n.docket = docket.Open(filepath.Join(t.TempDir(), "docket"), n.State)
		w.words[seat.Key] = make(map[string]signed.Envelope)
		w.all = append(w.all, n)
	}
	return w
}

// propose has an operator propose something, and says by which id.
func (w *town) propose(v ledger.Value) document.Hash {
	e := w.fleet.Proposal(w.t, v)
	w.tell(e.Bytes())
	return proposal.ID(e)
}

// tell gives all nodes an object.
func (w *town) tell(raw []byte) {
	for _, n := range w.all {
		if _, err := n.docket.Take(raw); err != nil {
			w.t.Errorf("%s: %v", n.seat.Name, err)
		}
		if n.voter != nil {
			n.voter.Look()
		}
	}
}

// within waits until something holds.
func (w *town) within(limit time.Duration, what string, holds func() bool) time.Duration {
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			for _, n := range w.all {
				if n.voter != nil {
					w.t.Logf("%s: %+v", n.seat.Name, n.voter.View())
				}
			}
			w.t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func (w *town) at(height int64, who ...int) func() bool {
	return func() bool {
		for _, n := range w.all {
			if (len(who) == 0 || slices.Contains(who, n.seat.Number)) && n.ledger.State().Height < height {
				return false
			}
		}
		return true
	}
}

// TestDecides has fleets of several sizes decide, one proposal after the other.
func TestDecides(t *testing.T) {
	for _, seats := range []int{1, 2, 3, 4, 7, 20} {
		t.Run(fmt.Sprint(seats), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := settled(t, seats)
				for _, n := range w.all {
					n.begin(t)
				}
				for i := range 3 {
					w.propose(w.fleet.Operators(t, fmt.Sprintf("bob%d", i)))
					took := w.within(time.Minute, "it is decided", w.at(int64(i)+2))
					t.Logf("record %d after %s", i+2, took)
					e, err := w.all[0].ledger.Entry(int64(i) + 2)
					if err != nil {
						t.Fatal(err)
					}
					w.fleet.Take(t, e)
				}
				for _, n := range w.all {
					n.end()
				}
			})
		})
	}
}

// TestPowerCut has a voter of four lose power at each write of its journal, before the record is on
// the disk: it comes back, and what is decided is decided once.
func TestPowerCut(t *testing.T) {
	for cut := 1; ; cut++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			w := settled(t, 4)
			w.all[1].cut = cut
			for _, n := range w.all {
				n.begin(t)
			}
			w.propose(w.fleet.Operators(t, "bob"))
			w.within(time.Minute, "others decide without it", w.at(2, 1, 3, 4))
			w.within(time.Minute, "it has decided, or lost power", func() bool {
				select {
				case <-w.all[1].ended:
					return true
				default:
					return w.at(2)()
				}
			})
			if done = w.all[1].writes < cut; !done {
				<-w.all[1].ended
				w.all[1].begin(t)
			}
			w.within(time.Minute, "it has what is decided", w.at(2))
			e, err := w.all[0].ledger.Entry(2)
			if err != nil {
				t.Fatal(err)
			}
			w.fleet.Take(t, e)
			w.propose(w.fleet.Operators(t, "carol"))
			w.within(time.Minute, "it is decided with it", w.at(3))
			for _, n := range w.all {
				n.end()
			}
		})
		if done {
			t.Logf("%d writes", cut-1)
			return
		}
	}
}

// TestParted has half of a fleet be cut off: nothing is decided, and all is once they are together.
func TestParted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := settled(t, 4)
		w.apart = func(a, b int) bool { return (a <= 2) != (b <= 2) }
		for _, n := range w.all {
			n.begin(t)
		}
		w.propose(w.fleet.Operators(t, "bob"))
		time.Sleep(time.Hour)
		for _, n := range w.all {
			if at := n.ledger.State().Height; at != 1 {
				t.Errorf("%s: height %d with half of the votes", n.seat.Name, at)
			}
			if wrote := n.writes; wrote > 1 { // how far the ledger is
				t.Errorf("%s: %d writes about what nobody can decide", n.seat.Name, wrote)
			}
		}
		w.mu.Lock()
		w.apart = func(a, b int) bool { return false }
		w.mu.Unlock()
		for _, n := range w.all {
			n.voter.Look()
		}
		w.within(time.Minute, "it is decided", w.at(2))
		for _, n := range w.all {
			n.end()
		}
	})
}

// TestSilent has a seat of four that is off: the rounds of which it is chair go by.
func TestSilent(t *testing.T) {
	for off := 1; off <= 4; off++ {
		synctest.Test(t, func(t *testing.T) {
			w := settled(t, 4)
			var on []int
			for _, n := range w.all {
				if n.seat.Number != off {
					n.begin(t)
					on = append(on, n.seat.Number)
				}
			}
			w.propose(w.fleet.Operators(t, "bob"))
			t.Logf("without seat %d after %s", off, w.within(time.Minute, "it is decided", w.at(2, on...)))
			for _, n := range w.all {
				if n.seat.Number != off {
					n.end()
				}
			}
		})
	}
}

// TestAsk has seats that ask their owners: nothing is decided before one has said yes, and it leaves
// once one has said no.
func TestAsk(t *testing.T) {
	for _, yes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := settled(t, 4)
			for _, n := range w.all {
				n.votes = func(decision.Kind) decision.Vote { return decision.Vote{Way: decision.Ask} }
				n.begin(t)
			}
			id := w.propose(w.fleet.Operators(t, "bob"))
			time.Sleep(time.Hour)
			if !w.at(1)() || w.at(2, 1)() {
				t.Fatal("it is decided without the owner")
			}
			w.tell(w.fleet.Answer(id, yes, w.fleet.Genesis.Name, "", 1, 2))
			w.within(time.Minute, "the owner is heard", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return yes && w.at(2)() || !yes && w.left[id] == 4
			})
			for _, n := range w.all {
				n.end()
			}
		})
	}
}

// TestLiar has one seat of four vote both ways, each ballot shown to some: the others find the proof,
// put it to the vote, and the seat loses its vote. All else is decided, too.
func TestLiar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := settled(t, 4)
		liar := w.all[3]
		for _, n := range w.all[:3] {
			n.begin(t)
		}
		h := w.fleet.Log.State().Ballots()
		says := voice.Ballots{Height: h.Number}
		for _, value := range []string{"one", "other"} {
			b := ballot.Ballot{Words: h.Words(ballot.Prevote, 0, document.HashOf([]byte(value)), ballot.Fresh), Seat: 4}
			says.Ballots = append(says.Ballots, b.Sign(liar.private).Bytes())
		}
		if err := liar.Say(voice.BallotsKind, says.Encode()); err != nil {
			t.Fatal(err)
		}
		w.propose(w.fleet.Operators(t, "bob"))
		w.within(10*time.Minute, "both are decided", w.at(3, 1, 2, 3))
		for _, n := range w.all[:3] {
			if seat, _ := n.State().Roster.Seat(4); seat.Vote {
				t.Errorf("%s: the liar votes still", n.seat.Name)
			}
			n.end()
		}
	})
}

// TestRest has two seats of four think well of something and go off: the others write nothing while they
// wait, and it is decided once one of them is back.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := settled(t, 4)
		for _, n := range w.all {
			n.begin(t)
		}
		time.Sleep(time.Minute)
		for _, n := range w.all[2:] {
			n.end()
			n.votes = nil
		}
		id := w.propose(w.fleet.Operators(t, "bob"))
		for _, n := range w.all[2:] {
			n.number++
			e, err := proposal.SealOpinion(w.fleet.Log.State().Fleet(), n.private, n.number, proposal.Opinion{Proposal: id, Height: 1, Valid: true, Ready: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Say(voice.OpinionsKind, voice.Opinions{Opinions: [][]byte{e.Bytes()}}.Encode()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		wrote := w.all[0].writes
		time.Sleep(2 * time.Hour)
		if w.all[0].writes != wrote {
			t.Errorf("%d writes while nothing can be decided", w.all[0].writes-wrote)
		}
		w.all[2].votes = w.all[0].votes
		w.all[2].begin(t)
		w.within(time.Hour, "it is decided", w.at(2, 1, 2, 3))
		for _, n := range w.all[:3] {
			n.end()
		}
	})
}
