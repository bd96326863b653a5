package shelf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

var fleetID = document.HashOf([]byte("fleet"))

// kinds are two small ones, whose bodies may not be "bad".
var kinds = []notice.Kind{
	{Name: "kogge/one/v1", Number: 1, Least: 256, Most: 1 << 10, Check: check},
	{Name: "kogge/two/v1", Number: 2, Least: 512, Most: 4 << 10, Check: check},
}

func check(body []byte) error {
	switch string(body) {
	case "bad":
		return notice.ErrNotice
	case "later":
		return fmt.Errorf("%w: %w", notice.ErrNotice, document.ErrNewer)
	}
	return nil
}

// seats is a roster of n1 to n….
func seats(count int) (r roster.Roster) {
	for i := 1; i <= count; i++ {
		r.Seats = append(r.Seats, roster.Seat{Number: i, Name: name(i), Key: key(i)})
	}
	return r
}

func name(i int) string { return fmt.Sprintf("n%d", i) }

var keys = make(map[int]signed.Key)

func key(i int) signed.Key {
	if keys[i] == "" {
		e, _ := signed.Seal("k", fleetID, ledgertest.Private(name(i)), 1, nil)
		keys[i] = e.By
	}
	return keys[i]
}

func seal(t testing.TB, kind, seat int, number uint64, body string) []byte {
	t.Helper()
	e, err := signed.Seal(kinds[kind].Name, fleetID, ledgertest.Private(name(seat)), number, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return e.Bytes()
}

func shelfOf(count int) *Shelf {
	s := New(fleetID, kinds)
	s.Follow(seats(count))
	return s
}

// TestVerdicts puts all that a hostile seat or a stranger may send, and counts it by reason.
func TestVerdicts(t *testing.T) {
	s := shelfOf(2)
	good := seal(t, 0, 1, 5, "five")
	forged := bytes.Clone(seal(t, 0, 1, 6, "six"))
	forged[len(forged)-1] ^= 1
	foreign, _ := signed.Seal(kinds[0].Name, document.HashOf(nil), ledgertest.Private("n1"), 9, nil)
	unknown, _ := signed.Seal("kogge/three/v1", fleetID, ledgertest.Private("n1"), 9, nil)
	for _, c := range []struct {
		what string
		raw  []byte
		want Verdict
	}{
		{"the first", good, Taken}, {"again", good, Known}, {"older", seal(t, 0, 1, 4, "four"), Older},
		{"the same again, higher", seal(t, 0, 1, 6, "five"), Renewed}, {"a forged one", forged, BadSignature},
		{"a forged one of a number to come", tampered(seal(t, 0, 1, 7, "seven")), BadSignature}, {"junk", []byte("junk"), Malformed}, {"nothing", nil, Malformed},
		{"10 MB", make([]byte, 10<<20), TooLarge}, {"large for its kind", seal(t, 0, 1, 9, strings.Repeat("x", 1<<10)), TooLarge},
		{"no seat", seal(t, 0, 3, 1, "x"), Unlisted}, {"another fleet", foreign.Bytes(), Foreign}, {"a new kind", unknown.Bytes(), UnknownKind},
		{"number 0", seal(t, 0, 1, 0, "x"), BadNumber}, {"the last word", seal(t, 0, 1, 1<<63, "x"), BadNumber}, {"a bad body", seal(t, 0, 1, 9, "bad"), BadBody},
		{"another seat", seal(t, 0, 2, 1, "x"), Taken}, {"another kind", seal(t, 1, 1, 1, "x"), Taken},
		{"what a later release says", seal(t, 1, 1, 2, "later"), Taken},
		{"two things at once", seal(t, 0, 1, 6, "six"), Contested}, {"again", seal(t, 0, 1, 6, "six"), Known}, {"the other again", seal(t, 0, 1, 6, "five"), Known},
		{"and then one", seal(t, 0, 1, 8, "eight"), Taken},
	} {
		if got := s.Put(c.raw); got != c.want {
			t.Errorf("%s: %s", c.what, got)
		}
		if c.want.Lie() != (c.want == Malformed || c.want == Foreign || c.want == BadSignature) || c.want.News() && c.want.Lie() {
			t.Errorf("%s", c.want)
		}
	}
	if e, ok := s.Get(kinds[0].Name, key(1)); !ok || string(e.Body) != "eight" {
		t.Errorf("%q", e.Body)
	}
	if got := s.Counts(); s.Refused() != 13 || got["with a wrong signature"] != 2 || got["too large"] != 2 || got["taken"] != 5 {
		t.Errorf("%d refused: %v", s.Refused(), got)
	}
	if p := s.Pairs()[key(1)]; p[0].Sequence != 6 || p[1].Sequence != 6 || bytes.Equal(p[0].Body, p[1].Body) {
		t.Errorf("the two things that it said at once: %q and %q", p[0].Body, p[1].Body)
	}
	if s.Newest(key(1)) != 8 || s.Newest(key(3)) != 0 || s.Len() != 3 {
		t.Errorf("newest %d, %d objects", s.Newest(key(1)), s.Len())
	}
	// The seat is lost by a decision: what it said is gone, and is not taken again.
	if dropped, _ := s.Follow(roster.Roster{Seats: seats(2).Seats[1:]}); dropped != 2 || s.Len() != 1 || len(s.Pairs()) != 0 {
		t.Errorf("%d are dropped", dropped)
	}
	if v := s.Put(good); v != Unlisted {
		t.Errorf("%s", v)
	}
}

func tampered(raw []byte) []byte {
	raw = bytes.Clone(raw)
	raw[len(raw)-65] ^= 1
	return raw
}

// TestFew has a kind be said by those who hold the fleet's secrets, and by nobody else.
func TestFew(t *testing.T) {
	few := []notice.Kind{kinds[0], {Name: "kogge/few/v1", Number: 9, Least: 256, Most: 256, Few: true, Check: check}}
	r := seats(4)
	r.Seats[0].Member, r.Seats[1].Spare = true, true
	s := New(fleetID, few)
	s.Follow(r)
	for number, want := range map[int]Verdict{1: Taken, 2: Taken, 3: Unlisted, 4: Unlisted} {
		e, err := signed.Seal("kogge/few/v1", fleetID, ledgertest.Private(name(number)), 1, []byte("body"))
		if err != nil {
			t.Fatal(err)
		}
		if v := s.Put(e.Bytes()); v != want {
			t.Errorf("n%d: %s", number, v)
		}
	}
	r.Seats[1].Spare = false
	if dropped, _ := s.Follow(r); dropped != 1 || s.Len() != 1 || !s.Lists(key(2)) {
		t.Errorf("%d dropped, %d are left", dropped, s.Len())
	}
}

// TestLimit bounds the memory by the roster: all seats that say as much as they may.
func TestLimit(t *testing.T) {
	all := notice.Kinds()
	for _, c := range []struct{ seats, mib int }{{4, 1}, {100, 3}, {1000, 24}, {10_000, 70}, {roster.MaxSeats, 115}} {
		total := 0
		for _, k := range all {
			if k.Few {
				continue
			}
			limit := Limit(k, c.seats)
			if limit < k.Least || limit > k.Most {
				t.Errorf("%s with %d seats: %d bytes", k.Name, c.seats, limit)
			}
			total += 2 * limit * c.seats
		}
		if total > c.mib<<20 {
			t.Errorf("%d seats may take %d MiB: %d are wanted", c.seats, total>>20, c.mib)
		}
	}
	s := shelfOf(2)
	if s.Limit("none") != 0 || s.Limit(kinds[0].Name) != 1<<10 {
		t.Error("limits")
	}
}

// state is all that is on a shelf, in bytes.
func state(s *Shelf) string {
	var b strings.Builder
	for _, k := range s.kinds {
		for e := range s.All(k.Name) {
			for _, e := range s.Held(s.Place(e)) {
				fmt.Fprintf(&b, "%x\n", e.Message())
			}
		}
	}
	return b.String()
}

// drawn are envelopes of a few seats, with lies among them: the same numbers twice and thrice.
func drawn(t *rapid.T) (all [][]byte) {
	tb := t.Fatalf
	for range rapid.IntRange(1, 40).Draw(t, "envelopes") {
		kind, seat, number := rapid.IntRange(0, 1).Draw(t, "kind"), rapid.IntRange(1, 4).Draw(t, "seat"), rapid.Uint64Range(1, 4).Draw(t, "number")
		e, err := signed.Seal(kinds[kind].Name, fleetID, ledgertest.Private(name(seat)), number, []byte(rapid.SampledFrom([]string{"x", "y", "z", "bad"}).Draw(t, "body")))
		if err != nil {
			tb("%v", err)
		}
		raw := e.Bytes()
		if rapid.IntRange(0, 9).Draw(t, "tampered") == 0 {
			raw = tampered(raw)
		}
		all = append(all, raw)
	}
	return all
}

// TestAnyOrder puts envelopes in any order, some of them twice: the shelf is the same, its
// numbers never fall, and its sums are those of a shelf that computes them anew.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawn(t)
		want := shelfOf(3)
		for _, raw := range all {
			want.Put(raw)
		}
		got := shelfOf(3)
		again := append(slices.Clone(all), all[:len(all)/2]...)
		for _, i := range rapid.Permutation(indexes(len(again))).Draw(t, "order") {
			before := numbers(got)
			verdict := got.Put(again[i])
			for id, n := range numbers(got) {
				if n < before[id] {
					t.Fatalf("number %d falls to %d: %s", before[id], n, verdict)
				}
			}
			got.Root() // fills the cache
		}
		if state(got) != state(want) {
			t.Fatalf("another order makes\n%sinstead of\n%s", state(got), state(want))
		}
		fresh := shelfOf(3)
		for id, h := range got.held {
			fresh.held[id] = h
		}
		if got.Root() != want.Root() || got.Root() != fresh.Root() {
			t.Fatal("the sums differ")
		}
	})
}

