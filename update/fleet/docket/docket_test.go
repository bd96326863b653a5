package docket

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// world is a founded fleet of four seats with some operators.
type world struct {
	*ledgertest.Fleet
	keys []*ecdsa.PrivateKey // of op00, op01, …, who are admins
}

func found(t testing.TB, operators int) world {
	t.Helper()
	w := world{Fleet: ledgertest.Founded(t, 4, 1)}
	var set []ledger.Operator
	for i := range operators {
		k := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		w.keys = append(w.keys, k)
		set = append(set, ledger.Operator{Name: fmt.Sprintf("op%02d", i), Role: fleet.RoleAdmin, Key: keyID(t, k)})
	}
	w.Take(t, w.Decided(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Set: set}}, 3))
	return w
}

func keyID(t testing.TB, k *ecdsa.PrivateKey) document.Hash {
	return document.HashOf(ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&k.PublicKey)))
}

// state is the ledger's.
func (w world) state() ledger.State { return w.Log.State() }

// propose is a proposal by an operator, at a height.
func (w world) propose(t testing.TB, by int, number uint64, height int64, v ledger.Value) signed.Envelope {
	t.Helper()
	return ledgertest.Must[signed.Envelope](t)(proposal.Seal(w.state().Fleet(), w.keys[by], number, proposal.Proposal{Height: height, Value: v.Encode()}))
}

func seats(all ...roster.Seat) ledger.Value {
	return ledger.Value{Version: 1, Seat: &decision.Seat{Seats: all}}
}

// small is a value like no other.
func small(name string) ledger.Value {
	return ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{name}}}
}

// answer is the answer of the fleet's owner by keys 1 and 2.
func (w world) answer(about document.Hash, yes bool, number int64) []byte {
	a := proposal.Answer{Proposal: about, Owner: "hanse", Yes: yes, Number: number}
	for k := 1; k <= 2; k++ {
		a.Signatures = append(a.Signatures, signed.Sign(k, ledgertest.Private(fmt.Sprintf("owner %d", k)), a.Bytes(w.state().Fleet())))
	}
	return a.Encode()
}

// votes is how the owner has a node vote.
func (w world) votes(t testing.TB, node string, number int64, way decision.Way, keys ...int) []byte {
	v := proposal.Votes{Node: ledgertest.Key(t, node), Number: number, Votes: map[decision.Kind]decision.Vote{decision.KindSeat: {Way: way}}}
	for _, k := range keys {
		v.Signatures = append(v.Signatures, signed.Sign(k, ledgertest.Private(fmt.Sprintf("owner %d", k)), v.Bytes(w.state().Fleet())))
	}
	return v.Encode()
}

// request is what a node says to get a seat, on some architecture and with a nonce.
func (w world) request(t testing.TB, seat roster.Seat, arch, nonce string) []byte {
	r := roster.Request{Version: 1, Nonce: []byte(nonce), Name: seat.Name, Journal: seat.Journal, TLSKey: document.HashOf([]byte(seat.Name)), Arch: arch}
	return ledgertest.Must[signed.Envelope](t)(signed.Seal(roster.RequestKind, w.state().Fleet(), ledgertest.Private(seat.Name), 1, r.Encode())).Bytes()
}

// offer gives a set objects in their order, again and again until nothing is news any more, as
// carriers do.
func offer(s *Set, state ledger.State, objects [][]byte) {
	for news := true; news; {
		news = false
		for _, raw := range objects {
			c, err := s.Put(raw, state)
			news = news || err == nil && c.News
		}
	}
}

func put(t *testing.T, s *Set, state ledger.State, raw []byte) Change {
	t.Helper()
	c, err := s.Put(raw, state)
	if err != nil || !c.News {
		t.Fatalf("%v: %+v", err, c)
	}
	return c
}

func refused(t *testing.T, s *Set, state ledger.State, raw []byte, want error, words string) {
	t.Helper()
	sum, n := s.Sum(), s.Len()
	c, err := s.Put(raw, state)
	if err == nil || c.News || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		t.Errorf("%v, and %v is wanted with %q", err, want, words)
	}
	if s.Sum() != sum || s.Len() != n {
		t.Errorf("%v: the set has changed", err)
	}
}

