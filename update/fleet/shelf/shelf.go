// Package shelf is what a node knows of the other seats of its fleet by their own words, and by
// operators' words about them: of each kind of signed objects the newest one of each seat, or
// about it, and no more. Behind the newest one about a seat lies the newest by another operator:
// it does not count, but is passed on to nodes on which the first one's key was revoked.
//
// In come envelopes from anybody, in any order, again and again, and the fleet's roster; out go
// the objects that count, what two nodes have to tell each other to know the same, and how many
// envelopes were refused for which reason. What is on the shelf depends on the set of envelopes
// that came, not on their order, but for what the roster did not list when it came. The package
// sends nothing and reads no clock; what an object means is its kind's.
package shelf

import (
	"bytes"
	"encoding/binary"
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
	// May says whether who signed an object about a seat may do so now. Default: nobody may.
	May func(notice.Kind, signed.Envelope) bool
	// Early says of an object that is refused for that whether it is not once the ledger is further. It is
	// asked of kinds that can say so.
	// Default: no.
	Early func(notice.Kind, signed.Envelope) bool
	// Withdrawn says whether an object is refused because a key was revoked: that of who signed it,
	// or one that those speak of whose place it would take. Default: none was.
	Withdrawn func(e signed.Envelope, held []signed.Envelope) bool

	seats  map[signed.Key]rights // that the ledger's state lists
	places map[int][]ID          // of all their objects, by the kind's number, sorted
	held   map[ID]*held
	parts  map[Part]Sum // that were computed, until what is in them changes
	counts [verdicts]uint64
	pairs  map[signed.Key]Pair
}

// rights are what a seat may say besides what all may.
type rights struct {
	holds bool // the fleet's secrets
	votes bool
}

// ID names the place of one kind's object of one seat. Nobody finds a key whose place is that
// of another key's.
type ID [12]byte

// IDOf is the place of a seat's object of a kind, or of the object of a kind about it.
func IDOf(kind string, by signed.Key) ID {
	sum := document.HashOf(document.Message("kogge/shelf/v1", []byte(kind), []byte(by)))
	return ID(sum[:])
}

// Pair is two objects of a seat with one number: it has said two things at once.
type Pair [2]signed.Envelope

// New is an empty shelf of a fleet for kinds of objects. It lists nobody until [Shelf.Follow].
func New(fleet document.Hash, kinds []notice.Kind) *Shelf {
	return &Shelf{
		fleet: fleet, kinds: kinds, Verify: signed.Envelope.Verify, May: func(notice.Kind, signed.Envelope) bool { return false },
		Withdrawn: func(signed.Envelope, []signed.Envelope) bool { return false },
		Early:     func(notice.Kind, signed.Envelope) bool { return false },
		places:    make(map[int][]ID), held: make(map[ID]*held), parts: make(map[Part]Sum), pairs: make(map[signed.Key]Pair),
	}
}

