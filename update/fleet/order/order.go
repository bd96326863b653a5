// Package order is what operators order about seats of their fleet, until the fleet decides such
// things itself: that a seat is isolated, and that its node is absent on purpose.
//
//	isolated   no node has a session with it, answers its calls or gives it a secret
//	away       it is silent on purpose: no alarm, and nobody takes its place
//	cordoned   it gets nothing new to do
//	drained    it gets nothing new to do, and leads nothing
//
// And with the owner's leave, that its etcd begins anew in the place of all others.
//
// In come envelopes that operators have signed, and the ledger's state; out goes what holds now
// ([Standing]), the same on every node that has the same orders. An order is about one seat, and
// the newest one of its kind counts, whoever of the listed operators gave it: so each of them
// can take back what another has ordered. What an operator has ordered who is not listed any more,
// or whose key was revoked ([ledger.State.Without]), does not count. Orders end sessions, not votes: what an
// isolated seat has signed is passed on and counted as before.
//
// The package carries nothing out and keeps nothing: how orders travel and where they are kept is
// the agent's.
package order

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// The kinds of envelopes that hold an order.
const (
	IsolationKind = "kogge/isolation/v1"
	AbsenceKind   = "kogge/absence/v1"
	RestoringKind = "kogge/restoring/v1"
)

const (
	version = 1
	maxWhy  = 200 // bytes
	// Bytes of an envelope: of an isolation with the signatures of 16 owner keys, and of one with
	// those of 4, which the largest fleet takes, too; and of an absence.
	largest, large = 4 << 10, 1536
	absence        = 1 << 10
	restoringSize  = 2 << 10 // with the signatures of 4 owner keys; of 16 it is less than four times as much
)

// ErrOrder is of bytes that are no order, or of one that cannot be given.
var ErrOrder = errors.New("not an order about a seat")

// Isolation says whether a seat is isolated.
type Isolation struct {
	Version  int        `json:"version"` // of this document: 1
	Seat     int        `json:"seat"`    // its number, for people
	Key      signed.Key `json:"key"`     // the seat's
	Isolated bool       `json:"isolated"`
	Why      string     `json:"why,omitempty"`
	// Owners are signatures by the fleet's owner over [OwnersBytes]: then the order counts however
	// many others are isolated.
	Owners []signed.Signature `json:"owners,omitempty"`
}

// State is in which way a node is absent.
type State string

// The states.
const (
	Present  State = "" // it is not
	Away     State = "away"
	Cordoned State = "cordoned"
	Drained  State = "drained"
)

