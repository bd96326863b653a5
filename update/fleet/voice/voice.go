// Package voice is what a seat says to its fleet while something is to be decided: what it thinks
// of the proposals, its ballots, and what others have asked it. Each is one signed object of the
// seat, of which the newest counts and says all that the ones before it said that still matters:
// so they lie on the shelf and travel as notices do.
//
// In come opinions and ballots that are signed each for itself, because ledgers and proofs rest on
// them; out go the bodies of notices, or the same read. Nothing of what is in them is verified
// here: it is ballot's and proposal's to say whether it counts.
package voice

import (
	"errors"
	"fmt"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/proposal"
)

// The kinds of envelopes.
const (
	OpinionsKind = "kogge/opinions/v1"
	BallotsKind  = "kogge/ballots/v1"
)

const version = 1

// What a seat may say at once. The rest waits: a seat thinks of the oldest proposals first.
const (
	MaxOpinions = 16
	MaxBallots  = 128
	MaxDrafts   = 6
	MaxAnswers  = 24
	MaxProofs   = 4
	maxBallot   = 512 // bytes
	maxAnswer   = 1 << 10
	maxEvidence = 512
	maxProof    = 2 << 10
)

// ErrVoice is of bytes that no seat says.
var ErrVoice = errors.New("not what a seat says of a vote")

// Opinions are what a seat thinks of the proposals that wait: envelopes of [proposal.OpinionKind].
type Opinions struct {
	Version  int      `json:"version"` // of this document: 1
	Opinions [][]byte `json:"opinions,omitempty"`
}

// Ballots are what a seat has to show of the height that it votes about.
type Ballots struct {
	Version int      `json:"version"` // of this document: 1
	Height  int64    `json:"height"`
	Ballots [][]byte `json:"ballots,omitempty"` // as they travel, also of seats that voted twice
	// Drafts say what the records are that the ballots are about.
	Drafts []Draft `json:"drafts,omitempty"`
	// Proofs are of double votes, as update/fleet/ballot has them.
	Proofs [][]byte `json:"proofs,omitempty"`
	// Nonce is of the question that the seat asks after a boot; zero: it asks nothing.
	Nonce document.Hash `json:"nonce,omitzero"`
	// Answers are to the questions of others.
	Answers [][]byte `json:"answers,omitempty"`
}

// Draft is what a record would decide: a proposal, or the proof of a double vote, and on which
// objects that rests, by their hashes and in their order.
type Draft struct {
	Proposal document.Hash   `json:"proposal"`
	Evidence []document.Hash `json:"evidence"`
}

// Kinds are the kinds, as the shelf has them.
func Kinds() []notice.Kind {
	return []notice.Kind{
		{
			Name: OpinionsKind, Number: 9, Voters: true, Least: 6 << 10, Most: MaxOpinions * proposal.MaxOpinion * 4 / 3, Pace: pace, Burst: burst,
			Check: func(b []byte) error { _, err := ParseOpinions(b); return err },
		},
		{
			Name: BallotsKind, Number: 10, Voters: true, Least: 12 << 10, Most: 48 << 10, Pace: pace, Burst: burst,
			Check: func(b []byte) error { _, err := ParseBallots(b); return err },
		},
	}
}

// While something is decided a seat says more than it does otherwise: some objects a round.
const pace, burst = time.Second, 48

// Encode writes what the seat thinks.
func (o Opinions) Encode() []byte {
	o.Version = version
	return encode(o)
}

// ParseOpinions reads what a seat thinks. The error wraps [ErrVoice].
func ParseOpinions(body []byte) (Opinions, error) {
	o, err := document.DecodeExact[Opinions](body, version)
	if err == nil {
		err = list("opinions", o.Opinions, MaxOpinions, proposal.MaxOpinion)
	}
	if err != nil {
		return Opinions{}, fmt.Errorf("%w: %w", ErrVoice, err)
	}
	return o, nil
}

// Encode writes what the seat shows.
func (b Ballots) Encode() []byte {
	b.Version = version
	return encode(b)
}

// ParseBallots reads what a seat shows. The error wraps [ErrVoice].
func ParseBallots(body []byte) (Ballots, error) {
	b, err := document.DecodeExact[Ballots](body, version)
	if err == nil {
		err = b.check()
	}
	if err != nil {
		return Ballots{}, fmt.Errorf("%w: %w", ErrVoice, err)
	}
	return b, nil
}

func (b Ballots) check() error {
	if b.Height < 1 {
		return fmt.Errorf("field height: %d: a fleet votes from its founding on", b.Height)
	}
	if len(b.Drafts) > MaxDrafts {
		return fmt.Errorf("field drafts: %d: %d at most", len(b.Drafts), MaxDrafts)
	}
	for i, d := range b.Drafts {
		if d.Proposal.IsZero() {
			return fmt.Errorf("field drafts[%d].proposal: there is none", i)
		}
		if n := len(d.Evidence); n < 1 || n > maxEvidence {
			return fmt.Errorf("field drafts[%d].evidence: %d: 1 to %d", i, n, maxEvidence)
		}
	}
	return errors.Join(list("ballots", b.Ballots, MaxBallots, maxBallot), list("answers", b.Answers, MaxAnswers, maxAnswer), list("proofs", b.Proofs, MaxProofs, maxProof))
}

// list wants no more entries than so many, none of them empty or of more bytes.
func list(field string, all [][]byte, most, size int) error {
	if len(all) > most {
		return fmt.Errorf("field %s: %d: %d at most", field, len(all), most)
	}
	for i, one := range all {
		if len(one) < 1 || len(one) > size {
			return fmt.Errorf("field %s[%d]: %d bytes: 1 to %d", field, i, len(one), size)
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
