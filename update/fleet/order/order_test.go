package order

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// world is a founded fleet with operators who sign.
type world struct {
	t     testing.TB
	state ledger.State
	keys  map[string]*ecdsa.PrivateKey
}

// founded is a fleet of so many seats. Its operators are ada and eve, admins; bob, an operator; rob,
// a reader. mallory is none.
func founded(t testing.TB, seats int) *world {
	w := &world{t: t, state: ledgertest.Founded(t, seats, 1).Log.State(), keys: make(map[string]*ecdsa.PrivateKey)}
	w.state.Operators = nil
	for _, name := range []string{"ada", "bob", "eve", "mallory", "rob"} {
		key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		w.keys[name] = key
		role := map[string]fleet.Role{"ada": fleet.RoleAdmin, "eve": fleet.RoleAdmin, "bob": fleet.RoleOperator, "rob": fleet.RoleReader}[name]
		id, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&key.PublicKey)).Operator()
		if role != "" {
			w.state.Operators = append(w.state.Operators, ledger.Operator{Name: name, Role: role, Key: id})
		}
	}
	return w
}

func (w *world) key(seat int) signed.Key {
	s, ok := w.state.Roster.Seat(seat)
	if !ok {
		return ledgertest.Key(w.t, fmt.Sprintf("n%d", seat))
	}
	return s.Key
}

// isolate is an order by an operator, with the signatures of so many owner keys.
func (w *world) isolate(by string, number uint64, seat int, on bool, owners int) signed.Envelope {
	o := Isolation{Seat: seat, Key: w.key(seat), Isolated: on}
	for i := 1; i <= owners; i++ {
		o.Owners = append(o.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), OwnersBytes(w.state.Fleet(), o.Key, number)))
	}
	return w.seal(by, number, o)
}

func (w *world) absent(by string, number uint64, seat int, state State, until time.Time) signed.Envelope {
	return w.seal(by, number, Absence{Seat: seat, Key: w.key(seat), State: state, Until: until})
}

func (w *world) seal(by string, number uint64, o Order) signed.Envelope {
	w.t.Helper()
	return ledgertest.Must[signed.Envelope](w.t)(Seal(w.state.Fleet(), w.keys[by], number, o))
}

