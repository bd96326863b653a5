package shelf

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// TestAbout holds what operators say about seats: one object about each, whoever of them signed
// it, and nothing by others or about nobody.
func TestAbout(t *testing.T) {
	ada, bob, eve := operatorKey(t), operatorKey(t), operatorKey(t)
	about := notice.Kind{Name: "kogge/about/v1", Number: 9, Least: 512, Most: 1 << 10, Check: check, About: func(body []byte) (signed.Key, error) {
		seat, _, ok := bytes.Cut(body, []byte(":"))
		if !ok || len(seat) != 1 {
			return "", errors.New("about nobody")
		}
		return key(int(seat[0] - '0')), nil
	}}
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
		{"an older one", says(ada, 1, "1:on"), Older}, {"by nobody", says(eve, 9, "1:off"), Unlisted}, {"forged", forged, BadSignature},
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
	if dropped := s.Follow(seats(2)); dropped != 2 || s.Len() != 0 {
		t.Errorf("%d are dropped, %d are left", dropped, s.Len())
	}
	if v := s.Put(last.Bytes()); v != Taken {
		t.Errorf("%s", v)
	}
}

func operatorKey(t *testing.T) *ecdsa.PrivateKey {
	return ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
}

func keyOf(t *testing.T, k *ecdsa.PrivateKey) signed.Key {
	return ledgertest.Must[signed.Key](t)(signed.OperatorKey(&k.PublicKey))
}