// Absence says whether, and how, the node of a seat is absent on purpose.
type Absence struct {
	Version int        `json:"version"` // of this document: 1
	Seat    int        `json:"seat"`    // its number, for people
	Key     signed.Key `json:"key"`     // the seat's
	State   State      `json:"state"`
	// Until is when that is over by itself, in UTC and whole seconds. Zero: when it is taken back.
	Until time.Time `json:"until,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// Restoring says to all that a seat's etcd has begun anew: then who has data of another one gives it
// up for that. It counts if the owner has permitted it, whoever brings his leave and whatever becomes
// of him. Its number is the generation that the leave begins: nobody takes it back by an older leave.
type Restoring struct {
	Version int        `json:"version"` // of this document: 1
	Seat    int        `json:"seat"`    // its number, for people
	Key     signed.Key `json:"key"`     // the seat's
	Leave   []byte     `json:"leave"`   // a [ledger.Restore] for it
}

// Kinds are the kinds of orders, for a shelf.
func Kinds() []notice.Kind {
	return []notice.Kind{
		{
			Name: IsolationKind, Number: 6, Least: large, Most: largest, May: may(fleet.RoleAdmin),
			Check: func(b []byte) error { _, err := ParseIsolation(b); return err },
			About: func(b []byte) (signed.Key, error) { o, err := ParseIsolation(b); return o.Key, err },
		},
		{
			Name: AbsenceKind, Number: 7, Least: absence, Most: absence, May: may(fleet.RoleOperator),
			Check: func(b []byte) error { _, err := ParseAbsence(b); return err },
			About: func(b []byte) (signed.Key, error) { o, err := ParseAbsence(b); return o.Key, err },
		},
		{
			Name: RestoringKind, Number: 8, Least: restoringSize, Most: 4 * restoringSize,
			May: func(s ledger.State, e signed.Envelope) bool { // whoever has signed it
				_, operator := e.By.Operator()
				return operator && permitted(s, e) == nil
			},
			Early: func(s ledger.State, e signed.Envelope) bool { return errors.Is(permitted(s, e), errEarly) },
			Check: func(b []byte) error { _, err := ParseRestoring(b); return err },
			About: func(b []byte) (signed.Key, error) { o, err := ParseRestoring(b); return o.Key, err },
			Says:  leaveOf,
		},
	}
}

// Is says whether objects of a kind are orders.
func Is(kind string) bool {
	return kind == IsolationKind || kind == AbsenceKind || kind == RestoringKind
}

// may wants an operator of a role, by the ledger.
func may(role fleet.Role) func(ledger.State, signed.Envelope) bool {
	return func(s ledger.State, e signed.Envelope) bool {
		o, ok := giver(s, e)
		return ok && o.Role.AtLeast(role)
	}
}

// leaveOf is what the owner has permitted by the body of a restoring, whichever of his keys have signed
// that; nil: nothing can be read.
func leaveOf(fleetID document.Hash, body []byte) []byte {
	o, err := ParseRestoring(body)
	if err != nil {
		return nil
	}
	leave, err := ledger.ParseRestore(o.Leave)
	if err != nil {
		return nil
	}
	return leave.Bytes(fleetID)
}

// Same says whether two orders say the same under one number, and count whoever has signed them.
func Same(a, b signed.Envelope) bool {
	if a.Kind != b.Kind || a.Fleet != b.Fleet || a.Sequence != b.Sequence {
		return false
	}
	if a.Kind == RestoringKind {
		if leave := leaveOf(a.Fleet, a.Body); leave != nil {
			return bytes.Equal(leave, leaveOf(b.Fleet, b.Body))
		}
	}
	return bytes.Equal(a.Message(), b.Message())
}

// errEarly is of a leave that the owner has given, of a record that the ledger has not reached.
var errEarly = errors.New("the ledger is not that far")

// permitted says why a restoring has not the owner's leave. That may be of an earlier record: what was
// restored since stays so. Of a later one it is [errEarly].
func permitted(s ledger.State, e signed.Envelope) error {
	o, err := ParseRestoring(e.Body)
	if err != nil {
		return err
	}
	leave, err := ledger.ParseRestore(o.Leave)
	if err != nil {
		return err
	}
	if begins := uint64(leave.Generation) + 1; e.Sequence != begins {
		return fmt.Errorf("its number is %d, and it begins generation %d", e.Sequence, begins)
	}
	if seat, ok := s.Roster.ByKey(o.Key); !ok || seat.Number != o.Seat {
		return fmt.Errorf("it is about seat %d, and key %s has seat %d", o.Seat, o.Key.ID().Short(), seat.Number)
	}
	if err := s.SignedByOwner(leave.Owners, leave.Bytes(s.Fleet())); err != nil {
		return err
	}
	if leave.Height > s.Height {
		return fmt.Errorf("its leave is of height %d, and here it is %d: %w", leave.Height, s.Height, errEarly)
	}
	return nil
}

// giver is the operator who has signed an envelope; false: nobody whom the ledger lists.
func giver(s ledger.State, e signed.Envelope) (ledger.Operator, bool) {
	key, ok := e.By.Operator()
	if !ok {
		return ledger.Operator{}, false
	}
	return s.Operator(key)
}

// withdrawn says that whoever has signed an envelope is an operator whose key was revoked.
func withdrawn(s ledger.State, e signed.Envelope) error {
	if key, ok := e.By.Operator(); ok {
		return s.Withdrawn(key)
	}
	return nil
}

// Order is an [Isolation], an [Absence] or a [Restoring].
type Order interface {
	envelope() (kind string, body []byte, err error)
}

// Seal signs an order with an operator's key. The number is above that of the order that it takes
// the place of.
func Seal(fleetID document.Hash, key *ecdsa.PrivateKey, number uint64, o Order) (signed.Envelope, error) {
	kind, body, err := o.envelope()
	if err != nil {
		return signed.Envelope{}, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	return signed.SealByOperator(kind, fleetID, key, number, body)
}

func (o Isolation) envelope() (string, []byte, error) {
	o.Version = version
	if err := o.check(); err != nil {
		return "", nil, err
	}
	return IsolationKind, encode(o), nil
}

func (o Absence) envelope() (string, []byte, error) {
	o.Version = version
	if err := o.check(); err != nil {
		return "", nil, err
	}
	return AbsenceKind, encode(o), nil
}

func (o Restoring) envelope() (string, []byte, error) {
	o.Version = version
	if err := o.check(); err != nil {
		return "", nil, err
	}
	return RestoringKind, encode(o), nil
}

// OwnersBytes are what owners sign so that an isolation counts however many there are: it is this
// one order, and no later one about the same seat.
func OwnersBytes(fleetID document.Hash, seat signed.Key, number uint64) []byte {
	return document.Message("kogge/isolate/v1", fleetID[:], []byte(seat), binary.BigEndian.AppendUint64(nil, number))
}

// ParseIsolation reads the body of an isolation. The error wraps [ErrOrder].
func ParseIsolation(body []byte) (Isolation, error) { return parse[Isolation](body) }

// ParseAbsence reads the body of an absence. The error wraps [ErrOrder].
func ParseAbsence(body []byte) (Absence, error) { return parse[Absence](body) }

// ParseRestoring reads the body of a restoring. The error wraps [ErrOrder].
func ParseRestoring(body []byte) (Restoring, error) { return parse[Restoring](body) }

func parse[T interface{ check() error }](body []byte) (T, error) {
	v, err := document.DecodeExact[T](body, version)
	if err == nil {
		err = v.check()
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	return v, nil
}

func (o Isolation) check() error {
	if err := checkSeat(o.Seat, o.Key, o.Why); err != nil {
		return err
	}
	if !o.Isolated && len(o.Owners) > 0 {
		return errors.New("field owners: nobody has to permit that a seat is not isolated")
	}
	return signed.CheckSignatures("owners", o.Owners)
}

func (o Absence) check() error {
	if err := checkSeat(o.Seat, o.Key, o.Why); err != nil {
		return err
	}
	switch o.State {
	case Present, Away, Cordoned, Drained:
	default:
		return fmt.Errorf("field state: %.40q is unknown", o.State)
	}
	if u := o.Until; !u.IsZero() && (o.State != Away || u.Location() != time.UTC || u.Nanosecond() != 0 || u.Year() > 9999) {
		return fmt.Errorf("field until: %s: of a node that is away, in UTC and whole seconds", u.Format(time.RFC3339Nano))
	}
	return nil
}

func (o Restoring) check() error {
	if err := checkSeat(o.Seat, o.Key, ""); err != nil {
		return err
	}
	leave, err := ledger.ParseRestore(o.Leave)
	if err == nil && leave.Node != o.Key {
		err = errors.New("it is for another node")
	}
	if err != nil {
		return fmt.Errorf("field leave: %w", err)
	}
	return nil
}

func checkSeat(number int, key signed.Key, why string) error {
	if number < 1 {
		return fmt.Errorf("field seat: %d: seats are numbered from 1", number)
	}
	if key == "" {
		return errors.New("field key: there is none")
	}
	if len(why) > maxWhy {
		return fmt.Errorf("field why: %d bytes: %d at most", len(why), maxWhy)
	}
	for _, r := range why {
		if !document.Printable(r) {
			return fmt.Errorf("field why: %.40q has what cannot be shown", why)
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
