// Package docket is what waits to be decided: what operators propose, what owners answer to it, and
// which nodes ask for the seats that are proposed.
//
// In come signed objects from anybody, in any order, again and again, and the ledger's state; out go
// those that count, and what two nodes have to tell each other to have the same. What is here depends
// on the set of objects that came. Whether a proposal is good is not asked: the seats say so. The
// package reads no clock, and keeps nothing on a disk.
package docket

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Limits: who fills what is his keeps nobody else from being heard.
const (
	// OfOne is how many proposals of one operator wait, at most: those with the highest numbers.
	OfOne = 4
	// MaxProposals is how many wait in all.
	MaxProposals = 64
	maxAnswers   = 4096
	maxRequests  = 1024
	maxGone      = 1024
)

// Why an object is not taken.
var (
	// ErrObject is of what is no object of a docket, or was signed by nobody who may.
	ErrObject = errors.New("nothing that waits to be decided")
	// ErrUnknown is of what is about a proposal that is not here: it may come.
	ErrUnknown = errors.New("the proposal that it is about does not wait here")
	// ErrGone is of what was decided, or left the queue.
	ErrGone = errors.New("it does not wait any more")
	// ErrFull is of one too many.
	ErrFull = errors.New("too much waits already")
)

// Proposal is one that waits.
type Proposal struct {
	ID       document.Hash
	Envelope signed.Envelope
	Says     proposal.Proposal
	By       document.Hash // the operator's key
	Value    ledger.Value
}

// Change is what has changed: the object that came, by the hash of its bytes, and which went for it.
type Change struct {
	ID   document.Hash
	News bool
	Gone []document.Hash
}

// Set is all that waits. Its methods may be called from one goroutine.
type Set struct {
	proposals map[document.Hash]Proposal // by their ids
	answers   map[place]answer
	requests  map[signed.Key]request
	gone      map[document.Hash]bool // ids of proposals
	sum       document.Hash          // zero: it is to be computed
}

// place is where an answer lies: an owner has one, and one more by the keys that he is to get.
type place struct {
	proposal document.Hash
	owner    string
	fresh    bool
}

type answer struct {
	raw  []byte
	says proposal.Answer
}

// request is a node's for a seat; the newest comes with the newest proposal, and any will do.
type request struct{ raw []byte }

// New is a set in which nothing waits.
func New() *Set {
	return &Set{
		proposals: make(map[document.Hash]Proposal), answers: make(map[place]answer), requests: make(map[signed.Key]request), gone: make(map[document.Hash]bool),
	}
}

// Put verifies an object by the ledger's state and takes it, if it counts. The error wraps one of those
// of this package.
func (s *Set) Put(raw []byte, state ledger.State) (Change, error) {
	c := Change{ID: document.HashOf(raw)}
	if len(raw) > signed.MaxEnvelope {
		return c, fmt.Errorf("%w: %d bytes: %d at most", ErrObject, len(raw), signed.MaxEnvelope)
	}
	var err error
	if bytes.HasPrefix(raw, []byte("{")) {
		err = s.answer(&c, raw, state)
	} else {
		err = s.envelope(&c, raw, state)
	}
	if c.News || len(c.Gone) > 0 {
		s.sum = document.Hash{}
	}
	return c, err
}

func (s *Set) envelope(c *Change, raw []byte, state ledger.State) error {
	e, err := signed.Parse(bytes.Clone(raw))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	switch e.Kind {
	case proposal.Kind:
		return s.proposal(c, e, state)
	case roster.RequestKind:
		return s.request(c, e, state)
	}
	return fmt.Errorf("%w: its kind is %.70q", ErrObject, e.Kind)
}

