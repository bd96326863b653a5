package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// Record is what an operator says of a token that he gives out. It is public: whoever has it
// can check a use of the token, and use it no more than anybody.
type Record struct {
	Version int        `json:"version"`        // of this document: 1
	Key     signed.Key `json:"key"`            // the token's public key
	Node    string     `json:"node,omitempty"` // the one name that it lets in; "": any
	Count   int        `json:"count"`          // how many nodes it lets in
	// Labels are attested of each node that comes in by it, once that is accepted.
	Labels notice.Labels `json:"labels,omitempty"`
	// Height and Root are a checkpoint of the ledger when the token was given out: a node that
	// knows nothing yet is not shown another ledger, nor an older one.
	Height  int64         `json:"height"`
	Root    document.Hash `json:"root"`
	Expires time.Time     `json:"expires"` // UTC, in whole seconds
}

// MaxCount is how many nodes one token lets in, at most.
const MaxCount = 1000

// ErrCheckpoint is of a ledger that is not the one by which a token was given out.
var ErrCheckpoint = errors.New("the ledger is not the one of the token's checkpoint")

// Private is the key of a token's seed. A token also proves itself by a HMAC under the seed
// itself ([fleet.Token.Prove]), hence the step between.
func Private(t fleet.Token) (ed25519.PrivateKey, error) {
	seed := t.Prove("kogge/token-seed/v1")
	if seed == nil {
		return nil, errors.New("there is no token")
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// KeyOf is the public key of a token.
func KeyOf(t fleet.Token) (signed.Key, error) {
	private, err := Private(t)
	if err != nil {
		return "", err
	}
	return signed.KeyOf(private.Public().(ed25519.PublicKey))
}

// Issue signs the record of a token.
func Issue(id document.Hash, r Record, operator *ecdsa.PrivateKey) (Paper, error) {
	return issue(RecordKind, id, r, operator, maxRecord)
}

// OpenRecord reads the record of a token. Who has signed it is [Paper.Verify]'s to say. The
// error wraps [ErrPaper].
func OpenRecord(p Paper) (Record, error) {
	if len(p.raw) > maxRecord {
		return Record{}, fmt.Errorf("%w: a token's record of %d bytes: %d at most", ErrPaper, len(p.raw), maxRecord)
	}
	return parse[Record](p, RecordKind)
}

func (r Record) check() error {
	if r.Key == "" {
		return errors.New("field key: there is none")
	}
	if r.Node != "" {
		if err := fleet.CheckName(r.Node); err != nil {
			return fmt.Errorf("field node: %w", err)
		}
		if r.Count > 1 {
			return fmt.Errorf("field count: a token for node %s lets in one node, not %d", r.Node, r.Count)
		}
	}
	if r.Count < 1 || r.Count > MaxCount {
		return fmt.Errorf("field count: %d: 1 to %d", r.Count, MaxCount)
	}
	if err := r.Labels.Check("labels"); err != nil {
		return err
	}
	if r.Height < 1 || r.Root.IsZero() {
		return fmt.Errorf("field height: %d: a token is of a founded fleet, whose ledger has a record", r.Height)
	}
	if !r.Expires.Equal(r.Expires.Truncate(time.Second)) || r.Expires.Location() != time.UTC || r.Expires.IsZero() {
		return errors.New("field expires: not a time in UTC, in whole seconds")
	}
	return nil
}

// Leads wants a ledger, verified from the genesis on, to be the one that the token's issuer
// had: at least as long, and with the same records as far as that went. The error wraps
// [ErrCheckpoint].
func (r Record) Leads(l *ledger.Log) error {
	if s := l.State(); s.Height < r.Height {
		return fmt.Errorf("%w: it has %d records, and there were %d", ErrCheckpoint, s.Height, r.Height)
	}
	root, err := l.Root(r.Height)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if root != r.Root {
		return fmt.Errorf("%w: at height %d its root is %s, and it was %s", ErrCheckpoint, r.Height, root.Short(), r.Root.Short())
	}
	return nil
}

// End says that a token lets in nobody more.
type End struct {
	Version int        `json:"version"` // of this document: 1
	Key     signed.Key `json:"key"`     // the token's public key
	// Expires is when the token would have been over, in UTC and whole seconds. Zero: who has signed
	// this does not know, and it is kept for ever.
	Expires time.Time `json:"expires,omitzero"`

	id document.Hash // of the paper, in a set
}

// Revoke signs the end of a token that would have been over by itself at a time; zero: it is not
// known.
func Revoke(id document.Hash, key signed.Key, expires time.Time, operator *ecdsa.PrivateKey) (Paper, error) {
	return issue(EndKind, id, End{Version: version, Key: key, Expires: expires}, operator, MaxPaper)
}

// OpenEnd reads the end of a token. The error wraps [ErrPaper].
func OpenEnd(p Paper) (End, error) { return parse[End](p, EndKind) }

func (e End) check() error {
	if e.Key == "" {
		return errors.New("field key: there is none")
	}
	if !e.Expires.IsZero() && (!e.Expires.Equal(e.Expires.Truncate(time.Second)) || e.Expires.Location() != time.UTC) {
		return errors.New("field expires: not a time in UTC, in whole seconds")
	}
	return nil
}

// Accept says that a node is one of the fleet: it may run what the fleet has it run, and gets
// its secrets and volumes. It is for the key that the node has for its seat, and no other node
// can wear it.
type Accept struct {
	Version int        `json:"version"` // of this document: 1
	Node    signed.Key `json:"node"`
	Name    string     `json:"name"`
	// TLSKey is that of the node's certificate, as fleet.Peer has it, where the operator has seen it.
	// Zero: the node came by a token, and its use says so.
	TLSKey document.Hash `json:"tlsKey,omitzero"`
	// Number rises with each acceptance of a node, and of a name: the highest counts. It is the time, in
	// seconds since 1970, by the operator's clock, or follows on one that is higher: see [Set.Next].
	Number int64 `json:"number"`
	// Attested are the labels that the operator attests. nil: none.
	Attested *notice.Attestation `json:"attested,omitempty"`
}

// maxNumber is that of an acceptance, at most.
const maxNumber = 1 << 40

// SignAccept signs the acceptance of a node.
func SignAccept(id document.Hash, a Accept, operator *ecdsa.PrivateKey) (Paper, error) {
	return issue(AcceptKind, id, a, operator, MaxPaper)
}

// OpenAccept reads the acceptance of a node. The error wraps [ErrPaper].
func OpenAccept(p Paper) (Accept, error) { return parse[Accept](p, AcceptKind) }

func (a Accept) check() error {
	if a.Node == "" {
		return errors.New("field node: there is none")
	}
	if err := fleet.CheckName(a.Name); err != nil {
		return fmt.Errorf("field name: %w", err)
	}
	if a.Number < 1 || a.Number > maxNumber {
		return fmt.Errorf("field number: %d: 1 to %d", a.Number, int64(maxNumber))
	}
	if a.Attested != nil {
		return a.Attested.Check()
	}
	return nil
}