// TestPut takes what counts, refuses the rest in words, and tells what is there.
func TestPut(t *testing.T) {
	w := found(t, 2)
	state, s := w.state(), New()
	five, six := ledgertest.Seat(t, 5, "n5"), ledgertest.Seat(t, 6, "n6")
	p := w.propose(t, 0, 7, state.Height, seats(five))
	id := proposal.ID(p)

	refused(t, s, state, []byte("junk"), ErrObject, "")
	refused(t, s, state, []byte("{}"), ErrObject, "")
	refused(t, s, state, make([]byte, MaxObject+1), ErrObject, "at most")
	refused(t, s, state, w.answer(id, true, 1), ErrEarly, "no proposal "+id.Short())
	refused(t, s, state, w.request(t, five, "amd64", "a"), ErrEarly, "no proposal that waits here gives key")
	refused(t, s, state, w.propose(t, 0, 7, state.Height+1, seats(five)).Bytes(), ErrEarly, "the ledger is at 2")
	if s.Sum() != (document.Hash{}) {
		t.Error("an empty set has a sum")
	}

	put(t, s, state, p.Bytes())
	if c, err := s.Put(p.Bytes(), state); err != nil || c.News {
		t.Errorf("again: %+v, %v", c, err)
	}
	// One that cannot be decided before the first one counts, too: seat 6 comes behind seat 5.
	next := w.propose(t, 1, 8, state.Height, seats(six))
	if _, _, err := state.Proposed(next); err == nil {
		t.Fatal("seat 6 could be decided now")
	}
	put(t, s, state, next.Bytes())
	put(t, s, state, w.request(t, six, "amd64", "a"))

	yes := put(t, s, state, w.answer(id, true, 1))
	no := put(t, s, state, w.answer(id, false, 1))
	if !slices.Equal(no.Dropped, []document.Hash{yes.ID}) {
		t.Errorf("a no in the place of a yes dropped %v", no.Dropped)
	}
	if c, err := s.Put(w.answer(id, true, 1), state); err != nil || c.News {
		t.Errorf("the yes comes again: %+v, %v", c, err)
	}
	put(t, s, state, w.answer(id, true, 2))
	one := proposal.Answer{Proposal: id, Owner: "hanse", Yes: true, Number: 3}
	one.Signatures = append(one.Signatures, signed.Sign(1, ledgertest.Private("owner 1"), one.Bytes(state.Fleet())))
	refused(t, s, state, one.Encode(), proposal.ErrAnswer, "2 are needed")
	refused(t, s, state, []byte(strings.Replace(string(w.answer(id, true, 3)), "hanse", "other", 1)), proposal.ErrAnswer, "no owner other")

	put(t, s, state, w.request(t, five, "riscv64", "a"))
	put(t, s, state, w.request(t, five, "amd64", "b")) // which could run etcd
	other := five
	other.Journal = roster.ID{99}
	refused(t, s, state, w.request(t, other, "amd64", "a"), roster.ErrRequest, "journal")
	refused(t, s, state, w.request(t, ledgertest.Seat(t, 7, "n7"), "amd64", "a"), ErrEarly, "")

	put(t, s, state, w.votes(t, "n2", 1, decision.Auto, 1, 2))
	put(t, s, state, w.votes(t, "n2", 2, decision.Never, 2, 3))
	if c, err := s.Put(w.votes(t, "n2", 1, decision.Ask, 1, 2), state); err != nil || c.News {
		t.Errorf("an older one: %+v, %v", c, err)
	}
	refused(t, s, state, w.votes(t, "n2", 3, decision.Auto, 1), proposal.ErrVotes, "how n2 votes")
	refused(t, s, state, w.votes(t, "n9", 3, decision.Auto, 1, 2), proposal.ErrVotes, "no seat")

	open := s.Proposals()
	if len(open) != 2 || open[0].ID != id || open[0].Number != 7 || open[0].Operator.Name != "op00" || open[0].Value.Kind() != decision.KindSeat || open[0].Height != state.Height {
		t.Errorf("%+v", open)
	}
	if a := s.AnswersTo(id); len(a) != 1 || !a[0].Yes || a[0].Number != 2 {
		t.Errorf("answers: %+v", a)
	}
	if v, ok := s.Votes(ledgertest.Key(t, "n2")); !ok || v.Votes[decision.KindSeat].Way != decision.Never {
		t.Errorf("votes: %+v", v)
	}
	if _, ok := s.Votes(ledgertest.Key(t, "n3")); ok {
		t.Error("of n3 nothing was set")
	}
	if _, _, err := state.Gather(p, s.Known()); err != nil {
		t.Errorf("the docket has what the decision rests on, and: %v", err)
	}
	if len(s.Known()) != 3 || len(s.All()) != 6 || s.Len() != 6 || len(s.IDs()) != 6 {
		t.Errorf("%d known, %d in all", len(s.Known()), len(s.All()))
	}
	for _, raw := range s.All() {
		if !Is(raw) {
			t.Errorf("%.40q is not known as an object", raw)
		}
	}
}

