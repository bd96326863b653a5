package order

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Standing is what the orders of a fleet come to at a time.
type Standing struct {
	Isolated []Isolated // by seat
	// Beyond are isolations that were ordered and do not count, by seat: they are too many.
	Beyond []Isolated
	Absent []Absent // by seat
	// Generation is that of the newest etcd that the owner has let begin anew; 0: none.
	Generation int
}

// Isolated is a seat that is to be isolated.
type Isolated struct {
	Seat   roster.Seat
	By     string // the operator
	Number uint64 // of his order
	Why    string // by his word
	Owners bool   // the fleet's owner has signed it, too
	Doubt  string // why it does not count; "": it does
}

// Absent is a seat whose node is absent on purpose.
type Absent struct {
	Seat  roster.Seat
	State State
	By    string // the operator
	Until time.Time
	Why   string // by his word
}

// String is "away until 2026-12-01 08:00:00 UTC, by ada: new power line", as people are told.
func (a Absent) String() string {
	s := string(a.State)
	if !a.Until.IsZero() {
		s += " until " + a.Until.Format("2006-01-02 15:04:05 MST")
	}
	return s + by(a.By, a.Why)
}

// String is "isolated, by ada: its key was stolen", as people are told.
func (i Isolated) String() string { return "isolated" + by(i.By, i.Why) }

func by(operator, why string) string {
	if why != "" {
		why = ": " + why
	}
	return ", by " + operator + why
}

// ErrIsolated is of a seat with whose node no other node of its fleet has to do now.
var ErrIsolated = errors.New("it is isolated from its fleet")

// Most is how many seats operators may have isolated at a time by themselves, and how many of
// them may run etcd: not as many as its majority.
func Most(r roster.Roster) (seats, members int) {
	running := 0
	for _, s := range r.Seats {
		if s.Member {
			running++
		}
	}
	return r.Liars(), max(0, running-1) / 2
}

// Decide says what orders come to, by the ledger's state and the time. The order in which they
// are given here does not matter; of each kind the newest one about each seat counts. An envelope
// that is no order of a listed operator with the right role, or is forged, is left out; a [Restoring]
// counts by the owner's leave.
//
// An isolation without the owner's signatures counts if those before it, by number and with or
// without them, are not as many already as operators may isolate ([Most]): a later one takes no
// effect rather than the place of an earlier one.
func Decide(s ledger.State, objects []signed.Envelope, now time.Time) Standing {
	var all Standing
	for _, g := range newest(s, objects) {
		switch g.Kind {
		case IsolationKind:
			o, err := ParseIsolation(g.Body)
			if err != nil || !o.Isolated {
				continue
			}
			one := Isolated{Seat: g.seat, By: g.by.Name, Number: g.Sequence, Why: o.Why}
			if len(o.Owners) > 0 {
				if err := s.SignedByOwner(o.Owners, OwnersBytes(s.Fleet(), o.Key, g.Sequence)); err != nil {
					one.Doubt = err.Error()
				}
				one.Owners = one.Doubt == ""
			}
			all.Isolated = append(all.Isolated, one)
		case AbsenceKind:
			o, err := ParseAbsence(g.Body)
			if err != nil || o.State == Present || !o.Until.IsZero() && !now.Before(o.Until) {
				continue
			}
			all.Absent = append(all.Absent, Absent{Seat: g.seat, State: o.State, By: g.by.Name, Until: o.Until, Why: o.Why})
		case RestoringKind:
			all.Generation = max(all.Generation, int(g.Sequence))
		}
	}
	all.Isolated, all.Beyond = within(s.Roster, all.Isolated)
	slices.SortFunc(all.Absent, func(a, b Absent) int { return cmp.Compare(a.Seat.Number, b.Seat.Number) })
	return all
}

// within divides isolations into those that count and those that do not.
func within(r roster.Roster, all []Isolated) (count, beyond []Isolated) {
	slices.SortFunc(all, func(a, b Isolated) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Seat.Number, b.Seat.Number))
	})
	mostSeats, mostMembers := Most(r)
	members := 0
	for _, one := range all {
		runs := one.Seat.Member || one.Seat.Spare
		switch {
		case one.Owners || one.Doubt != "":
		case len(count) >= mostSeats:
			one.Doubt = fmt.Sprintf("operators alone may isolate %d of this fleet's seats, and %d are isolated already", mostSeats, len(count))
		case runs && members >= mostMembers:
			one.Doubt = fmt.Sprintf("operators alone may isolate %d of the seats that run etcd, and %d are isolated already", mostMembers, members)
		}
		if one.Doubt != "" {
			beyond = append(beyond, one)
			continue
		}
		count = append(count, one)
		if runs {
			members++
		}
	}
	bySeat := func(a, b Isolated) int { return cmp.Compare(a.Seat.Number, b.Seat.Number) }
	slices.SortFunc(count, bySeat)
	slices.SortFunc(beyond, bySeat)
	return count, beyond
}

// given is an order that counts: about a seat of the fleet, by an operator who may give it.
type given struct {
	signed.Envelope
	seat roster.Seat
	by   ledger.Operator
}

