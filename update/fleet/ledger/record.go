// Package ledger is what a fleet has decided, one record after the other, checkable by
// anybody who has its genesis.
//
//	genesis ─▶ record 1: the founding, signed by m owners
//	             └─▶ record 2, 3, …: decisions, each signed by a quorum of the roster before it,
//	                 and each resting on evidence: an operator's proposal, owners' answers, …
//
// A record is small and always of one shape: it names the fleet, its height, the record before
// it, the roster that decided, and, by hash, the value that was decided. A certificate is
// beside the record, not in it: any quorum proves it, and two nodes may hold different ones. It
// brings the evidence, whose root the value names.
// The records are the leaves of an RFC 6962 tree; its checkpoints and tiles are C2SP's.
//
// In come bytes of strangers; out go a [State], or an error that names record and field. The
// package opens nothing and asks nobody: where the bytes lie is the caller's. What may be decided is
// update/fleet/decision's, and how votes become a certificate update/fleet/vote's.
package ledger

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/document"
)

// Record is one height of the ledger.
type Record struct {
	Version  int           `json:"version"` // of this document: 1
	Fleet    document.Hash `json:"fleet"`   // fleet id
	Height   int64         `json:"height"`  // from 1
	Previous document.Hash `json:"previous"`
	Roster   document.Hash `json:"roster"` // that decided; at height 1 the one that is founded
	Value    document.Hash `json:"value"`  // SHA-256 of the value's bytes
}

const (
	version   = 1
	maxRecord = 1 << 10 // bytes
)

// Why a ledger is not believed. Each error says which record and field.
var (
	// ErrRecord is of bytes that are no record, or not the one that follows.
	ErrRecord = errors.New("not the record that follows")
	// ErrValue is of bytes that the record does not name, or that decide nothing.
	ErrValue = errors.New("not the value that was decided")
	// ErrCertificate is of a decision that is not proved.
	ErrCertificate = errors.New("its certificate does not prove it")
)

// Encode writes the record as it is hashed and signed.
func (r Record) Encode() []byte { return encode(r) }

// encode writes a document of this package, whose types JSON can always write.
func encode(value any) []byte {
	raw, err := document.Encode(value)
	if err != nil {
		panic(err)
	}
	return raw
}

// Hash is the record's leaf in the tree, by which the next record names it.
func (r Record) Hash() document.Hash { return document.Hash(tlog.RecordHash(r.Encode())) }

// ParseRecord reads a record. The error wraps [ErrRecord].
func ParseRecord(raw []byte) (Record, error) {
	if len(raw) > maxRecord {
		return Record{}, fmt.Errorf("%w: %d bytes: %d at most", ErrRecord, len(raw), maxRecord)
	}
	r, err := document.DecodeExact[Record](raw, version)
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return r, nil
}

// follows says which field of a record is not that of the one at next's height: next has all
// fields but the value as they must be.
func (r Record) follows(next Record) error {
	for _, f := range []struct {
		field     string
		got, want any
	}{
		{"fleet", r.Fleet, next.Fleet}, {"height", r.Height, next.Height},
		{"previous", r.Previous, next.Previous}, {"roster", r.Roster, next.Roster},
	} {
		if f.got != f.want {
			return fmt.Errorf("%w: field %s: it is %v, and %v is wanted", ErrRecord, f.field, f.got, f.want)
		}
	}
	return nil
}
