package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/wrapped"
)

// invited is a join.yaml with a token's record.
func invited(t *testing.T, f *keyring.Keyring) *fleet.JoinFile {
	t.Helper()
	issued, err := f.NewToken(keyring.Terms{Count: 100}, today)
	if err != nil {
		t.Fatal(err)
	}
	s := ledger.New(f.Genesis).State()
	s.Height, s.Tree = 1, document.HashOf([]byte("tree"))
	record, err := f.TokenRecord(issued, notice.Labels{"region": "eu"}, s)
	if err != nil {
		t.Fatal(err)
	}
	return &fleet.JoinFile{Genesis: f.Genesis, Token: issued.Token, Record: record.Bytes(), Members: []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:7443"), netip.MustParseAddrPort("[2001:db8::1]:7443"),
	}}
}

// TestEnrolPowerCut cuts the power at every write from join.yaml to the certificate: the node has
// the token or the certificate, and with the certificate it knows that it is new.
func TestEnrolPowerCut(t *testing.T) {
	f := savedFleet(t, "dev")
	j := invited(t, f)
	revoked := []string{document.HashOf([]byte("bob")).String()}
	life := func(files *memoryFiles) error {
		n, err := openNode(files)
		if err != nil || n.Adopted() {
			return err
		}
		if err := n.Join(j); err != nil {
			return err
		}
		if e, waits := n.Enrolment(); !waits || e.Token.Text() != j.Token.Text() || !bytes.Equal(e.Record.Bytes(), j.Record) || len(e.Members) != 2 || n.Came() {
			t.Fatalf("%+v", e)
		}
		return n.EnrolKnowing(revoked, nil, sign(t, f, n, "n1"))
	}
	for writes := 0; ; writes++ {
		done := false
		for _, lands := range []bool{false, true} {
			m := &memoryFiles{disk: make(map[string]string), left: writes, lands: lands}
			err := life(m)
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			done = err == nil
			after := &memoryFiles{disk: maps.Clone(m.disk), left: 100}
			n, err := openNode(after)
			if err != nil {
				t.Fatalf("writes=%d lands=%v: %v", writes, lands, err)
			}
			_, waits := n.Enrolment()
			if n.Adopted() && (waits || !n.Came() || strings.Contains(fmt.Sprint(after.disk), j.Token.Text())) || !n.Adopted() && n.Came() {
				t.Errorf("writes=%d lands=%v: adopted %v, waits %v, came %v", writes, lands, n.Adopted(), waits, n.Came())
			}
			if n.Adopted() && !n.TurnsAway(revoked[0]) {
				t.Errorf("writes=%d lands=%v: it is in, and does not know who was revoked", writes, lands)
			}
			if err := life(after); err != nil {
				t.Fatalf("writes=%d lands=%v: after the cut: %v", writes, lands, err)
			}
			if n, err = openNode(after); err != nil || !n.Adopted() || !n.Came() {
				t.Errorf("writes=%d lands=%v: %v", writes, lands, err)
			}
		}
		if done {
			return
		}
	}
}

