// Package ledgertest is, for tests, a fleet with all its secrets: owners and seats that sign
// what a test wants decided.
package ledgertest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Fleet is a fleet with its ledger, as only a test has it.
type Fleet struct {
	Genesis *fleet.Genesis
	Log     *ledger.Log
	Entries []ledger.Entry // all that Log has taken

	// Ada is the key of the operator who made the fleet.
	Ada *ecdsa.PrivateKey

	seats int
	cas   map[fleet.PeerKind]*ecdsa.PrivateKey
}

// Private is a key pair of its own for each name.
func Private(name string) ed25519.PrivateKey {
	if k, ok := made.Load(name); ok {
		return k.(ed25519.PrivateKey)
	}
	seed := document.HashOf([]byte(name))
	k := ed25519.NewKeyFromSeed(seed[:])
	made.Store(name, k)
	return k
}

// made are the keys by name: tests sign much, and a key takes as long as a signature.
var made sync.Map

// Replacing is how the node is called for [Private] that has the seat of another one of its name.
func Replacing(name string) string { return name + " again" }

// PrivateOf is the key pair of a seat's node.
func PrivateOf(s roster.Seat) ed25519.PrivateKey {
	for _, name := range []string{s.Name, Replacing(s.Name)} {
		if k, err := signed.KeyOf(Private(name).Public().(ed25519.PublicKey)); err == nil && k == s.Key {
			return Private(name)
		}
	}
	panic("seat " + s.Name + " has a key that no test has made")
}

// Key is the public half of it.
func Key(t testing.TB, name string) signed.Key {
	t.Helper()
	return Must[signed.Key](t)(signed.KeyOf(Private(name).Public().(ed25519.PublicKey)))
}

// Must is a value that comes without an error.
func Must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ecKey(t testing.TB) *ecdsa.PublicKey {
	return &Must[*ecdsa.PrivateKey](t)(fleet.NewKey()).PublicKey
}

// Operator is an operator with a key of his own.
func Operator(t testing.TB, name string, role fleet.Role) ledger.Operator {
	t.Helper()
	spki := Must[[]byte](t)(x509.MarshalPKIXPublicKey(ecKey(t)))
	return ledger.Operator{Name: name, Role: role, Key: document.HashOf(spki)}
}

// Today is when the fleet begins.
var Today = time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC)

// Begun is a fleet of three owner keys that is not founded.
func Begun(t testing.TB, seats int) *Fleet {
	t.Helper()
	cas := make(map[fleet.PeerKind]*ecdsa.PrivateKey)
	ca := func(kind fleet.PeerKind) []byte {
		der, key, err := fleet.NewCA("hanse", kind, Today)
		if err != nil {
			t.Fatal(err)
		}
		cas[kind] = key
		return der
	}
	ada := Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	o := fleet.Founding{
		Name: "hanse", Threshold: 2, OperatorCA: ca(fleet.KindOperator), NodeCA: ca(fleet.KindNode), First: &ada.PublicKey,
		Policy: fleet.DefaultPolicy(),
	}
	for i := range 3 {
		o.Owners = append(o.Owners, Private(fmt.Sprintf("owner %d", i+1)).Public().(ed25519.PublicKey))
	}
	f := &Fleet{Genesis: Must[*fleet.Genesis](t)(fleet.NewGenesis(o)), Ada: ada, seats: seats, cas: cas}
	f.Log = ledger.New(f.Genesis)
	return f
}

// Sign signs a key as that of a peer of the fleet, with the CA of its kind. The certificate is
// in DER, and counts from Today on.
func (f *Fleet) Sign(t testing.TB, kind fleet.PeerKind, name string, role fleet.Role, key *ecdsa.PublicKey) []byte {
	t.Helper()
	return f.SignAt(t, kind, name, role, key, Today)
}

// SignAt is Sign at another time, for who goes by the clock.
func (f *Fleet) SignAt(t testing.TB, kind fleet.PeerKind, name string, role fleet.Role, key *ecdsa.PublicKey, at time.Time) []byte {
	t.Helper()
	ca := f.Genesis.NodeCA
	if kind == fleet.KindOperator {
		ca = f.Genesis.OperatorCA
	}
	p := fleet.Peer{Kind: kind, Name: name, Role: role, Fleet: f.Genesis.ID()}
	return Must[[]byte](t)(fleet.SignPeer(p, key, ca, f.cas[kind], at))
}

// CA is the key of the CA that signs peers of a kind.
func (f *Fleet) CA(kind fleet.PeerKind) *ecdsa.PrivateKey { return f.cas[kind] }

