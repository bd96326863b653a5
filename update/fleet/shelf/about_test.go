package shelf

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// about is a kind of objects about seats: "1:x" is one about the first.
var about = notice.Kind{Name: "kogge/about/v1", Number: 9, Least: 512, Most: 1 << 10, Check: check, About: func(body []byte) (signed.Key, error) {
	seat, _, ok := bytes.Cut(body, []byte(":"))
	if !ok || len(seat) != 1 {
		return "", errors.New("about nobody")
	}
	return key(int(seat[0] - '0')), nil
}}

// aboutShelf is a shelf of them on which some operators do not count.
func aboutShelf(not ...signed.Key) *Shelf {
	s := New(fleetID, []notice.Kind{about})
	s.May = func(_ notice.Kind, e signed.Envelope) bool { return !slices.Contains(not, e.By) }
	s.Follow(seats(2))
	return s
}

// TestAbout holds what operators say about seats: one object about each, whoever of them signed
// it, and nothing by others or about nobody.
func TestAbout(t *testing.T) {
	ada, bob, eve := operatorKey(t), operatorKey(t), operatorKey(t)
	listed := map[signed.Key]bool{keyOf(t, ada): true, keyOf(t, bob): true}
	s := New(fleetID, []notice.Kind{kinds[0], about})
	s.May = func(k notice.Kind, e signed.Envelope) bool { return k.Name == about.Name && listed[e.By] }
	s.Follow(seats(2))
	says := func(by *ecdsa.PrivateKey, number uint64, body string) signed.Envelope {
		return ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(about.Name, fleetID, by, number, []byte(body)))
	}
	forged := says(ada, 8, "1:x")
	forged = forged.Again(9, forged.Signature())
	ofSeat, _ := signed.Seal(about.Name, fleetID, ledgertest.Private("n1"), 9, []byte("1:x"))
	asSeat := ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(kinds[0].Name, fleetID, ada, 9, []byte("x")))
	last := says(bob, 3, "1:on")
	for _, c := range []struct {
		what string
		e    signed.Envelope
		want Verdict
	}{
		{"the first", says(ada, 1, "1:on"), Taken}, {"about another seat", says(ada, 1, "2:on"), Taken}, {"by another operator", says(bob, 2, "1:off"), Taken},
		{"one that lies behind it", says(ada, 1, "1:on"), Known}, {"an older one of hers", says(ada, 7, "2:off"), Taken}, {"of the same number", says(ada, 1, "2:on"), Older}, {"by nobody", says(eve, 9, "1:off"), Unlisted}, {"forged", forged, BadSignature},
		{"about no seat", says(ada, 9, "7:on"), Unlisted}, {"about nobody", says(ada, 9, "on"), Unlisted},
		{"a seat's", ofSeat, Unlisted}, {"an operator's in the place of a seat's", asSeat, Unlisted},
		{"the same by another, higher", last, Taken}, {"once more by the same", says(bob, 4, "1:on"), Renewed}, {"by the other", says(ada, 5, "1:on"), Taken},
		{"two things at once", says(bob, 5, "1:off"), Contested},
	} {
		if got := s.Put(c.e.Bytes()); got != c.want {
			t.Errorf("%s: %s", c.what, got)
		}
	}
	if e, ok := s.Get(about.Name, key(1)); !ok || e.Sequence != 5 || s.Len() != 2 || len(s.Pairs()) != 0 || s.Newest(key(1)) != 0 {
		t.Errorf("number %d, %d objects, %d pairs", e.Sequence, s.Len(), len(s.Pairs()))
	}
	if s.Place(last) != IDOf(about.Name, key(1)) || s.Place(says(ada, 1, "on")) != (ID{}) {
		t.Error("another place")
	}
	// A shelf that has bob's fourth takes his word that it is the fifth by no renewal of ada's.
	if _, ok := s.Renewal(IDOf(about.Name, key(1)), 4); ok {
		t.Error("two objects are told as a renewal")
	}
	// An operator who is not listed any more has said nothing.
	delete(listed, keyOf(t, ada))
	if dropped, _ := s.Follow(seats(2)); dropped != 1 || s.Len() != 1 {
		t.Errorf("%d are dropped, %d are left", dropped, s.Len())
	}
	if e, ok := s.Get(about.Name, key(1)); !ok || string(e.Body) != "1:off" || len(s.Held(IDOf(about.Name, key(1)))) != 1 {
		t.Errorf("what is left is %q", e.Body)
	}
	if v := s.Put(last.Bytes()); v != Older {
		t.Errorf("%s", v)
	}
}