func (s *Set) proposal(c *Change, e signed.Envelope, state ledger.State) error {
	id := proposal.ID(e)
	if s.gone[id] || state.Decided(id) {
		return fmt.Errorf("proposal %d: %w", e.Sequence, ErrGone)
	}
	was, here := s.proposals[id]
	if here && !lower(e.Bytes(), was.Envelope.Bytes()) {
		return nil // all keep the same one of its spellings: decisions rest on its bytes
	}
	p := Proposal{ID: id, Envelope: e}
	var err error
	if p.Says, p.By, err = proposal.Open(e, state.Fleet()); err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	if err := mayPropose(p, state); err != nil {
		return err
	}
	if p.Value, err = ledger.ParseValue(p.Says.Value); err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	if err := e.Verify(); err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	if here {
		c.Gone = append(c.Gone, document.HashOf(was.Envelope.Bytes()))
	}
	s.proposals[id] = p
	c.News = true
	s.settle(c)
	if _, kept := s.proposals[id]; !kept {
		c.News = false
		return fmt.Errorf("proposal %d: %w: %d of one operator, %d in all", e.Sequence, ErrFull, OfOne, MaxProposals)
	}
	return nil
}

// mayPropose says why who made a proposal may make none now.
func mayPropose(p Proposal, state ledger.State) error {
	if err := state.Withdrawn(p.By); err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	if _, listed := state.Operator(p.By); !listed {
		return fmt.Errorf("%w: key %s is no operator of the fleet", ErrObject, p.By.Short())
	}
	return nil
}

// settle lets go what there is no room for: of each operator, and then of all, the lowest numbers.
func (s *Set) settle(c *Change) {
	all := s.Proposals()
	slices.SortFunc(all, func(a, b Proposal) int {
		return cmp.Or(cmp.Compare(b.Envelope.Sequence, a.Envelope.Sequence), bytes.Compare(a.ID[:], b.ID[:]))
	})
	of, kept := make(map[document.Hash]int), 0
	for _, p := range all {
		if of[p.By]++; of[p.By] > OfOne || kept == MaxProposals {
			s.remove(c, p.ID)
			continue
		}
		kept++
	}
}

// remove takes a proposal out, and what hangs on it.
func (s *Set) remove(c *Change, id document.Hash) {
	p, here := s.proposals[id]
	if !here {
		return
	}
	delete(s.proposals, id)
	c.Gone = append(c.Gone, document.HashOf(p.Envelope.Bytes()))
	for at, a := range s.answers {
		if at.proposal == id {
			delete(s.answers, at)
			c.Gone = append(c.Gone, document.HashOf(a.raw))
		}
	}
	s.sum = document.Hash{}
}

