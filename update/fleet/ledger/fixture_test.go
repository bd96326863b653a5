package ledger

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// world is a fleet with all its secrets, as only a test has them.
type world struct {
	genesis *fleet.Genesis
	seats   int
	log     *Log
	entries []Entry
}

// private is a key pair of its own for each name.
func private(name string) ed25519.PrivateKey {
	seed := document.HashOf([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ecKey(t testing.TB) *ecdsa.PublicKey {
	return &must[*ecdsa.PrivateKey](t)(fleet.NewKey()).PublicKey
}

func operator(t testing.TB, name string, role fleet.Role) Operator {
	t.Helper()
	return Operator{Name: name, Role: role, Key: must[[]byte](t)(x509.MarshalPKIXPublicKey(ecKey(t)))}
}

var today = time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC)

// begun is a fleet of three owner keys that is not founded.
func begun(t testing.TB, seats int) *world {
	t.Helper()
	ca := func(kind fleet.PeerKind) []byte {
		der, _, err := fleet.NewCA("hanse", kind, today)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	o := fleet.Founding{
		Name: "hanse", Threshold: 2, OperatorCA: ca(fleet.KindOperator), NodeCA: ca(fleet.KindNode), First: ecKey(t),
		Policy: fleet.DefaultPolicy(),
	}
	for i := range 3 {
		o.Owners = append(o.Owners, private(fmt.Sprintf("owner %d", i+1)).Public().(ed25519.PublicKey))
	}
	w := &world{genesis: must[*fleet.Genesis](t)(fleet.NewGenesis(o)), seats: seats}
	w.log = New(w.genesis)
	return w
}

// founding is the value of record 1: all seats vote, the first ones are members.
func (w *world) founding(t testing.TB) Value {
	t.Helper()
	r := roster.Roster{Version: 1, Rule: roster.RuleFor(w.seats), Given: w.seats}
	r.Owners = []roster.Owner{must[roster.Owner](t)(ownerOf(w.genesis))}
	f := &Founding{Operators: []Operator{operator(t, "ada", fleet.RoleAdmin)}}
	members := 1
	if w.seats >= 3 {
		members = 3
	}
	for i := 1; i <= w.seats; i++ {
		name := fmt.Sprintf("n%d", i)
		key := must[signed.Key](t)(signed.KeyOf(private(name).Public().(ed25519.PublicKey)))
		r.Seats = append(r.Seats, roster.Seat{Number: i, Name: name, Key: key, Journal: roster.ID{byte(i)}, Owner: "hanse", Vote: true, Member: i <= members})
		if i <= members {
			f.Cluster = append(f.Cluster, Address{i, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:7444", i))})
		}
	}
	f.Roster = r
	return Value{Version: 1, Founding: f}
}

// decided is the entry of a value in the ledger's state, with the certificate of so many of
// those who may sign.
func (w *world) decided(t testing.TB, v Value, signers int) Entry {
	t.Helper()
	return w.proved(must[Record](t)(w.log.State().Next(v)), v, signers)
}

// proved is a record with a certificate by the first of those who may sign, whatever it says.
func (w *world) proved(r Record, v Value, signers int) Entry {
	c := Certificate{Version: 1}
	for i := 1; i <= signers; i++ {
		if r.Height == 1 {
			c.Owners = append(c.Owners, Sign(i, private(fmt.Sprintf("owner %d", i)), FoundingBytes(r)))
			continue
		}
		c.Seats = append(c.Seats, Sign(i, private(fmt.Sprintf("n%d", i)), PrecommitBytes(r, c.Round, w.log.State().Tree)))
	}
	return Entry{Record: r.Encode(), Value: v.Encode(), Certificate: c.Encode()}
}

// take appends an entry and keeps it.
func (w *world) take(t testing.TB, e Entry) {
	t.Helper()
	if err := w.log.Append(e); err != nil {
		t.Fatal(err)
	}
	w.entries = append(w.entries, e)
}

// founded is a fleet with so many seats and so many records.
func founded(t testing.TB, seats, records int) *world {
	t.Helper()
	w := begun(t, seats)
	w.take(t, w.decided(t, w.founding(t), 2))
	bob := operator(t, "bob", fleet.RoleOperator)
	for i := 2; i <= records; i++ {
		v := Value{Version: 1, Operators: &Operators{Set: []Operator{bob}}}
		if i%2 == 1 {
			v.Operators = &Operators{Remove: []string{"bob"}}
		}
		w.take(t, w.decided(t, v, w.log.State().Roster.Quorum()))
	}
	return w
}