// TestBehind keeps behind the newest object about a seat that of another operator, for nodes on which
// the first one's key was revoked, and when it is here, too, the other one counts.
func TestBehind(t *testing.T) {
	ada, bob := operatorKey(t), operatorKey(t)
	says := func(by *ecdsa.PrivateKey, number uint64, body string) []byte {
		return ledgertest.Must[signed.Envelope](t)(signed.SealByOperator(about.Name, fleetID, by, number, []byte(body))).Bytes()
	}
	id := IDOf(about.Name, key(1))
	first, s := aboutShelf(), aboutShelf()
	bobs := false
	s.May = func(_ notice.Kind, e signed.Envelope) bool { return !bobs || e.By != keyOf(t, bob) }
	for _, raw := range [][]byte{says(bob, notice.MaxNumber, "1:x"), says(bob, notice.MaxNumber, "1:y")} {
		first.Put(raw)
		s.Put(raw)
	}
	if v := s.Give(says(ada, 1, "1:on")); v != Older || len(s.Held(id)) != 2 {
		t.Errorf("one that was to count is %s", v)
	}
	knows := aboutShelf(keyOf(t, bob))
	knows.Put(says(ada, 1, "1:on"))
	if item, _ := knows.Item(id); !s.Lacks(item) {
		t.Error("who has another operator's object is not asked for it")
	}
	for range 2 {
		for _, e := range knows.Held(id) {
			s.Put(e.Bytes())
		}
	}
	if item, _ := knows.Item(id); s.Lacks(item) || s.Counts()["taken behind a newer one"] != 1 || s.Counts()["known"] != 1 {
		t.Errorf("%v", s.Counts())
	}
	if e, _ := s.Get(about.Name, key(1)); e.Sequence != notice.MaxNumber || len(s.Held(id)) != 3 || s.Root() == first.Root() {
		t.Errorf("number %d counts, of %d objects", e.Sequence, len(s.Held(id)))
	}
	exchange(t, first, s)
	if first.Root() != s.Root() || state(first) != state(s) {
		t.Error("digests do not bring it to others")
	}
	for number := uint64(2); number < 4; number++ {
		if v := s.Put(says(ada, number, "1:on")); v != Behind {
			t.Errorf("her next one is %s", v)
		}
	}
	bobs = true
	if dropped, rose := s.Follow(seats(2)); dropped != 0 || len(rose) != 1 || rose[0].Sequence != 3 {
		t.Errorf("%d are dropped, %v rose", dropped, rose)
	}
	if _, rose := s.Follow(seats(2)); len(rose) != 0 || len(s.Held(id)) != 1 || !s.Ahead(Item{ID: id, Number: 2}) {
		t.Error("what counts counts once more")
	}
}

// TestAboutAnyOrder puts objects of several operators about seats in any order: the shelf is the same, and on
// one where any of them does not count the newest one of the others does, as long as it has not
// lain behind two.
func TestAboutAnyOrder(t *testing.T) {
	keys := []*ecdsa.PrivateKey{operatorKey(t), operatorKey(t), operatorKey(t)}
	who := []signed.Key{keyOf(t, keys[0]), keyOf(t, keys[1]), keyOf(t, keys[2])}
	rapid.Check(t, func(t *rapid.T) {
		var all [][]byte
		for range rapid.IntRange(1, 20).Draw(t, "envelopes") {
			by, number := rapid.IntRange(0, 2).Draw(t, "by"), rapid.Uint64Range(1, 4).Draw(t, "number")
			e, err := signed.SealByOperator(about.Name, fleetID, keys[by], number, []byte(rapid.SampledFrom([]string{"1:x", "1:y", "2:x", "2:bad"}).Draw(t, "body")))
			if err != nil {
				t.Fatalf("%v", err)
			}
			all = append(all, e.Bytes())
		}
		want, got := aboutShelf(), aboutShelf()
		for _, raw := range all {
			want.Put(raw)
		}
		for _, i := range rapid.Permutation(indexes(len(all))).Draw(t, "order") {
			got.Put(all[i])
			got.Root() // fills the cache
		}
		if state(got) != state(want) || got.Root() != want.Root() {
			t.Fatalf("another order makes\n%sinstead of\n%s", state(got), state(want))
		}
		for _, not := range who { // each alone
			fresh, after := aboutShelf(not), aboutShelf(not)
			for _, raw := range all {
				fresh.Put(raw)
			}
			for id := range want.held {
				for _, e := range want.Held(id) {
					after.Put(e.Bytes())
				}
			}
			for seat := 1; seat <= 2; seat++ {
				a, _ := fresh.Get(about.Name, key(seat))
				b, _ := after.Get(about.Name, key(seat))
				if a.Sequence != b.Sequence {
					t.Fatalf("of all %d counts, and of what is passed on %d", a.Sequence, b.Sequence)
				}
			}
		}
	})
}

func operatorKey(t *testing.T) *ecdsa.PrivateKey {
	return ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
}

func keyOf(t *testing.T, k *ecdsa.PrivateKey) signed.Key {
	return ledgertest.Must[signed.Key](t)(signed.OperatorKey(&k.PublicKey))
}