var now = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// TestDecide prints what orders come to: who counts, and why others do not.
func TestDecide(t *testing.T) {
	four, ten := founded(t, 4), founded(t, 10)
	three := founded(t, 3)
	eve, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&four.keys["eve"].PublicKey)).Operator()
	lost := &world{t, four.state.Without(func(key string) bool { return key == eve.String() }), four.keys}
	forged := four.isolate("ada", 1, 2, true, 0)
	forged = forged.Again(9, forged.Signature())
	foreign := ten.isolate("ada", 1, 2, true, 0)
	stolen := four.isolate("ada", 1, 2, true, 2) // owners have signed number 1
	o, err := ParseIsolation(stolen.Body)
	if err != nil {
		t.Fatal(err)
	}
	replayed := four.seal("eve", 5, o)
	var out strings.Builder
	for _, c := range []struct {
		what    string
		w       *world
		objects []signed.Envelope
	}{
		{"nothing is ordered", four, nil},
		{"one of four is isolated", four, []signed.Envelope{four.isolate("ada", 1, 2, true, 0)}},
		{"by an operator who is no admin", four, []signed.Envelope{four.isolate("bob", 1, 2, true, 0)}},
		{"by a stranger", four, []signed.Envelope{four.isolate("mallory", 1, 2, true, 0)}},
		{"forged, and of another fleet", four, []signed.Envelope{forged, foreign}},
		{"a seat that there is not", four, []signed.Envelope{four.isolate("ada", 1, 7, true, 0)}},
		{"a second one of four: later, so it waits", four, []signed.Envelope{four.isolate("ada", 2, 1, true, 0), four.isolate("eve", 1, 4, true, 0)}},
		{"two of four, and the owners have signed the later one", four, []signed.Envelope{four.isolate("ada", 1, 4, true, 0), four.isolate("ada", 2, 2, true, 2)}},
		{"by all owners that are needed, two of four", four, []signed.Envelope{four.isolate("ada", 1, 1, true, 2), four.isolate("ada", 2, 2, true, 2)}},
		{"by one owner of two", four, []signed.Envelope{four.isolate("ada", 1, 1, true, 1)}},
		{"owners' signatures of an order before", four, []signed.Envelope{stolen, replayed}},
		{"taken back by another admin", four, []signed.Envelope{four.isolate("ada", 1, 2, true, 0), four.isolate("eve", 2, 2, false, 0)}},
		{"taken back, and ordered again", four, []signed.Envelope{four.isolate("ada", 3, 2, true, 0), four.isolate("eve", 2, 2, false, 0)}},
		{"an old one comes late", four, []signed.Envelope{four.isolate("eve", 2, 2, false, 0), four.isolate("ada", 1, 2, true, 0)}},
		{"three seats tolerate no liar: the owner has to sign", three, []signed.Envelope{three.isolate("ada", 1, 3, true, 0)}},
		{"and has", three, []signed.Envelope{three.isolate("ada", 1, 3, true, 2)}},
		{"three of ten", ten, []signed.Envelope{ten.isolate("ada", 3, 4, true, 0), ten.isolate("ada", 1, 9, true, 0), ten.isolate("ada", 2, 10, true, 0)}},
		{"four of ten", ten, []signed.Envelope{ten.isolate("ada", 3, 4, true, 0), ten.isolate("ada", 1, 9, true, 0), ten.isolate("ada", 2, 10, true, 0), ten.isolate("ada", 4, 5, true, 0)}},
		{"two of three members of ten", ten, []signed.Envelope{ten.isolate("ada", 1, 1, true, 0), ten.isolate("ada", 2, 2, true, 0), ten.isolate("ada", 3, 9, true, 0)}},
		{"by an admin whose key was revoked", lost, []signed.Envelope{lost.isolate("eve", 9, 2, true, 0), lost.absent("eve", 9, 1, Away, time.Time{})}},
		{"what he has ordered, by another one under a lower number", lost, []signed.Envelope{lost.isolate("eve", 9, 2, true, 0), lost.isolate("ada", 1, 3, true, 0)}},
		{"away, cordoned, drained", four, []signed.Envelope{
			four.absent("bob", 1, 1, Away, time.Time{}), four.absent("bob", 1, 2, Cordoned, time.Time{}), four.absent("ada", 1, 3, Drained, time.Time{})}},
		{"away until later, and until before", four, []signed.Envelope{
			four.absent("bob", 1, 1, Away, now.Add(time.Hour)), four.absent("bob", 2, 2, Away, now)}},
		{"away, and back", four, []signed.Envelope{four.absent("bob", 1, 1, Away, time.Time{}), four.absent("ada", 2, 1, Present, time.Time{})}},
		{"away, by a reader", four, []signed.Envelope{four.absent("rob", 1, 1, Away, time.Time{})}},
		{"away and isolated", four, []signed.Envelope{four.absent("bob", 7, 1, Away, time.Time{}), four.isolate("ada", 1, 1, true, 0)}},
	} {
		fmt.Fprintf(&out, "%s\n", c.what)
		got := Decide(c.w.state, c.objects, now)
		for _, one := range got.Isolated {
			fmt.Fprintf(&out, "    %s %s\n", one.Seat.Name, one)
		}
		for _, one := range got.Beyond {
			fmt.Fprintf(&out, "    %s is not: %s\n", one.Seat.Name, one.Doubt)
		}
		for _, one := range got.Absent {
			fmt.Fprintf(&out, "    %s %s\n", one.Seat.Name, one)
		}
	}
	golden.Compare(t, "decide.txt", out.String())
	if err := Check(lost.state, lost.isolate("eve", 9, 2, true, 0)); !errors.Is(err, ErrOrder) || !errors.Is(err, ledger.ErrWithdrawn) {
		t.Errorf("%v", err)
	}
}

