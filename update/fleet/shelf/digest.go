package shelf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Part is the places of a kind, by its number, whose first Depth hexadecimal digits are those of
// Prefix. Depth 0 is all of the kind; each part has 16 parts of the next depth. Kinds lie apart,
// so that nodes of two releases agree on those that both know.
type Part struct {
	Kind   int
	Depth  int
	Prefix uint32
}

const (
	// maxDepth is how far parts are divided, so far that nobody gets many keys that lie in one.
	maxDepth = 8
	fanOut   = 16
	// few is how many places are not divided any more: to list them costs no more than the sums
	// of their parts.
	few = fanOut
	// MaxKind is the highest number of a kind that this protocol has room for.
	MaxKind = 64
)

// Valid says whether there may be such a part.
func (p Part) Valid() bool {
	return 1 <= p.Kind && p.Kind <= MaxKind && 0 <= p.Depth && p.Depth <= maxDepth && uint64(p.Prefix) < 1<<(4*p.Depth)
}

// partOf is the part of a depth in which a place of a kind is.
func partOf(kind int, id ID, depth int) Part {
	return Part{kind, depth, binary.BigEndian.Uint32(id[:]) >> (32 - 4*depth) & (1<<(4*depth) - 1)}
}

// Sum stands for the content of a part, or for an object. It is cut off where finding two of
// one sum costs 2^64 steps.
type Sum [16]byte

// SumOf is a sum together with its part.
type SumOf struct {
	Part
	Sum Sum
}

// Item says which object lies in a place: its number, and what it says.
type Item struct {
	ID     ID
	Number uint64
	Sum    Sum
}

// List are all objects of a part.
type List struct {
	Part
	Items []Item
}

// within are the places of a part, of those that the roster has.
func (s *Shelf) within(p Part) []ID {
	places := s.places[p.Kind]
	find := func(prefix uint64) int {
		i, _ := slices.BinarySearchFunc(places, prefix, func(id ID, prefix uint64) int {
			at := uint64(binary.BigEndian.Uint32(id[:])) >> (32 - 4*p.Depth)
			if at < prefix {
				return -1
			}
			return 1
		})
		return i
	}
	return places[find(uint64(p.Prefix)):find(uint64(p.Prefix)+1)]
}

// Roots are the sums of all kinds. Two shelves of one roster have the same ones if all seats say
// the same on both: how often they have said it does not count, so that a fleet in which nothing
// happens agrees at once.
func (s *Shelf) Roots() (all []SumOf) {
	for _, k := range s.kinds {
		p := Part{Kind: k.Number}
		all = append(all, SumOf{p, s.Sum(p)})
	}
	return all
}

// Root stands for the whole shelf: that of two shelves with the same kinds and [Shelf.Roots] is
// the same.
func (s *Shelf) Root() Sum {
	h := sha256.New()
	for _, one := range s.Roots() {
		h.Write(one.Sum[:])
	}
	return Sum(h.Sum(nil)[:])
}

// Sum is the sum of a part. It is kept of parts that are divided, of which there are no more
// than places: whoever asks for others has them computed, which is little.
func (s *Shelf) Sum(p Part) Sum {
	if sum, ok := s.parts[p]; ok {
		return sum
	}
	h := sha256.New()
	places := s.within(p)
	if len(places) <= few || p.Depth == maxDepth {
		for _, id := range places {
			if held := s.held[id]; held != nil {
				h.Write(id[:])
				h.Write(held.content[:])
			}
		}
		return Sum(h.Sum(nil)[:])
	}
	for _, part := range p.parts() {
		sum := s.Sum(part)
		h.Write(sum[:])
	}
	sum := Sum(h.Sum(nil)[:])
	s.parts[p] = sum
	return sum
}

func (p Part) parts() (all [fanOut]Part) {
	for i := range all {
		all[i] = Part{p.Kind, p.Depth + 1, p.Prefix<<4 | uint32(i)}
	}
	return all
}

// Answer compares sums with the shelf's own, and says what to tell whoever sent them: nothing of
// parts that are equal, or of kinds that it does not know; of one that is not the sums of its
// parts, or a list if it is small.
func (s *Shelf) Answer(theirs []SumOf) (sums []SumOf, lists []List) {
	for _, one := range theirs {
		switch {
		case !one.Valid() || s.places[one.Kind] == nil || s.Sum(one.Part) == one.Sum:
		case len(s.within(one.Part)) <= few || one.Depth == maxDepth:
			lists = append(lists, s.List(one.Part))
		default:
			for _, part := range one.parts() {
				sums = append(sums, SumOf{part, s.Sum(part)})
			}
		}
	}
	return sums, lists
}

// List are all objects of a part.
func (s *Shelf) List(p Part) List {
	l := List{Part: p}
	for _, id := range s.within(p) {
		if item, ok := s.Item(id); ok {
			l.Items = append(l.Items, item)
		}
	}
	return l
}

// Item is what lies in a place; false: nothing.
func (s *Shelf) Item(id ID) (Item, bool) {
	h := s.held[id]
	if h == nil {
		return Item{}, false
	}
	return itemOf(id, h.all()), true
}

