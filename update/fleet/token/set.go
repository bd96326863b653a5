package token

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// Set is what a node has of papers and uses: the uses of tokens, their ends, and the newest
// acceptance of each node. It is verified when it comes, and stays also when its issuer is no
// operator any more: an acceptance is not undone by that. Its methods may be called from one
// goroutine.
type Set struct {
	uses     map[signed.Key][]Use // by token, in the order in which they came
	ends     map[signed.Key]document.Hash
	accepted map[signed.Key]accepted // by node
	raw      map[document.Hash][]byte
	sum      document.Hash // of all ids; zero: it is to be computed
}

type accepted struct {
	accept Accept
	id     document.Hash
}

// Limits of a set.
const (
	// MaxSet is how many papers and uses there are, at most.
	MaxSet = 4096
	// slack is how many uses of a token are kept beyond those that it has: of two members each
	// may let in a node at the same time, and people are to see that.
	slack = 4
)

// ErrFull is of a set that takes no more.
var ErrFull = errors.New("there are too many papers already")

// NewSet is an empty set.
func NewSet() *Set {
	return &Set{
		uses: make(map[signed.Key][]Use), ends: make(map[signed.Key]document.Hash),
		accepted: make(map[signed.Key]accepted), raw: make(map[document.Hash][]byte),
	}
}

// Change is what [Set.Put] has made of a set.
type Change struct {
	ID      document.Hash // of what came
	News    bool          // it was not there, and is now
	Dropped document.Hash // what it took the place of; zero: nothing
}

// Put takes a paper or a use, verified by the ledger's state. Which ones a set holds does not
// depend on their order, but for tokens that were used more often than they may be. The error
// wraps [ErrPaper], [ErrUse], [ErrUsed] or [ErrFull].
func (s *Set) Put(raw []byte, state ledger.State) (Change, error) {
	return s.put(raw, func(p Paper) error { _, err := p.Verify(state); return err })
}

// Recall takes what was verified before.
func (s *Set) Recall(raw []byte) (Change, error) {
	return s.put(raw, func(Paper) error { return nil })
}

func (s *Set) put(raw []byte, verify func(Paper) error) (Change, error) {
	if len(raw) > MaxPaper {
		return Change{}, fmt.Errorf("%w: %d bytes: %d at most", ErrPaper, len(raw), MaxPaper)
	}
	raw = bytes.Clone(raw) // not the caller's bytes
	switch kind, _, ok := document.Fields(raw, 1); {
	case !ok:
		return Change{}, fmt.Errorf("%w: its %d bytes do not add up", ErrPaper, len(raw))
	case string(kind[0]) == UseKind:
		return s.putUse(raw, verify)
	}
	p, err := ParsePaper(raw)
	if err != nil {
		return Change{}, err
	}
	c := Change{ID: p.ID()}
	if _, known := s.raw[c.ID]; known {
		return c, nil
	}
	switch p.Kind {
	case EndKind:
		return s.putEnd(p, c, verify)
	case AcceptKind:
		return s.putAccept(p, c, verify)
	}
	return c, fmt.Errorf("%w: its kind is %.70q", ErrPaper, p.Kind)
}

func (s *Set) putUse(raw []byte, verify func(Paper) error) (Change, error) {
	u, err := OpenUse(raw)
	if err != nil {
		return Change{}, err
	}
	c := Change{ID: u.ID()}
	if _, known := s.raw[c.ID]; known {
		return c, nil
	}
	if err := verify(u.Token); err != nil {
		return c, err
	}
	if before := s.uses[u.Record.Key]; len(before) >= u.Record.Count+slack {
		return c, fmt.Errorf("token %s: %w: %d nodes have used it, and it is for %d", u.Record.Key.ID().Short(), ErrUsed, len(before), u.Record.Count)
	}
	if err := s.room(); err != nil {
		return c, err
	}
	s.uses[u.Record.Key] = append(s.uses[u.Record.Key], u)
	s.raw[c.ID], c.News, s.sum = raw, true, document.Hash{}
	return c, nil
}

// putEnd keeps one end of a token, whoever has signed it: of several the one with the lowest id.
func (s *Set) putEnd(p Paper, c Change, verify func(Paper) error) (Change, error) {
	e, err := OpenEnd(p)
	if err == nil {
		err = verify(p)
	}
	if err != nil {
		return c, err
	}
	before, there := s.ends[e.Key]
	if there && bytes.Compare(before[:], c.ID[:]) < 0 {
		return c, nil
	}
	return s.replace(p, c, before, func() { s.ends[e.Key] = c.ID })
}

