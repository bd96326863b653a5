package ledger

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// What a decision rests on, at most. The bytes are those in a certificate, and leave it room for the signatures
// of as many seats as may vote: so what voters may decide is what a ledger can take.
const (
	maxEvidence      = 4096 // objects
	maxEvidenceBytes = maxCertificate - 1<<10 - roster.MaxVotes*signatureBytes
	signatureBytes   = 160 // of a signature in a certificate, with the longest number
)

// evidenceBytes are those of objects as a certificate has them: base64, in quotes, a line each.
func evidenceBytes(objects [][]byte) (n int) {
	for _, o := range objects {
		n += len(`    "",`+"\n") + base64.StdEncoding.EncodedLen(len(o))
	}
	return n
}

// EvidenceRoot is the root of the RFC 6962 tree whose leaves are signed objects, in their order;
// zero: there are none.
func EvidenceRoot(objects [][]byte) document.Hash {
	if len(objects) == 0 {
		return document.Hash{}
	}
	var hashes tree
	for i, o := range objects {
		more, err := tlog.StoredHashes(int64(i), o, hashes)
		if err != nil {
			panic(err) // all hashes that it asks for are there
		}
		hashes = append(hashes, more...)
	}
	root, err := tlog.TreeHash(int64(len(objects)), hashes)
	if err != nil {
		panic(err)
	}
	return document.Hash(root)
}

// Resting is the value with the evidence that it is to rest on.
func (v Value) Resting(evidence [][]byte) Value {
	v.Evidence = EvidenceRoot(evidence)
	return v
}

// evidence is what the objects say on which a decision rests.
type evidence struct {
	id       document.Hash // of the proposal; zero: there is none
	proposed proposal.Proposal
	by       document.Hash            // the key of the operator who proposed
	answers  []proposal.Answer        // of owners who are there
	fresh    map[string]bool          // owners who answer with keys that the decision gives them
	opinions map[int]proposal.Opinion // by seat
	requests map[signed.Key]roster.Request
	proof    *ballot.Proof // of a double vote
}

// read reads the objects on which a value rests, and verifies their signatures. All have to be about
// this decision.
func (s State) read(v Value, objects [][]byte, signatures bool) (ev evidence, err error) {
	if len(objects) > maxEvidence {
		return ev, fmt.Errorf("field evidence: %d objects: %d at most", len(objects), maxEvidence)
	}
	if n := evidenceBytes(objects); n > maxEvidenceBytes {
		return ev, fmt.Errorf("field evidence: %d bytes in a certificate: %d at most", n, maxEvidenceBytes)
	}
	if root := EvidenceRoot(objects); root != v.Evidence {
		return ev, fmt.Errorf("field evidence: the value names %s, and the root of what is there is %s", v.Evidence.Short(), root.Short())
	}
	ev = evidence{fresh: make(map[string]bool), opinions: make(map[int]proposal.Opinion), requests: make(map[signed.Key]roster.Request)}
	known := make(map[document.Hash]bool)
	for i, raw := range objects {
		field := fmt.Sprintf("field evidence[%d]", i)
		sum := document.HashOf(raw)
		if known[sum] {
			return ev, fmt.Errorf("%s: it is there twice", field)
		}
		known[sum] = true
		switch {
		case ballot.IsProof(raw):
			err = ev.twice(v, raw)
		case bytes.HasPrefix(raw, []byte("{")):
			err = ev.answer(s, v, raw, signatures)
		default:
			err = ev.object(s, v, raw, signatures)
		}
		if err != nil {
			return ev, fmt.Errorf("%s: %w", field, err)
		}
	}
	return ev, nil
}

func (ev *evidence) twice(v Value, raw []byte) error {
	if v.DoubleVote == nil || ev.proof != nil {
		return fmt.Errorf("%w is wanted by a decision of kind %s", ballot.ErrProof, v.Kind())
	}
	p, err := ballot.ParseProof(raw)
	ev.proof = &p
	return err
}