// Version1 is a genesis as releases before the ledger wrote it, with what g says.
func Version1(t testing.TB, g *fleet.Genesis) *fleet.Genesis {
	t.Helper()
	var f struct {
		Version       int      `json:"version"`
		Name          string   `json:"name"`
		Random        []byte   `json:"random"`
		Owners        [][]byte `json:"owners"`
		Threshold     int      `json:"threshold"`
		OperatorCA    []byte   `json:"operatorCA"`
		NodeCA        []byte   `json:"nodeCA"`
		FirstOperator []byte   `json:"firstOperator"`
	}
	if err := json.Unmarshal(g.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	f.Version = 1
	return Must[*fleet.Genesis](t)(fleet.ParseGenesis(Must[[]byte](t)(document.Encode(f))))
}

// Founding is the value of record 1: all seats vote, the first ones are members, and ada, who
// made the fleet, is its operator.
func (f *Fleet) Founding(t testing.TB) ledger.Value {
	t.Helper()
	r := roster.Roster{Version: 1, Rule: roster.RuleFor(f.seats), Given: f.seats}
	r.Owners = []roster.Owner{Must[roster.Owner](t)(ledger.OwnerOf(f.Genesis))}
	first := Must[document.Hash](t)(document.ParseHash(f.Genesis.FirstOperatorID()))
	v := &ledger.Founding{Operators: []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: first}}}
	members := 1
	if f.seats >= 3 {
		members = 3
	}
	for i := 1; i <= f.seats; i++ {
		name := fmt.Sprintf("n%d", i)
		r.Seats = append(r.Seats, roster.Seat{Number: i, Name: name, Key: Key(t, name), Journal: roster.ID{byte(i)}, Owner: "hanse", Vote: true, Member: i <= members})
		if i <= members {
			v.Cluster = append(v.Cluster, ledger.Address{Seat: i, Address: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:7444", i))})
		}
	}
	v.Roster = r
	return ledger.Value{Version: 1, Founding: v}
}

// Decided is the entry of a value in the ledger's state, with the certificate of so many of
// those who may sign; above the founding, ada has proposed it.
func (f *Fleet) Decided(t testing.TB, v ledger.Value, signers int) ledger.Entry {
	t.Helper()
	if f.Log.State().Height == 0 {
		return f.Proved(Must[ledger.Record](t)(f.Log.State().Next(v)), v, signers)
	}
	v, evidence := f.Proposed(t, v)
	return f.Proved(Must[ledger.Record](t)(f.Log.State().Next(v)), v, signers, evidence...)
}

// Proposed is a value that rests on ada's proposal of it, and on more evidence; and all of that.
func (f *Fleet) Proposed(t testing.TB, v ledger.Value, more ...[]byte) (ledger.Value, [][]byte) {
	t.Helper()
	evidence := append([][]byte{f.Proposal(t, v).Bytes()}, more...)
	return v.Resting(evidence), evidence
}

// Proposal is ada's proposal of a value, in the ledger's state.
func (f *Fleet) Proposal(t testing.TB, v ledger.Value) signed.Envelope {
	t.Helper()
	s := f.Log.State()
	p := proposal.Proposal{Height: s.Height, Value: v.Encode()}
	return Must[signed.Envelope](t)(proposal.Seal(s.Fleet(), f.Ada, uint64(s.Height)+1, p))
}

// Proved is a record with a certificate by the first of those who may sign, whatever it says.
func (f *Fleet) Proved(r ledger.Record, v ledger.Value, signers int, evidence ...[]byte) ledger.Entry {
	c := ledger.Certificate{Version: 1, Evidence: evidence}
	s := f.Log.State()
	if r.Height == 1 {
		for i := 1; i <= signers; i++ {
			c.Owners = append(c.Owners, signed.Sign(i, Private(fmt.Sprintf("owner %d", i)), ledger.FoundingBytes(r)))
		}
		return ledger.Entry{Record: r.Encode(), Value: v.Encode(), Certificate: c.Encode()}
	}
	for _, seat := range s.Roster.Seats {
		if seat.Vote && len(c.Seats) < signers {
			c.Seats = append(c.Seats, signed.Sign(seat.Number, PrivateOf(seat), ledger.PrecommitBytes(r, c.Round, s.Tree)))
		}
	}
	return ledger.Entry{Record: r.Encode(), Value: v.Encode(), Certificate: c.Encode()}
}

// Take appends an entry and keeps it.
func (f *Fleet) Take(t testing.TB, e ledger.Entry) {
	t.Helper()
	if err := f.Log.Append(e); err != nil {
		t.Fatal(err)
	}
	f.Entries = append(f.Entries, e)
}

// Founded is a fleet with so many seats and so many records.
func Founded(t testing.TB, seats, records int) *Fleet {
	t.Helper()
	f := Begun(t, seats)
	f.Take(t, f.Decided(t, f.Founding(t), 2))
	bob := Operator(t, "bob", fleet.RoleOperator)
	for i := 2; i <= records; i++ {
		v := ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{bob}}}
		if i%2 == 1 {
			v.Operators = &ledger.Operators{Remove: []string{"bob"}}
		}
		f.Take(t, f.Decided(t, v, f.Log.State().Roster.Quorum()))
	}
	return f
}

// Operators is the value that adds one operator.
func (f *Fleet) Operators(t testing.TB, name string) ledger.Value {
	t.Helper()
	return ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{Operator(t, name, fleet.RoleReader)}}}
}

// Again is another founding of the same fleet, by the same owners with one operator more: the
// beginning of a second history.
func (f *Fleet) Again(t testing.TB) ledger.Entry {
	t.Helper()
	other := &Fleet{Genesis: f.Genesis, Log: ledger.New(f.Genesis), seats: f.seats}
	v := other.Founding(t)
	v.Founding.Operators = append(v.Founding.Operators, Operator(t, "zoe", fleet.RoleReader))
	return other.Decided(t, v, 2)
}
