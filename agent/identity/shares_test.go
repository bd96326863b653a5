package identity

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/wrapped"
)

// nobody is refused a share.
func nobody(roster.Seat) error { return nil }

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
	own, mine := all[key(1)], make(Shares)
	if _, gives := mine.Give(own, s, says, nobody, today); gives {
		t.Error("it gives what it has not")
	}
	sealed, err := wrapped.Wrap(f.CA(fleet.KindNode), own.Says(1).Key, wrapped.For{Fleet: s.Fleet(), Seat: key(1), CA: wrapped.CAOf(ca)})
	must(t, err)
	if err := all[key(2)].Take(sealed, ca); !errors.Is(err, wrapped.ErrWrapped) {
		t.Errorf("another seat opens it: %v", err)
	}
	must(t, own.Take(sealed, ca))
	must(t, own.Take(sealed, ca))
	k, gives := mine.Give(own, s, says, nobody, today)
	again, _ := mine.Give(own, s, says, nobody, today)
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
	if k, gives := mine.Give(own, s, says, outcast, today); !gives || len(k.For) != 1 || k.For[0].Seat != 3 {
		t.Errorf("seat 2 is isolated: %+v", k)
	}
	k, gives = mine.Give(own, s, says, nobody, today)
	if !gives || len(k.For) != 2 {
		t.Fatalf("%+v", k)
	}
	e, err := signed.Seal(notice.CAKeyKind, s.Fleet(), ledgertest.Private("n1"), 1, k.Encode())
	must(t, err)
	if all[key(4)].TakeShare(s, []signed.Envelope{e}) || !all[key(3)].TakeShare(s, []signed.Envelope{e}) {
		t.Error("who takes it is not who is to")
	}
	if k, gives := mine.Give(own, s, says, nobody, today); !gives || len(k.For) != 1 || k.For[0].Seat != 2 {
		t.Errorf("%+v", k)
	}
	if !all[key(2)].TakeShare(s, []signed.Envelope{e}) {
		t.Error("n2 does not take it")
	}
	if k, gives := mine.Give(own, s, says, nobody, today); gives || k.CA.IsZero() {
		t.Errorf("all hold it: %+v", k)
	}
}

// TestSharesTurn: four that never take the key do not keep it from the fifth.
func TestSharesTurn(t *testing.T) {
	f := ledgertest.Begun(t, 7)
	v := f.Founding(t)
	for i := range v.Founding.Roster.Seats {
		v.Founding.Roster.Seats[i].Spare = !v.Founding.Roster.Seats[i].Member
	}
	f.Take(t, f.Decided(t, v, 2))
	s, ca := f.Log.State(), f.Genesis.NodeCA
	says := func(key signed.Key) (notice.WrapKey, bool) {
		seat, _ := s.Roster.ByKey(key)
		own := ledgertest.Must[*Custody](t)(openCustody(&memoryFiles{disk: map[string]string{wrapName: wrapOf(t, seat.Number)}, left: 100}, s.Fleet(), key))
		return own.Says(seat.Number), true
	}
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	own := ledgertest.Must[*Custody](t)(openCustody(m, s.Fleet(), ledgertest.Key(t, "n1")))
	sealed := ledgertest.Must[[]byte](t)(wrapped.Wrap(f.CA(fleet.KindNode), own.Says(1).Key, wrapped.For{Fleet: s.Fleet(), Seat: ledgertest.Key(t, "n1"), CA: wrapped.CAOf(ca)}))
	if err := own.Take(sealed, ca); err != nil {
		t.Fatal(err)
	}
	mine := make(Shares)
	var out strings.Builder
	for _, after := range []time.Duration{0, time.Minute, 14 * time.Minute, 15 * time.Minute, 16 * time.Minute, 30 * time.Minute, 45 * time.Minute} {
		k, _ := mine.Give(own, s, says, nobody, today.Add(after))
		fmt.Fprintf(&out, "%s:", after)
		for _, w := range k.For {
			fmt.Fprintf(&out, " %d", w.Seat)
		}
		out.WriteString("\n")
	}
	if got := out.String(); got != "0s: 2 3 4 5\n1m0s: 2 3 4 5\n14m0s: 2 3 4 5\n15m0s: 2 3 6 7\n16m0s: 2 3 6 7\n30m0s: 4 5 6 7\n45m0s: 2 3 4 5\n" {
		t.Error(got)
	}
}

// wrapOf is the file of a seat's key for secrets.
func wrapOf(t *testing.T, number int) string {
	t.Helper()
	key := make([]byte, 32)
	key[0], key[31] = byte(number), 1
	return string(ledgertest.Must[[]byte](t)(document.Encode(wrapFile{custodyVersion, key})))
}