func (s *Set) answer(c *Change, raw []byte, state ledger.State) error {
	says, err := proposal.ParseAnswer(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	if s.gone[says.Proposal] || state.Decided(says.Proposal) {
		return fmt.Errorf("answer of owner %s: %w", says.Owner, ErrGone)
	}
	p, here := s.proposals[says.Proposal]
	if !here {
		return fmt.Errorf("answer of owner %s: %w", says.Owner, ErrUnknown)
	}
	_, fresh, err := state.AnswerTo(p.Value, raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	at := place{says.Proposal, says.Owner, fresh}
	was, there := s.answers[at]
	if there && !newer(says, was.says, raw, was.raw) {
		return nil
	}
	if !there && len(s.answers) >= maxAnswers {
		return fmt.Errorf("answer of owner %s: %w: %d answers", says.Owner, ErrFull, maxAnswers)
	}
	if there {
		c.Gone = append(c.Gone, document.HashOf(was.raw))
	}
	s.answers[at] = answer{bytes.Clone(raw), says}
	c.News = true
	return nil
}

// newer says whether an answer counts rather than another one of its place: of one number a no does, and
// else the lower hash.
func newer(a, than proposal.Answer, raw, thanRaw []byte) bool {
	switch {
	case a.Number != than.Number:
		return a.Number > than.Number
	case a.Yes != than.Yes:
		return !a.Yes
	}
	return lower(raw, thanRaw)
}

// lower says whether bytes have the lower hash.
func lower(a, b []byte) bool {
	one, other := document.HashOf(a), document.HashOf(b)
	return bytes.Compare(one[:], other[:]) < 0
}

func (s *Set) request(c *Change, e signed.Envelope, state ledger.State) error {
	if _, err := roster.ReadRequest(e, state.Fleet()); err != nil {
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	if !s.wanted(e.By, state) {
		return fmt.Errorf("request of key %s for a seat: %w", e.By.ID().Short(), ErrUnknown)
	}
	was, there := s.requests[e.By]
	if there {
		if !lower(e.Bytes(), was.raw) {
			return nil
		}
		c.Gone = append(c.Gone, document.HashOf(was.raw))
	} else if len(s.requests) >= maxRequests {
		return fmt.Errorf("request of key %s for a seat: %w: %d requests", e.By.ID().Short(), ErrFull, maxRequests)
	}
	if err := e.Verify(); err != nil {
		c.Gone = nil
		return fmt.Errorf("%w: %w", ErrObject, err)
	}
	s.requests[e.By] = request{e.Bytes()}
	c.News = true
	return nil
}

// wanted says whether a proposal gives a key a seat.
func (s *Set) wanted(key signed.Key, state ledger.State) bool {
	for _, p := range s.proposals {
		if state.Seats(p.Value, key) {
			return true
		}
	}
	return false
}

// Follow lets go what the ledger's state has decided, or who proposed it may not propose any more.
func (s *Set) Follow(state ledger.State) Change {
	var c Change
	for id, p := range s.proposals {
		if state.Decided(id) || mayPropose(p, state) != nil {
			s.remove(&c, id)
		}
	}
	for key, r := range s.requests {
		if !s.wanted(key, state) {
			delete(s.requests, key)
			c.Gone = append(c.Gone, document.HashOf(r.raw))
			s.sum = document.Hash{}
		}
	}
	return c
}

// Drop lets a proposal go that left the queue. While others offer it, it is not taken again.
func (s *Set) Drop(id document.Hash) (c Change) {
	if len(s.gone) >= maxGone {
		clear(s.gone)
	}
	s.gone[id] = true
	s.remove(&c, id)
	return c
}

// Proposals are those that wait, by their ids.
func (s *Set) Proposals() (all []Proposal) {
	for _, id := range slices.SortedFunc(maps.Keys(s.proposals), func(a, b document.Hash) int { return bytes.Compare(a[:], b[:]) }) {
		all = append(all, s.proposals[id])
	}
	return all
}

// Known are the answers and requests, in an order that is always the same.
func (s *Set) Known() (all [][]byte) {
	for _, a := range s.answers {
		all = append(all, a.raw)
	}
	for _, r := range s.requests {
		all = append(all, r.raw)
	}
	slices.SortFunc(all, bytes.Compare)
	return all
}

// All are all objects, those first that others are about.
func (s *Set) All() (all [][]byte) {
	for _, p := range s.Proposals() {
		all = append(all, p.Envelope.Bytes())
	}
	return append(all, s.Known()...)
}

// Sum stands for all that is here.
func (s *Set) Sum() document.Hash {
	if s.sum.IsZero() {
		var all []byte
		for _, id := range s.ids() {
			all = append(all, id[:]...)
		}
		s.sum = document.HashOf(document.Message("kogge/docket/v1", all))
	}
	return s.sum
}

func (s *Set) ids() (all []document.Hash) {
	for _, raw := range s.All() {
		all = append(all, document.HashOf(raw))
	}
	slices.SortFunc(all, func(a, b document.Hash) int { return bytes.Compare(a[:], b[:]) })
	return all
}

// IDs are the beginnings of the hashes of all that is here.
func (s *Set) IDs() (all []token.Short) {
	for _, id := range s.ids() {
		all = append(all, token.Short(id[:]))
	}
	return all
}

// Lacking are objects that somebody lacks who has others, as many as have so many bytes; one that is
// about another comes behind it.
func (s *Set) Lacking(has []token.Short, most int) (all [][]byte) {
	known := make(map[token.Short]bool, len(has))
	for _, id := range has {
		known[id] = true
	}
	for _, raw := range s.All() {
		id := document.HashOf(raw)
		if !known[token.Short(id[:])] && len(raw) <= most {
			most -= len(raw)
			all = append(all, raw)
		}
	}
	return all
}
