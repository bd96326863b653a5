// Package proposal is what is said before a fleet decides: what an operator proposes, what the owners
// of seats answer, what the seats think of it, and what is decided next.
//
//	an operator ─▶ [Proposal], by its id
//	an owner ────▶ [Answer]: yes or no, for all of his seats
//	a seat ──────▶ [Opinion]: valid or invalid, ready or not; by its own [decision.Vote] ([Consider])
//	[Queue] ─────▶ the one item that the next round is about, what leaves, and what is awaited
//
// In come signed objects of strangers, rosters, and times that somebody else has counted; out go the
// same objects checked, and decisions about them. What a value means, and whether the ledger lists
// who signed it, is update/fleet/ledger's; rounds are update/fleet/vote's. The package reads no
// clock and carries nothing.
package proposal

import (
	"crypto/ecdsa"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Proposal is what an operator wants decided.
type Proposal struct {
	Version int `json:"version"` // of this document: 1
	// Height is that of the ledger when it was made: it can be decided above it, once.
	Height int64  `json:"height"`
	Value  []byte `json:"value"` // to the byte; it names no evidence, which comes with the decision
	Why    string `json:"why,omitempty"`
}

// Kind is the kind of a proposal's envelope. Its number is how people call it, and rises.
const Kind = "kogge/propose/v1"

const (
	version  = 1
	maxValue = 40 << 10 // bytes, so that an envelope holds it
	maxWhy   = 200
	// MaxNumber of a proposal, and of an answer.
	MaxNumber = 1 << 53
)

// ErrProposal is of bytes that are no proposal.
var ErrProposal = errors.New("not a proposal")

// ID is by what a proposal is called: who has signed it can sign it in many ways, and it is one.
func ID(e signed.Envelope) document.Hash { return document.HashOf(e.Message()) }

// Seal signs a proposal with an operator's key.
func Seal(fleet document.Hash, key *ecdsa.PrivateKey, number uint64, p Proposal) (signed.Envelope, error) {
	p.Version = version
	err := p.check()
	if err == nil {
		err = checkNumber(number)
	}
	if err != nil {
		return signed.Envelope{}, fmt.Errorf("%w: %w", ErrProposal, err)
	}
	return signed.SealByOperator(Kind, fleet, key, number, encode(p))
}

// Parse reads the body of a proposal. The error wraps [ErrProposal].
func Parse(body []byte) (Proposal, error) {
	p, err := document.DecodeExact[Proposal](body, version)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Proposal{}, fmt.Errorf("%w: %w", ErrProposal, err)
	}
	return p, nil
}

// Open reads a proposal for a fleet out of its envelope, whose signature is the caller's to verify,
// and says by the fingerprint of the operator's key who has made it. The error wraps [ErrProposal].
func Open(e signed.Envelope, fleet document.Hash) (Proposal, document.Hash, error) {
	by, operator := e.By.Operator()
	bad := func(err error) (Proposal, document.Hash, error) {
		return Proposal{}, document.Hash{}, fmt.Errorf("%w: %w", ErrProposal, err)
	}
	switch {
	case e.Kind != Kind:
		return bad(fmt.Errorf("its kind is %.70q", e.Kind))
	case e.Fleet != fleet:
		return bad(fmt.Errorf("it is for fleet %s", e.Fleet.Short()))
	case !operator:
		return bad(errors.New("it is a seat's, and operators propose"))
	}
	if err := checkNumber(e.Sequence); err != nil {
		return bad(err)
	}
	p, err := Parse(e.Body)
	return p, by, err
}

func (p Proposal) check() error {
	if p.Height < 1 {
		return fmt.Errorf("field height: %d: a fleet decides from its founding on", p.Height)
	}
	if len(p.Value) < 1 || len(p.Value) > maxValue {
		return fmt.Errorf("field value: %d bytes: 1 to %d", len(p.Value), maxValue)
	}
	return checkText("why", p.Why, maxWhy)
}

func checkNumber(n uint64) error {
	if n < 1 || n > MaxNumber {
		return fmt.Errorf("its number is %d: 1 to %d", n, uint64(MaxNumber))
	}
	return nil
}

// checkText wants text that a terminal shows and does not obey.
func checkText(field, text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("field %s: %d bytes: %d at most", field, len(text), most)
	}
	for _, r := range text {
		if !document.Printable(r) {
			return fmt.Errorf("field %s: %.40q has what cannot be shown", field, text)
		}
	}
	return nil
}

// encode writes a document of this package, whose types JSON can always write.
func encode(value any) []byte {
	raw, err := document.Encode(value)
	if err != nil {
		panic(err)
	}
	return raw
}