// isAbout wants an answer or an opinion to be about the proposal that stands before it, or about what is
// decided without one.
func (ev *evidence) isAbout(otherwise, id document.Hash) error {
	about := ev.id
	if about.IsZero() {
		about = otherwise
	}
	switch {
	case about.IsZero():
		return errors.New("no proposal stands before it")
	case id != about:
		return fmt.Errorf("it is about %s, and the decision is about %s", id.Short(), about.Short())
	}
	return nil
}

// topic is what opinions of a value are about that no operator proposes; zero: one does.
func (s State) topic(v Value) (about document.Hash) {
	if row, _ := decision.Of(v.Kind()); row.Proposer == decision.Voter {
		about = s.Topic(v)
	}
	return about
}

func (ev *evidence) answer(s State, v Value, raw []byte, signatures bool) error {
	a, err := proposal.ParseAnswer(raw)
	if err != nil {
		return err
	}
	var waits document.Hash
	if v.Settle != nil {
		waits = v.Settle.Record
	}
	if err := ev.isAbout(waits, a.Proposal); err != nil {
		return fmt.Errorf("%w: %w", proposal.ErrAnswer, err)
	}
	owner, there := s.Roster.Owner(a.Owner)
	needed := owner.Threshold
	if v.Settle != nil || v.Kind().OneKey() {
		needed = 1
	}
	// By the keys that are his, by those that the decision gives him, who says so that somebody has them, or
	// by both: some of them may be the same.
	err = errors.New("the fleet has no such owner")
	if there {
		if err = verified(a, s.Fleet(), owner, needed, signatures); err == nil {
			ev.answers = append(ev.answers, a)
		}
	}
	for _, o := range v.newOwners() {
		if o.Name == a.Owner && a.Yes && verified(a, s.Fleet(), o, o.Threshold, signatures) == nil {
			ev.fresh[o.Name], err = true, nil
		}
	}
	return err
}

func verified(a proposal.Answer, fleet document.Hash, owner roster.Owner, needed int, signatures bool) error {
	if !signatures {
		return nil
	}
	return a.Verify(fleet, owner, needed)
}

// newOwners are the owners who get keys by a value.
func (v Value) newOwners() []roster.Owner {
	switch {
	case v.Seat != nil:
		return v.Seat.Owners
	case v.Owners != nil:
		return []roster.Owner{v.Owners.Owner}
	}
	return nil
}

// object reads an envelope: a proposal, an opinion, or a node's request for a seat.
func (ev *evidence) object(s State, v Value, raw []byte, signatures bool) error {
	e, err := signed.Parse(raw)
	if err == nil && signatures {
		err = e.Verify()
	}
	if err != nil {
		return err
	}
	switch e.Kind {
	case proposal.Kind:
		if !ev.id.IsZero() {
			return fmt.Errorf("%w: there is another one", proposal.ErrProposal)
		}
		if ev.proposed, ev.by, err = proposal.Open(e, s.Fleet()); err != nil {
			return err
		}
		ev.id = proposal.ID(e)
		return nil
	case proposal.OpinionKind:
		seat, o, err := proposal.OpenOpinion(e, s.Fleet(), s.Roster)
		if err != nil {
			return err
		}
		// Of a seat that is awaited any opinion is one that it has signed.
		if err := ev.isAbout(s.topic(v), o.Proposal); err != nil && !slices.Contains(s.Awaited, seat.Number) {
			return fmt.Errorf("%w: %w", proposal.ErrOpinion, err)
		}
		if was, there := ev.opinions[seat.Number]; !there || o.Height > was.Height {
			ev.opinions[seat.Number] = o
		}
		return nil
	case roster.RequestKind:
		r, err := roster.ReadRequest(e, s.Fleet())
		if err != nil {
			return err
		}
		if _, wanted := v.newSeats(s.Roster)[e.By]; !wanted {
			return fmt.Errorf("%w: the decision gives key %s none", roster.ErrRequest, e.By.ID().Short())
		}
		ev.requests[e.By] = r
		return nil
	}
	return fmt.Errorf("%w: its kind is %.70q, on which no decision of this release rests: %w", signed.ErrEnvelope, e.Kind, document.ErrNewer)
}

// yes says whether an owner says yes.
func (ev *evidence) yes(owner string) bool {
	a, ok := proposal.Newest(ev.answers, ev.id, owner)
	return ok && a.Yes
}
