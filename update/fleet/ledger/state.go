package ledger

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/checkpoint"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// State is what the records up to a height have decided. What it points to is read-only.
type State struct {
	Genesis   *fleet.Genesis
	Height    int64         // 0: the fleet is not founded
	Record    document.Hash // of the last record; zero at height 0
	Tree      document.Hash // root over all records
	Roster    roster.Roster
	Operators []Operator // by name
	Policy    fleet.Policy
	TUFRoot   document.Hash
	TUFNumber int               // the version of TUFRoot; 0: that of the genesis, which does not tell
	NodeCA    *x509.Certificate // whose signatures make nodes of the fleet
	FormerCAs []FormerCA        // the oldest first

	Isolated []int        // seats that are isolated for good, by number
	Barred   []signed.Key // of seats that have voted twice: they never vote again
	// Awaited are seats to which a decision gave a vote, and who have signed no opinion since. Seated is
	// the height of the newest such decision.
	Awaited     []int
	Seated      int64
	Claim       *Claim // an owner who waits for other keys; nil: none
	BrokenGlass int64  // height of the last record that owners signed in the place of votes; 0: none

	rosterHash document.Hash
	hadCA      []int           // seats that have, or had, the key of NodeCA, by number
	used       []document.Hash // the proposal that each height has decided, from 1; zero: none
	withdrawn  []Operator      // see [State.Without]
	revoked    func(key string) bool
	waited     document.Duration // see [State.Waited]
}

// begin is the state before the first record.
func begin(g *fleet.Genesis) State {
	return State{Genesis: g, Policy: g.Policy, TUFRoot: g.TUFRoot, NodeCA: g.NodeCA, Tree: emptyTree}
}

// next is the record that would follow, but for its value.
func (s State) next() Record {
	return Record{Version: version, Fleet: s.Fleet(), Height: s.Height + 1, Previous: s.Record, Roster: s.rosterHash}
}

// Checkpoint is how far the ledger has come.
func (s State) Checkpoint() checkpoint.Checkpoint {
	return checkpoint.Checkpoint{Fleet: s.Fleet(), Height: s.Height, Root: s.Tree}
}

// Ballots are what all ballots have in common by which the record that follows is decided, and who casts them.
func (s State) Ballots() ballot.Height {
	h := ballot.Height{
		Fleet: s.Fleet(), Number: s.Height + 1, Record: s.Record, Tree: s.Tree, Roster: s.Roster.Hash(),
		Quorum: s.Roster.Quorum(), Liars: s.Roster.Liars(),
	}
	for _, seat := range s.Roster.Seats {
		if seat.Vote {
			h.Voters = append(h.Voters, seat)
		}
	}
	return h
}

// Fleet is the fleet's id.
func (s State) Fleet() document.Hash {
	id, err := document.ParseHash(s.Genesis.ID())
	if err != nil {
		panic(err) // a Genesis has no other id
	}
	return id
}

// Next is the record that decides a value now. The error is of a value that cannot be decided
// in this state, and wraps [ErrValue]. Whether its evidence is enough is [State.Judge]'s to say.
func (s State) Next(v Value) (Record, error) {
	after, err := s, v.check()
	if size := len(v.Encode()); err == nil && size > maxValue {
		err = fmt.Errorf("%d bytes: %d at most", size, maxValue)
	}
	if err == nil {
		after, err = s.apply(v)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrValue, err)
	}
	r := s.next()
	if s.Height == 0 {
		r.Roster = after.rosterHash
	}
	r.Value = v.Hash()
	return r, nil
}

// apply is the state with a value decided; height, record and tree are the caller's to set.
func (s State) apply(v Value) (State, error) {
	p, err := v.only()
	if err != nil {
		return s, err
	}
	if s.Height == 0 && v.Founding == nil {
		return s, fmt.Errorf("field %s: the first record is the founding", p.field)
	}
	return p.apply(s)
}