func indexes(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func numbers(s *Shelf) map[ID]uint64 {
	all := make(map[ID]uint64)
	for id, h := range s.held {
		all[id] = h.best.Sequence
	}
	return all
}

// cost of an exchange of digests.
type cost struct{ messages, bytes int }

// exchange has two nodes tell each other what they lack, as the digests say, and returns what
// that took but for the objects.
func exchange(t interface{ Fatalf(string, ...any) }, a, b *Shelf) (c cost) {
	say := func(n int) { c.messages, c.bytes = c.messages+1, c.bytes+n }
	give := func(from, to *Shelf, id ID, have uint64) {
		if r, ok := from.Renewal(id, have); ok {
			if v := to.Renew(r); v != Missing && v != Known {
				return
			}
		}
		for _, e := range from.Held(id) {
			if v := to.Put(e.Bytes()); !v.News() && v != Known && v != Older {
				t.Fatalf("an honest node's object is %s", v)
			}
		}
	}
	sums := a.Roots()
	say(22 * len(sums))
	for from, to := a, b; len(sums) > 0; from, to = to, from {
		next, lists := to.Answer(sums)
		if len(next) > 0 || len(lists) > 0 {
			n := 22 * len(next)
			for _, l := range lists {
				n += 6 + 36*len(l.Items)
			}
			say(n)
		}
		for _, l := range lists { // which to sends to from
			lacks, ahead := from.Compare(l)
			for _, item := range lacks {
				own, _ := from.Item(item.ID)
				give(to, from, item.ID, own.Number)
			}
			for _, id := range ahead {
				own, _ := to.Item(id)
				give(from, to, id, own.Number)
			}
		}
		sums = next
	}
	return c
}

// TestConverge lets nodes meet in pairs that have heard different things: in the end all of
// them know the same, which is what a node knows that has heard everything.
func TestConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawn(t)
		everything := shelfOf(3)
		nodes := []*Shelf{shelfOf(3), shelfOf(3), shelfOf(3), shelfOf(3)}
		for _, raw := range all {
			everything.Put(raw)
			for _, n := range nodes {
				if rapid.Bool().Draw(t, "arrives") {
					n.Put(raw)
				}
			}
			nodes[rapid.IntRange(0, 3).Draw(t, "once for sure")].Put(raw)
		}
		meet := func(i, j int) {
			if i != j {
				exchange(t, nodes[i], nodes[j])
			}
		}
		for range rapid.IntRange(0, 8).Draw(t, "meetings") {
			meet(rapid.IntRange(0, 3).Draw(t, "one"), rapid.IntRange(0, 3).Draw(t, "other"))
		}
		for range 3 { // so far is it from the first to the last
			for i := range 3 {
				meet(i, i+1)
			}
		}
		for i, n := range nodes {
			if n.Root() != everything.Root() {
				t.Fatalf("node %d has\n%sand all that came makes\n%s", i, state(n), state(everything))
			}
		}
	})
}