// TestFresh keeps the answers of an owner with the keys that he has and with those that he is to get: a
// decision about his keys needs both.
func TestFresh(t *testing.T) {
	w := found(t, 1)
	state, s := w.state(), New()
	v := ledger.Value{Version: 1, Owners: &decision.Owners{Owner: ledgertest.NewOwner(t, "hanse", "new")}}
	p := w.propose(t, 0, 1, state.Height, v)
	put(t, s, state, p.Bytes())
	put(t, s, state, w.Answer(proposal.ID(p), true, "hanse", "", 1, 2))
	if _, _, err := state.Gather(p, s.Known()); err == nil {
		t.Error("the new keys have not answered")
	}
	put(t, s, state, w.Answer(proposal.ID(p), true, "hanse", "new", 1, 2))
	value, evidence, err := state.Gather(p, s.Known())
	if err != nil || len(s.AnswersTo(proposal.ID(p))) != 2 {
		t.Fatalf("%v, %+v", err, s.AnswersTo(proposal.ID(p)))
	}
	put(t, s, state, w.votes(t, "n2", 1, decision.Never, 1, 2))
	if err := w.Decides(t, value, evidence); err != nil {
		t.Fatal(err)
	}
	if gone := s.Follow(w.state()); len(gone) != 4 || s.Len() != 0 {
		t.Errorf("%d are gone, %d stay: nothing counts that the old keys have signed", len(gone), s.Len())
	}
	refused(t, s, w.state(), p.Bytes(), ErrOver, "decided already")
}

