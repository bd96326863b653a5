package proposal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Votes is how a node votes, as its owner has set it by signature: the one way besides the seed on the
// machine itself. As many of his keys sign it as act as him. The one with the highest number counts.
type Votes struct {
	Version int        `json:"version"` // of this document: 1
	Node    signed.Key `json:"node"`    // the key of its seat
	Number  int64      `json:"number"`  // rises, as that of an [Answer]
	// Votes are by kind of decision; of a kind that is not there the table's counts. A later release may
	// have set one that this release does not know, and on which it does not vote.
	Votes map[decision.Kind]decision.Vote `json:"votes"`
	// Signatures are over [Votes.Bytes], by number of the owner's key.
	Signatures []signed.Signature `json:"signatures"`
}

// ErrVotes is of what no owner has set.
var ErrVotes = errors.New("not how an owner has a node vote")

// maxVotes is the bytes of the document, at most.
const maxVotes = 8 << 10

// Encode writes the document.
func (v Votes) Encode() []byte {
	v.Version = version
	return encode(v)
}

// Bytes are what each of the keys signs.
func (v Votes) Bytes(fleet document.Hash) []byte {
	fields := [][]byte{fleet[:], []byte(v.Node), binary.BigEndian.AppendUint64(nil, uint64(v.Number))}
	for _, k := range slices.Sorted(maps.Keys(v.Votes)) {
		fields = append(fields, []byte(k), []byte(v.Votes[k].String()))
	}
	return document.Message("kogge/votes/v1", fields...)
}

// ParseVotes reads how a node votes, and verifies nothing. The error wraps [ErrVotes].
func ParseVotes(raw []byte) (Votes, error) {
	v, err := parseVotes(raw)
	if err != nil {
		return Votes{}, fmt.Errorf("%w: %w", ErrVotes, err)
	}
	return v, nil
}

func parseVotes(raw []byte) (Votes, error) {
	if len(raw) > maxVotes {
		return Votes{}, fmt.Errorf("%d bytes: %d at most", len(raw), maxVotes)
	}
	v, err := document.DecodeExact[Votes](raw, version)
	if err != nil {
		return Votes{}, err
	}
	if v.Node == "" {
		return Votes{}, errors.New("field node: there is none")
	}
	if v.Number < 1 || v.Number > MaxNumber {
		return Votes{}, fmt.Errorf("field number: %d: 1 to %d", v.Number, int64(MaxNumber))
	}
	for _, k := range slices.Sorted(maps.Keys(v.Votes)) {
		row, known := decision.Of(k)
		if known && row.Vote.Way == "" {
			return Votes{}, fmt.Errorf("field votes: %s: nobody votes on it", k)
		}
		if err := fleet.CheckName(string(k)); err != nil {
			return Votes{}, fmt.Errorf("field votes: no kind of decision is called so: %w", err)
		}
	}
	return v, signed.CheckSignatures("signatures", v.Signatures)
}

// CheckVotes says which kind of decision is none that a node votes on: to who sets it, and may have
// misspelled it.
func CheckVotes(votes map[decision.Kind]decision.Vote) error {
	for _, k := range slices.Sorted(maps.Keys(votes)) {
		row, ok := decision.Of(k)
		if !ok {
			return fmt.Errorf("%.40q is no kind of decision", string(k))
		}
		if row.Vote.Way == "" {
			return fmt.Errorf("%s: nobody votes on it", k)
		}
	}
	return nil
}

// Verify wants the owner of the node to have set it. The error wraps [ErrVotes].
func (v Votes) Verify(fleet document.Hash, owner roster.Owner) error {
	message := v.Bytes(fleet)
	for _, s := range v.Signatures {
		if s.By > len(owner.Keys) || !owner.Keys[s.By-1].Verify(message, s.Signature) {
			return fmt.Errorf("%w: field signatures: the signature of key %d of owner %s does not fit", ErrVotes, s.By, owner.Name)
		}
	}
	if n := len(v.Signatures); n < owner.Threshold {
		return fmt.Errorf("%w: field signatures: %d of owner %s, and %d are needed", ErrVotes, n, owner.Name, owner.Threshold)
	}
	return nil
}

// VoteOn is how a node votes on a kind of decision: as it is set, else by the table. On what the table
// does not know it does not vote.
func VoteOn(k decision.Kind, votes map[decision.Kind]decision.Vote) decision.Vote {
	row, ok := decision.Of(k)
	if !ok || row.Vote.Way == "" {
		return decision.Vote{Way: decision.Never}
	}
	if v, set := votes[k]; set {
		return v
	}
	return row.Vote
}
