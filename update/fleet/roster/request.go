package roster

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Request is what a node says of itself that may get a seat, signed with the seat's key: so
// whoever asks knows that the node holds it.
type Request struct {
	Version int           `json:"version"` // of this document: 1
	Nonce   []byte        `json:"nonce"`   // of who asked
	Name    string        `json:"name"`    // the node's, as its certificate has it
	Journal ID            `json:"journal"`
	TLSKey  document.Hash `json:"tlsKey"` // fingerprint of the key of its certificate
	Arch    string        `json:"arch"`   // as Go has it: amd64
	// Height is that of the newest record which the node has taken, and Head the record's
	// hash: who founds a fleet sees by them that it is founded. 0: the node has none.
	Height int64         `json:"height"`
	Head   document.Hash `json:"head,omitzero"`
	// Problem is why the node's ledger is not to be relied on: it may have had records beyond
	// that height, or others. "": it is sound.
	Problem string `json:"problem,omitempty"`
	// Addresses are those that the node has, the first one the likeliest to be reached. Where a
	// caller has reached it says less: that may be a router's.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// MaxProblem is the length of a request's Problem in bytes, at most.
const MaxProblem = 500

// RequestKind is the kind of a request's envelope.
const RequestKind = "kogge/seat/v1"

// ErrRequest is of an answer that is no request for a seat of this fleet, by this node, now.
var ErrRequest = errors.New("not a request for a seat")

// Encode writes the request as the body of its envelope.
func (r Request) Encode() []byte {
	raw, err := document.Encode(r)
	if err != nil {
		panic(err) // there is no value of these types that JSON cannot write
	}
	return raw
}

// OpenRequest reads a request, and says by which key it is. It has to be for a fleet, and
// answer a nonce; whether its name and TLS key are those of who was asked is the caller's to
// see. The error wraps [ErrRequest].
func OpenRequest(envelope []byte, id document.Hash, nonce []byte) (signed.Key, Request, error) {
	e, err := signed.Open(envelope)
	if err != nil {
		return "", Request{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	r, err := ReadRequest(e, id)
	if err != nil {
		return "", Request{}, err
	}
	if !bytes.Equal(r.Nonce, nonce) {
		return "", Request{}, fmt.Errorf("%w: it answers another question", ErrRequest)
	}
	return e.By, r, nil
}

// ReadRequest reads a request out of its envelope, whose signature is the caller's to verify: for who
// wants to know that a node of this key has asked for a seat, and not when. The error wraps
// [ErrRequest].
func ReadRequest(e signed.Envelope, id document.Hash) (Request, error) {
	r, err := readRequest(e, id)
	if err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return r, nil
}

func readRequest(e signed.Envelope, id document.Hash) (Request, error) {
	if e.Kind != RequestKind {
		return Request{}, fmt.Errorf("its kind is %.40q", e.Kind)
	}
	if e.Fleet != id {
		return Request{}, fmt.Errorf("it is for fleet %s", e.Fleet.Short())
	}
	r, err := document.DecodeExact[Request](e.Body, version)
	switch {
	case err != nil:
		return Request{}, err
	case r.Journal == ID{}:
		return Request{}, errors.New("it names no journal")
	case r.Height < 0 || (r.Height == 0) != r.Head.IsZero():
		return Request{}, fmt.Errorf("its ledger's height is %d, and the record there %s", r.Height, r.Head.Short())
	case len(r.Problem) > MaxProblem:
		return Request{}, fmt.Errorf("what is wrong with its ledger has %d bytes: %d at most", len(r.Problem), MaxProblem)
	case r.Arch == "":
		return Request{}, errors.New("it names no architecture")
	case !slices.Equal(r.Addresses, OwnAddresses(r.Addresses)):
		return Request{}, errors.New("its addresses are not those of one node, each once")
	}
	return r, fleet.CheckName(r.Name)
}

// For wants the request, by the key of a seat, to be for this seat.
func (r Request) For(s Seat) error {
	switch {
	case r.Name != s.Name || r.Journal != s.Journal:
		return fmt.Errorf("the node of key %s is %s with journal %s, and seat %d is for %s with journal %s", s.Key.ID().Short(), r.Name, r.Journal, s.Number, s.Name, s.Journal)
	case (s.Member || s.Spare) && !MayBeMember(r.Arch):
		return fmt.Errorf("seat %d (%s) is to run etcd, and not on %.20q", s.Number, s.Name, r.Arch)
	}
	return nil
}

// MayBeMember says whether nodes of an architecture may run etcd, whose makers test it on
// these.
func MayBeMember(arch string) bool { return arch == "amd64" || arch == "arm64" }