// TestObjection keeps the objection to a record by which an owner waits for other keys, and that
// alone of what is said to it.
func TestObjection(t *testing.T) {
	w := found(t, 1)
	lost := ledger.Value{Version: 1, Seat: &decision.Seat{Seats: []roster.Seat{ledgertest.Seat(t, 5, "n5")}}}
	lost.Seat.Seats[0].Owner, lost.Seat.Seats[0].Vote = "vera", false
	lost.Seat.Owners = []roster.Owner{ledgertest.NewOwner(t, "vera", "")}
	decide := func(v ledger.Value, said func(document.Hash) [][]byte) {
		t.Helper()
		v, evidence := w.Rested(t, v, said)
		if err := w.Decides(t, v, evidence); err != nil {
			t.Fatal(err)
		}
	}
	decide(lost, func(id document.Hash) [][]byte {
		return [][]byte{w.Request(t, lost.Seat.Seats[0]), w.Answer(id, true, "vera", "", 1, 2)}
	})
	decide(ledger.Value{Version: 1, Owners: &decision.Owners{Owner: ledgertest.NewOwner(t, "vera", "new"), Lost: true}}, func(id document.Hash) [][]byte {
		return [][]byte{w.Answer(id, true, "hanse", "", 1, 2), w.Answer(id, true, "vera", "new", 1, 2)}
	})
	state, s := w.state(), New()
	record := state.Claim.Record
	refused(t, s, state, w.Answer(record, true, "vera", "", 1), proposal.ErrAnswer, "only a no of owner vera")
	refused(t, s, state, w.Answer(record, false, "hanse", "", 1), proposal.ErrAnswer, "only a no of owner vera")
	refused(t, s, state, w.Answer(record, false, "vera", "new", 1), proposal.ErrAnswer, "does not fit")
	put(t, s, state, w.Answer(record, false, "vera", "", 3))
	value, evidence, err := state.EndWaiting(s.Known()[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Follow(state)) > 0 {
		t.Error("the objection is gone before it was heard")
	}
	if err := w.Decides(t, value, evidence); err != nil {
		t.Fatal(err)
	}
	if s.Follow(w.state()); s.Len() != 0 {
		t.Error("an objection stays to what was settled")
	}
}

// TestFollow has a decided proposal and those of a revoked operator go, with what rests on them.
func TestFollow(t *testing.T) {
	w := found(t, 2)
	state, s := w.state(), New()
	five := ledgertest.Seat(t, 5, "n5")
	p := w.propose(t, 0, 1, state.Height, seats(five))
	put(t, s, state, p.Bytes())
	put(t, s, state, w.request(t, five, "amd64", "a"))
	put(t, s, state, w.answer(proposal.ID(p), true, 1))
	theirs := w.propose(t, 1, 1, state.Height, small("ada"))
	put(t, s, state, theirs.Bytes())
	if gone := s.Follow(state); len(gone) != 0 {
		t.Fatalf("%d are gone, and nothing has changed", len(gone))
	}
	value, evidence, err := state.Gather(p, s.Known())
	if err == nil {
		err = w.Decides(t, value, evidence)
	}
	if err != nil {
		t.Fatal(err)
	}
	if gone := s.Follow(w.state()); len(gone) != 3 || len(s.Proposals()) != 1 {
		t.Errorf("%d are gone, and %+v waits", len(gone), s.Proposals())
	}
	refused(t, s, w.state(), p.Bytes(), ErrOver, "decided already")

	without := w.state().Without(func(key string) bool { return key == keyID(t, w.keys[1]).String() })
	if gone := s.Follow(without); len(gone) != 1 || s.Len() != 0 {
		t.Errorf("%d are gone, %d stay of a revoked operator's", len(gone), s.Len())
	}
	refused(t, s, without, theirs.Bytes(), ErrOver, "revoked")
}

// TestDrop forgets what has left the queue, and does not take it again.
func TestDrop(t *testing.T) {
	w := found(t, 1)
	state, s := w.state(), New()
	five := ledgertest.Seat(t, 5, "n5")
	p := w.propose(t, 0, 1, state.Height, seats(five))
	put(t, s, state, p.Bytes())
	put(t, s, state, w.request(t, five, "amd64", "a"))
	put(t, s, state, w.answer(proposal.ID(p), true, 1))
	if gone := s.Drop(proposal.ID(p), "2 of 4 votes call it invalid: \x1b[2J", state); len(gone) != 3 || s.Len() != 0 {
		t.Errorf("%d are gone, %d stay", len(gone), s.Len())
	}
	refused(t, s, state, p.Bytes(), ErrOver, "has left the queue: 2 of 4 votes call it invalid:  [2J")
	refused(t, s, state, w.answer(proposal.ID(p), true, 2), ErrOver, "has left the queue")
	for i := range MaxLeft {
		s.Drop(document.HashOf([]byte{byte(i), byte(i >> 8)}), "why", state)
		s.Drop(document.HashOf([]byte{byte(i), byte(i >> 8)}), "again", state)
	}
	ids, why := s.Left()
	if len(ids) != MaxLeft || len(why) != MaxLeft || why[0] != "why" {
		t.Errorf("%d are remembered", len(ids))
	}
	put(t, s, state, p.Bytes()) // nobody has offered it for that long
}

// TestRoom has operators propose more than there is room for, in many orders: the newest of each stay, and
// who proposes much keeps nobody else from it.
func TestRoom(t *testing.T) {
	w := found(t, 34)
	state := w.state()
	var all [][]byte
	for by := range w.keys {
		n := 2
		if by < 4 {
			n = 7 // too many
		}
		for i := range n {
			all = append(all, w.propose(t, by, uint64(1000-by*10+i), state.Height, small("ada")).Bytes())
		}
	}
	var first document.Hash
	r := rand.New(rand.NewPCG(1, 2))
	for try := range 6 {
		s := New()
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		offer(s, state, all)
		if try == 0 {
			first = s.Sum()
		}
		of := make(map[string][]uint64)
		for _, p := range s.Proposals() {
			of[p.Operator.Name] = append(of[p.Operator.Name], p.Number)
		}
		if len(of) != 34 || len(s.Proposals()) != MaxOpen || s.Sum() != first {
			t.Fatalf("order %d: %d proposals of %d operators, %s: %v", try, len(s.Proposals()), len(of), s.Sum().Short(), of)
		}
		if !slices.Equal(of["op00"], []uint64{1005, 1006}) {
			t.Errorf("op00: %d", of["op00"])
		}
	}
	s := New()
	for i := range uint64(9) {
		put(t, s, state, w.propose(t, 0, 10+i, state.Height, small("ada")).Bytes())
	}
	var numbers []uint64
	for _, p := range s.Proposals() {
		numbers = append(numbers, p.Number)
	}
	if !slices.Equal(numbers, []uint64{15, 16, 17, 18}) {
		t.Errorf("of one operator %d stay", numbers)
	}
	refused(t, s, state, w.propose(t, 0, 9, state.Height, small("ada")).Bytes(), ErrFull, "proposal 9 of op00")
}

// universe is some of everything, also of what has other bytes and says the same.
func universe(t testing.TB, w world) [][]byte {
	var all [][]byte
	state := w.state()
	add := func(raw ...[]byte) { all = append(all, raw...) }
	for i := range uint64(6) {
		seat := ledgertest.Seat(t, 5+int(i)%2, fmt.Sprintf("n%d", 5+i%2))
		seat.Spare = i%3 == 0
		p := w.propose(t, int(i)%2, i/2+1, state.Height, seats(seat))
		again := ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(p.Kind, p.Fleet, w.keys[i%2], p.Sequence, p.Body))
		add(p.Bytes(), again.Bytes())
		id := proposal.ID(p)
		add(w.answer(id, true, 1), w.answer(id, false, 1), w.answer(id, true, 2), w.Answer(id, true, "hanse", "", 1, 2, 3), w.Answer(id, true, "hanse", "", 2, 3))
		add(w.request(t, seat, "amd64", "a"), w.request(t, seat, "amd64", "b"), w.request(t, seat, "riscv64", "c"))
	}
	for i := range uint64(4) {
		add(w.propose(t, 0, 100+i, state.Height, small("ada")).Bytes())
	}
	add(w.votes(t, "n1", 1, decision.Ask, 1, 2), w.votes(t, "n1", 1, decision.Ask, 2, 3), w.votes(t, "n1", 2, decision.Auto, 1, 3), w.votes(t, "n2", 1, decision.Auto, 1, 2, 3))
	return all
}

