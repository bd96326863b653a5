package ledger

import (
	"bytes"
	"fmt"
	"slices"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Gather is what a chair puts forward for a proposal: its value, resting on those of the objects that are
// known which the decision needs, and these. The error says what is wrong with the proposal or what is still
// lacking, as [State.Judge] does; objects that have nothing to do with it are no error.
func (s State) Gather(e signed.Envelope, known [][]byte) (Value, [][]byte, error) {
	v, _, err := s.Proposed(e)
	if err != nil {
		return Value{}, nil, err
	}
	evidence := [][]byte{e.Bytes()}
	id := proposal.ID(e)
	said := s.answersTo(v, id, known)
	for _, raw := range known {
		if s.needs(v, id, raw, said) && !slices.ContainsFunc(evidence, func(has []byte) bool { return bytes.Equal(has, raw) }) {
			evidence = append(evidence, raw)
		}
	}
	v = v.Resting(evidence)
	return v, evidence, s.Judge(v, evidence)
}

// answersTo are the owners' answers to a proposal, where they are needed.
func (s State) answersTo(v Value, id document.Hash, known [][]byte) (all []proposal.Answer) {
	if len(v.newOwners()) == 0 && v.Isolate == nil {
		return nil
	}
	for _, raw := range known {
		ev := evidence{id: id, fresh: make(map[string]bool)}
		if bytes.HasPrefix(raw, []byte("{")) && ev.answer(s, v, raw, true) == nil {
			if a, err := proposal.ParseAnswer(raw); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}

// needs says whether an object is one on which the decision has to rest.
func (s State) needs(v Value, id document.Hash, raw []byte, answers []proposal.Answer) bool {
	if bytes.HasPrefix(raw, []byte("{")) {
		a, err := proposal.ParseAnswer(raw)
		if err != nil || !slices.ContainsFunc(answers, func(known proposal.Answer) bool { return bytes.Equal(known.Encode(), raw) }) {
			return false
		}
		newest, ok := proposal.Newest(answers, id, a.Owner)
		return ok && newest.Yes && a.Yes
	}
	ev := evidence{id: id, opinions: make(map[int]proposal.Opinion), requests: make(map[signed.Key]roster.Request)}
	if isTwice(raw) || ev.object(s, v, raw, true) != nil {
		return false
	}
	for n, o := range ev.opinions {
		return slices.Contains(s.Awaited, n) && o.Height >= s.Seated
	}
	for key, r := range ev.requests {
		seat := v.newSeats(s.Roster)[key]
		return r.Name == seat.Name && r.Journal == seat.Journal
	}
	return false
}

// Accuse is the decision that the proof of a double vote leads to, which needs no operator, and what it
// rests on. What the seats think of it they say of the SHA-256 of the proof.
func (s State) Accuse(proof []byte) (Value, [][]byte, error) {
	t, err := parseTwice(proof)
	if err != nil {
		return Value{}, nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	evidence := [][]byte{proof}
	v := Value{Version: version, DoubleVote: &decision.DoubleVote{Seat: int(t.one.seat)}}.Resting(evidence)
	return v, evidence, s.Judge(v, evidence)
}

// EndWaiting is the decision about an owner who waits for other keys: that he gets them, or, with the
// answer of an old key that objects, that nothing comes of it. It needs no operator. What the seats
// think of it they say of the record that decided the waiting; an objection may come at any time, and that
// the time is over is for them to say.
func (s State) EndWaiting(objection []byte) (v Value, evidence [][]byte, err error) {
	if s.Claim == nil {
		return v, nil, fmt.Errorf("%w: no owner waits for other keys", ErrValue)
	}
	if objection != nil {
		evidence = [][]byte{objection}
	}
	v = Value{Version: version, Settle: &decision.Settle{Record: s.Claim.Record, Veto: objection != nil}}.Resting(evidence)
	return v, evidence, s.Judge(v, evidence)
}

// Answered reads what an owner answers to a proposal of a kind, and verifies it by the keys that are his
// now: one for a rollout, for all else as many as act as him. The error wraps [proposal.ErrAnswer].
func (s State) Answered(k decision.Kind, raw []byte) (proposal.Answer, error) {
	a, err := proposal.ParseAnswer(raw)
	if err != nil {
		return proposal.Answer{}, err
	}
	owner, there := s.Roster.Owner(a.Owner)
	if !there {
		return proposal.Answer{}, fmt.Errorf("%w: the fleet has no owner %s", proposal.ErrAnswer, a.Owner)
	}
	needed := owner.Threshold
	if k.OneKey() {
		needed = 1
	}
	if err := a.Verify(s.Fleet(), owner, needed); err != nil {
		return proposal.Answer{}, err
	}
	return a, nil
}

// Consents reads an answer to the proposal of a value as a decision may rest on it: [State.Answered], or a
// yes by the keys that an owner is to get by it. by is the owner with the keys by which it was verified,
// and fresh says that he is to get them. The error wraps [proposal.ErrAnswer].
func (s State) Consents(v Value, raw []byte) (a proposal.Answer, by roster.Owner, fresh bool, err error) {
	if a, err = s.Answered(v.Kind(), raw); err == nil {
		by, _ = s.Roster.Owner(a.Owner)
		return a, by, false, nil
	}
	said, parsed := proposal.ParseAnswer(raw)
	if parsed != nil {
		return a, by, false, parsed
	}
	for _, o := range v.newOwners() {
		if o.Name == said.Owner && said.Yes && said.Verify(s.Fleet(), o, o.Threshold) == nil {
			return said, o, true, nil
		}
	}
	return a, by, false, err
}

// Objects reads an answer that ends the waiting of an owner for other keys: a no by one of the keys that
// are his. by is the owner with these. The error wraps [proposal.ErrAnswer].
func (s State) Objects(raw []byte) (a proposal.Answer, by roster.Owner, err error) {
	if a, err = proposal.ParseAnswer(raw); err != nil {
		return a, by, err
	}
	if s.Claim == nil || a.Proposal != s.Claim.Record {
		return a, by, fmt.Errorf("%w: no owner waits for other keys by record %s", proposal.ErrAnswer, a.Proposal.Short())
	}
	by, there := s.Roster.Owner(a.Owner)
	if !there || by.Name != s.Claim.Owner.Name || a.Yes {
		return a, by, fmt.Errorf("%w: to record %s only a no of owner %s says anything", proposal.ErrAnswer, a.Proposal.Short(), s.Claim.Owner.Name)
	}
	return a, by, a.Verify(s.Fleet(), by, 1)
}

// NewSeats are the seats that a value gives to nodes which are new to the fleet, by key. Each of them has to
// ask for it: see [roster.Request.For].
func (s State) NewSeats(v Value) map[signed.Key]roster.Seat { return v.newSeats(s.Roster) }
