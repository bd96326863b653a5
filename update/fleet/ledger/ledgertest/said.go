package ledgertest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Seat is a seat for a node of a name, with a vote, of the fleet's owner.
func Seat(t testing.TB, number int, name string) roster.Seat {
	t.Helper()
	return roster.Seat{Number: number, Name: name, Key: Key(t, name), Journal: roster.ID{byte(number), byte(number >> 8)}, Owner: "hanse", Vote: true}
}

// Request is what the node of a seat says to get it.
func (f *Fleet) Request(t testing.TB, s roster.Seat) []byte {
	t.Helper()
	return f.RequestOn(t, s, "amd64")
}

// RequestOn is the same of a node of some architecture.
func (f *Fleet) RequestOn(t testing.TB, s roster.Seat, arch string) []byte {
	t.Helper()
	r := roster.Request{Version: 1, Nonce: []byte("nonce"), Name: s.Name, Journal: s.Journal, TLSKey: document.HashOf([]byte(s.Name)), Arch: arch}
	return Must[signed.Envelope](t)(signed.Seal(roster.RequestKind, f.Log.State().Fleet(), PrivateOf(s), 1, r.Encode())).Bytes()
}

// NewOwner is an owner of three keys, two of which act as him; they are made from his name and a
// generation.
func NewOwner(t testing.TB, name, generation string) roster.Owner {
	t.Helper()
	o := roster.Owner{Name: name, Threshold: 2}
	for i := range 3 {
		o.Keys = append(o.Keys, Key(t, ownerKey(name, generation, i+1)))
	}
	return o
}

func ownerKey(name, generation string, i int) string {
	if name == "hanse" && generation == "" {
		return fmt.Sprintf("owner %d", i) // as [Begun] has them
	}
	return fmt.Sprintf("owner %s %s %d", name, generation, i)
}

// Answer is an owner's answer by some of his keys: those of a generation, as in [NewOwner]; "" is that of
// the fleet's own owner at the founding.
func (f *Fleet) Answer(about document.Hash, yes bool, name, generation string, keys ...int) []byte {
	return f.AnswerAgain(1, about, yes, name, generation, keys...)
}

// AnswerAgain is an answer with a number of its own.
func (f *Fleet) AnswerAgain(number int64, about document.Hash, yes bool, name, generation string, keys ...int) []byte {
	a := proposal.Answer{Proposal: about, Owner: name, Yes: yes, Number: number}
	for _, k := range keys {
		a.Signatures = append(a.Signatures, signed.Sign(k, Private(ownerKey(name, generation, k)), a.Bytes(f.Log.State().Fleet())))
	}
	return a.Encode()
}

// Opinion is a seat's opinion that something is valid and ready, at the ledger's height.
func (f *Fleet) Opinion(t testing.TB, name string, about document.Hash) []byte {
	t.Helper()
	seat, ok := f.Log.State().Roster.ByName(name)
	if !ok {
		t.Fatalf("%s has no seat", name)
	}
	return f.OpinionOf(t, seat, about)
}

// OpinionOf is the opinion of a seat.
func (f *Fleet) OpinionOf(t testing.TB, seat roster.Seat, about document.Hash) []byte {
	t.Helper()
	s := f.Log.State()
	o := proposal.Opinion{Proposal: about, Height: s.Height, Valid: true, Ready: true}
	return Must[signed.Envelope](t)(proposal.SealOpinion(s.Fleet(), PrivateOf(seat), 1, o)).Bytes()
}

// Twice is the proof that a seat has signed precommits for two records of one height.
func (f *Fleet) Twice(seat roster.Seat, one, other ledger.Record) []byte {
	var both [][]byte
	for _, r := range []ledger.Record{one, other} {
		message := ledger.PrecommitBytes(r, 0, f.Log.State().Tree)
		signature := signed.Sign(seat.Number, PrivateOf(seat), message).Signature
		both = append(both, append(binary.BigEndian.AppendUint32(message, uint32(seat.Number)), signature...))
	}
	slices.SortFunc(both, bytes.Compare)
	return document.Message("kogge/double-vote/v1", both...)
}

// Rested is a value that rests on ada's proposal and on what is said about it.
func (f *Fleet) Rested(t testing.TB, v ledger.Value, said func(id document.Hash) [][]byte) (ledger.Value, [][]byte) {
	t.Helper()
	p := f.Proposal(t, v)
	evidence := append([][]byte{p.Bytes()}, said(proposal.ID(p))...)
	return v.Resting(evidence), evidence
}

// Decides takes a value with its evidence, by a quorum.
func (f *Fleet) Decides(t testing.TB, v ledger.Value, evidence [][]byte) error {
	t.Helper()
	r, err := f.Log.State().Next(v)
	if err != nil {
		return err
	}
	e := f.Proved(r, v, f.Log.State().Roster.Quorum(), evidence...)
	if err := f.Log.Append(e); err != nil {
		return err
	}
	f.Entries = append(f.Entries, e)
	return nil
}

// NewNodeCA is the certificate of another node CA, in DER.
func NewNodeCA(t testing.TB) []byte {
	t.Helper()
	der, _, err := fleet.NewCA("hanse", fleet.KindNode, Today)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
