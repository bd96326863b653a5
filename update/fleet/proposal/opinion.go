package proposal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Opinion is what a seat thinks of a proposal, signed with its key. Of two opinions about one
// proposal the one with the higher number counts.
type Opinion struct {
	Version  int           `json:"version"`  // of this document: 1
	Proposal document.Hash `json:"proposal"` // as in [Answer]
	Height   int64         `json:"height"`   // of the seat's ledger
	Valid    bool          `json:"valid"`    // it may be decided, by the rules and by the node's vote
	Ready    bool          `json:"ready"`    // the node could begin with it now
	// Why says what is wrong, or what is not ready.
	Why []string `json:"why,omitempty"`
}

// OpinionKind is the kind of an opinion's envelope.
const OpinionKind = "kogge/opinion/v1"

const (
	maxReasons = 2
	// MaxOpinion is the bytes of an opinion's envelope, at most. A byte of a reason may need six.
	MaxOpinion = 3 << 10
)

// ErrOpinion is of what no seat has said.
var ErrOpinion = errors.New("not an opinion of a seat")

// SealOpinion signs an opinion with the key of a seat.
func SealOpinion(fleet document.Hash, key ed25519.PrivateKey, number uint64, o Opinion) (signed.Envelope, error) {
	o.Version = version
	if err := o.check(); err != nil {
		return signed.Envelope{}, fmt.Errorf("%w: %w", ErrOpinion, err)
	}
	return signed.Seal(OpinionKind, fleet, key, number, encode(o))
}

// ParseOpinion reads the body of an opinion. The error wraps [ErrOpinion].
func ParseOpinion(body []byte) (Opinion, error) {
	o, err := document.DecodeExact[Opinion](body, version)
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return Opinion{}, fmt.Errorf("%w: %w", ErrOpinion, err)
	}
	return o, nil
}

// OpenOpinion reads an opinion out of its envelope, whose signature is the caller's to verify, and
// says which seat of a roster has it. The error wraps [ErrOpinion].
func OpenOpinion(e signed.Envelope, fleet document.Hash, seats roster.Roster) (roster.Seat, Opinion, error) {
	return openOpinion(e, fleet, seats.ByKey)
}

func openOpinion(e signed.Envelope, fleet document.Hash, of func(signed.Key) (roster.Seat, bool)) (roster.Seat, Opinion, error) {
	bad := func(format string, args ...any) (roster.Seat, Opinion, error) {
		return roster.Seat{}, Opinion{}, fmt.Errorf("%w: "+format, append([]any{ErrOpinion}, args...)...)
	}
	switch {
	case e.Kind != OpinionKind:
		return bad("its kind is %.70q", e.Kind)
	case e.Fleet != fleet:
		return bad("it is of fleet %s", e.Fleet.Short())
	case len(e.Bytes()) > MaxOpinion:
		return bad("%d bytes: %d at most", len(e.Bytes()), MaxOpinion)
	}
	seat, ok := of(e.By)
	if !ok {
		return bad("key %s has no seat", e.By.ID().Short())
	}
	o, err := ParseOpinion(e.Body)
	return seat, o, err
}

func (o Opinion) check() error {
	if o.Proposal.IsZero() {
		return errors.New("field proposal: there is none")
	}
	if o.Height < 1 {
		return fmt.Errorf("field height: %d: a fleet decides from its founding on", o.Height)
	}
	if len(o.Why) > maxReasons {
		return fmt.Errorf("field why: %d reasons: %d at most", len(o.Why), maxReasons)
	}
	for i, why := range o.Why {
		if why == "" {
			return fmt.Errorf("field why[%d]: it is empty", i)
		}
		if err := checkText(fmt.Sprintf("why[%d]", i), why, maxWhy); err != nil {
			return err
		}
	}
	switch {
	case o.Valid && o.Ready && len(o.Why) > 0:
		return errors.New("field why: nothing is wrong, and there is a reason")
	case !(o.Valid && o.Ready) && len(o.Why) == 0:
		return errors.New("field why: what is wrong needs a reason")
	}
	return nil
}

// Opinions are what seats think, by the number of the seat.
type Opinions map[int]Opinion

// Count collects what the voters of a roster think of a proposal, each by its newest opinion. Of two
// with one number, which only a liar signs, it is the one whose bytes have the lower hash: so all who
// have both count the same. The envelopes are verified already; what is about something else, or by
// nobody with a vote, is left out.
func Count(objects []signed.Envelope, fleet document.Hash, seats roster.Roster, id document.Hash) Opinions {
	all := newest(objects, fleet, seats, id)
	maps.DeleteFunc(all, func(number int, _ Opinion) bool {
		seat, _ := seats.Seat(number)
		return !seat.Vote
	})
	return all
}

// newest are the newest opinions of all seats.
func newest(objects []signed.Envelope, fleet document.Hash, seats roster.Roster, id document.Hash) Opinions {
	last, all := make(map[int]signed.Envelope), make(Opinions)
	byKey := make(map[signed.Key]roster.Seat, len(seats.Seats)) // each of very many seats may say very much
	for _, s := range seats.Seats {
		byKey[s.Key] = s
	}
	of := func(key signed.Key) (roster.Seat, bool) { s, ok := byKey[key]; return s, ok }
	for _, e := range objects {
		seat, o, err := openOpinion(e, fleet, of)
		if err != nil || o.Proposal != id {
			continue
		}
		if was, there := last[seat.Number]; !there || after(e, was) {
			last[seat.Number], all[seat.Number] = e, o
		}
	}
	return all
}

func after(e, was signed.Envelope) bool {
	if e.Sequence != was.Sequence {
		return e.Sequence > was.Sequence
	}
	a, b := document.HashOf(e.Message()), document.HashOf(was.Message())
	return bytes.Compare(a[:], b[:]) < 0
}