// TestAnyOrder: nodes that have the same orders decide alike, in whatever order these came, and
// never isolate more than they may.
func TestAnyOrder(t *testing.T) {
	w := founded(t, 7)
	var pool []signed.Envelope
	for number := uint64(1); number <= 3; number++ {
		for seat := 1; seat <= 5; seat++ {
			pool = append(pool, w.isolate("ada", number, seat, number != 2, 0), w.isolate("eve", number, seat, true, 0), w.absent("bob", number, seat, Away, now.Add(time.Duration(number)*time.Hour)))
		}
	}
	pool = append(pool, w.isolate("ada", 2, 6, true, 2), w.isolate("mallory", 9, 7, true, 0))
	text := func(s Standing) string { return fmt.Sprint(s.Isolated, s.Beyond, s.Absent) }
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOf(rapid.SampledFrom(pool)).Draw(t, "orders")
		want := Decide(w.state, some, now)
		again := append(slices.Clone(some), some...)
		if got := Decide(w.state, rapid.Permutation(again).Draw(t, "order"), now); text(got) != text(want) {
			t.Fatalf("%s\n%s", text(got), text(want))
		}
		alone, members := 0, 0
		for _, one := range want.Isolated {
			if !one.Owners {
				alone++
			}
			if one.Seat.Member {
				members++
			}
		}
		if seats, most := Most(w.state.Roster); alone > seats || members > most {
			t.Fatalf("%d seats are isolated by operators alone, %d of them members: %d and %d at most", alone, members, seats, most)
		}
	})
}

// TestMost: a fleet can lose so many seats and decide, and etcd its members and lead.
func TestMost(t *testing.T) {
	for _, c := range []struct{ seats, most, members int }{{1, 0, 0}, {3, 0, 1}, {4, 1, 1}, {7, 2, 1}, {10, 3, 1}} {
		if seats, members := Most(founded(t, c.seats).state.Roster); seats != c.most || members != c.members {
			t.Errorf("%d seats: %d and %d", c.seats, seats, members)
		}
	}
}

// TestNumber: orders about one seat follow on those about another, whoever gave them.
func TestNumber(t *testing.T) {
	w := founded(t, 4)
	all := []signed.Envelope{w.isolate("ada", 4, 1, true, 0), w.absent("bob", 9, 2, Away, time.Time{}), w.isolate("mallory", 99, 3, true, 0), w.isolate("bob", 98, 3, true, 0)}
	if i, a := Number(w.state, all, IsolationKind), Number(w.state, all, AbsenceKind); i != 4 || a != 9 {
		t.Errorf("%d and %d", i, a)
	}
}

// TestChanges: an absence ends by itself at its time.
func TestChanges(t *testing.T) {
	w := founded(t, 4)
	all := []signed.Envelope{w.absent("bob", 1, 1, Away, now.Add(2*time.Hour)), w.absent("bob", 2, 2, Away, now.Add(time.Hour)), w.absent("bob", 3, 3, Away, time.Time{})}
	s := Decide(w.state, all, now)
	if at := s.Changes(); !at.Equal(now.Add(time.Hour)) || len(s.Absent) != 3 {
		t.Errorf("%s of %v", at, s.Absent)
	}
	s = Decide(w.state, all, s.Changes())
	if at := s.Changes(); !at.Equal(now.Add(2*time.Hour)) || len(s.Absent) != 2 {
		t.Errorf("%s of %v", at, s.Absent)
	}
	if s = Decide(w.state, all, s.Changes()); !s.Changes().IsZero() || len(s.Absent) != 1 {
		t.Errorf("%v", s.Absent)
	}
}

