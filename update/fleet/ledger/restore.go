package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Restore is the owner's leave for one node to have etcd begin anew, once: from a snapshot, or from
// what is on its own disk. Everything that others have written into etcd since is forgotten, but
// for what nodes hold themselves, as this ledger. It is used up by the restore itself, whose etcd is
// of a generation above the one that it names.
type Restore struct {
	Version    int                `json:"version"`           // of this document: 1
	Node       signed.Key         `json:"node"`              // the key of its seat
	Snapshot   document.Hash      `json:"snapshot,omitzero"` // SHA-256 of its bytes; zero: what is on the node's disk
	Generation int64              `json:"generation"`        // of the newest etcd that is known
	Height     int64              `json:"height"`            // of the ledger, when it was given
	Owners     []signed.Signature `json:"owners"`            // by number of the owner's key
}

// Encode writes the leave.
func (r Restore) Encode() []byte { return encode(r) }

// Bytes are what an owner signs.
func (r Restore) Bytes(fleet document.Hash) []byte {
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	return document.Message("kogge/restore/v1", fleet[:], []byte(r.Node), r.Snapshot[:], number(r.Generation), number(r.Height))
}

// ParseRestore reads a leave, and verifies nothing. The error wraps [ErrPermit].
func ParseRestore(raw []byte) (Restore, error) {
	if len(raw) > maxPermit {
		return Restore{}, fmt.Errorf("%w: %d bytes: %d at most", ErrPermit, len(raw), maxPermit)
	}
	r, err := document.DecodeExact[Restore](raw, version)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return Restore{}, fmt.Errorf("%w: %w", ErrPermit, err)
	}
	return r, nil
}

func (r Restore) check() error {
	if r.Node == "" {
		return errors.New("field node: there is none")
	}
	if r.Generation < 0 || r.Generation > maxGeneration {
		return fmt.Errorf("field generation: %d", r.Generation)
	}
	return signed.CheckSignatures("owners", r.Owners)
}

// maxGeneration is more than anybody restores.
const maxGeneration = 1 << 30

// PermitsRestore wants a leave to be for a node, by its key, from as many keys as act as the owner
// of the fleet, at the height at which the ledger is: one that was given before a record cannot
// undo what the record has led to. Which snapshot and generation it is for is the caller's to
// compare. The error wraps [ErrPermit].
func (s State) PermitsRestore(r Restore, node signed.Key) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrPermit, err)
	}
	if r.Node != node {
		return fmt.Errorf("%w: it is for the node of key %s, and this one has key %s", ErrPermit, r.Node.ID().Short(), node.ID().Short())
	}
	if r.Height != s.Height {
		return fmt.Errorf("%w: it is of height %d, and the fleet's ledger is at %d", ErrPermit, r.Height, s.Height)
	}
	return s.SignedByOwner(r.Owners, r.Bytes(s.Fleet()))
}