// TestTold: what the member has called revoked by which a node came in turns callers away, and does
// no more: it takes no room from what an operator says, and does not stand for a list that cannot be
// read. No operator's word lets those keys in again but one that names them, by hand or by another call.
func TestTold(t *testing.T) {
	f := savedFleet(t, "dev")
	bob, eve := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("eve"))
	var many []string
	for i := range maxRevoked {
		many = append(many, fleet.KeyID(fmt.Append(nil, i)))
	}
	for what, told := range map[string][]string{"all operators": {bob}, "more than it keeps": many, "none": nil} {
		m := &memoryFiles{disk: map[string]string{revokedName: "junk"}, left: 1000}
		n, err := openNode(m)
		if err == nil {
			err = n.Join(invited(t, f))
		}
		if err == nil {
			err = n.EnrolKnowing(told, nil, sign(t, f, n, "n1"))
		}
		if err == nil {
			n, err = openNode(m)
		}
		kept := min(len(told), maxTold)
		if err != nil || !n.Forgets() || len(n.RevokedKeys()) > 0 || n.Revoked(bob) || len(n.Told()) != kept {
			t.Fatalf("%s: %v; %d are told", what, err, len(n.Told()))
		}
		if len(told) > 0 && !n.TurnsAway(told[0]) {
			t.Errorf("%s: it lets in who is said to be revoked", what)
		}
		for step, say := range map[string]func() error{
			"nobody":         func() error { return n.Revoke() },
			"another one":    func() error { return n.Revoke(eve) },
			"all of his":     func() error { return n.RevokeAll(eve) },
			"a key let in":   func() error { return n.LetIn(eve) },
			"nobody let in":  func() error { return n.LetIn() },
			"adopted anew":   func() error { return n.AdoptKnowing([]string{eve}, n.Certificate().Certificate[0]) },
			"the same again": func() error { return n.Revoke(eve, eve) },
		} {
			if err := say(); err != nil || len(n.Told()) != kept || len(told) > 0 && !n.TurnsAway(told[0]) {
				t.Errorf("%s: an operator revokes %s, and it lets in whom another one has revoked: %v, %d are told", what, step, err, len(n.Told()))
			}
		}
		if n, err = openNode(m); err != nil || len(n.Told()) != kept || !n.Revoked(eve) || n.Forgets() {
			t.Errorf("%s: at the next start: %v, %d are told", what, err, len(n.Told()))
		}
		if len(told) == 0 {
			continue
		}
		if err := n.LetIn(told[0]); err != nil || n.TurnsAway(told[0]) || len(n.Told()) != kept-1 || !n.TurnsAway(eve) {
			t.Errorf("%s: it is let in: %v, %d are told", what, err, len(n.Told()))
		}
		if n, err = openNode(m); err != nil || n.TurnsAway(told[0]) || len(n.Told()) != kept-1 || n.Problem() != nil {
			t.Errorf("%s: it was let in, at the next start: %v, %v", what, err, n.Problem())
		}
	}
}

// TestToldTwice: what one member has told before a cut stays when another one lets the node in.
func TestToldTwice(t *testing.T) {
	f := savedFleet(t, "dev")
	bob, eve := fleet.KeyID([]byte("bob")), fleet.KeyID([]byte("eve"))
	m := &memoryFiles{disk: make(map[string]string), left: 1000}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(invited(t, f))
	}
	if err != nil {
		t.Fatal(err)
	}
	m.left = 1
	if err := n.EnrolKnowing([]string{bob}, nil, sign(t, f, n, "n1")); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	m.left = 1000
	if n, err = openNode(m); err == nil {
		err = n.EnrolKnowing([]string{eve}, nil, sign(t, f, n, "n1"))
	}
	if err != nil || !n.TurnsAway(bob) || !n.TurnsAway(eve) {
		t.Errorf("%v, it was told of %v", err, n.Told())
	}
}

// TestCameByHand: a node with a token that an operator adopts is not new, also after it was about
// to come by itself; and one with an old join.yaml waits for him.
func TestCameByHand(t *testing.T) {
	f := savedFleet(t, "dev")
	j := invited(t, f)
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n, err := openNode(m)
	if err == nil {
		err = n.Join(j)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.left = 1 // the note that it came, and no certificate
	if err := n.Enrol(sign(t, f, n, "n1")); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	m.left = 100
	if n, err = openNode(m); err == nil {
		err = n.Adopt(sign(t, f, n, "n1"))
	}
	if err != nil || n.Came() || !n.Adopted() {
		t.Errorf("%v, came %v", err, n.Came())
	}
	if err := n.Enrol(otherNode(t, f, "n1", today)); !errors.Is(err, ErrAdopted) {
		t.Errorf("it comes again: %v", err)
	}
	if n, err = openNode(&memoryFiles{disk: make(map[string]string), left: 100}); err == nil {
		err = n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: j.Token})
	}
	if _, waits := n.Enrolment(); err != nil || waits {
		t.Errorf("an old join.yaml: %v", err)
	}
	if err := n.Enrol(sign(t, f, n, "n1")); !errors.Is(err, ErrNoJoin) {
		t.Errorf("%v", err)
	}
}

