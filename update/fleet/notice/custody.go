package notice

import (
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// WrapKey is a key to which secrets of the fleet are encrypted for a seat, certified by the
// seat's own key. The newest one counts.
type WrapKey struct {
	Version int    `json:"version"` // of this document: 1
	Seat    int    `json:"seat"`    // its number
	Key     []byte `json:"key"`     // X25519, 32 bytes
	// Holds is the fingerprint of the node CA whose key the seat has. Zero: it has none.
	Holds document.Hash `json:"holds,omitzero"`
}

// CAKey is the key of the node CA, wrapped by a seat that has it for seats that are to have it:
// so a spare that becomes a member can let nodes in and renew them, and no laptop is needed.
type CAKey struct {
	Version int           `json:"version"` // of this document: 1
	CA      document.Hash `json:"ca"`      // fingerprint of its key
	For     []WrappedFor  `json:"for,omitempty"`
}

// WrappedFor is a wrapped key for one seat.
type WrappedFor struct {
	Seat   int    `json:"seat"`
	Sealed []byte `json:"sealed"` // update/fleet/wrapped
}

const (
	wrapKeySize = 32
	// MaxWrapped is for how many seats one document has a wrapped key, at most: those who lack it
	// take turns.
	MaxWrapped = 4
	maxSealed  = 256 // bytes
)

// Encode writes the document as the body of its envelope.
func (k WrapKey) Encode() []byte { return encode(k) }

// Encode writes the document as the body of its envelope.
func (k CAKey) Encode() []byte { return encode(k) }

// ParseWrapKey reads the body of a seat's key for secrets. The error wraps [ErrNotice].
func ParseWrapKey(body []byte) (WrapKey, error) { return parse[WrapKey]("wrap key", body) }

// ParseCAKey reads the body of a wrapped CA's key. The error wraps [ErrNotice].
func ParseCAKey(body []byte) (CAKey, error) { return parse[CAKey]("CA key", body) }

// OpenWrapKey reads a seat's key for secrets out of its envelope, which is verified already. The
// error wraps [ErrNotice].
func OpenWrapKey(e signed.Envelope) (WrapKey, error) { return open(e, WrapKeyKind, ParseWrapKey) }

// OpenCAKey reads a wrapped CA's key out of its envelope, which is verified already. The error
// wraps [ErrNotice].
func OpenCAKey(e signed.Envelope) (CAKey, error) { return open(e, CAKeyKind, ParseCAKey) }

func (k WrapKey) check() error {
	if k.Seat < 1 {
		return fmt.Errorf("field seat: %d: seats are numbered from 1", k.Seat)
	}
	if len(k.Key) != wrapKeySize {
		return fmt.Errorf("field key: %d bytes: %d wanted", len(k.Key), wrapKeySize)
	}
	return nil
}

func (k CAKey) check() error {
	if k.CA.IsZero() {
		return errors.New("field ca: there is none")
	}
	if len(k.For) > MaxWrapped {
		return fmt.Errorf("field for: %d: %d at most", len(k.For), MaxWrapped)
	}
	last := 0
	for i, f := range k.For {
		if f.Seat <= last {
			return fmt.Errorf("field for[%d].seat: %d does not follow on %d", i, f.Seat, last)
		}
		if len(f.Sealed) < 1 || len(f.Sealed) > maxSealed {
			return fmt.Errorf("field for[%d].sealed: %d bytes: 1 to %d", i, len(f.Sealed), maxSealed)
		}
		last = f.Seat
	}
	return nil
}
