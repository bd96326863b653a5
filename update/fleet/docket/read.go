package docket

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// read reads an object and verifies it, as one that has to be taken.
func (s *Set) read(raw []byte, state ledger.State) (item, error) {
	if bytes.HasPrefix(raw, []byte("{")) {
		a, err := proposal.ParseAnswer(raw)
		if err == nil {
			return s.readAnswer(a, raw, state)
		}
		v, other := proposal.ParseVotes(raw)
		if other == nil {
			return readVotes(v, raw, state)
		}
		return item{}, fmt.Errorf("%w: %w; %w", ErrObject, err, other)
	}
	e, err := signed.Parse(raw)
	if err != nil {
		return item{}, fmt.Errorf("%w: %w", ErrObject, err)
	}
	switch e.Kind {
	case proposal.Kind:
		return s.readProposal(e, state)
	case roster.RequestKind:
		return s.readRequest(e, state)
	}
	return item{}, fmt.Errorf("%w: its kind is %.70q", ErrObject, e.Kind)
}

func (s *Set) readProposal(e signed.Envelope, state ledger.State) (item, error) {
	id := proposal.ID(e)
	if err := s.dropped(id); err != nil {
		return item{}, fmt.Errorf("proposal %d: %w", e.Sequence, err)
	}
	v, o, err := state.Offered(e)
	switch {
	case errors.Is(err, ledger.ErrEarly):
		return item{}, fmt.Errorf("proposal %d: %w: %w", e.Sequence, ErrEarly, err)
	case errors.Is(err, ledger.ErrDecided), errors.Is(err, ledger.ErrWithdrawn):
		return item{}, fmt.Errorf("proposal %d: %w: %w", e.Sequence, ErrOver, err)
	case err != nil:
		return item{}, fmt.Errorf("proposal %d: %w", e.Sequence, err)
	}
	said, _, err := proposal.Open(e, state.Fleet())
	if err != nil {
		return item{}, err
	}
	return item{
		key: key{sort: sortProposal, about: id}, raw: e.Bytes(), number: e.Sequence, seats: state.NewSeats(v),
		open: Open{ID: id, Envelope: e, Height: said.Height, Value: v, Operator: o, Number: e.Sequence},
	}, nil
}

// about is a proposal that waits here.
func (s *Set) about(id document.Hash) (Open, error) {
	if err := s.dropped(id); err != nil {
		return Open{}, fmt.Errorf("proposal %s: %w", id.Short(), err)
	}
	raw, there := s.keys[key{sort: sortProposal, about: id}]
	if !there {
		return Open{}, fmt.Errorf("%w: no proposal %s waits here to be decided", ErrEarly, id.Short())
	}
	return s.items[raw].open, nil
}

func (s *Set) readAnswer(a proposal.Answer, raw []byte, state ledger.State) (item, error) {
	it := item{key: key{sort: sortAnswer, about: a.Proposal, who: a.Owner}, raw: raw, number: uint64(a.Number), less: a.Yes, answer: a}
	if state.Claim != nil && a.Proposal == state.Claim.Record {
		_, by, err := state.Objects(raw)
		it.by = by
		return it, err
	}
	open, err := s.about(a.Proposal)
	if err != nil {
		return item{}, fmt.Errorf("an answer of owner %s: %w", a.Owner, err)
	}
	_, by, fresh, err := state.Consents(open.Value, raw)
	if err != nil {
		return item{}, fmt.Errorf("an answer to proposal %d: %w", open.Number, err)
	}
	if it.by = by; fresh {
		it.key.sort = sortFresh
	}
	return it, nil
}

func readVotes(v proposal.Votes, raw []byte, state ledger.State) (item, error) {
	seat, there := state.Roster.ByKey(v.Node)
	if !there {
		return item{}, fmt.Errorf("%w: key %s has no seat", proposal.ErrVotes, v.Node.ID().Short())
	}
	owner, err := state.OwnerFor(v.Node)
	if err == nil {
		err = v.Verify(state.Fleet(), owner)
	}
	if err != nil {
		return item{}, fmt.Errorf("how %s votes: %w", seat.Name, err)
	}
	return item{key: key{sort: sortVotes, who: string(v.Node)}, raw: raw, number: uint64(v.Number), votes: v, by: owner}, nil
}