func (s State) found(f *Founding) (State, error) {
	if s.Height > 0 {
		return s, errors.New("field founding: the fleet is founded already")
	}
	if s.Genesis.Alone() {
		return s, errors.New("field founding: the fleet's genesis is of version 1")
	}
	r := f.Roster
	owner, err := OwnerOf(s.Genesis)
	if err != nil {
		return s, err
	}
	same := func(a, b roster.Owner) bool {
		return a.Name == b.Name && a.Threshold == b.Threshold && slices.Equal(a.Keys, b.Keys)
	}
	if !slices.EqualFunc(r.Owners, []roster.Owner{owner}, same) {
		return s, errors.New("field founding.roster.owners: not the owner that the genesis names")
	}
	if votes := r.Votes(); r.Rule != roster.RuleFor(votes) || votes > s.Policy.Votes {
		return s, fmt.Errorf("field founding.roster.rule: %s with %d votes: %s, and %d votes at most", r.Rule, votes, roster.RuleFor(votes), s.Policy.Votes)
	}
	if n := len(r.Seats); r.Given != n || r.Seats[n-1].Number != n {
		return s, fmt.Errorf("field founding.roster.seats: %d seats are numbered 1 to %d", n, n)
	}
	if len(f.Cluster) == 0 {
		return s, errors.New("field founding.roster.seats: no member runs etcd")
	}
	// Whoever made the fleet holds its CAs' keys: a list without him comes from a folder that
	// does not know whom the fleet has signed.
	if o, ok := (State{Operators: f.Operators}).Operator(s.first()); !ok || o.Role != fleet.RoleAdmin {
		return s, fmt.Errorf("field founding.operators: the fleet's first operator, key %s, is not among them as admin", s.first().Short())
	}
	s.Roster, s.rosterHash, s.hadCA = r, r.Hash(), s.havingCA(r)
	return s.withOperators(f.Operators)
}

// first is the key of the operator who made the fleet.
func (s State) first() document.Hash {
	key, err := document.ParseHash(s.Genesis.FirstOperatorID())
	if err != nil {
		panic(err) // a Genesis has no other
	}
	return key
}

func (s State) setOperators(o *Operators) (State, error) {
	// The record lists those, too, whose keys were revoked: else nobody could take them off it.
	list := slices.SortedFunc(slices.Values(slices.Concat(s.Operators, s.withdrawn)), byName)
	for i, name := range o.Remove {
		if find(list, name) == nil {
			return s, fmt.Errorf("field operators.remove[%d]: there is no operator %s", i, name)
		}
		list = slices.DeleteFunc(list, func(op Operator) bool { return op.Name == name })
	}
	for _, op := range o.Set {
		if there := find(list, op.Name); there != nil {
			*there = op
			continue
		}
		list = append(list, op)
		slices.SortFunc(list, byName)
	}
	return s.withOperators(list)
}

func byName(a, b Operator) int { return strings.Compare(a.Name, b.Name) }

// withOperators is the state with other operators: at least one of them an admin, and no key
// of two. Who knows that a key was revoked counts on no admin of that key.
func (s State) withOperators(list []Operator) (State, error) {
	if len(list) > maxOperators {
		return s, fmt.Errorf("field operators: %d: %d at most", len(list), maxOperators)
	}
	admin, keys := false, make(map[document.Hash]string)
	for _, o := range list {
		if before, ok := keys[o.Key]; ok {
			return s, fmt.Errorf("field operators: %s and %s have one key", before, o.Name)
		}
		keys[o.Key] = o.Name
		admin = admin || o.Role == fleet.RoleAdmin && s.Withdrawn(o.Key) == nil
	}
	if !admin {
		return s, errors.New("field operators: no admin is left")
	}
	s.Operators = list
	return s, nil
}

// Operator is the operator to whom a key belongs, by its fingerprint; false: nobody.
func (s State) Operator(key document.Hash) (Operator, bool) {
	if i := slices.IndexFunc(s.Operators, func(o Operator) bool { return o.Key == key }); i >= 0 {
		return s.Operators[i], true
	}
	return Operator{}, false
}
