// Package docket is what people have said before a fleet decides, as one node has it:
//
//	an operator ─▶ proposals ─▶ those that wait to be decided, some of each operator
//	an owner ────▶ answers to them, and how his nodes vote: the newest of each
//	a node ──────▶ requests for the seats that they give
//
// In come signed objects of strangers, and states of the ledger; out go those objects that count, what
// stands for all of them, and what others lack. Where they lie and travel is the agent's; what
// follows from them is update/fleet/proposal's and update/fleet/ledger's to say. What seats say is
// update/fleet/voice's.
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

// Set is what counts of all that came. An object is called by the SHA-256 of its bytes, because
// decisions rest on bytes: of two that say the same all nodes keep the same one, that with the lower id.
//
// What a set holds does not depend on the order in which objects came, if those that came too early
// come again, as carriers see to, and none of its limits is reached but that of proposals. Its methods
// may be called from one goroutine.
type Set struct {
	items map[document.Hash]item // by id
	keys  map[key]document.Hash  // the id of what stands at each place
	left  []left                 // what has left the queue, the oldest first
	bytes [sorts]int
	count [sorts]int
	sum   document.Hash // of all ids; zero: it is to be computed, or there is nothing
}

// sort is what takes room of its own. Those that rest on others come behind them.
type sort int

const (
	sortProposal sort = iota
	sortAnswer
	sortFresh // an answer with keys that the proposal gives an owner
	sortRequest
	sortVotes
	sorts
)

// key is the place of an object: of two at one place one counts.
type key struct {
	sort    sort
	about   document.Hash // the proposal of an answer; the id of a proposal's message
	who     string        // the owner, or the key of the node
	name    string        // that a node asks for a seat under
	journal roster.ID
}

// item is an object that counts.
type item struct {
	key    key
	raw    []byte
	number uint64                     // of two at one place the one with the higher number counts
	less   bool                       // of two with one number this one counts less: a yes, against a no
	open   Open                       // of a proposal
	seats  map[signed.Key]roster.Seat // that a proposal gives to new nodes
	answer proposal.Answer
	votes  proposal.Votes
	by     roster.Owner // with the keys by which it was verified
	asks   roster.Request
}

// left is a proposal that has left the queue.
type left struct {
	id  document.Hash
	why string
}

// Open is a proposal that waits.
type Open struct {
	ID       document.Hash // see [proposal.ID]
	Envelope signed.Envelope
	Height   int64 // of the ledger when it was made
	Value    ledger.Value
	Operator ledger.Operator
	Number   uint64
}

// Limits of a set.
const (
	// MaxOfOne is how many proposals of one operator wait, and MaxOpen how many in all: the newest of
	// each operator before the second ones, by number.
	MaxOfOne = 4
	MaxOpen  = 64
	// MaxLeft is how many are remembered that have left the queue: more than all others can go on to
	// offer.
	MaxLeft = 8 * MaxOpen
	// MaxObject is the bytes of an object, at most.
	MaxObject  = signed.MaxEnvelope
	maxRequest = 4 << 10
	// MaxBytes is what all of it has, at most, besides the proposals: those have MaxOpen*MaxObject.
	MaxBytes = 8 << 20
	// MaxSet is how many objects there are, at most.
	MaxSet = MaxOpen + 2048 + 512 + 512 + 1024
)

var limits = [sorts]struct {
	most int
	what string
}{
	{MaxOpen, "proposals"}, {2048, "answers of owners"}, {512, "answers with new keys"},
	{512, "requests for seats"}, {1024, "nodes whose votes owners have set"},
}

// Why an object is not taken.
var (
	// ErrObject is of bytes that belong on no docket.
	ErrObject = errors.New("neither a proposal, nor an answer, nor a request for a seat, nor how a node votes")
	// ErrEarly is of an object that others have to come before: it counts when it comes again.
	ErrEarly = errors.New("it comes too early")
	// ErrOver is of one whose time is over: it never counts again, by this state of the ledger.
	ErrOver = errors.New("it is over")
	// ErrFull is of one for which there is no room.
	ErrFull = errors.New("there is too much to decide already")
)

// New is an empty set.
func New() *Set {
	return &Set{items: make(map[document.Hash]item), keys: make(map[key]document.Hash)}
}

// Is says whether bytes look like an object of a docket: whose it is to take them, not whether they count.
func Is(raw []byte) bool {
	if bytes.HasPrefix(raw, []byte("{")) {
		return true
	}
	kind, _, ok := document.Fields(raw, 1)
	return ok && (string(kind[0]) == proposal.Kind || string(kind[0]) == roster.RequestKind)
}

// Change is what [Set.Put] has made of a set.
type Change struct {
	ID      document.Hash   // of what came
	News    bool            // it was not there, and is now
	Dropped []document.Hash // what it took the place of, and what rested on that
}