// TestBad refuses what no operator may order, and what would not be shown as it is.
func TestBad(t *testing.T) {
	w := founded(t, 4)
	for what, o := range map[string]Order{
		"no seat": Isolation{Key: w.key(1)}, "no key": Isolation{Seat: 1},
		"a terminal's orders": Isolation{Seat: 1, Key: w.key(1), Why: "\x1b[2J"}, "a long story": Absence{Seat: 1, Key: w.key(1), Why: strings.Repeat("x", maxWhy+1)},
		"owners for nothing": Isolation{Seat: 1, Key: w.key(1), Owners: []signed.Signature{{By: 1, Signature: make([]byte, 64)}}},
		"another state":      Absence{Seat: 1, Key: w.key(1), State: "ill"}, "drained until": Absence{Seat: 1, Key: w.key(1), State: Drained, Until: now},
		"a part of a second": Absence{Seat: 1, Key: w.key(1), State: Away, Until: now.Add(time.Nanosecond)},
		"another zone":       Absence{Seat: 1, Key: w.key(1), State: Away, Until: now.In(time.FixedZone("", 3600))},
	} {
		if _, err := Seal(w.state.Fleet(), w.keys["ada"], 1, o); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRestoring: the newest etcd that the owner has let begin anew is what all go by.
func TestRestoring(t *testing.T) {
	w := founded(t, 4)
	restoring := func(by string, number uint64, seat int, generation int64, owners int) signed.Envelope {
		l := ledger.Restore{Version: 1, Node: w.key(seat), Generation: generation, Height: 1}
		for i := 1; i <= owners; i++ {
			l.Owners = append(l.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), l.Bytes(w.state.Fleet())))
		}
		return w.seal(by, number, Restoring{Seat: seat, Key: w.key(seat), Leave: l.Encode()})
	}
	for _, c := range []struct {
		what string
		want int
		all  []signed.Envelope
	}{
		{"one of two owner keys", 0, []signed.Envelope{restoring("ada", 8, 1, 7, 1)}},
		{"a number above", 0, []signed.Envelope{restoring("ada", 9, 1, 7, 2), restoring("ada", notice.MaxNumber, 2, 7, 2)}},
		{"a number below", 0, []signed.Envelope{restoring("ada", 7, 1, 7, 2)}},
		{"of two seats", 8, []signed.Envelope{restoring("ada", 8, 1, 7, 2), restoring("eve", 4, 2, 3, 2)}},
		{"an older leave, brought later", 8, []signed.Envelope{restoring("ada", 8, 1, 7, 2), restoring("eve", 4, 1, 3, 2)}},
		{"an older leave under a newer number", 8, []signed.Envelope{restoring("ada", 8, 1, 7, 2), restoring("eve", 9, 1, 3, 2)}},
		{"the same leave, brought twice", 8, []signed.Envelope{restoring("ada", 8, 1, 7, 2), restoring("eve", 8, 1, 7, 2)}},
		{"a leave that the owner has not signed, above", 8, []signed.Envelope{restoring("ada", 8, 1, 7, 2), restoring("eve", 10, 1, 9, 0)}},
		{"by an operator who is no admin", 8, []signed.Envelope{restoring("bob", 8, 1, 7, 2)}},
		{"by one whom the ledger does not list any more", 8, []signed.Envelope{restoring("mallory", 8, 1, 7, 2), restoring("ada", 4, 1, 3, 2)}},
	} {
		if got := Decide(w.state, c.all, now).Generation; got != c.want {
			t.Errorf("%s: generation %d, want %d", c.what, got, c.want)
		}
		slices.Reverse(c.all)
		if got := Decide(w.state, c.all, now).Generation; got != c.want {
			t.Errorf("%s, the other way round: generation %d, want %d", c.what, got, c.want)
		}
	}
	// Others carry it by the owner's leave alone, and only what counts takes a place.
	for _, c := range []struct {
		e    signed.Envelope
		want bool
	}{
		{restoring("ada", 8, 1, 7, 2), true}, {restoring("bob", 8, 1, 7, 2), true}, {restoring("mallory", 8, 1, 7, 2), true}, {restoring("mallory", 8, 1, 7, 1), false},
		{restoring("ada", 9, 1, 7, 2), false}, {restoring("ada", notice.MaxNumber, 1, 1<<30, 1), false},
	} {
		k := Kinds()[slices.IndexFunc(Kinds(), func(k notice.Kind) bool { return k.Name == RestoringKind })]
		if got := k.May(w.state, c.e); got != c.want {
			t.Errorf("order %d: a shelf may take it: %v", c.e.Sequence, got)
		}
	}
	// Of one leave there is one object, whoever brings it.
	shelves := shelf.New(w.state.Fleet(), Kinds())
	shelves.May = func(k notice.Kind, e signed.Envelope) bool { return k.May(w.state, e) }
	shelves.Early = func(k notice.Kind, e signed.Envelope) bool { return k.Early(w.state, e) }
	shelves.Follow(w.state.Roster)
	leave := func(height int64) ledger.Restore {
		l := ledger.Restore{Version: 1, Node: w.key(1), Generation: 7, Height: height}
		for i := 1; i <= 2; i++ {
			l.Owners = append(l.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), l.Bytes(w.state.Fleet())))
		}
		return l
	}
	wants := shelf.Taken
	for _, by := range []string{"ada", "eve", "bob", "mallory"} {
		e := restoring(by, 8, 1, 7, 2)
		if got := shelves.Put(e.Bytes()); got != wants {
			t.Errorf("the leave, brought by %s: %s", by, got)
		}
		if !Same(e, restoring("ada", 8, 1, 7, 2)) || Same(e, restoring("ada", 4, 1, 3, 2)) {
			t.Errorf("brought by %s it says something else", by)
		}
		wants = shelf.Known
	}
	raised := leave(1) // by whoever passes it on
	raised.Height = 2
	for what, c := range map[string]struct {
		o    Restoring
		want shelf.Verdict
	}{
		"another seat's number":                  {Restoring{Seat: 2, Key: w.key(1), Leave: leave(1).Encode()}, shelf.Unlisted},
		"a height that is not yet":               {Restoring{Seat: 1, Key: w.key(1), Leave: leave(2).Encode()}, shelf.Early},
		"a height that the owner has not signed": {Restoring{Seat: 1, Key: w.key(1), Leave: raised.Encode()}, shelf.Unlisted},
		"not yet, another seat's number":         {Restoring{Seat: 2, Key: w.key(1), Leave: leave(2).Encode()}, shelf.Unlisted},
	} {
		e := w.seal("ada", 8, c.o)
		if got := shelves.Put(e.Bytes()); got != c.want || Counts(w.state, e) {
			t.Errorf("%s: %s", what, got)
		}
	}
	if got := len(restoring("ada", 1<<61, 1, 1<<30, 4).Bytes()); got > restoringSize {
		t.Errorf("%d bytes", got)
	}
	other := ledger.Restore{Version: 1, Node: w.key(2)}
	if _, err := Seal(w.state.Fleet(), w.keys["ada"], 1, Restoring{Seat: 1, Key: w.key(1), Leave: other.Encode()}); !errors.Is(err, ErrOrder) {
		t.Errorf("a leave for another node: %v", err)
	}
}