// TestDigestCost finds one difference, and a hundred, in small and large fleets by few and
// small messages.
func TestDigestCost(t *testing.T) {
	type most struct{ news, messages, bytes int }
	for count, all := range map[int][]most{
		100:    {{0, 1, 44}, {1, 4, 1200}, {100, 6, 16 << 10}},
		10_000: {{0, 1, 44}, {1, 5, 2 << 10}, {100, 6, 110 << 10}},
	} {
		a, b := shelfOf(count), shelfOf(count)
		a.Verify = func(signed.Envelope) error { return nil } // it is the digests that are measured
		b.Verify = a.Verify
		put := func(number uint64, news int, shelves ...*Shelf) {
			for i := 1; i <= news; i++ {
				raw := seal(t, 0, i, number, fmt.Sprint(number))
				for _, s := range shelves {
					s.Put(raw)
				}
			}
		}
		put(1, count, a, b)
		for i, c := range all {
			put(uint64(2+i), c.news, a)
			got := exchange(t, a, b)
			if a.Root() != b.Root() || state(a) != state(b) {
				t.Errorf("%d seats, %d news: they differ", count, c.news)
			}
			t.Logf("%d seats, %d news: %d messages, %d bytes", count, c.news, got.messages, got.bytes)
			if got.messages > c.messages || got.bytes > c.bytes {
				t.Errorf("%d seats, %d news: %d messages, %d bytes: %d and %d are wanted at most", count, c.news, got.messages, got.bytes, c.messages, c.bytes)
			}
		}
	}
}

