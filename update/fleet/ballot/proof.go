package ballot

import (
	"bytes"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Proof is that a seat has voted twice: it signed two ballots of one kind for one round of one
// height, and they say different things. It convinces whoever has the seat's key.
type Proof struct{ One, Other *Ballot }

// ErrProof is of what proves no double vote.
var ErrProof = errors.New("no proof of a double vote")

const (
	proofTag = "kogge/double-vote/v1"
	maxProof = 2 << 10 // bytes
)

// Bytes are the proof as it travels: one proof has one spelling.
func (p Proof) Bytes() []byte {
	one, other := p.One.Bytes(), p.Other.Bytes()
	if bytes.Compare(one, other) > 0 {
		one, other = other, one
	}
	return document.Message(proofTag, one, other)
}

// ParseProof reads a proof and verifies nothing. The error wraps [ErrProof].
func ParseProof(raw []byte) (Proof, error) {
	f, rest, ok := document.Fields(raw, 3)
	if !ok || len(raw) > maxProof || len(rest) > 0 || string(f[0]) != proofTag {
		return Proof{}, fmt.Errorf("%w: its %d bytes do not add up", ErrProof, len(raw))
	}
	one, err := Parse(f[1])
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	other, err := Parse(f[2])
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	p := Proof{one, other}
	if !bytes.Equal(p.Bytes(), raw) {
		return Proof{}, fmt.Errorf("%w: its ballots are in another order", ErrProof)
	}
	return p, nil
}

// IsProof says whether bytes begin as a proof does.
func IsProof(raw []byte) bool {
	tag, _, ok := document.Fields(raw, 1)
	return ok && string(tag[0]) == proofTag
}

// Contradicts wants the ballots to be of one seat of a fleet, kind, round and height, and to say two things.
// It verifies no signature. The error wraps [ErrProof].
func (p Proof) Contradicts(fleet document.Hash) error {
	a, b := p.One, p.Other
	switch {
	case a.Fleet != fleet || b.Fleet != fleet:
		return fmt.Errorf("%w: it is of another fleet", ErrProof)
	case a.Kind != b.Kind || a.Height != b.Height || a.Round != b.Round || a.Seat != b.Seat:
		return fmt.Errorf("%w: its two ballots are of different kinds, heights, rounds or seats: a seat signs both", ErrProof)
	case a.Words == b.Words:
		return fmt.Errorf("%w: its two ballots say the same", ErrProof)
	}
	return nil
}

// Verify wants a key to have signed both. The error wraps [ErrProof].
func (p Proof) Verify(key signed.Key) error {
	if err := errors.Join(p.One.Verify(key), p.Other.Verify(key)); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return nil
}

// Check verifies the proof by a roster, and says whose it is, with a vote or without. The error wraps
// [ErrProof].
func (p Proof) Check(fleet document.Hash, seats roster.Roster) (roster.Seat, error) {
	seat, ok := seats.Seat(p.One.Seat)
	if !ok {
		return seat, fmt.Errorf("%w: there is no seat %d", ErrProof, p.One.Seat)
	}
	err := p.Contradicts(fleet)
	if err == nil {
		err = p.Verify(seat.Key)
	}
	return seat, err
}
