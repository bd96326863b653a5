package fleet

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Succession is how a fleet of version 1, which has no ledger, becomes one of version 2: a
// genesis that names its predecessor, signed by the predecessor's owner.
type Succession struct {
	Version int    `json:"version"` // of this document: 1
	Genesis []byte `json:"genesis"` // of the successor, to the byte
	// Owners are signatures of [Genesis.SuccessionBytes] by owner keys of the predecessor.
	Owners []signed.Signature `json:"owners"`
}

const (
	successionVersion = 1
	maxSuccession     = 2 * MaxGenesis
)

// ErrSuccession is of a succession that a fleet's owner has not signed, or that is of another
// fleet.
var ErrSuccession = errors.New("not a successor of the fleet")

// SuccessionBytes are what an owner signs so that the fleet of a genesis becomes another.
func (g *Genesis) SuccessionBytes(next *Genesis) []byte {
	return document.Message("kogge/succession/v1", g.hash(), next.hash())
}

func (g *Genesis) hash() []byte {
	raw, err := hex.DecodeString(g.id)
	if err != nil {
		panic(err) // a Genesis has no other id
	}
	return raw
}

// Encode writes the succession.
func (s Succession) Encode() ([]byte, error) { return document.Encode(s) }

// SuccessorNamed is the genesis that a succession names, of whatever fleet it is the successor:
// nothing is verified. The error wraps [ErrSuccession].
func SuccessorNamed(raw []byte) (*Genesis, error) {
	_, next, err := parseSuccession(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSuccession, err)
	}
	return next, nil
}

func parseSuccession(raw []byte) (s Succession, next *Genesis, err error) {
	if len(raw) > maxSuccession {
		return s, nil, fmt.Errorf("%d bytes: %d at most", len(raw), maxSuccession)
	}
	if s, err = document.DecodeExact[Succession](raw, successionVersion); err == nil {
		next, err = ParseGenesis(s.Genesis)
	}
	return s, next, err
}

// Successor reads a succession of this fleet, and verifies it. The error wraps [ErrSuccession].
func (g *Genesis) Successor(raw []byte) (*Genesis, error) {
	next, err := g.successor(raw)
	if err != nil {
		return nil, fmt.Errorf("%w %s (%s): %w", ErrSuccession, g.Name, Short(g.id), err)
	}
	return next, nil
}

func (g *Genesis) successor(raw []byte) (*Genesis, error) {
	if !g.Alone() {
		return nil, errors.New("it is of version 2, and has none")
	}
	s, next, err := parseSuccession(raw)
	if err != nil {
		return nil, err
	}
	if next.Alone() || next.Predecessor.String() != g.id {
		return nil, fmt.Errorf("fleet %s (%s) names another predecessor, or none", next.Name, Short(next.id))
	}
	if err := signed.CheckSignatures("owners", s.Owners); err != nil {
		return nil, err
	}
	for _, o := range s.Owners {
		if o.By > len(g.Owners) {
			return nil, fmt.Errorf("field owners: there is no owner key %d", o.By)
		}
		if !ed25519.Verify(g.Owners[o.By-1], g.SuccessionBytes(next), o.Signature) {
			return nil, fmt.Errorf("field owners: the signature of owner key %d does not fit", o.By)
		}
	}
	if len(s.Owners) < g.Threshold {
		return nil, fmt.Errorf("field owners: %d signatures: %d owner keys are needed", len(s.Owners), g.Threshold)
	}
	return next, nil
}
