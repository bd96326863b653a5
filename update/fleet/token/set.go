package token

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// Set is what a node has of papers and uses: the uses of tokens, their ends, and the newest
// acceptance of each node. It is verified when it comes, and stays also when its issuer is no
// operator any more: an acceptance is not undone by that. Against one by an operator whose key is good it
// counts for nothing once its issuer's key is revoked ([Set.Withdraw]), and makes room for it. Uses and ends go some weeks after their
// token is over ([Set.Age]); acceptances stay. Its methods may be called from one goroutine.
type Set struct {
	uses     map[signed.Key][]Use // by token, in the order in which they came
	ends     map[signed.Key]End
	accepted map[signed.Key]accepted      // by node
	holders  map[string]signed.Key        // by name: the node that was accepted under it last
	raw      map[document.Hash]item       // by id
	counts   [sorts]map[document.Hash]int // by sort and issuer, the zero one: of all
	gone     map[document.Hash]bool       // those issuers of acceptances whose keys are revoked
	revoked  func(document.Hash) error    // says that a key is
	now      time.Time                    // the earliest that it can be, as far as anybody has said
	sum      document.Hash                // of all ids; zero: it is to be computed
}

type accepted struct {
	accept Accept
	id     document.Hash
	issuer document.Hash
}

// item is a paper or use as it travels, and what it counts as.
type item struct {
	raw    []byte
	sort   sort
	issuer document.Hash
}

// sort is what takes room of its own: whoever fills that of uses keeps nobody from revoking tokens.
type sort int

const (
	sortUse sort = iota
	sortEnd
	sortAccept
	sorts
)

// Limits of a set.
const (
	maxUses    = 3 << 10
	maxEnds    = 1 << 10
	maxAccepts = 12 << 10
	// MaxSet is how many papers and uses there are, at most. The front of each id has to have room in
	// one frame of gossip.
	MaxSet = maxUses + maxEnds + maxAccepts
	// slack is how many uses of a token are kept beyond those that it has: of two members each
	// may let in a node at the same time, and people are to see that.
	slack = 4
	// Kept is for how long a use and an end are kept after their token is over. Who came has to be
	// accepted by then.
	Kept = 28 * 24 * time.Hour
)

var limits = [sorts]struct {
	most int
	what string
}{{maxUses, "uses of tokens"}, {maxEnds, "revoked tokens"}, {maxAccepts, "accepted nodes"}}

// ofOne is how many of them one operator can have signed: an eighth is always for the others, if
// somebody has his key. More would be in the way of a large fleet that has one.
func ofOne(most int) int { return most / 8 * 7 }

// ErrFull is of a set that takes no more.
var ErrFull = errors.New("there are too many papers already")

// NewSet is an empty set.
func NewSet() *Set {
	s := &Set{
		uses: make(map[signed.Key][]Use), ends: make(map[signed.Key]End), accepted: make(map[signed.Key]accepted),
		holders: make(map[string]signed.Key), raw: make(map[document.Hash]item),
		gone: make(map[document.Hash]bool), revoked: func(document.Hash) error { return nil },
	}
	for i := range s.counts {
		s.counts[i] = make(map[document.Hash]int)
	}
	return s
}

// Change is what [Set.Put] has made of a set.
type Change struct {
	ID      document.Hash // of what came
	News    bool          // it was not there, and is now
	Dropped document.Hash // what it took the place of; zero: nothing
}

// Put takes a paper or a use, verified by the ledger's state. Which ones a set holds does not
// depend on their order, but for tokens that were used more often than they may be. The error
// wraps [ErrPaper], [ErrUse], [ErrUsed] or [ErrFull]. What a later release may have written is [ErrLater] or
// [document.ErrNewer], too.
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
	case RecordKind:
		return c, fmt.Errorf("%w: a token's record is kept in its use", ErrPaper)
	}
	return c, fmt.Errorf("%w: its kind is %.70q: %w", ErrPaper, p.Kind, ErrLater)
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
	id := u.Record.Key.ID().Short()
	if u.Record.Node != "" && u.Record.Node != u.Name {
		return c, fmt.Errorf("token %s: %w: it is for %s, and %s came", id, ErrOther, u.Record.Node, u.Name)
	}
	if s.forgotten(u.Record.Expires) {
		return c, fmt.Errorf("token %s: %w on %s, and its uses are not kept any more", id, ErrExpired, u.Record.Expires.Format(time.DateOnly))
	}
	if before := s.uses[u.Record.Key]; len(before) >= u.Record.Count+slack {
		return c, fmt.Errorf("token %s: %w: %d nodes have used it, and it is for %d", id, ErrUsed, len(before), u.Record.Count)
	}
	it := item{raw, sortUse, document.HashOf(u.Token.Issuer)}
	if err := s.room(it, false); err != nil {
		return c, err
	}
	s.uses[u.Record.Key] = append(s.uses[u.Record.Key], u)
	s.add(c.ID, it)
	c.News = true
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
	if s.forgotten(e.Expires) {
		return c, fmt.Errorf("token %s: %w on %s, and its end is not kept any more", e.Key.ID().Short(), ErrExpired, e.Expires.Format(time.DateOnly))
	}
	before, there := s.ends[e.Key]
	if there && bytes.Compare(before.id[:], c.ID[:]) < 0 {
		return c, nil
	}
	e.id = c.ID
	return s.replace(p, sortEnd, c, before.id, func() { s.ends[e.Key] = e })
}