// TestJoinFileRecord reads what is written, and refuses a record that is not the token's.
func TestJoinFileRecord(t *testing.T) {
	f := savedFleet(t, "dev")
	j, other, foreign := invited(t, f), invited(t, f), invited(t, savedFleet(t, "hanse"))
	text := string(fleet.MarshalJoinFile(j))
	got, err := ParseJoinFile("join.yaml", []byte(text))
	if err != nil || !bytes.Equal(got.Record, j.Record) || fmt.Sprint(got.Members) != fmt.Sprint(j.Members) || got.Token.Text() != j.Token.Text() {
		t.Fatalf("%+v, %v", got, err)
	}
	record := func(raw []byte) string { return "record: " + base64.StdEncoding.EncodeToString(raw) }
	for with, want := range map[string]string{
		record(other.Record): "record of another token", record(foreign.Record): "it is of fleet", "record: '!'": "not base64", "record: AAAA": "do not add up",
		record(j.Record) + "\n" + record(j.Record): "already on line",
	} {
		_, err := ParseJoinFile("join.yaml", []byte(strings.Replace(text, record(j.Record), with, 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", with, err, want)
		}
	}
	if _, err := ParseJoinFile("join.yaml", []byte(strings.Replace(text, "192.0.2.1:7443", "n1.local", 1))); err == nil || !strings.Contains(err.Error(), "no address with a port") {
		t.Errorf("a name: %v", err)
	}
}

// TestCustodyPowerCut cuts the power at every write: the key for secrets that anybody has seen
// stays, and the CA's key is there once it was taken. It lies wrapped, and is printed nowhere.
func TestCustodyPowerCut(t *testing.T) {
	f := ledgertest.Founded(t, 3, 1)
	id, seat, ca := f.Log.State().Fleet(), ledgertest.Key(t, "n1"), f.Genesis.NodeCA
	secret := f.CA(fleet.KindNode)
	for writes := range 3 {
		for _, lands := range []bool{false, true} {
			m := &memoryFiles{disk: make(map[string]string), left: writes, lands: lands}
			var shown notice.WrapKey
			c, err := openCustody(m, id, seat)
			if err == nil {
				shown = c.Says(1)
				err = c.Take(ledgertest.Must[[]byte](t)(wrapped.Wrap(secret, shown.Key, wrapped.For{Fleet: id, Seat: seat, CA: wrapped.CAOf(ca)})), ca)
			}
			if err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			after := &memoryFiles{disk: maps.Clone(m.disk), left: 100}
			again, errAfter := openCustody(after, id, seat)
			if errAfter != nil {
				t.Fatalf("writes=%d lands=%v: %v", writes, lands, errAfter)
			}
			if says := again.Says(1); shown.Key != nil && !bytes.Equal(says.Key, shown.Key) {
				t.Errorf("writes=%d lands=%v: another key than the one that was shown", writes, lands)
			}
			if err == nil && (again.CA(ca) == nil || !again.CA(ca).Equal(secret) || again.Says(1).Holds != wrapped.CAOf(ca)) {
				t.Errorf("writes=%d lands=%v: the CA's key is gone", writes, lands)
			}
			raw := ledgertest.Must[[]byte](t)(secret.Bytes())
			all := fmt.Sprint(after.disk) + fmt.Sprintf("%v %+v %#v %x", again, again, again, again)
			for _, form := range []string{string(raw), base64.StdEncoding.EncodeToString(raw), fmt.Sprintf("%x", raw), fmt.Sprint(raw)} {
				if strings.Contains(all, form) {
					t.Errorf("the CA's key lies open, or is printed")
				}
			}
		}
	}
	// A seat that is to hold it no more forgets it, also across a cut.
	for writes := 2; writes < 4; writes++ {
		m := &memoryFiles{disk: make(map[string]string), left: writes}
		c := ledgertest.Must[*Custody](t)(openCustody(m, id, seat))
		err := c.Take(ledgertest.Must[[]byte](t)(wrapped.Wrap(secret, c.Says(1).Key, wrapped.For{Fleet: id, Seat: seat, CA: wrapped.CAOf(ca)})), ca)
		if err == nil {
			err = c.Forget()
		}
		again := ledgertest.Must[*Custody](t)(openCustody(m, id, seat))
		if errors.Is(err, errCut) != (c.CA(ca) != nil) || (c.CA(ca) != nil) != (again.CA(ca) != nil) || err != nil && !errors.Is(err, errCut) {
			t.Errorf("writes=%d: %v, held %v, and after a restart %v", writes, err, c.CA(ca) != nil, again.CA(ca) != nil)
		}
	}
	// What cannot be opened is none, and is given again.
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	c := ledgertest.Must[*Custody](t)(openCustody(m, id, seat))
	for _, bad := range []string{"", "{}", `{"version": 2}`} {
		m.disk[heldName] = bad
		if again, err := openCustody(m, id, seat); err != nil || again.CA(ca) != nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var none *Custody
	if none.CA(ca) != nil || c.CA(ca) != nil {
		t.Error("a key from nowhere")
	}
	if _, err := c.Wrap(ca, c.Says(1), seat); err == nil {
		t.Error("it wraps what it has not")
	}
}
