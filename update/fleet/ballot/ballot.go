package ballot

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Kind is one of the three messages of the algorithm, and the step of a voter: which of them it
// has come to in its round.
type Kind uint8

// The kinds, in their order within a round.
const (
	Proposal Kind = iota
	Prevote
	Precommit
)

var (
	kindNames = [...]string{"proposal", "prevote", "precommit"}
	// An operator proposes, too. What the chair puts forward has a tag of its own.
	kindTags = [...]string{"kogge/chair-proposal/v1", "kogge/prevote/v1", "kogge/precommit/v1"}
)

func (k Kind) String() string { return kindNames[k] }

// MarshalText writes the kind as it stands in a journal.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kindNames {
		if name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("%.20q is no kind of ballot", text)
}

// Nil is the value of a ballot for nothing. Any other is the hash of a record.
var Nil document.Hash

// Fresh is the valid round of a proposal that had no quorum of prevotes before.
const Fresh = -1

// MaxRound is the highest round that a ballot can be of. No fleet gets there by waiting.
const MaxRound = 1 << 30

// Words are what a ballot says: all that its seat signs.
//
//	tag | fleet | height | round | roster | value | tree     each behind its length,
//	                                    | valid round + 1    this of a proposal alone
type Words struct {
	Kind       Kind          `json:"kind"`
	Fleet      document.Hash `json:"fleet"`
	Height     int64         `json:"height"`
	Round      int32         `json:"round"`
	Roster     document.Hash `json:"roster"` // that decides at the height
	Value      document.Hash `json:"value"`
	Tree       document.Hash `json:"tree"`       // root over all records before
	ValidRound int32         `json:"validRound"` // of a proposal: when a quorum prevoted its value; -1: never, or no proposal
}

// Ballot is one signed message of a seat. It is read-only: states share it.
type Ballot struct {
	Words
	Seat      int    `json:"seat"`
	Signature []byte `json:"signature,omitempty"`
}

// Before says whether a ballot was cast before another of its seat.
func (w Words) Before(o Words) bool {
	if w.Height != o.Height {
		return w.Height < o.Height
	}
	return w.Round < o.Round || w.Round == o.Round && w.Kind < o.Kind
}

// Message is what is signed. A precommit's is [kogge.example/update/fleet/ledger.PrecommitBytes]:
// a quorum of them is the certificate.
func (w Words) Message() []byte {
	fields := [][]byte{
		w.Fleet[:], binary.BigEndian.AppendUint64(nil, uint64(w.Height)), binary.BigEndian.AppendUint32(nil, uint32(w.Round)),
		w.Roster[:], w.Value[:], w.Tree[:],
	}
	if w.Kind == Proposal {
		fields = append(fields, binary.BigEndian.AppendUint32(nil, uint32(w.ValidRound+1)))
	}
	return document.Message(kindTags[w.Kind], fields...)
}

// Sign is the ballot with its seat's signature.
func (b Ballot) Sign(key ed25519.PrivateKey) *Ballot {
	b.Signature = ed25519.Sign(key, b.Message())
	return &b
}

// Bytes are the ballot as it travels: what is signed, the seat's number, the signature.
func (b Ballot) Bytes() []byte {
	return append(binary.BigEndian.AppendUint32(b.Message(), uint32(b.Seat)), b.Signature...)
}

// Why a ballot is not taken.
var (
	ErrBallot    = errors.New("not a ballot")
	ErrForeign   = errors.New("not a ballot of this fleet's voters")
	ErrSignature = signed.ErrSignature
)

// Parse reads a ballot and verifies nothing. What it returns points into raw. The error wraps
// [ErrBallot].
func Parse(raw []byte) (*Ballot, error) {
	b, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBallot, err)
	}
	return b, nil
}

func parse(raw []byte) (*Ballot, error) {
	b := &Ballot{Words: Words{ValidRound: Fresh}}
	tag, _, ok := document.Fields(raw, 1)
	if !ok {
		return nil, fmt.Errorf("its %d bytes do not add up", len(raw))
	}
	for ; b.Kind <= Precommit && kindTags[b.Kind] != string(tag[0]); b.Kind++ {
	}
	sizes := []int{len(tag[0]), len(Nil), 8, 4, len(Nil), len(Nil), len(Nil), 4}
	switch {
	case b.Kind > Precommit:
		return nil, fmt.Errorf("its kind is %.40q, which this kogge does not know", tag[0])
	case b.Kind != Proposal:
		sizes = sizes[:len(sizes)-1]
	}
	f, rest, ok := document.Fields(raw, len(sizes))
	if !ok || len(rest) != 4+ed25519.SignatureSize {
		return nil, fmt.Errorf("its %d bytes do not add up", len(raw))
	}
	for i, size := range sizes {
		if len(f[i]) != size {
			return nil, fmt.Errorf("field %d has %d bytes: %d wanted", i, len(f[i]), size)
		}
	}
	height, round, seat := binary.BigEndian.Uint64(f[2]), binary.BigEndian.Uint32(f[3]), binary.BigEndian.Uint32(rest)
	valid := uint32(0)
	if b.Kind == Proposal {
		valid = binary.BigEndian.Uint32(f[7])
	}
	if height < 1 || height > 1<<62 || round > MaxRound || valid > round || seat < 1 || seat > MaxRound {
		return nil, fmt.Errorf("height %d, round %d, valid round %d, seat %d: one of them cannot be", height, round, int64(valid)-1, seat)
	}
	b.Fleet, b.Roster, b.Value, b.Tree = document.Hash(f[1]), document.Hash(f[4]), document.Hash(f[5]), document.Hash(f[6])
	b.Height, b.Round, b.ValidRound, b.Seat = int64(height), int32(round), int32(valid)-1, int(seat)
	b.Signature = rest[4:]
	return b, nil
}

// Open reads a ballot of one of a height's voters, of whatever height, and verifies its
// signature. The error wraps [ErrBallot], [ErrForeign] or [ErrSignature].
func Open(raw []byte, at Height) (*Ballot, error) {
	b, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	if b.Fleet != at.Fleet {
		return nil, fmt.Errorf("%w: it is of fleet %s, and this is %s", ErrForeign, b.Fleet.Short(), at.Fleet.Short())
	}
	i := at.Index(b.Seat)
	if i < 0 {
		return nil, fmt.Errorf("%w: seat %d has no vote", ErrForeign, b.Seat)
	}
	return b, b.Verify(at.Voters[i].Key)
}

// Verify checks the signature. The error wraps [ErrSignature].
func (b Ballot) Verify(key signed.Key) error {
	if !key.Verify(b.Message(), b.Signature) {
		return fmt.Errorf("%w: %s of seat %d at height %d, round %d", ErrSignature, b.Kind, b.Seat, b.Height, b.Round)
	}
	return nil
}