// putAccept keeps the newest acceptance of a node: the one with the highest number, and of two
// with one number the one with the lower id.
func (s *Set) putAccept(p Paper, c Change, verify func(Paper) error) (Change, error) {
	a, err := OpenAccept(p)
	if err == nil {
		err = verify(p)
	}
	if err != nil {
		return c, err
	}
	before, there := s.accepted[a.Node]
	if there && (before.accept.Number > a.Number || before.accept.Number == a.Number && bytes.Compare(before.id[:], c.ID[:]) < 0) {
		return c, nil
	}
	return s.replace(p, c, before.id, func() { s.accepted[a.Node] = accepted{a, c.ID} })
}

// replace keeps a paper in the place of another one, or of none.
func (s *Set) replace(p Paper, c Change, before document.Hash, keep func()) (Change, error) {
	if before.IsZero() {
		if err := s.room(); err != nil {
			return c, err
		}
	}
	delete(s.raw, before)
	keep()
	s.raw[c.ID], c.News, c.Dropped, s.sum = p.Bytes(), true, before, document.Hash{}
	return c, nil
}

func (s *Set) room() error {
	if len(s.raw) >= MaxSet {
		return fmt.Errorf("%w: %d", ErrFull, len(s.raw))
	}
	return nil
}

// Short is the front of an id: enough to tell a peer what is here. Whoever makes two papers of
// one Short keeps one of his own from travelling.
type Short [8]byte

// Sum stands for what the set holds: two sets with the same papers have the same one.
func (s *Set) Sum() document.Hash {
	if !s.sum.IsZero() {
		return s.sum
	}
	fields := make([][]byte, 0, len(s.raw))
	for _, id := range s.sorted() {
		fields = append(fields, id[:])
	}
	s.sum = document.HashOf(document.Message("kogge/papers/v1", fields...))
	return s.sum
}

// IDs are the ids of all that is here.
func (s *Set) IDs() []Short {
	all := make([]Short, 0, len(s.raw))
	for _, id := range s.sorted() {
		all = append(all, Short(id[:]))
	}
	return all
}

// Lacking are the papers and uses that somebody lacks who has others, as many as have so many
// bytes together.
func (s *Set) Lacking(has []Short, most int) (all [][]byte) {
	there := make(map[Short]bool, len(has))
	for _, id := range has {
		there[id] = true
	}
	for _, id := range s.sorted() {
		raw := s.raw[id]
		if there[Short(id[:])] {
			continue
		}
		if most -= len(raw); most < 0 {
			return all
		}
		all = append(all, raw)
	}
	return all
}

// All are all papers and uses.
func (s *Set) All() [][]byte { return s.Lacking(nil, MaxSet*MaxPaper) }

func (s *Set) sorted() []document.Hash {
	return slices.SortedFunc(maps.Keys(s.raw), func(a, b document.Hash) int { return bytes.Compare(a[:], b[:]) })
}

// Len is how many papers and uses there are.
func (s *Set) Len() int { return len(s.raw) }

// Uses are the nodes that came in by a token, in the order in which this set heard of them.
func (s *Set) Uses(key signed.Key) []Use { return s.uses[key] }

// Tokens are the keys of the tokens that were used, sorted.
func (s *Set) Tokens() []signed.Key { return slices.Sorted(maps.Keys(s.uses)) }

// Ended says whether a token was revoked.
func (s *Set) Ended(key signed.Key) bool { _, over := s.ends[key]; return over }

// CameBy is the use by which a node came, by its key; false: it came otherwise.
func (s *Set) CameBy(node signed.Key) (Use, bool) {
	for _, key := range s.Tokens() {
		for _, u := range s.uses[key] {
			if u.Node == node {
				return u, true
			}
		}
	}
	return Use{}, false
}

// Accepted is the newest acceptance of a node, by its key; false: nobody has accepted it.
func (s *Set) Accepted(node signed.Key) (Accept, bool) {
	a, ok := s.accepted[node]
	return a.accept, ok
}

// PaperOf is the paper of that acceptance; nil: there is none.
func (s *Set) PaperOf(node signed.Key) []byte { return s.raw[s.accepted[node].id] }

// Nodes are the keys of all nodes that came by a token or were accepted, sorted.
func (s *Set) Nodes() []signed.Key {
	all := make(map[signed.Key]bool)
	for key := range s.accepted {
		all[key] = true
	}
	for _, uses := range s.uses {
		for _, u := range uses {
			all[u.Node] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
