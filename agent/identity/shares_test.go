package identity

import (
	"errors"
	"fmt"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/wrapped"
)

// TestShares passes the CA's key on to who is to have it, each once.
func TestShares(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	s, ca := f.Log.State(), f.Genesis.NodeCA
	key := func(number int) signed.Key { return ledgertest.Key(t, fmt.Sprintf("n%d", number)) }
	must := func(_ *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	custody := func(number int) *Custody {
		m := &memoryFiles{disk: make(map[string]string), left: 100}
		return ledgertest.Must[*Custody](t)(openCustody(m, s.Fleet(), key(number)))
	}
	all := make(map[signed.Key]*Custody)
	for number := 1; number <= 5; number++ {
		all[key(number)] = custody(number)
	}
	says := func(key signed.Key) (notice.WrapKey, bool) {
		seat, _ := s.Roster.ByKey(key)
		return all[key].Says(seat.Number), true
	}
	nobody := func(roster.Seat) error { return nil }
	own, mine := all[key(1)], make(Shares)
	if _, gives := mine.Give(own, s, says, nobody); gives {
		t.Error("it gives what it has not")
	}
	sealed, err := wrapped.Wrap(f.CA(fleet.KindNode), own.Says(1).Key, wrapped.For{Fleet: s.Fleet(), Seat: key(1), CA: wrapped.CAOf(ca)})
	must(t, err)
	if err := all[key(2)].Take(sealed, ca); !errors.Is(err, wrapped.ErrWrapped) {
		t.Errorf("another seat opens it: %v", err)
	}
	must(t, own.Take(sealed, ca))
	must(t, own.Take(sealed, ca))
	k, gives := mine.Give(own, s, says, nobody)
	again, _ := mine.Give(own, s, says, nobody)
	if !gives || len(k.For) != 2 || string(k.Encode()) != string(again.Encode()) {
		t.Fatalf("%+v", k)
	}
	// One that is isolated is given nothing, and again once it is not.
	outcast := func(seat roster.Seat) error {
		if seat.Number == 2 {
			return order.ErrIsolated
		}
		return nil
	}
	if k, gives := mine.Give(own, s, says, outcast); !gives || len(k.For) != 1 || k.For[0].Seat != 3 {
		t.Errorf("seat 2 is isolated: %+v", k)
	}
	k, gives = mine.Give(own, s, says, nobody)
	if !gives || len(k.For) != 2 {
		t.Fatalf("%+v", k)
	}
	e, err := signed.Seal(notice.CAKeyKind, s.Fleet(), ledgertest.Private("n1"), 1, k.Encode())
	must(t, err)
	if all[key(4)].TakeShare(s, []signed.Envelope{e}) || !all[key(3)].TakeShare(s, []signed.Envelope{e}) {
		t.Error("who takes it is not who is to")
	}
	if k, gives := mine.Give(own, s, says, nobody); !gives || len(k.For) != 1 || k.For[0].Seat != 2 {
		t.Errorf("%+v", k)
	}
	if !all[key(2)].TakeShare(s, []signed.Envelope{e}) {
		t.Error("n2 does not take it")
	}
	if k, gives := mine.Give(own, s, says, nobody); gives || k.CA.IsZero() {
		t.Errorf("all hold it: %+v", k)
	}
}