// Put takes an object, verified by the ledger's state; the set follows that state already ([Set.Follow]). A
// proposal that could not be decided now counts, too: each voter says what is wrong with it, and it
// leaves the queue by that, on all nodes and with a reason. One of a height that the ledger has not
// reached does not: nobody can say yet whether who made it may. The error wraps [ErrObject], [ErrEarly],
// [ErrOver], [ErrFull], or what the ledger says of it.
func (s *Set) Put(raw []byte, state ledger.State) (Change, error) {
	if len(raw) > MaxObject {
		return Change{}, fmt.Errorf("%w: %d bytes: %d at most", ErrObject, len(raw), MaxObject)
	}
	c := Change{ID: document.HashOf(raw)}
	if _, known := s.items[c.ID]; known {
		return c, nil
	}
	it, err := s.read(bytes.Clone(raw), state)
	if err != nil {
		return c, err
	}
	old, there := s.keys[it.key]
	if there && !s.counts(it, c.ID, s.items[old], old) {
		return c, nil
	}
	if err := s.room(it, s.items[old], there); err != nil {
		return c, err
	}
	if there {
		s.remove(old)
		c.Dropped = append(c.Dropped, old)
	}
	s.add(c.ID, it)
	if it.key.sort == sortProposal {
		for _, id := range s.beyond() {
			if id == c.ID {
				s.remove(id)
				return c, fmt.Errorf("proposal %d of %s: %w: %d newer ones wait, or %d in all", it.number, it.open.Operator.Name, ErrFull, MaxOfOne, MaxOpen)
			}
			s.remove(id)
			c.Dropped = append(c.Dropped, id)
		}
		c.Dropped = append(c.Dropped, s.unfounded(state)...)
	}
	c.News = true
	return c, nil
}

// counts says whether an object counts before another one at its place.
func (s *Set) counts(one item, id document.Hash, other item, otherID document.Hash) bool {
	switch {
	case one.number != other.number:
		return one.number > other.number
	case one.less != other.less:
		return other.less
	}
	return bytes.Compare(id[:], otherID[:]) < 0
}

// room wants that there is room for an object, in the place of another one or of none. Of too many
// proposals it is [Set.beyond] that chooses.
func (s *Set) room(it, old item, instead bool) error {
	if it.key.sort == sortProposal {
		return nil
	}
	l := limits[it.key.sort]
	if n := s.count[it.key.sort]; n >= l.most && !instead {
		return fmt.Errorf("%w: %d %s: %d at most", ErrFull, n, l.what, l.most)
	}
	all := len(it.raw) - len(old.raw)
	for sort := sortProposal + 1; sort < sorts; sort++ {
		all += s.bytes[sort]
	}
	if all > MaxBytes {
		return fmt.Errorf("%w: %d bytes: %d at most", ErrFull, all, MaxBytes)
	}
	return nil
}

// beyond are the ids of the proposals for which there is no room, by a rule that makes no difference
// between those that came early and late. An operator can fill his own room alone: his
// second proposals come behind the first ones of all others.
func (s *Set) beyond() (ids []document.Hash) {
	newer := func(a, b item) int {
		if a.number != b.number {
			return cmp.Compare(b.number, a.number)
		}
		return bytes.Compare(a.open.ID[:], b.open.ID[:])
	}
	by := make(map[signed.Key][]item)
	for _, it := range s.items {
		if it.key.sort == sortProposal {
			by[it.open.Envelope.By] = append(by[it.open.Envelope.By], it)
		}
	}
	var ranks [MaxOfOne][]item
	var gone []item
	for _, own := range by {
		slices.SortFunc(own, newer)
		for rank, it := range own {
			if rank >= MaxOfOne {
				gone = append(gone, it)
				continue
			}
			ranks[rank] = append(ranks[rank], it)
		}
	}
	left := MaxOpen
	for _, some := range ranks {
		slices.SortFunc(some, newer)
		fit := min(left, len(some))
		gone, left = append(gone, some[fit:]...), left-fit
	}
	for _, it := range gone {
		ids = append(ids, s.keys[it.key])
	}
	return ids
}

// Follow goes over to another state of the ledger, and returns the ids of what counts no more by it:
// what was decided or proposed by somebody who may not any more, what owners have signed with other keys
// than theirs are now, and what rested on that.
func (s *Set) Follow(state ledger.State) (gone []document.Hash) {
	for _, id := range s.sorted() {
		it := s.items[id]
		if it.key.sort != sortProposal {
			continue
		}
		v, o, err := state.Offered(it.open.Envelope)
		if err != nil {
			s.remove(id)
			gone = append(gone, id)
			continue
		}
		it.open.Operator, it.seats = o, state.NewSeats(v)
		s.items[id] = it
	}
	return append(gone, s.unfounded(state)...)
}