// TestSizes: orders fit where they are taken, whatever operators say with them.
func TestSizes(t *testing.T) {
	w := founded(t, 4)
	why := strings.Repeat("\"", maxWhy) // of which JSON makes two bytes each
	sized := func(owners int) int {
		o := Isolation{Seat: 16384, Key: w.key(1), Isolated: true, Why: why}
		for i := 1; i <= owners; i++ {
			o.Owners = append(o.Owners, signed.Signature{By: i, Signature: make([]byte, 64)})
		}
		return len(w.seal("ada", 1<<61, o).Bytes())
	}
	away := w.seal("bob", 1<<61, Absence{Seat: 16384, Key: w.key(1), State: Cordoned, Why: why})
	if got := [...]int{sized(4), sized(16), len(away.Bytes())}; got[0] > large || got[1] > largest || got[2] > absence {
		t.Errorf("%d bytes", got)
	}
}

// TestGolden: the bytes of orders are fixed.
func TestGolden(t *testing.T) {
	key := ledgertest.Key(t, "n2")
	var out strings.Builder
	for _, o := range []Order{
		Isolation{Seat: 2, Key: key, Isolated: true, Why: "stolen", Owners: []signed.Signature{{By: 1, Signature: bytes.Repeat([]byte{7}, 64)}}},
		Absence{Seat: 2, Key: key, State: Away, Until: now, Why: "holidays"}, Absence{Seat: 2, Key: key},
	} {
		kind, body, err := o.envelope()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n%s", kind, body)
	}
	fmt.Fprintf(&out, "%x\n", OwnersBytes(document.HashOf([]byte("fleet")), key, 258))
	golden.Compare(t, "v1.txt", out.String())
}

// FuzzParse has bytes of strangers: what is taken has one spelling.
func FuzzParse(f *testing.F) {
	w := founded(f, 4)
	f.Add(w.isolate("ada", 1, 2, true, 2).Body)
	f.Add(w.absent("bob", 1, 2, Away, now).Body)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if o, err := ParseIsolation(raw); err == nil && !bytes.Equal(encode(o), raw) {
			t.Errorf("%q", raw)
		}
		if o, err := ParseAbsence(raw); err == nil && !bytes.Equal(encode(o), raw) {
			t.Errorf("%q", raw)
		}
	})
}