// TestRenewal passes on that a seat says the same again by a signature alone, and to nobody
// who has something else.
func TestRenewal(t *testing.T) {
	a, b := shelfOf(2), shelfOf(2)
	id := IDOf(kinds[0].Name, key(1))
	a.Put(seal(t, 0, 1, 1, "x"))
	b.Put(seal(t, 0, 1, 1, "x"))
	a.Put(seal(t, 0, 1, 2, "y"))
	a.Put(seal(t, 0, 1, 3, "y"))
	if _, ok := a.Renewal(id, 1); ok {
		t.Error("what was x is y, and no renewal")
	}
	b.Put(seal(t, 0, 1, 2, "y"))
	r, ok := a.Renewal(id, 2)
	if !ok {
		t.Fatal("there is no renewal")
	}
	bad := r
	bad.Signature[0] ^= 1
	if v := b.Renew(bad); v != Missing {
		t.Errorf("a forged one is %s", v)
	}
	if v := shelfOf(2).Renew(r); v != Missing {
		t.Errorf("of nothing it is %s", v)
	}
	other := shelfOf(2)
	other.Put(seal(t, 0, 1, 2, "z"))
	if v := other.Renew(r); v != Missing {
		t.Errorf("of something else it is %s", v)
	}
	if v := b.Renew(r); v != Renewed || state(a) != state(b) {
		t.Errorf("it is %s", v)
	}
	if v := b.Renew(r); v != Known {
		t.Errorf("again it is %s", v)
	}
	if _, ok := a.Renewal(id, 3); ok {
		t.Error("a renewal for somebody who has it")
	}
	a.Put(seal(t, 0, 1, 3, "z"))
	if _, ok := a.Renewal(id, 2); ok {
		t.Error("two things at once are renewed")
	}
}