// unfounded removes what rests on nothing that is here, and returns the ids of it.
func (s *Set) unfounded(state ledger.State) (gone []document.Hash) {
	for _, id := range s.sorted() {
		it := s.items[id]
		if it.key.sort != sortProposal && s.rests(it, state) != nil {
			s.remove(id)
			gone = append(gone, id)
		}
	}
	return gone
}

// Drop forgets a proposal that has left the queue, by its [Open.ID], and what rested on it, and remembers
// that: others may offer it for as long as they wait for it. It returns the ids of what is gone. What is
// over besides is for [Set.Follow].
func (s *Set) Drop(id document.Hash, why string, state ledger.State) (gone []document.Hash) {
	s.Remember(id, why)
	at := key{sort: sortProposal, about: id}
	if raw, there := s.keys[at]; there {
		s.remove(raw)
		gone = append(gone, raw)
	}
	return append(gone, s.unfounded(state)...)
}

// Remember remembers that a proposal has left the queue, as [Set.Left] has it. It comes before the first
// [Set.Put].
func (s *Set) Remember(id document.Hash, why string) {
	if s.dropped(id) != nil {
		return
	}
	s.left = append(s.left, left{id, proposal.Reason(why)})
	s.left = s.left[max(0, len(s.left)-MaxLeft):]
}

// dropped says why a proposal has left the queue; nil: it has not.
func (s *Set) dropped(id document.Hash) error {
	if i := slices.IndexFunc(s.left, func(l left) bool { return l.id == id }); i >= 0 {
		return fmt.Errorf("%w: it has left the queue: %s", ErrOver, s.left[i].why)
	}
	return nil
}

// Left are the proposals that are remembered to have left the queue, and why, the oldest first.
func (s *Set) Left() (ids []document.Hash, why []string) {
	for _, l := range s.left {
		ids, why = append(ids, l.id), append(why, l.why)
	}
	return ids, why
}

func (s *Set) add(id document.Hash, it item) {
	s.items[id], s.keys[it.key], s.sum = it, id, document.Hash{}
	s.count[it.key.sort]++
	s.bytes[it.key.sort] += len(it.raw)
}

func (s *Set) remove(id document.Hash) {
	it, there := s.items[id]
	if !there {
		return
	}
	delete(s.items, id)
	delete(s.keys, it.key)
	s.sum = document.Hash{}
	s.count[it.key.sort]--
	s.bytes[it.key.sort] -= len(it.raw)
}

func (s *Set) sorted() []document.Hash {
	return slices.SortedFunc(maps.Keys(s.items), func(a, b document.Hash) int { return bytes.Compare(a[:], b[:]) })
}

// Sum stands for what the set holds: two sets with the same objects have the same one, and an empty one
// has zero.
func (s *Set) Sum() document.Hash {
	if len(s.items) == 0 || !s.sum.IsZero() {
		return s.sum
	}
	var fields [][]byte
	for _, id := range s.sorted() {
		fields = append(fields, id[:])
	}
	s.sum = document.HashOf(document.Message("kogge/docket/v1", fields...))
	return s.sum
}

// IDs are the fronts of the ids of all that is here.
func (s *Set) IDs() []token.Short {
	all := make([]token.Short, 0, len(s.items))
	for _, id := range s.sorted() {
		all = append(all, token.Short(id[:]))
	}
	return all
}

// Lacking are the objects that somebody lacks who has others, as many as have so many bytes together,
// those first that others rest on. from is where it begins to choose: another place each time, so that
// what somebody does not take hides nothing for good.
func (s *Set) Lacking(has []token.Short, most int, from token.Short) (all [][]byte) {
	there := make(map[token.Short]bool, len(has))
	for _, id := range has {
		there[id] = true
	}
	sorted := s.sorted()
	first, _ := slices.BinarySearchFunc(sorted, from, func(id document.Hash, from token.Short) int { return bytes.Compare(id[:len(from)], from[:]) })
	var chosen []item
	for _, id := range slices.Concat(sorted[first:], sorted[:first]) {
		it := s.items[id]
		if there[token.Short(id[:])] {
			continue
		}
		if most -= len(it.raw); most < 0 {
			break
		}
		chosen = append(chosen, it)
	}
	slices.SortStableFunc(chosen, func(a, b item) int { return int(a.key.sort - b.key.sort) })
	for _, it := range chosen {
		all = append(all, it.raw)
	}
	return all
}

// All are all objects, those first that others rest on.
func (s *Set) All() [][]byte { return s.Lacking(nil, MaxOpen*MaxObject+MaxBytes, token.Short{}) }

// Has says whether an object is here, by its id.
func (s *Set) Has(id document.Hash) bool { _, there := s.items[id]; return there }

// Len is how many objects there are.
func (s *Set) Len() int { return len(s.items) }
