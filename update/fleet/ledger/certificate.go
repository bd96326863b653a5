package ledger

import (
	"errors"
	"fmt"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Certificate proves a record: by the owners' keys at height 1, and where the glass is broken, else
// by votes of seats.
type Certificate struct {
	Version int                `json:"version"`          // of this document: 1, and 2 with evidence
	Round   int32              `json:"round,omitempty"`  // in which the seats voted
	Seats   []signed.Signature `json:"seats,omitempty"`  // by seat
	Owners  []signed.Signature `json:"owners,omitempty"` // by number of the owner's key
	// Evidence is the signed objects on which the decision rests. The value names their root, so
	// that all certificates of a record have the same.
	Evidence [][]byte `json:"evidence,omitempty"`
}

// maxCertificate is the bytes of a certificate, at most: a thousand votes, and evidence.
const maxCertificate = 508 << 10

// evidenceVersion is that of a certificate with evidence.
const evidenceVersion = 2

// Encode writes the certificate.
func (c Certificate) Encode() []byte {
	if len(c.Evidence) > 0 {
		c.Version = evidenceVersion
	}
	return encode(c)
}

// ParseCertificate reads a certificate, and verifies nothing. The error wraps
// [ErrCertificate].
func ParseCertificate(raw []byte) (Certificate, error) {
	c, err := parseCertificate(raw)
	if err != nil {
		return Certificate{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return c, nil
}

func parseCertificate(raw []byte) (Certificate, error) {
	if len(raw) > maxCertificate {
		return Certificate{}, fmt.Errorf("%d bytes: %d at most", len(raw), maxCertificate)
	}
	c, err := document.DecodeExact[Certificate](raw, version, evidenceVersion)
	if err != nil {
		return Certificate{}, err
	}
	if (c.Version == evidenceVersion) != (len(c.Evidence) > 0) {
		return Certificate{}, fmt.Errorf("field evidence: its format is version %d, and there are %d objects", c.Version, len(c.Evidence))
	}
	if c.Round < 0 {
		return Certificate{}, fmt.Errorf("field round: %d", c.Round)
	}
	return c, errors.Join(signed.CheckSignatures("seats", c.Seats), signed.CheckSignatures("owners", c.Owners))
}

// FoundingBytes are what an owner signs for the first record.
func FoundingBytes(r Record) []byte {
	id, record := r.Fleet, r.Hash()
	return document.Message("kogge/founding/v1", id[:], record[:])
}

// BreakGlassBytes are what an owner signs so that a record seats a fleet anew whose quorum is gone.
func BreakGlassBytes(r Record) []byte {
	id, record := r.Fleet, r.Hash()
	return document.Message("kogge/break-glass/v1", id[:], record[:])
}

// PrecommitBytes are what a seat signs to decide a record in a round: with it the root of the
// tree of all records before it, so that a signature stands for the whole history.
func PrecommitBytes(r Record, round int32, before document.Hash) []byte {
	w := ballot.Words{
		Kind: ballot.Precommit, Fleet: r.Fleet, Height: r.Height, Round: round, Roster: r.Roster, Value: r.Hash(), Tree: before, ValidRound: ballot.Fresh,
	}
	return w.Message()
}

// byOwners verifies a certificate that owners have signed: of record 1, or where the glass is broken.
func (c Certificate) byOwners(owner roster.Owner, message []byte) error {
	if len(c.Seats) > 0 || c.Round != 0 {
		return fmt.Errorf("%w: field seats: what owners sign, no seat signs", ErrCertificate)
	}
	if err := byOwner(c.Owners, owner, message); err != nil {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return nil
}

// byOwner wants signatures of a message by as many keys of an owner as are the owner.
func byOwner(signatures []signed.Signature, owner roster.Owner, message []byte) error {
	if err := fit(signatures, owner, message); err != nil {
		return err
	}
	if len(signatures) < owner.Threshold {
		return fmt.Errorf("field owners: %d signatures: %d owner keys are needed", len(signatures), owner.Threshold)
	}
	return nil
}

// SignedByOwner wants signatures of a message by as many keys as act as the owner who has founded
// the fleet. The error wraps [ErrPermit].
func (s State) SignedByOwner(signatures []signed.Signature, message []byte) error {
	owner, err := s.Owner()
	if err == nil {
		err = byOwner(signatures, owner, message)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermit, err)
	}
	return nil
}

// Owner is the owner who has founded the fleet, by the keys that are his now. The error wraps
// [ErrCertificate].
func (s State) Owner() (roster.Owner, error) {
	if owner, ok := s.Roster.Owner(s.Genesis.Name); ok {
		return owner, nil
	}
	return OwnerOf(s.Genesis)
}

// fit wants signatures of a message, as many as there are, by keys of an owner.
func fit(signatures []signed.Signature, owner roster.Owner, message []byte) error {
	for i, s := range signatures {
		if s.By > len(owner.Keys) {
			return fmt.Errorf("field owners[%d].by: there is no owner key %d", i, s.By)
		}
		if !owner.Keys[s.By-1].Verify(message, s.Signature) {
			return fmt.Errorf("field owners[%d].signature: it is not that of owner key %d", i, s.By)
		}
	}
	return nil
}

// byVotes verifies the certificate of a record above 1, decided by seats after a tree of
// records whose root is before. Each signature has to fit, also those that a quorum does not
// need.
func (c Certificate) byVotes(r Record, seats roster.Roster, before document.Hash) error {
	message := PrecommitBytes(r, c.Round, before)
	for i, s := range c.Seats {
		seat, ok := seats.Seat(s.By)
		if !ok || !seat.Vote {
			return fmt.Errorf("%w: field seats[%d].by: seat %d has no vote", ErrCertificate, i, s.By)
		}
		if !seat.Key.Verify(message, s.Signature) {
			return fmt.Errorf("%w: field seats[%d].signature: it is not that of seat %d (%s) for this record in round %d", ErrCertificate, i, s.By, seat.Name, c.Round)
		}
	}
	if q := seats.Quorum(); len(c.Seats) < q {
		return fmt.Errorf("%w: field seats: %d votes, and %d of %d decide", ErrCertificate, len(c.Seats), q, seats.Votes())
	}
	return nil
}

// OwnerOf is the owner that a genesis names, as rosters have it.
func OwnerOf(g *fleet.Genesis) (roster.Owner, error) {
	o := roster.Owner{Name: g.Name, Threshold: g.Threshold}
	for i, k := range g.Owners {
		key, err := signed.KeyOf(k)
		if err != nil {
			return o, fmt.Errorf("%w: owner key %d: %w", ErrCertificate, i+1, err)
		}
		o.Keys = append(o.Keys, key)
	}
	return o, nil
}