// Follow takes the seats that the ledger's state lists now, and forgets what others have said, or
// who may not have said it any more. It returns how many places are empty by that, and which objects
// count now that lay behind others.
func (s *Shelf) Follow(r roster.Roster) (dropped int, rose []signed.Envelope) {
	s.seats = make(map[signed.Key]rights, len(r.Seats))
	for _, seat := range r.Seats {
		s.seats[seat.Key] = rights{votes: seat.Vote}
	}
	for _, seat := range r.Custodians() {
		s.seats[seat.Key] = rights{holds: true, votes: seat.Vote}
	}
	for _, k := range s.kinds {
		places := make([]ID, 0, len(r.Seats))
		for _, seat := range r.Seats {
			if s.may(k, seat.Key) {
				places = append(places, IDOf(k.Name, seat.Key))
			}
		}
		slices.SortFunc(places, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
		s.places[k.Number] = places
	}
	for id, h := range s.held {
		switch left := s.left(h); {
		case left == nil:
			delete(s.held, id)
			dropped++
		case left != h:
			s.held[id] = left
			if left.best.hash != h.best.hash {
				rose = append(rose, left.best.Envelope)
			}
		}
	}
	for key := range s.pairs {
		if !s.Lists(key) {
			delete(s.pairs, key)
		}
	}
	clear(s.parts) // who is listed decides how they are divided
	return dropped, rose
}

// Lists says whether a seat has this key.
func (s *Shelf) Lists(key signed.Key) bool { _, ok := s.seats[key]; return ok }

// may says whether a key may say something of a kind: it has a seat, and for some kinds one of few,
// or one with a vote.
func (s *Shelf) may(k notice.Kind, key signed.Key) bool {
	is, listed := s.seats[key]
	return listed && (is.holds || !k.Few) && (is.votes || !k.Voters)
}

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

// seatOf is the seat in whose place an object of a kind lies: the one that has signed it, or that it
// is about.
func seatOf(k *notice.Kind, e signed.Envelope) (signed.Key, error) {
	if k.About == nil {
		return e.By, nil
	}
	return k.About(e.Body)
}

// listed says whether the place of an object is one of a seat, and who signed it may do so.
func (s *Shelf) listed(e signed.Envelope) bool {
	k := s.kind(e.Kind)
	if k == nil {
		return false
	}
	seat, err := seatOf(k, e)
	return err == nil && s.may(*k, seat) && (k.About == nil || s.May(*k, e))
}

// Place is where an object lies, or would. It is nobody's if that cannot be said.
func (s *Shelf) Place(e signed.Envelope) (id ID) {
	if k := s.kind(e.Kind); k != nil {
		if seat, err := seatOf(k, e); err == nil {
			id = IDOf(e.Kind, seat)
		}
	}
	return id
}

// Put looks at an envelope that somebody has sent, and keeps it if it is news. The signature
// is checked of what would be news alone.
func (s *Shelf) Put(raw []byte) Verdict { return s.put(raw, true) }

// Give is [Shelf.Put] for an object that is to count: one that would lie behind another is older.
func (s *Shelf) Give(raw []byte) Verdict { return s.put(raw, false) }

func (s *Shelf) put(raw []byte, behind bool) (v Verdict) {
	defer func() { s.counts[v]++ }()
	if len(raw) > signed.MaxEnvelope {
		return TooLarge
	}
	e, err := signed.Parse(raw)
	if err != nil {
		return Malformed
	}
	return s.take(e, behind)
}

// take is put for an envelope that was read.
func (s *Shelf) take(e signed.Envelope, behind bool) Verdict {
	k := s.kind(e.Kind)
	switch {
	case k == nil:
		return UnknownKind
	case e.Fleet != s.fleet:
		return Foreign
	case k.About == nil && !s.may(*k, e.By):
		return Unlisted
	case e.Sequence < 1 || e.Sequence > notice.MaxNumber:
		return BadNumber
	case len(e.Bytes()) > Limit(*k, len(s.seats)):
		return TooLarge
	case s.Withdrawn(e, s.Held(s.Place(e))):
		return Withdrawn
	case !s.listed(e) && k.Early != nil && s.Early(*k, e):
		return Early
	case !s.listed(e):
		return Unlisted
	}
	id := s.Place(e)
	h := s.held[id]
	one := s.object(k, e)
	switch v := h.with(one, k.About != nil).verdict(h, one); {
	case v == Behind && !behind:
		return Older
	case !v.News():
		return v
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
	return s.keep(id, k, h, one)
}

// object is an envelope of a kind as it is compared.
func (s *Shelf) object(k *notice.Kind, e signed.Envelope) object {
	if k.Says != nil {
		if says := k.Says(s.fleet, e.Body); says != nil {
			return object{e, document.HashOf(document.Message("kogge/shelf-says/v1", []byte(k.Name), binary.BigEndian.AppendUint64(nil, e.Sequence), says)), says}
		}
	}
	return object{e, document.HashOf(e.Message()), nil}
}

// keep puts a verified object into its place.
func (s *Shelf) keep(id ID, k *notice.Kind, h *held, one object) Verdict {
	next := h.with(one, k.About != nil)
	v := next.verdict(h, one)
	s.held[id] = next
	if v == Renewed {
		next.since, next.content = h.since, h.content
		return v
	}
	next.content = next.sum()
	for depth := range maxDepth + 1 {
		delete(s.parts, partOf(k.Number, id, depth))
	}
	if v == Contested && s.Lists(one.By) { // operators may order two things at once without knowing it
		s.pairs[one.By] = Pair{next.best.Envelope, next.rival.Envelope}
	}
	return v
}

// Get is the object of a kind by a seat, or about it, or the first of two with one number; false:
// none came.
func (s *Shelf) Get(kind string, seat signed.Key) (signed.Envelope, bool) {
	h := s.held[IDOf(kind, seat)]
	if h == nil {
		return signed.Envelope{}, false
	}
	return h.best.Envelope, true
}

// Held are the objects in a place, as they are to be sent: none, one, two with one number, and
// what lies behind them.
func (s *Shelf) Held(id ID) (all []signed.Envelope) {
	for _, one := range s.held[id].all() {
		all = append(all, one.Envelope)
	}
	return all
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
