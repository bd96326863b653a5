package notice

import (
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TLSKey says which TLS key is a seat's own. A certificate only says which name somebody who
// holds a CA's key has given to a TLS key; with this the seat itself says that the key is its.
// The envelope adds the fleet, the seat's key and the number: the newest one counts.
type TLSKey struct {
	Version int           `json:"version"` // of this document: 1
	Seat    int           `json:"seat"`    // its number
	Key     document.Hash `json:"key"`     // fingerprint of the key, as fleet.Peer has it
}

// ErrTLSKey is of a TLS key that is not that of a seat.
var ErrTLSKey = errors.New("the TLS key is no seat's of this fleet")

// Encode writes the binding as the body of its envelope.
func (k TLSKey) Encode() []byte { return encode(k) }

// ParseTLSKey reads the body of a binding. The error wraps [ErrNotice].
func ParseTLSKey(body []byte) (TLSKey, error) { return parse[TLSKey]("TLS key", body) }

// OpenTLSKey reads a binding out of its envelope, which is verified already. The error wraps
// [ErrNotice].
func OpenTLSKey(e signed.Envelope) (TLSKey, error) { return open(e, TLSKeyKind, ParseTLSKey) }

func (k TLSKey) check() error {
	if k.Seat < 1 {
		return fmt.Errorf("field seat: %d: seats are numbered from 1", k.Seat)
	}
	if k.Key.IsZero() {
		return errors.New("field key: there is none")
	}
	return nil
}

// Bound says whose seat a TLS key is, by the seat's own word, which is verified already: the
// ledger has to list the key that signed it, with that number. Whether there is a newer word of
// the seat is the caller's to know. The error wraps [ErrTLSKey].
func Bound(e signed.Envelope, s ledger.State, tlsKey document.Hash) (roster.Seat, error) {
	k, err := OpenTLSKey(e)
	if err != nil {
		return roster.Seat{}, fmt.Errorf("%w: %w", ErrTLSKey, err)
	}
	if id := s.Fleet(); e.Fleet != id {
		return roster.Seat{}, fmt.Errorf("%w: it is of fleet %s", ErrTLSKey, e.Fleet.Short())
	}
	seat, ok := s.Roster.ByKey(e.By)
	if !ok {
		return roster.Seat{}, fmt.Errorf("%w: key %s has no seat at height %d", ErrTLSKey, e.By.ID().Short(), s.Height)
	}
	if k.Seat != seat.Number {
		return roster.Seat{}, fmt.Errorf("%w: %s has seat %d, and it says %d", ErrTLSKey, seat.Name, seat.Number, k.Seat)
	}
	if k.Key != tlsKey {
		return roster.Seat{}, fmt.Errorf("%w: %s says that its TLS key is %s, and this one is %s", ErrTLSKey, seat.Name, k.Key.Short(), tlsKey.Short())
	}
	return seat, nil
}