func (s *Set) readRequest(e signed.Envelope, state ledger.State) (item, error) {
	if len(e.Bytes()) > maxRequest {
		return item{}, fmt.Errorf("%w: %d bytes: %d at most", roster.ErrRequest, len(e.Bytes()), maxRequest)
	}
	r, err := roster.ReadRequest(e, state.Fleet())
	if err != nil {
		return item{}, err
	}
	// One that is good for a seat which runs etcd is good for one that does not, and not the other way.
	it := item{key: key{sort: sortRequest, who: string(e.By), name: r.Name, journal: r.Journal}, raw: e.Bytes(), less: !roster.MayBeMember(r.Arch), asks: r}
	if err := s.asked(it); err != nil {
		return item{}, err
	}
	return it, e.Verify()
}

// rests wants that what an object rests on is here: a proposal, the keys of an owner as they were when it
// was verified, a seat.
func (s *Set) rests(it item, state ledger.State) error {
	same := func(o roster.Owner, there bool) error {
		if !there || o.Name != it.by.Name || o.Threshold != it.by.Threshold || !slices.Equal(o.Keys, it.by.Keys) {
			return fmt.Errorf("%w: the keys of owner %s are others now", ErrOver, it.by.Name)
		}
		return nil
	}
	switch it.key.sort {
	case sortAnswer, sortFresh:
		if state.Claim != nil && it.key.about == state.Claim.Record {
			return same(state.Roster.Owner(it.key.who))
		}
		if _, err := s.about(it.key.about); err != nil {
			return err
		}
		his := same(state.Roster.Owner(it.key.who))
		switch {
		case it.key.sort == sortAnswer:
			return his
		case his == nil: // it comes again as an answer with the keys that he has
			return fmt.Errorf("%w: the keys are those of owner %s now", ErrOver, it.by.Name)
		}
	case sortVotes:
		if _, there := state.Roster.ByKey(signed.Key(it.key.who)); !there {
			return fmt.Errorf("%w: the node has no seat any more", ErrOver)
		}
		o, err := state.OwnerFor(signed.Key(it.key.who))
		return same(o, err == nil)
	case sortRequest:
		return s.asked(it)
	}
	return nil
}

// asked wants that a proposal which waits here gives a node the seat that it asks for.
func (s *Set) asked(it item) error {
	by := signed.Key(it.key.who)
	err := fmt.Errorf("%w: no proposal that waits here gives key %s a seat", ErrEarly, by.ID().Short())
	for _, open := range s.items {
		seat, wanted := open.seats[by]
		if !wanted {
			continue
		}
		wrong := it.asks.For(seat)
		if wrong == nil {
			return nil
		}
		err = fmt.Errorf("%w: %w", roster.ErrRequest, wrong)
	}
	return err
}

// Proposals are those that wait, the oldest first: by height, number and id.
func (s *Set) Proposals() (all []Open) {
	for _, it := range s.items {
		if it.key.sort == sortProposal {
			all = append(all, it.open)
		}
	}
	slices.SortFunc(all, func(a, b Open) int {
		return cmp.Or(cmp.Compare(a.Height, b.Height), cmp.Compare(a.Number, b.Number), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return all
}

// Known are the answers and requests, for [ledger.State.Gather].
func (s *Set) Known() (all [][]byte) {
	for _, id := range s.sorted() {
		switch it := s.items[id]; it.key.sort {
		case sortAnswer, sortFresh, sortRequest:
			all = append(all, it.raw)
		}
	}
	return all
}

// AnswersTo are the owners' answers to a proposal, or to a record that waits, by owner; those with keys that
// an owner is to get come behind those with the keys that he has.
func (s *Set) AnswersTo(id document.Hash) (all []proposal.Answer) {
	var items []item
	for _, it := range s.items {
		if (it.key.sort == sortAnswer || it.key.sort == sortFresh) && it.key.about == id {
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.key.who, b.key.who), cmp.Compare(a.key.sort, b.key.sort))
	})
	for _, it := range items {
		all = append(all, it.answer)
	}
	return all
}

// Votes is how the node of a key votes, as its owner has set it; false: he has not.
func (s *Set) Votes(node signed.Key) (proposal.Votes, bool) {
	id, there := s.keys[key{sort: sortVotes, who: string(node)}]
	return s.items[id].votes, there
}