// newest are the newest orders, of those that count at all. Of two with one number it is the one
// that a shelf puts first.
func newest(s ledger.State, objects []signed.Envelope) []given {
	best := make(map[place]given)
	for _, e := range objects {
		g, err := counts(s, e)
		if err != nil {
			continue
		}
		at := place{e.Kind, g.seat.Number}
		if before, there := best[at]; !there || after(e, before.Envelope) {
			best[at] = g
		}
	}
	return slices.Collect(maps.Values(best))
}

// place is where an order takes the place of another.
type place struct {
	kind string
	seat int
}

// after says whether an order takes the place of another.
func after(e, before signed.Envelope) bool {
	if e.Sequence != before.Sequence {
		return e.Sequence > before.Sequence
	}
	a, b := document.HashOf(e.Message()), document.HashOf(before.Message())
	return bytes.Compare(a[:], b[:]) < 0
}

// Counts says whether an envelope is an order that counts; see [Check].
func Counts(s ledger.State, e signed.Envelope) bool {
	_, err := counts(s, e)
	return err == nil
}

// Check says why an envelope is no order about a seat of the fleet by a listed operator who may
// give it. The error wraps [ErrOrder].
func Check(s ledger.State, e signed.Envelope) error {
	_, err := counts(s, e)
	return err
}

func counts(s ledger.State, e signed.Envelope) (given, error) {
	bad := func(format string, args ...any) (given, error) {
		return given{}, fmt.Errorf("%w: "+format, append([]any{ErrOrder}, args...)...)
	}
	i := slices.IndexFunc(Kinds(), func(k notice.Kind) bool { return k.Name == e.Kind })
	if i < 0 {
		return bad("its kind is %.70q", e.Kind)
	}
	k := Kinds()[i]
	about, err := k.About(e.Body)
	if err != nil {
		return given{}, err
	}
	seat, seated := s.Roster.ByKey(about)
	operator, listed := giver(s, e)
	switch {
	case e.Fleet != s.Fleet():
		return bad("it is of fleet %s", e.Fleet.Short())
	case e.Sequence < 1 || e.Sequence > notice.MaxNumber:
		return bad("its number is %d", e.Sequence)
	case !seated:
		return bad("key %s has no seat at height %d", about.ID().Short(), s.Height)
	case e.Kind == RestoringKind:
		if err := permitted(s, e); err != nil {
			return bad("%w", err)
		}
	case !listed && withdrawn(s, e) != nil:
		return bad("%w", withdrawn(s, e))
	case !listed:
		return bad("who signed it is no operator of the fleet's ledger")
	case !k.May(s, e):
		return bad("%s has the role %s, which is not enough", operator.Name, operator.Role)
	}
	if err := e.Verify(); err != nil {
		return bad("%w", err)
	}
	return given{e, seat, operator}, nil
}

// Displaced says whether another one of some orders counts in the place of e, and which.
func Displaced(s ledger.State, objects []signed.Envelope, e signed.Envelope) (by signed.Envelope, is bool) {
	own, err := counts(s, e)
	if err != nil {
		return by, false
	}
	for _, g := range newest(s, append(slices.Clone(objects), e)) {
		if g.Kind == e.Kind && g.seat.Number == own.seat.Number {
			return g.Envelope, !Same(g.Envelope, e)
		}
	}
	return by, false
}

// Distinct is each of the orders once, of those that several nodes have told of.
func Distinct(objects []signed.Envelope) (all []signed.Envelope) {
	known := make(map[document.Hash]bool)
	for _, e := range objects {
		if id := document.HashOf(e.Message()); !known[id] {
			known[id] = true
			all = append(all, e)
		}
	}
	return all
}

// Number is the highest number of an order of a kind, of those that count; 0: there is none. A
// number above it is that of a later order, about whichever seat.
func Number(s ledger.State, objects []signed.Envelope, kind string) (number uint64) {
	for _, e := range objects {
		if e.Kind == kind && Counts(s, e) {
			number = max(number, e.Sequence)
		}
	}
	return number
}

// Isolates says whether a seat is isolated, and by which order.
func (s Standing) Isolates(key signed.Key) (Isolated, bool) {
	if i := slices.IndexFunc(s.Isolated, func(one Isolated) bool { return one.Seat.Key == key }); i >= 0 {
		return s.Isolated[i], true
	}
	return Isolated{}, false
}

// Absence says whether the node of a seat is absent on purpose, and how.
func (s Standing) Absence(key signed.Key) (Absent, bool) {
	if i := slices.IndexFunc(s.Absent, func(one Absent) bool { return one.Seat.Key == key }); i >= 0 {
		return s.Absent[i], true
	}
	return Absent{}, false
}

// Changes is when the standing is another one though no order came, because an absence is over;
// zero: never.
func (s Standing) Changes() (at time.Time) {
	for _, one := range s.Absent {
		if !one.Until.IsZero() && (at.IsZero() || one.Until.Before(at)) {
			at = one.Until
		}
	}
	return at
}
