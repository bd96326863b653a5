package ledger

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
)

// FormerCA is a node CA in whose place there is another one. What it has signed opens enrolment for some
// time more, which each node counts by itself.
type FormerCA struct {
	Certificate *x509.Certificate
	Height      int64 // of the record that replaced it
}

// Claim is an owner whose keys are lost, and who waits for others.
type Claim struct {
	Owner  roster.Owner // as he will be
	Height int64        // of the record that decided it
	Record document.Hash
}

func (s State) isolate(d *decision.Isolate) (State, error) {
	if err := s.present("isolate.seats", d.Seats); err != nil {
		return s, err
	}
	for i, n := range d.Seats {
		switch is := slices.Contains(s.Isolated, n); {
		case is && !d.Lift:
			return s, fmt.Errorf("field isolate.seats[%d]: seat %d is isolated for good already", i, n)
		case !is && d.Lift:
			return s, fmt.Errorf("field isolate.seats[%d]: seat %d is not isolated for good", i, n)
		}
	}
	if d.Lift {
		s.Isolated = slices.DeleteFunc(slices.Clone(s.Isolated), func(n int) bool { return slices.Contains(d.Seats, n) })
		return s, nil
	}
	s.Isolated = slices.Concat(s.Isolated, d.Seats)
	slices.Sort(s.Isolated)
	return s, nil
}

// beyond says why so many isolated seats are more than votes alone decide; nil: they are not.
func (s State) beyond() error {
	if f := s.Roster.Liars(); len(s.Isolated) > f {
		return fmt.Errorf("then %d seats are isolated, and more than %d", len(s.Isolated), f)
	}
	return s.cutOff()
}

// cutOff says that so many members are isolated that etcd's majority is; nil: it is not.
func (s State) cutOff() error {
	members := s.Roster.Members()
	cut := 0
	for _, n := range members {
		if slices.Contains(s.Isolated, n) {
			cut++
		}
	}
	if cut > 0 && 2*(len(members)-cut) <= len(members) {
		return fmt.Errorf("then %d of %d members are isolated, and etcd's majority with them", cut, len(members))
	}
	return nil
}

func (s State) setPolicy(p fleet.Policy) (State, error) {
	if p.Trial != s.Genesis.Policy.Trial {
		return s, fmt.Errorf("field policy.trial: it is %t by the fleet's genesis, and no decision changes it", s.Genesis.Policy.Trial)
	}
	if votes := s.Roster.Votes(); p.Votes < votes {
		return s, fmt.Errorf("field policy.votes: %d, and there are %d", p.Votes, votes)
	}
	s.Policy = p
	return s, nil
}

func (s State) setTUFRoot(d *decision.TUFRoot) (State, error) {
	if s.TUFNumber == 0 && d.Number > maxFirstTUFRoot {
		return s, fmt.Errorf("field tufRoot.number: %d: the first one that is decided is 1 to %d", d.Number, maxFirstTUFRoot)
	}
	if s.TUFNumber > 0 && d.Number != s.TUFNumber+1 {
		return s, fmt.Errorf("field tufRoot.number: %d does not follow on %d", d.Number, s.TUFNumber)
	}
	if d.Root == s.TUFRoot {
		return s, errors.New("field tufRoot.root: it is in force already")
	}
	s.TUFRoot, s.TUFNumber = d.Root, d.Number
	return s, nil
}

// maxFirstTUFRoot leaves numbers for those that follow.
const maxFirstTUFRoot = 1 << 20

// maxFormer is how many former CAs a state remembers.
const maxFormer = 16

// withCA is the state with another node CA.
func (s State) withCA(field string, der []byte) (State, error) {
	next, err := decision.ParseCA(der)
	if err != nil {
		return s, fmt.Errorf("field %s: %w", field, err)
	}
	switch {
	case !bytes.Equal(next.RawSubject, s.Genesis.NodeCA.RawSubject):
		return s, fmt.Errorf("field %s: its name is %.70q, and that of the fleet's is %.70q", field, next.Subject.CommonName, s.Genesis.NodeCA.Subject.CommonName)
	case next.NotAfter.Before(s.NodeCA.NotAfter): // it was made by a clock that goes wrong
		return s, fmt.Errorf("field %s: it ends at %s, before the one in whose place it comes", field, next.NotAfter.UTC().Format("2006-01-02"))
	}
	known := []*x509.Certificate{s.Genesis.OperatorCA, s.NodeCA}
	for _, f := range s.FormerCAs {
		known = append(known, f.Certificate)
	}
	same := func(c *x509.Certificate) bool {
		return string(c.RawSubjectPublicKeyInfo) == string(next.RawSubjectPublicKeyInfo)
	}
	if slices.ContainsFunc(known, same) {
		return s, fmt.Errorf("field %s: a CA of the fleet has, or had, this key", field)
	}
	former := append(slices.Clone(s.FormerCAs), FormerCA{s.NodeCA, s.Height + 1})
	s.FormerCAs, s.NodeCA, s.hadCA = former[max(0, len(former)-maxFormer):], next, nil
	s.hadCA = s.havingCA(s.Roster)
	return s, nil
}

// havingCA are the seats of a roster that have the key of the node CA, or had it before.
func (s State) havingCA(r roster.Roster) (numbers []int) {
	for _, seat := range r.Seats {
		if seat.Member || seat.Spare || slices.Contains(s.hadCA, seat.Number) {
			numbers = append(numbers, seat.Number)
		}
	}
	return numbers
}

// NeedsCA says whether another node CA has to come when some seats leave: because one of them has, or had, the
// key of the one that is there.
func (s State) NeedsCA(leave ...int) bool {
	return slices.ContainsFunc(leave, func(n int) bool { return slices.Contains(s.hadCA, n) })
}

func (s State) setOwner(d *decision.Owners) (State, error) {
	was, there := s.Roster.Owner(d.Owner.Name)
	if !there {
		return s, fmt.Errorf("field owners.owner.name: there is no owner %s", d.Owner.Name)
	}
	if was.Threshold == d.Owner.Threshold && slices.Equal(was.Keys, d.Owner.Keys) {
		return s, fmt.Errorf("field owners.owner.keys: owner %s has these keys already", was.Name)
	}
	after, err := s.withRoster("owners", s.Roster.WithOwners(d.Owner))
	if err != nil {
		return s, err
	}
	if !d.Lost {
		if s.Claim != nil && s.Claim.Owner.Name == was.Name {
			after.Claim = nil // his keys were not lost
		}
		return after, nil
	}
	if s.Claim != nil {
		return s, fmt.Errorf("field owners.lost: owner %s waits for other keys since height %d, and one does at a time", s.Claim.Owner.Name, s.Claim.Height)
	}
	s.Claim = &Claim{Owner: d.Owner, Height: s.Height + 1}
	return s, nil
}

func (s State) settle(d *decision.Settle) (State, error) {
	if s.Claim == nil || s.Claim.Record != d.Record {
		return s, fmt.Errorf("field settle.record: no owner waits for other keys by record %s", d.Record.Short())
	}
	claim := s.Claim
	s.Claim = nil
	if d.Veto {
		return s, nil
	}
	return s.withRoster("settle", s.Roster.WithOwners(claim.Owner))
}
