package ledger

import (
	"fmt"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
)

// Decided says whether a proposal was decided, which is so once.
func (s State) Decided(id document.Hash) bool { return slices.Contains(s.used, id) }

// Seats says whether a value gives a key a seat that it does not have.
func (s State) Seats(v Value, key signed.Key) bool {
	_, seats := v.newSeats(s.Roster)[key]
	return seats
}

// AnswerTo reads what an owner answers to a proposal, and verifies it: by the keys that are his now,
// or, fresh, by those that the proposal gives him. The error wraps [proposal.ErrAnswer].
func (s State) AnswerTo(v Value, raw []byte) (a proposal.Answer, fresh bool, err error) {
	if a, err = s.Answered(v.Kind(), raw); err == nil {
		return a, false, nil
	}
	a, parsed := proposal.ParseAnswer(raw)
	if parsed != nil {
		return proposal.Answer{}, false, parsed
	}
	for _, o := range v.newOwners() {
		if o.Name == a.Owner && a.Verify(s.Fleet(), o, o.Threshold) == nil {
			return a, true, nil
		}
	}
	return proposal.Answer{}, false, fmt.Errorf("by the keys of owner %s: %w", a.Owner, err)
}