// Withdraw tells the set which keys are revoked by now, as a state has it ([ledger.State.Without]).
func (s *Set) Withdraw(state ledger.State) {
	s.revoked = state.Withdrawn
	gone := make(map[document.Hash]bool)
	for issuer := range s.counts[sortAccept] {
		if s.revoked(issuer) != nil {
			gone[issuer] = true
		}
	}
	if maps.Equal(gone, s.gone) {
		return
	}
	s.gone = gone
	clear(s.holders)
	for node, a := range s.accepted {
		if holder, held := s.holders[a.accept.Name]; !held || s.newer(a, s.accepted[holder]) {
			s.holders[a.accept.Name] = node
		}
	}
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
	now := accepted{a, c.ID, document.HashOf(p.Issuer)}
	if s.revoked(now.issuer) != nil {
		s.gone[now.issuer] = true
	}
	if there && s.newer(before, now) {
		return c, nil
	}
	return s.replace(p, sortAccept, c, before.id, func() {
		s.accepted[a.Node] = now
		if holder, held := s.holders[a.Name]; !held || s.newer(now, s.accepted[holder]) {
			s.holders[a.Name] = a.Node
		}
		if old := before.accept.Name; there && s.holders[old] == a.Node {
			s.hold(old)
		}
	})
}

// newer says which of two acceptances counts, of one node or of one name.
func (s *Set) newer(a, b accepted) bool {
	if gone := s.gone[a.issuer]; gone != s.gone[b.issuer] {
		return !gone
	}
	return a.accept.Number > b.accept.Number || a.accept.Number == b.accept.Number && bytes.Compare(a.id[:], b.id[:]) < 0
}

// hold finds out who has a name that its holder has given up.
func (s *Set) hold(name string) {
	delete(s.holders, name)
	for node, a := range s.accepted {
		if before, there := s.holders[name]; a.accept.Name == name && (!there || s.newer(a, s.accepted[before])) {
			s.holders[name] = node
		}
	}
}

// replace keeps a paper in the place of another one, or of none.
func (s *Set) replace(p Paper, as sort, c Change, before document.Hash, keep func()) (Change, error) {
	it := item{p.Bytes(), as, document.HashOf(p.Issuer)}
	if old, there := s.raw[before]; !there || old.issuer != it.issuer {
		if !there && as == sortAccept && s.counts[as][it.issuer] < ofOne(maxAccepts) && s.counts[as][document.Hash{}] >= maxAccepts {
			before = s.yields()
			s.remove(before)
		}
		if err := s.room(it, there); err != nil {
			return c, err
		}
	}
	s.remove(before)
	keep()
	s.add(c.ID, it)
	c.News, c.Dropped = true, before
	return c, nil
}

// yields forgets the last acceptance by a key that was revoked, whose place one by a good key takes, and
// returns its id; zero: there is none.
func (s *Set) yields() document.Hash {
	var last accepted
	for _, a := range s.accepted {
		if s.gone[a.issuer] && (last.id.IsZero() || s.newer(a, last)) {
			last = a
		}
	}
	if a := last.accept; !last.id.IsZero() {
		delete(s.accepted, a.Node)
		if s.holders[a.Name] == a.Node {
			s.hold(a.Name)
		}
	}
	return last.id
}

func (s *Set) add(id document.Hash, it item) {
	s.raw[id], s.sum = it, document.Hash{}
	s.counts[it.sort][it.issuer]++
	s.counts[it.sort][document.Hash{}]++
}

func (s *Set) remove(id document.Hash) {
	it, there := s.raw[id]
	if !there {
		return
	}
	delete(s.raw, id)
	s.sum = document.Hash{}
	s.counts[it.sort][document.Hash{}]--
	if s.counts[it.sort][it.issuer]--; s.counts[it.sort][it.issuer] == 0 {
		delete(s.counts[it.sort], it.issuer)
	}
}

// room wants that there is room for one more of its issuer's, and of its sort, unless it takes another's
// place.
func (s *Set) room(it item, instead bool) error {
	l := limits[it.sort]
	if n := s.counts[it.sort][document.Hash{}]; n >= l.most && !instead {
		return fmt.Errorf("%w: %d %s: %d at most", ErrFull, n, l.what, l.most)
	}
	if n := s.counts[it.sort][it.issuer]; n >= ofOne(l.most) {
		return fmt.Errorf("%w: %d %s by the operator with key %s: %d at most by one", ErrFull, n, l.what, it.issuer.Short(), ofOne(l.most))
	}
	return nil
}

