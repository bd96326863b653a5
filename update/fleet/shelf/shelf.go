// Package shelf is what a node knows of the other seats of its fleet by their own words: of
// each kind of signed objects the newest one of each seat, and no more.
//
// In come envelopes from anybody, in any order, again and again, and the fleet's roster; out go
// the objects that count, what two nodes have to tell each other to know the same, and how many
// envelopes were refused for which reason. What is on the shelf depends on the set of envelopes
// that came, not on their order, but for what the roster did not list when it came. The package
// sends nothing and reads no clock; what an object means is its kind's.
package shelf

import (
	"bytes"
	"cmp"
	"errors"
	"iter"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Shelf holds the newest object of each kind and seat. Its methods may be called from one
// goroutine.
type Shelf struct {
	fleet document.Hash
	kinds []notice.Kind
	// Verify checks a signature. Default: [signed.Envelope.Verify].
	Verify func(signed.Envelope) error

	seats  map[signed.Key]bool // that the ledger's state lists
	places map[int][]ID        // of all their objects, by the kind's number, sorted
	held   map[ID]*held
	parts  map[Part]Sum // that were computed, until what is in them changes
	counts [verdicts]uint64
	pairs  map[signed.Key]Pair
}

// ID names the place of one kind's object of one seat. Nobody finds a key whose place is that
// of another key's.
type ID [12]byte

// IDOf is the place of a seat's object of a kind.
func IDOf(kind string, by signed.Key) ID {
	sum := document.HashOf(document.Message("kogge/shelf/v1", []byte(kind), []byte(by)))
	return ID(sum[:])
}

// held is what lies in a place.
type held struct {
	best  object
	rival *object // another one with best's number, by the same key; nil: there is none
	since uint64  // best's body has been the same since this number, as far as was seen
	// content stands for the bodies, whatever their number.
	content document.Hash
}

// object is an envelope with the hash of its message.
type object struct {
	signed.Envelope
	hash document.Hash
}

// Pair is two objects of a seat with one number: it has said two things at once.
type Pair [2]signed.Envelope

// New is an empty shelf of a fleet for kinds of objects. It lists nobody until [Shelf.Follow].
func New(fleet document.Hash, kinds []notice.Kind) *Shelf {
	return &Shelf{
		fleet: fleet, kinds: kinds, Verify: signed.Envelope.Verify,
		places: make(map[int][]ID), held: make(map[ID]*held), parts: make(map[Part]Sum), pairs: make(map[signed.Key]Pair),
	}
}

// Follow takes the seats that the ledger's state lists now, and forgets what others have said.
// It returns how many objects that were.
func (s *Shelf) Follow(r roster.Roster) (dropped int) {
	s.seats = make(map[signed.Key]bool, len(r.Seats))
	for _, seat := range r.Seats {
		s.seats[seat.Key] = true
	}
	for _, k := range s.kinds {
		places := make([]ID, 0, len(r.Seats))
		for _, seat := range r.Seats {
			places = append(places, IDOf(k.Name, seat.Key))
		}
		slices.SortFunc(places, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
		s.places[k.Number] = places
	}
	for id, h := range s.held {
		if !s.seats[h.best.By] {
			delete(s.held, id)
			dropped++
		}
	}
	for key := range s.pairs {
		if !s.seats[key] {
			delete(s.pairs, key)
		}
	}
	clear(s.parts) // who is listed decides how they are divided
	return dropped
}

// Lists says whether a seat has this key.
func (s *Shelf) Lists(key signed.Key) bool { return s.seats[key] }

// allowance is what all seats together may take of one kind in every fleet, in bytes, if each
// of them says as much as it may: what is beyond a kind's least is shared. How many kinds there
// are has no part in it: what one release takes the next one takes too.
const allowance = 8 << 20

// Limit is how many bytes an envelope of a kind may have, with so many seats in the roster.
func Limit(k notice.Kind, seats int) int {
	share := allowance / (2 * max(1, seats)) // two: there may be a rival
	return max(k.Least, min(k.Most, share))
}

// Limit is how many bytes an envelope of a kind may have now; 0: the kind is unknown.
func (s *Shelf) Limit(kind string) int {
	k := s.kind(kind)
	if k == nil {
		return 0
	}
	return Limit(*k, len(s.seats))
}

func (s *Shelf) kind(name string) *notice.Kind {
	if i := slices.IndexFunc(s.kinds, func(k notice.Kind) bool { return k.Name == name }); i >= 0 {
		return &s.kinds[i]
	}
	return nil
}

// Put looks at an envelope that somebody has sent, and keeps it if it is news. The signature
// is checked of what would be news alone.
func (s *Shelf) Put(raw []byte) Verdict {
	v := s.put(raw)
	s.counts[v]++
	return v
}

func (s *Shelf) put(raw []byte) Verdict {
	if len(raw) > signed.MaxEnvelope {
		return TooLarge
	}
	e, err := signed.Parse(raw)
	if err != nil {
		return Malformed
	}
	return s.take(e)
}

// take is put for an envelope that was read.
func (s *Shelf) take(e signed.Envelope) Verdict {
	k := s.kind(e.Kind)
	switch {
	case k == nil:
		return UnknownKind
	case e.Fleet != s.fleet:
		return Foreign
	case !s.seats[e.By]:
		return Unlisted
	case e.Sequence < 1 || e.Sequence > notice.MaxNumber:
		return BadNumber
	case len(e.Bytes()) > Limit(*k, len(s.seats)):
		return TooLarge
	}
	id := IDOf(e.Kind, e.By)
	h := s.held[id]
	one := object{e, document.HashOf(e.Message())}
	if h != nil {
		switch c := cmp.Compare(e.Sequence, h.best.Sequence); {
		case c < 0:
			return Older
		case c == 0 && !h.news(one):
			return Known
		}
	}
	if s.Verify(e) != nil {
		return BadSignature
	}
	if err := k.Check(e.Body); err != nil && !errors.Is(err, document.ErrNewer) { // what a later release says is passed on
		return BadBody
	}
	var err error
	if one.Envelope, err = signed.Parse(bytes.Clone(e.Bytes())); err != nil { // not the caller's bytes, nor more than these
		return Malformed
	}
	one.Kind = k.Name // one string for all of a kind
	return s.keep(id, k.Number, h, one)
}

// news says whether an object with best's number would change what is held.
func (h *held) news(one object) bool {
	if one.hash == h.best.hash || h.contested() && one.hash == h.rival.hash {
		return false
	}
	return !h.contested() || less(one, *h.rival)
}

// contested says whether the seat has said two things under this number.
func (h *held) contested() bool { return h.rival != nil }

// less orders objects of one number: the lower hash comes first, whoever sees them in whatever
// order.
func less(a, b object) bool { return bytes.Compare(a.hash[:], b.hash[:]) < 0 }

// keep puts a verified object into its place: alone, or as one of two with its number.
func (s *Shelf) keep(id ID, kind int, h *held, one object) Verdict {
	if h == nil || one.Sequence > h.best.Sequence {
		next := &held{best: one, since: one.Sequence}
		v := Taken
		if h != nil && !h.contested() && bytes.Equal(h.best.Body, one.Body) {
			v, next.since, next.content = Renewed, h.since, h.content
			s.held[id] = next
			return v
		}
		s.set(id, kind, next)
		return v
	}
	two := []object{h.best, one}
	if h.contested() {
		two = append(two, *h.rival)
	}
	slices.SortFunc(two, func(a, b object) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	s.set(id, kind, &held{best: two[0], rival: &two[1], since: one.Sequence})
	s.pairs[one.By] = Pair{two[0].Envelope, two[1].Envelope}
	return Contested
}

// set puts new content into a place of a kind.
func (s *Shelf) set(id ID, kind int, h *held) {
	var rival []byte
	if h.contested() {
		rival = h.rival.Body
	}
	h.content = document.HashOf(document.Message("kogge/shelf-content/v1", h.best.Body, rival))
	s.held[id] = h
	for depth := range maxDepth + 1 {
		delete(s.parts, partOf(kind, id, depth))
	}
}

// Get is the object of a kind by a seat, or the first of two with one number; false: none came.
func (s *Shelf) Get(kind string, by signed.Key) (signed.Envelope, bool) {
	h := s.held[IDOf(kind, by)]
	if h == nil {
		return signed.Envelope{}, false
	}
	return h.best.Envelope, true
}

// Held are the objects in a place, as they are to be sent: none, one, or two with one number.
func (s *Shelf) Held(id ID) []signed.Envelope {
	switch h := s.held[id]; {
	case h == nil:
		return nil
	case h.contested():
		return []signed.Envelope{h.best.Envelope, h.rival.Envelope}
	default:
		return []signed.Envelope{h.best.Envelope}
	}
}

// All gives the objects of a kind, in the order of their places; of two with one number the
// first.
func (s *Shelf) All(kind string) iter.Seq[signed.Envelope] {
	return func(yield func(signed.Envelope) bool) {
		k := s.kind(kind)
		if k == nil {
			return
		}
		for _, id := range s.places[k.Number] {
			if h := s.held[id]; h != nil && !yield(h.best.Envelope) {
				return
			}
		}
	}
}

// Len is how many places are taken.
func (s *Shelf) Len() int { return len(s.held) }

// Pairs are the last two objects with one number of each seat of which such came, for people
// to see, by key. They stay when the seat says more.
func (s *Shelf) Pairs() map[signed.Key]Pair { return s.pairs }
