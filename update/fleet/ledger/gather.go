package ledger

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"kogge.example/update/fleet/ballot"
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
	c := s.choice(v, proposal.ID(e))
	for _, raw := range known {
		if bytes.HasPrefix(raw, []byte("{")) {
			c.hearOwner(raw)
		} else {
			c.hearNode(raw)
		}
	}
	evidence := append([][]byte{e.Bytes()}, c.chosen()...)
	v = v.Resting(evidence)
	return v, evidence, s.Judge(v, evidence)
}

// choice is what a chair takes of all that it knows: of each whose word the decision needs one object, and
// where several would do the smallest. So nobody who says much leaves no room for what others say.
type choice struct {
	state State
	value Value
	id    document.Hash // of the proposal

	awaited map[signed.Key]bool        // seats whose opinion the decision waits for
	seats   map[signed.Key]roster.Seat // whose nodes have to ask for them
	owners  map[string]roster.Owner    // whose yes counts, by the keys that are theirs
	fresh   map[string]roster.Owner    // who have to say yes with the keys that they get
	newest  map[string]proposal.Answer // of the owners
	said    map[any][]byte             // what is chosen, by [signed.Key] of the seat, [ownerSays] or [freshSays]
}

type (
	ownerSays string // with the keys that are his
	freshSays string // with those that he gets
)

func (s State) choice(v Value, id document.Hash) *choice {
	c := &choice{
		state: s, value: v, id: id, seats: v.newSeats(s.Roster), awaited: make(map[signed.Key]bool),
		owners: make(map[string]roster.Owner), fresh: make(map[string]roster.Owner),
		newest: make(map[string]proposal.Answer), said: make(map[any][]byte),
	}
	row, _ := decision.Of(v.Kind())
	if after, err := s.apply(v); err == nil && row.Seating && s.waits(v, after.Roster) != nil {
		for _, n := range s.Awaited {
			seat, _ := s.Roster.Seat(n)
			c.awaited[seat.Key] = true
		}
	}
	for _, o := range v.newOwners() {
		c.fresh[o.Name] = o
	}
	for _, o := range s.Roster.Owners {
		if v.Owners != nil || v.Isolate != nil && o.Name == s.Genesis.Name {
			c.owners[o.Name] = o
		}
	}
	return c
}

// take takes an object that is verified if there is none yet, or it is the smaller one.
func (c *choice) take(of any, raw []byte, verify func() error) {
	has, there := c.said[of]
	if there && cmp.Or(cmp.Compare(len(raw), len(has)), bytes.Compare(raw, has)) >= 0 {
		return
	}
	if verify() == nil {
		c.said[of] = raw
	}
}

// hearNode hears an opinion, or a request for a seat. What costs time is done last, and not for what
// nobody needs.
func (c *choice) hearNode(raw []byte) {
	e, err := signed.Parse(raw)
	if err != nil {
		return
	}
	switch fleet := c.state.Fleet(); {
	case e.Kind == proposal.OpinionKind && c.awaited[e.By]:
		if _, o, err := proposal.OpenOpinion(e, fleet, c.state.Roster); err == nil && o.Height >= c.state.Seated {
			c.take(e.By, raw, e.Verify)
		}
	case e.Kind == roster.RequestKind:
		seat, wanted := c.seats[e.By]
		if !wanted {
			return
		}
		if r, err := roster.ReadRequest(e, fleet); err == nil && r.For(seat) == nil {
			c.take(e.By, raw, e.Verify)
		}
	}
}

// hearOwner hears an owner's answer.
func (c *choice) hearOwner(raw []byte) {
	a, err := proposal.ParseAnswer(raw)
	if err != nil || a.Proposal != c.id {
		return
	}
	verified := func(o roster.Owner) func() error {
		return func() error { return a.Verify(c.state.Fleet(), o, o.Threshold) }
	}
	if o, ok := c.owners[a.Owner]; ok {
		was, there := c.newest[a.Owner]
		if newer, _ := proposal.Newest([]proposal.Answer{was, a}, c.id, a.Owner); (!there || newer.Number == a.Number && newer.Yes == a.Yes) && verified(o)() == nil {
			c.newest[a.Owner], c.said[ownerSays(a.Owner)] = a, raw
		}
	}
	if o, ok := c.fresh[a.Owner]; ok && a.Yes {
		c.take(freshSays(a.Owner), raw, verified(o))
	}
}

// chosen is what the decision rests on besides the proposal: of the owners' answers the yes of as many as it
// needs, the one whose keys change before others.
func (c *choice) chosen() (all [][]byte) {
	votes, names := make(map[string]int), []string{}
	for _, seat := range c.state.Roster.Seats {
		if seat.Vote {
			votes[seat.Owner]++
		}
	}
	for name, a := range c.newest {
		if a.Yes {
			names = append(names, name)
		}
	}
	changes := func(name string) int {
		if d := c.value.Owners; d != nil && d.Owner.Name == name {
			return 0
		}
		return 1
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(changes(a), changes(b)), cmp.Compare(votes[b], votes[a]), cmp.Compare(a, b))
	})
	has, needed := 0, c.state.yesNeeded(c.value)
	for _, name := range names {
		if has < needed {
			all = append(all, c.said[ownerSays(name)])
		}
		has += votes[name]
	}
	for of, raw := range c.said {
		if _, own := of.(ownerSays); !own && !slices.ContainsFunc(all, func(has []byte) bool { return bytes.Equal(has, raw) }) {
			all = append(all, raw)
		}
	}
	slices.SortFunc(all, bytes.Compare)
	return all
}

// Accuse is the decision that the proof of a double vote leads to, which needs no operator, and what it
// rests on. What the seats think of it they say of its [State.Topic].
func (s State) Accuse(proof []byte) (Value, [][]byte, error) {
	p, err := ballot.ParseProof(proof)
	if err != nil {
		return Value{}, nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	evidence := [][]byte{proof}
	v := Value{Version: version, DoubleVote: &decision.DoubleVote{Seat: p.One.Seat}}.Resting(evidence)
	return v, evidence, s.Judge(v, evidence)
}

// EndWaiting is the decision about an owner who waits for other keys: that he gets them, or, with the
// answer of an old key that objects, that nothing comes of it. It needs no operator. What the seats
// think of it they say of its [State.Topic]; an objection may come at any time, and that the time is over is
// for each to say, by [State.Waited].
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