// forgotten says whether a token that is over by then is not remembered any more.
func (s *Set) forgotten(expires time.Time) bool {
	return !expires.IsZero() && s.now.After(expires.Add(Kept))
}

// Now is the time that [Set.Age] was told.
func (s *Set) Now() time.Time { return s.now }

// Age forgets what is over for long, and returns the ids of it: uses and ends of tokens. Where no
// acceptance by a good key says which TLS key a node has, the use by which it came stays with it. now is the
// earliest that the time can be; until it is set back the set takes nothing more of the kind.
func (s *Set) Age(now time.Time) (gone []document.Hash) {
	s.now = now
	for key, uses := range s.uses {
		kept := slices.DeleteFunc(uses, func(u Use) bool {
			a, known := s.accepted[u.Node]
			if !s.forgotten(u.Record.Expires) || known && (a.accept.TLSKey.IsZero() || s.gone[a.issuer]) {
				return false
			}
			gone = append(gone, u.ID())
			return true
		})
		if s.uses[key] = kept; len(kept) == 0 {
			delete(s.uses, key)
		}
	}
	for key, e := range s.ends {
		if s.forgotten(e.Expires) {
			gone = append(gone, e.id)
			delete(s.ends, key)
		}
	}
	for _, id := range gone {
		s.remove(id)
	}
	return gone
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
// bytes together. from is where it begins: another place each time, so that what somebody does not
// take hides nothing for good.
func (s *Set) Lacking(has []Short, most int, from Short) (all [][]byte) {
	there := make(map[Short]bool, len(has))
	for _, id := range has {
		there[id] = true
	}
	sorted := s.sorted()
	first, _ := slices.BinarySearchFunc(sorted, from, func(id document.Hash, from Short) int { return bytes.Compare(id[:len(from)], from[:]) })
	for _, id := range slices.Concat(sorted[first:], sorted[:first]) {
		raw := s.raw[id].raw
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
func (s *Set) All() [][]byte { return s.Lacking(nil, MaxSet*MaxPaper, Short{}) }

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

// Accepted is the newest acceptance of a node, by its key; false: nobody has accepted it, or another
// one was accepted in its place.
func (s *Set) Accepted(node signed.Key) (Accept, bool) {
	a, ok := s.accepted[node]
	if !ok || s.holders[a.accept.Name] != node {
		return Accept{}, false
	}
	return a.accept, true
}

// Acceptance is the newest acceptance of a node, by its key, and its paper, also where another node has
// its name now; false: nobody has accepted it.
func (s *Set) Acceptance(node signed.Key) (Accept, []byte, bool) {
	a, ok := s.accepted[node]
	return a.accept, s.raw[a.id].raw, ok
}

// ByRevoked says whether a node is accepted by a key alone that was revoked: who hears of its acceptance only
// now does not take it.
func (s *Set) ByRevoked(node signed.Key) bool {
	_, is := s.Accepted(node)
	return is && s.gone[s.accepted[node].issuer]
}

// Holder is the node that was accepted under a name; false: none.
func (s *Set) Holder(name string) (Accept, bool) {
	node, ok := s.holders[name]
	return s.accepted[node].accept, ok
}

// Next is the number with which an acceptance counts before all that are here of its node and of its
// name, and from a time on. What is by revoked keys has no say where the number is so high that nothing
// follows on it.
func (s *Set) Next(node signed.Key, name string, now time.Time) int64 {
	next := now.Unix()
	for of, a := range s.accepted {
		if of != node && a.accept.Name != name || s.gone[a.issuer] && a.accept.Number >= maxNumber {
			continue
		}
		next = max(next, a.accept.Number+1)
	}
	return next
}

// Displaced says whether a node was accepted, and another one has its name now. withdrawn says that the
// key is revoked of who has accepted that other one.
func (s *Set) Displaced(node signed.Key) (is, withdrawn bool) {
	a, known := s.accepted[node]
	holder := s.holders[a.accept.Name]
	return known && holder != node, s.gone[s.accepted[holder].issuer]
}

// PaperOf is the paper of a node's acceptance; nil: there is none.
func (s *Set) PaperOf(node signed.Key) []byte {
	if _, ok := s.Accepted(node); !ok {
		return nil
	}
	return s.raw[s.accepted[node].id].raw
}

// Waits says whether the node of a use waits to be accepted, and has its name until then: its token
// was not revoked, and nobody has accepted it before.
func (s *Set) Waits(u Use) bool {
	_, known := s.accepted[u.Node]
	return !known && !s.Ended(u.Record.Key)
}

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
