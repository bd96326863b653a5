package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// ErrTwice is of what does not prove that a seat has voted twice.
var ErrTwice = errors.New("no proof of a double vote")

// twice is the proof that a seat has signed two things in one step of one round: two ballots in one
// [document.Message], the lower bytes first. A ballot is what the seat signs, as [PrecommitBytes]
// makes it, the number of the seat in four bytes, and the signature.
type twice struct{ one, other cast }

// cast is one of the ballots.
type cast struct {
	tag    string // of the step
	fleet  document.Hash
	height uint64
	round  uint32
	seat   uint32

	message, signature []byte
}

const (
	twiceTag     = "kogge/double-vote/v1"
	precommitTag = "kogge/precommit/v1"
	maxTwice     = 2 << 10 // bytes
)

// stepTags are what is signed in a round, each with the number of its fields.
var stepTags = map[string]int{"kogge/chair-proposal/v1": 8, "kogge/prevote/v1": 7, precommitTag: 7}

// isTwice says whether an object begins as such a proof does.
func isTwice(raw []byte) bool {
	tag, _, ok := document.Fields(raw, 1)
	return ok && string(tag[0]) == twiceTag
}

// parseTwice reads a proof, and verifies nothing. The error wraps [ErrTwice].
func parseTwice(raw []byte) (t twice, err error) {
	f, rest, ok := document.Fields(raw, 3)
	if !ok || len(rest) > 0 || len(raw) > maxTwice || bytes.Compare(f[1], f[2]) >= 0 {
		return t, fmt.Errorf("%w: its %d bytes are not two ballots in order", ErrTwice, len(raw))
	}
	if t.one, err = parseCast(f[1]); err == nil {
		t.other, err = parseCast(f[2])
	}
	return t, err
}

func parseCast(raw []byte) (c cast, err error) {
	bad := fmt.Errorf("%w: a ballot of %d bytes that do not add up", ErrTwice, len(raw))
	tag, _, ok := document.Fields(raw, 1)
	if !ok || stepTags[string(tag[0])] == 0 {
		return c, bad
	}
	f, rest, ok := document.Fields(raw, stepTags[string(tag[0])])
	if !ok || len(rest) != 4+ed25519.SignatureSize || len(f[1]) != len(c.fleet) || len(f[2]) != 8 || len(f[3]) != 4 {
		return c, bad
	}
	return cast{
		tag: string(tag[0]), fleet: document.Hash(f[1]), height: binary.BigEndian.Uint64(f[2]), round: binary.BigEndian.Uint32(f[3]),
		seat: binary.BigEndian.Uint32(rest), message: raw[:len(raw)-len(rest)], signature: rest[4:],
	}, nil
}

// check wants the ballots to be of one seat of a fleet, step, round and height, and to say two things.
// The error wraps [ErrTwice].
func (t twice) check(fleet document.Hash, seat int) error {
	a, b := t.one, t.other
	switch {
	case a.fleet != fleet || b.fleet != fleet:
		return fmt.Errorf("%w: it is of another fleet", ErrTwice)
	case int(a.seat) != seat || int(b.seat) != seat:
		return fmt.Errorf("%w: its ballots are of seats %d and %d, and seat %d is meant", ErrTwice, a.seat, b.seat, seat)
	case a.tag != b.tag || a.height != b.height || a.round != b.round:
		return fmt.Errorf("%w: its ballots are of two steps, rounds or heights: a seat signs both", ErrTwice)
	case bytes.Equal(a.message, b.message):
		return fmt.Errorf("%w: its ballots say the same", ErrTwice)
	}
	return nil
}

// verify wants a key to have signed both. The error wraps [ErrTwice].
func (t twice) verify(key signed.Key) error {
	for _, c := range []cast{t.one, t.other} {
		if !key.Verify(c.message, c.signature) {
			return fmt.Errorf("%w: a signature is not that of key %s", ErrTwice, key.ID().Short())
		}
	}
	return nil
}
