package proposal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Answer is what an owner says to a proposal, for all of his seats: yes or no. Of two answers the
// one with the higher number counts.
type Answer struct {
	Version  int           `json:"version"`  // of this document: 1
	Proposal document.Hash `json:"proposal"` // its id; of a decision that waits, or breaks the glass, the record's hash
	Owner    string        `json:"owner"`
	Yes      bool          `json:"yes"`
	Number   int64         `json:"number"` // the time by the owner's clock, in seconds since 1970, or what follows on a higher one
	Why      string        `json:"why,omitempty"`
	// Signatures are over [Answer.Bytes], by number of the owner's key.
	Signatures []signed.Signature `json:"signatures"`
}

// ErrAnswer is of what no owner has said.
var ErrAnswer = errors.New("not an answer of an owner")

// maxAnswer is the bytes of an answer, at most: with the signatures of 16 keys.
const maxAnswer = 4 << 10

// Encode writes the answer.
func (a Answer) Encode() []byte {
	a.Version = version
	return encode(a)
}

// Bytes are what each of the keys signs.
func (a Answer) Bytes(fleet document.Hash) []byte {
	yes := []byte{0}
	if a.Yes {
		yes[0] = 1
	}
	return document.Message("kogge/answer/v1", fleet[:], a.Proposal[:], []byte(a.Owner), yes, binary.BigEndian.AppendUint64(nil, uint64(a.Number)), []byte(a.Why))
}

// ParseAnswer reads an answer, and verifies nothing. The error wraps [ErrAnswer].
func ParseAnswer(raw []byte) (Answer, error) {
	a, err := parseAnswer(raw)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return a, nil
}

func parseAnswer(raw []byte) (Answer, error) {
	if len(raw) > maxAnswer {
		return Answer{}, fmt.Errorf("%d bytes: %d at most", len(raw), maxAnswer)
	}
	a, err := document.DecodeExact[Answer](raw, version)
	if err != nil {
		return Answer{}, err
	}
	if a.Proposal.IsZero() {
		return Answer{}, errors.New("field proposal: there is none")
	}
	if err := fleet.CheckName(a.Owner); err != nil {
		return Answer{}, fmt.Errorf("field owner: %w", err)
	}
	if a.Number < 1 || a.Number > MaxNumber {
		return Answer{}, fmt.Errorf("field number: %d: 1 to %d", a.Number, int64(MaxNumber))
	}
	if err := checkText("why", a.Why, maxWhy); err != nil {
		return Answer{}, err
	}
	if len(a.Signatures) < 1 {
		return Answer{}, errors.New("field signatures: there are none")
	}
	return a, signed.CheckSignatures("signatures", a.Signatures)
}

// Verify wants as many of an owner's keys to have signed the answer as are needed, and each of its
// signatures to fit. The error wraps [ErrAnswer].
func (a Answer) Verify(fleet document.Hash, owner roster.Owner, needed int) error {
	message := a.Bytes(fleet)
	for _, s := range a.Signatures {
		if s.By > len(owner.Keys) {
			return fmt.Errorf("%w: field signatures: owner %s has no key %d", ErrAnswer, owner.Name, s.By)
		}
		if !owner.Keys[s.By-1].Verify(message, s.Signature) {
			return fmt.Errorf("%w: field signatures: the signature of key %d of owner %s does not fit", ErrAnswer, s.By, owner.Name)
		}
	}
	if len(a.Signatures) < needed {
		return fmt.Errorf("%w: field signatures: %d of owner %s, and %d are needed", ErrAnswer, len(a.Signatures), owner.Name, needed)
	}
	return nil
}

// Newest is the answer of an owner to a proposal that counts; false: he has not answered. Of a yes
// and a no with one number the no counts.
func Newest(answers []Answer, id document.Hash, owner string) (newest Answer, ok bool) {
	for _, a := range answers {
		if a.Proposal != id || a.Owner != owner {
			continue
		}
		if !ok || a.Number > newest.Number || a.Number == newest.Number && !a.Yes {
			newest, ok = a, true
		}
	}
	return newest, ok
}