// TestOrder gives two sets the same objects in two orders: they come to the same, and each stays within
// its limits, holds nothing that rests on nothing, and gives all that it has to who lacks it.
func TestOrder(t *testing.T) {
	w := found(t, 2)
	all, state := universe(t, w), w.state()
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 0, len(all), func(i int) int { return i }).Draw(t, "some")
		var objects [][]byte
		for _, i := range some {
			objects = append(objects, all[i])
		}
		one, other := New(), New()
		offer(one, state, objects)
		offer(other, state, rapid.Permutation(objects).Draw(t, "in another order"))
		if one.Sum() != other.Sum() || !slices.EqualFunc(one.All(), other.All(), bytes.Equal) {
			t.Fatalf("%d objects came to %d and %d", len(objects), one.Len(), other.Len())
		}
		check(t, one, state)
		carry(t, one, state)
		if gone := one.Follow(state); len(gone) > 0 {
			t.Fatalf("%d objects count no more, and nothing has changed", len(gone))
		}
	})
}

// check wants what holds of each set.
func check(t *rapid.T, s *Set, state ledger.State) {
	of := make(map[string]int)
	for _, p := range s.Proposals() {
		if of[p.Operator.Name]++; of[p.Operator.Name] > MaxOfOne {
			t.Fatalf("%s has more than %d", p.Operator.Name, MaxOfOne)
		}
	}
	var count, size [sorts]int
	for id, it := range s.items {
		count[it.key.sort]++
		size[it.key.sort] += len(it.raw)
		if it.key.sort != sortProposal && s.rests(it, state) != nil {
			t.Fatalf("%s rests on nothing", id.Short())
		}
		if s.keys[it.key] != id || document.HashOf(it.raw) != id {
			t.Fatalf("%s is not at its place", id.Short())
		}
	}
	if count != s.count || size != s.bytes || len(s.keys) != len(s.items) {
		t.Fatalf("it counts %v, and has %v", s.count, count)
	}
}

// carry has a set that lacks all get all of another one, some at a time from any place.
func carry(t *rapid.T, from *Set, state ledger.State) {
	to := New()
	for tries := 0; to.Sum() != from.Sum(); tries++ {
		var at token.Short
		at[0] = byte(rapid.IntRange(0, 255).Draw(t, "from"))
		for _, raw := range from.Lacking(to.IDs(), 4<<10, at) {
			if _, err := to.Put(raw, state); err != nil && !errors.Is(err, ErrEarly) {
				t.Fatal(err)
			}
		}
		if tries > 1000 {
			t.Fatalf("after %d times %d of %d have come", tries, to.Len(), from.Len())
		}
	}
}

// FuzzPut offers bytes of strangers: none makes the set anything but larger by one object, which is then
// among those that it gives.
func FuzzPut(f *testing.F) {
	w := found(f, 2)
	state := w.state()
	all := universe(f, w)
	for _, raw := range all {
		f.Add(raw)
	}
	f.Add([]byte("{}"))
	full := New()
	offer(full, state, all[:10])
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &Set{items: maps.Clone(full.items), keys: maps.Clone(full.keys), bytes: full.bytes, count: full.count}
		n := s.Len()
		c, err := s.Put(raw, state)
		switch {
		case err != nil && (c.News || s.Len() != n):
			t.Errorf("%v: %+v", err, c)
		case c.News && !slices.ContainsFunc(s.All(), func(has []byte) bool { return bytes.Equal(has, raw) }):
			t.Error("it has come, and is not there")
		case c.News && !Is(raw):
			t.Error("it was taken, and is not known as an object")
		}
	})
}
