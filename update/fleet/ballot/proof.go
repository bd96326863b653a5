package ballot

import (
	"bytes"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
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

// Check verifies the proof by the roster of its height, and says whose it is. The error wraps
// [ErrProof].
func (p Proof) Check(fleet document.Hash, seats roster.Roster) (roster.Seat, error) {
	a, b := p.One, p.Other
	seat, ok := seats.Seat(a.Seat)
	switch {
	case !ok || !seat.Vote:
		return seat, fmt.Errorf("%w: seat %d has no vote", ErrProof, a.Seat)
	case a.Fleet != fleet || b.Fleet != fleet:
		return seat, fmt.Errorf("%w: it is of another fleet", ErrProof)
	case a.Kind != b.Kind || a.Height != b.Height || a.Round != b.Round || a.Seat != b.Seat:
		return seat, fmt.Errorf("%w: its two ballots are of different kinds, rounds or seats", ErrProof)
	case a.Words == b.Words:
		return seat, fmt.Errorf("%w: its two ballots say the same", ErrProof)
	}
	if err := errors.Join(a.Verify(seat.Key), b.Verify(seat.Key)); err != nil {
		return seat, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return seat, nil
}