// TestHostileDigest gets sums and lists that nobody computed: the answers are bounded, and a
// list speaks of its part alone.
func TestHostileDigest(t *testing.T) {
	s := shelfOf(4)
	for i := 1; i <= 4; i++ {
		s.Put(seal(t, 0, i, 1, "x"))
	}
	for _, p := range []Part{{1, -1, 0}, {1, maxDepth + 1, 0}, {1, 1, 16}, {1, 0, 1}, {0, 0, 0}, {MaxKind + 1, 0, 0}, {1, maxDepth, 1<<32 - 1}} {
		sums, lists := s.Answer([]SumOf{{p, Sum{1}}})
		if valid := p.Valid(); !valid && (len(sums) > 0 || len(lists) > 0) || valid && len(lists) != 1 {
			t.Errorf("%v: %d sums, %d lists", p, len(sums), len(lists))
		}
		if lacks, ahead := s.Compare(List{Part: p}); p.Depth != maxDepth && (len(lacks) > 0 || len(ahead) > 0) {
			t.Errorf("%v: lacks %d, ahead %d", p, len(lacks), len(ahead))
		}
	}
	id := IDOf(kinds[0].Name, key(1))
	foreign := Item{ID: ID{1, 2, 3}, Number: 1 << 60}
	if s.Lacks(foreign) || s.Ahead(foreign) {
		t.Error("a place that the roster does not have")
	}
	elsewhere := partOf(1, id, 1)
	elsewhere.Prefix = (elsewhere.Prefix + 1) % 16
	lacks, _ := s.Compare(List{elsewhere, []Item{{ID: id, Number: 9}}})
	if len(lacks) > 0 {
		t.Error("a list speaks of another part")
	}
	if lacks, _ := s.Compare(List{Part{Kind: 2}, []Item{{ID: id, Number: 9}}}); len(lacks) > 0 {
		t.Error("a list speaks of another kind")
	}
	if sums, lists := s.Answer([]SumOf{{Part{Kind: 9}, Sum{1}}}); len(sums)+len(lists) > 0 {
		t.Error("a kind that a later release knows is answered for")
	}
	large := shelfOf(300)
	for i := range uint32(1 << 16) {
		large.Answer([]SumOf{{Part{1, 4, i}, Sum{1}}})
	}
	if len(large.parts) > 300 {
		t.Errorf("%d sums are kept", len(large.parts))
	}
	if got := slices.Collect(maps.Keys(s.Counts())); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// FuzzPut has bytes of strangers: what is not refused has the signature of a seat.
func FuzzPut(f *testing.F) {
	f.Add(seal(f, 0, 1, 5, "five"))
	f.Add(tampered(seal(f, 1, 2, 5, "five")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := shelfOf(2)
		if s.Put(raw).News() {
			if e, err := signed.Open(raw); err != nil || e.By != key(1) && e.By != key(2) {
				t.Errorf("%v: taken: %v", e.By, err)
			}
		}
		s.Put(seal(t, 0, 1, 3, "three"))
		s.Put(raw)
		s.Root()
	})
}

// TestTwoReleases: nodes of which one knows a kind more agree on what both know.
func TestTwoReleases(t *testing.T) {
	older, later := New(fleetID, kinds[:1]), shelfOf(3)
	older.Follow(seats(3))
	later.Put(seal(t, 0, 1, 1, "x"))
	later.Put(seal(t, 1, 1, 1, "x"))
	older.Put(seal(t, 0, 2, 1, "y"))
	exchange(t, older, later)
	for _, s := range []*Shelf{older, later} {
		for _, other := range []*Shelf{older, later} {
			if sums, lists := s.Answer(other.Roots()); len(sums)+len(lists) > 0 {
				t.Errorf("they do not agree: %v, %v", sums, lists)
			}
		}
	}
	if older.Len() != 2 || later.Len() != 3 || older.Limit(kinds[0].Name) != later.Limit(kinds[0].Name) {
		t.Errorf("%d and %d objects", older.Len(), later.Len())
	}
}
