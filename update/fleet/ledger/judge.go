package ledger

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Proposed reads a proposal, and says who has made it and of what: whether it could be decided now, but
// for the answers and opinions that it may need. It is what a voter asks to have an opinion. The error
// is that of [State.Offered], or wraps [ErrValue].
func (s State) Proposed(e signed.Envelope) (Value, Operator, error) {
	v, o, err := s.Offered(e)
	if err != nil {
		return Value{}, Operator{}, err
	}
	if _, err := s.apply(v); err != nil {
		return Value{}, Operator{}, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, o, nil
}

// Why a proposal does not count, besides what is wrong with it.
var (
	ErrEarly   = errors.New("the ledger is not that far yet")
	ErrDecided = errors.New("the proposal was decided already")
)

// Offered is [State.Proposed] of a proposal by somebody who may propose that, also where it could not be
// decided now: another decision may come before it, or was in its way. The error wraps
// [proposal.ErrProposal] or [ErrValue]; [ErrWithdrawn] where the operator's key was revoked, [ErrEarly]
// where the ledger is not at the proposal's height, and [ErrDecided].
func (s State) Offered(e signed.Envelope) (Value, Operator, error) {
	p, by, err := proposal.Open(e, s.Fleet())
	if err == nil {
		err = e.Verify()
	}
	if err != nil {
		return Value{}, Operator{}, err
	}
	if err := s.Withdrawn(by); err != nil {
		return Value{}, Operator{}, err
	}
	v, err := ParseValue(p.Value)
	if err != nil {
		return Value{}, Operator{}, err
	}
	o, err := s.proposable(v, &evidence{id: proposal.ID(e), proposed: p, by: by})
	if err != nil {
		return Value{}, Operator{}, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, o, nil
}

// proposable wants a value to be what a listed operator has proposed, who may.
func (s State) proposable(v Value, ev *evidence) (Operator, error) {
	plain := v
	plain.Evidence = document.Hash{}
	switch {
	case ev.id.IsZero():
		return Operator{}, fmt.Errorf("field evidence: no operator's proposal is there, and a decision of kind %s needs one", v.Kind())
	case !bytes.Equal(ev.proposed.Value, plain.Encode()):
		return Operator{}, errors.New("field evidence: the operator has proposed something else")
	case ev.proposed.Height > s.Height:
		return Operator{}, fmt.Errorf("field evidence: %w: the proposal is of height %d, and the ledger is at %d", ErrEarly, ev.proposed.Height, s.Height)
	case slices.Contains(s.used[min(max(ev.proposed.Height, 0), int64(len(s.used))):], ev.id):
		return Operator{}, fmt.Errorf("field evidence: %w, and is decided once", ErrDecided)
	}
	row, ok := decision.Of(v.Kind())
	if !ok || row.Proposer != decision.Operator {
		return Operator{}, fmt.Errorf("field evidence: no operator proposes a decision of kind %s", v.Kind())
	}
	o, listed := s.Operator(ev.by)
	if !listed {
		return Operator{}, fmt.Errorf("field evidence: who proposed it, key %s, is no operator of the fleet's ledger", ev.by.Short())
	}
	if !o.Role.AtLeast(s.Policy.Propose) {
		return Operator{}, fmt.Errorf("field evidence: %s, who proposed it, has the role %s, and the policy wants %s", o.Name, o.Role, s.Policy.Propose)
	}
	return o, nil
}

// Judge says why a value cannot be decided now by votes, with the evidence that it names: what a voter asks
// before it prevotes for it. It refuses what a ledger would, and besides what this node knows better: known are
// owners' answers that it has, of which one may take back what the evidence says, and [State.Waited] says how long
// it has counted. The error wraps [ErrValue].
func (s State) Judge(v Value, evidence [][]byte, known ...[]byte) error {
	err := v.check()
	if err == nil && v.BreakGlass != nil {
		err = errors.New("field breakGlass: owners alone break the glass")
	}
	if err == nil {
		err = s.judge(v, evidence, known)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrValue, err)
	}
	return nil
}

func (s State) judge(v Value, objects, known [][]byte) error {
	if s.Height == 0 || v.Founding != nil {
		_, _, err := s.decide(v, objects, true)
		return err
	}
	ev, err := s.read(v, objects, true)
	if err != nil {
		return err
	}
	ev.answers = append(ev.answers, s.contrary(v, ev.id, known)...)
	if _, err := s.decided(v, &ev, true); err != nil {
		return err
	}
	if v.Settle == nil || v.Settle.Veto {
		return nil
	}
	if s.objects(&ev) {
		return fmt.Errorf("field settle.veto: an old key of owner %s objects", s.Claim.Owner.Name)
	}
	if left := decision.Objection(s.Policy) - s.waited; left > 0 {
		return fmt.Errorf("field settle.record: for %s more of this node's running time an old key of owner %s may object", left, s.Claim.Owner.Name)
	}
	return nil
}

// contrary are those of the answers to a value that are known which speak against it: of each owner the newest
// one, if it is a no, and all that object to new keys. What else is known is no evidence.
func (s State) contrary(v Value, id document.Hash, known [][]byte) []proposal.Answer {
	ev := evidence{id: id, fresh: make(map[string]bool)}
	for _, raw := range known {
		if bytes.HasPrefix(raw, []byte("{")) {
			_ = ev.answer(s, v, raw, true) // of something else, or of nobody
		}
	}
	return slices.DeleteFunc(slices.Clone(ev.answers), func(a proposal.Answer) bool {
		newest, _ := proposal.Newest(ev.answers, a.Proposal, a.Owner)
		return a.Yes || newest.Yes && v.Settle == nil || v.Settle != nil && v.Settle.Veto
	})
}

// Waited is the state for a node that has counted so much of its running time since it took the record by which
// an owner waits for other keys. Without it [State.Judge] takes it that nothing was counted.
func (s State) Waited(d document.Duration) State {
	s.waited = d
	return s
}

// Topic is what seats' opinions are about that nobody has proposed, as they are about a proposal's id: what would
// be decided, whatever it rests on. So one who votes twice in many ways is accused once.
func (s State) Topic(v Value) document.Hash {
	v.Evidence = document.Hash{}
	id := s.Fleet()
	return document.HashOf(document.Message("kogge/topic/v1", id[:], v.Encode()))
}

// decide is the state with a value decided that its evidence allows, and the id of the proposal that is
// decided by it; height, record and tree are the caller's to set.
func (s State) decide(v Value, objects [][]byte, signatures bool) (after State, id document.Hash, err error) {
	if s.Height == 0 || v.Founding != nil {
		if after, err = s.apply(v); err == nil && (len(objects) > 0 || !v.Evidence.IsZero()) {
			err = errors.New("field evidence: a founding rests on its owner's word alone")
		}
		return after, id, err
	}
	ev, err := s.read(v, objects, signatures)
	if err == nil {
		after, err = s.decided(v, &ev, signatures)
	}
	return after, ev.id, err
}

// decided is the state with a value decided that rests on what was read.
func (s State) decided(v Value, ev *evidence, signatures bool) (after State, err error) {
	row, _ := decision.Of(v.Kind())
	switch {
	case row.Proposer == decision.Operator:
		if _, err := s.proposable(v, ev); err != nil {
			return s, err
		}
	case !ev.id.IsZero():
		return s, fmt.Errorf("field evidence: no operator proposes a decision of kind %s", v.Kind())
	}
	// Whom the last decision gave a vote has used it who has signed an opinion since.
	s.Awaited = slices.DeleteFunc(slices.Clone(s.Awaited), func(n int) bool {
		o, has := ev.opinions[n]
		return has && o.Height >= s.Seated
	})
	if after, err = s.apply(v); err != nil {
		return s, err
	}
	if row.Seating {
		if err := s.waits(v, after.Roster); err != nil {
			return s, err
		}
	}
	return after, s.consented(v, after, ev, signatures)
}

// waits says why the seats cannot be changed yet; nil: they can. Those for whom it waits can be taken
// away, or replaced: else one who never comes would stop all changes.
func (s State) waits(v Value, after roster.Roster) error {
	if len(s.Awaited) == 0 {
		return nil
	}
	for _, n := range roster.Changed(s.Roster, after) {
		_, there := s.Roster.Seat(n)
		now, _ := after.Seat(n)
		if there && slices.Contains(s.Awaited, n) && !now.Vote || !there && v.Replace != nil {
			continue
		}
		return fmt.Errorf("field evidence: seats %v got a vote at height %d, and before other seats change each of them has to sign an opinion", s.Awaited, s.Seated)
	}
	return nil
}

// consented says which signatures a decision lacks, besides those of votes, by the table's column.
func (s State) consented(v Value, after State, ev *evidence, signatures bool) error {
	if err := requested(v.newSeats(s.Roster), ev); err != nil {
		return err
	}
	for _, o := range v.newOwners() {
		if !ev.fresh[o.Name] {
			return fmt.Errorf("field evidence: %d of the keys that owner %s gets are to say yes, so that it is known that somebody has them", o.Threshold, o.Name)
		}
	}
	switch {
	case v.Isolate != nil:
		if beyond := after.beyond(); beyond != nil && !v.Isolate.Lift && !ev.yes(s.Genesis.Name) {
			return fmt.Errorf("field isolate.seats: %w: that needs a yes of owner %s", beyond, s.Genesis.Name)
		}
	case v.Owners != nil:
		return s.rekeyed(v, ev)
	case v.Settle != nil && v.Settle.Veto:
		if !s.objects(ev) {
			return fmt.Errorf("field evidence: no old key of owner %s objects", s.Claim.Owner.Name)
		}
	case v.DoubleVote != nil:
		return s.votedTwice(v.DoubleVote, ev.proof, signatures)
	}
	return nil
}

// objects says whether an old key of the owner who waits says no to it.
func (s State) objects(ev *evidence) bool {
	return slices.ContainsFunc(ev.answers, func(a proposal.Answer) bool { return a.Owner == s.Claim.Owner.Name && !a.Yes })
}

// requested wants each new node to have asked for the seat that it gets.
func requested(seats map[signed.Key]roster.Seat, ev *evidence) error {
	byNumber := func(a, b roster.Seat) int { return cmp.Compare(a.Number, b.Number) }
	for _, seat := range slices.SortedFunc(maps.Values(seats), byNumber) {
		r, has := ev.requests[seat.Key]
		if !has {
			return fmt.Errorf("field evidence: the node of seat %d (%s) has not asked for it with key %s", seat.Number, seat.Name, seat.Key.ID().Short())
		}
		if err := r.For(seat); err != nil {
			return fmt.Errorf("field evidence: %w", err)
		}
	}
	return nil
}

// rekeyed wants those to say yes who may give an owner other keys.
func (s State) rekeyed(v Value, ev *evidence) error {
	if d := v.Owners; !d.Lost && !ev.yes(d.Owner.Name) {
		return fmt.Errorf("field evidence: owner %s says no yes with the keys that are his", d.Owner.Name)
	}
	if yes, needed := s.Roster.VotesOf(ev.yes), s.yesNeeded(v); yes < needed {
		return fmt.Errorf("field evidence: owners of %d votes say yes, and those of %d have to", yes, needed)
	}
	return nil
}

// yesNeeded is of how many votes the owners have to say yes to a decision.
func (s State) yesNeeded(v Value) int {
	switch {
	case v.Owners == nil:
		return 1 // of the one owner who is asked, if he is
	case v.Owners.Lost:
		return roster.LostVotes(s.Roster.Votes())
	}
	return s.Roster.Quorum()
}

// votedTwice wants the proof of it.
func (s State) votedTwice(d *decision.DoubleVote, proof *ballot.Proof, signatures bool) error {
	if proof == nil {
		return errors.New("field evidence: there are no two ballots that contradict each other")
	}
	err := proof.Contradicts(s.Fleet())
	if err == nil && proof.One.Seat != d.Seat {
		err = fmt.Errorf("%w: it is of seat %d, and seat %d is meant", ballot.ErrProof, proof.One.Seat, d.Seat)
	}
	if seat, _ := s.Roster.Seat(d.Seat); err == nil && signatures {
		err = proof.Verify(seat.Key)
	}
	if err != nil {
		return fmt.Errorf("field evidence: %w", err)
	}
	return nil
}