// ItemOf is how a shelf tells of objects of a kind that it knows which are all that lies in a place.
func (s *Shelf) ItemOf(id ID, raws [][]byte) Item {
	var all []object
	for _, raw := range raws {
		if e, err := signed.Parse(raw); err == nil {
			if k := s.kind(e.Kind); k != nil {
				all = append(all, s.object(k, e))
			}
		}
	}
	return itemOf(id, all)
}

func itemOf(id ID, all []object) Item {
	if len(all) == 0 {
		return Item{ID: id}
	}
	sum := all[0].hash
	if len(all) > 1 {
		var sums []byte
		for _, one := range all {
			sums = append(sums, one.hash[:]...)
		}
		sum = document.HashOf(sums)
	}
	return Item{id, all[0].Sequence, Sum(sum[:])}
}

// Behind is how somebody tells of the object that lies behind the newest one in a place, if he has that
// alone; may: there can be one, so that an item under a lower number may be news.
func (s *Shelf) Behind(id ID) (item Item, may bool) {
	h := s.held[id]
	if h == nil || !s.shared(h) {
		return Item{}, false
	}
	if h.behind != nil {
		item = Item{id, h.behind.Sequence, Sum(h.behind.hash[:])}
	}
	return item, true
}

// Lacks says whether an item that somebody has may be news to this shelf, and Ahead whether the
// shelf's own may be to him. Both hold where the seat has said two things under one number, of
// which each has another, or where several keys have said something about it. A place that the
// roster does not have is nobody's.
func (s *Shelf) Lacks(theirs Item) bool {
	own, ok := s.Item(theirs.ID)
	if !ok {
		for kind := range s.places {
			if s.has(kind, theirs.ID) {
				return true
			}
		}
		return false
	}
	if behind, may := s.Behind(theirs.ID); may && theirs.Number < own.Number {
		return theirs != behind
	}
	return theirs.Number > own.Number || theirs.Number == own.Number && theirs.Sum != own.Sum
}

// has says whether a kind has a place, by the roster.
func (s *Shelf) has(kind int, id ID) bool {
	_, has := slices.BinarySearchFunc(s.places[kind], id, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	return has
}

// Ahead says whether what lies in a place is news to somebody who has that item there.
func (s *Shelf) Ahead(theirs Item) bool {
	own, ok := s.Item(theirs.ID)
	return ok && (own.Number > theirs.Number || own.Number == theirs.Number && own.Sum != theirs.Sum)
}

// Compare says what a list has that the shelf lacks, and what the shelf has that the list lacks:
// nothing of a part that is by far too large to be listed.
func (s *Shelf) Compare(theirs List) (lacks []Item, ahead []ID) {
	if !theirs.Valid() || theirs.Depth < maxDepth && len(s.within(theirs.Part)) > 4*few {
		return nil, nil
	}
	listed := make(map[ID]bool, len(theirs.Items))
	for _, item := range theirs.Items {
		if partOf(theirs.Kind, item.ID, theirs.Depth) != theirs.Part || !s.has(theirs.Kind, item.ID) {
			continue
		}
		listed[item.ID] = true
		if s.Lacks(item) {
			lacks = append(lacks, item)
		}
		if s.Ahead(item) {
			ahead = append(ahead, item.ID)
		}
	}
	for _, id := range s.within(theirs.Part) {
		if s.held[id] != nil && !listed[id] {
			ahead = append(ahead, id)
		}
	}
	return lacks, ahead
}

// Renewal says that a seat says the same as before under a higher number, to somebody who has
// the object under a lower one: most of what a quiet fleet sends.
type Renewal struct {
	ID        ID
	Number    uint64
	Signature [64]byte
}

// Renewal is the one for somebody who has an object under a number; false: he needs the whole
// object, or nothing.
func (s *Shelf) Renewal(id ID, have uint64) (Renewal, bool) {
	h := s.held[id]
	if h == nil || h.contested() || have < h.since || have >= h.best.Sequence {
		return Renewal{}, false
	}
	return Renewal{id, h.best.Sequence, [64]byte(h.best.Signature())}, true
}

// Renew is [Shelf.Put] for a renewal. [Missing] says that the whole object is needed: what lies
// here is not what was renewed, or the signature is wrong.
func (s *Shelf) Renew(r Renewal) Verdict {
	v := s.renew(r)
	s.counts[v]++
	return v
}

func (s *Shelf) renew(r Renewal) Verdict {
	h := s.held[r.ID]
	if h == nil || h.contested() {
		return Missing
	}
	e := h.best.Again(r.Number, r.Signature[:])
	if v := s.take(e, true); v != BadSignature {
		return v
	}
	return Missing
}

// Newest is the highest number of any object of a seat that is here; 0: there is none.
func (s *Shelf) Newest(by signed.Key) (number uint64) {
	for _, k := range s.kinds {
		if h := s.held[IDOf(k.Name, by)]; h != nil && k.About == nil {
			number = max(number, h.best.Sequence)
		}
	}
	return number
}
