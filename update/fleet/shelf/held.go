package shelf

import (
	"bytes"
	"cmp"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// held is what lies in a place.
type held struct {
	best  object
	rival *object // another one with best's number; nil: there is none
	// behind is the newest one by another key than best's, where several may say something about
	// one seat; nil: there is none, or it is the rival. On a node on which best's key was revoked
	// it is the one that counts, and nobody else may be near that has it.
	behind *object
	since  uint64 // best's body has been the same since this number, as far as was seen
	// content stands for the bodies, whatever their number.
	content document.Hash
}

// object is an envelope with the hash of its message, or where that counts, of what it says.
type object struct {
	signed.Envelope
	hash document.Hash
	says []byte // by [notice.Kind]; nil: its body
}

// content is what an object says.
func (o object) content() []byte {
	if o.says != nil {
		return o.says
	}
	return o.Body
}

// contested says whether the seat has said two things under this number.
func (h *held) contested() bool { return h.rival != nil }

// all are the objects in a place, the best one first.
func (h *held) all() (all []object) {
	if h == nil {
		return nil
	}
	all = append(all, h.best)
	for _, one := range []*object{h.rival, h.behind} {
		if one != nil {
			all = append(all, *one)
		}
	}
	return all
}

// settle chooses from the objects of a place those that are kept: which ones does not depend on the
// order in which they came, nor on those that were let go before. Of one number the lower hash
// comes first. shared: several keys may sign objects of this place.
func settle(all []object, shared bool) *held {
	slices.SortFunc(all, func(a, b object) int {
		return cmp.Or(cmp.Compare(b.Sequence, a.Sequence), bytes.Compare(a.hash[:], b.hash[:]))
	})
	all = slices.CompactFunc(all, func(a, b object) bool { return a.hash == b.hash })
	h := &held{best: all[0], since: all[0].Sequence}
	if len(all) > 1 && all[1].Sequence == h.best.Sequence {
		h.rival = &all[1]
	}
	other := slices.IndexFunc(all, func(o object) bool { return o.By != h.best.By })
	if shared && other > 0 && h.rival != &all[other] {
		h.behind = &all[other]
	}
	h.content = h.sum()
	return h
}

// with is what lies in a place once one more object has come.
func (h *held) with(one object, shared bool) *held {
	next := settle(append(h.all(), one), shared)
	if h != nil && next.best.hash == h.best.hash {
		next.since = h.since
	}
	return next
}

// verdict says what an object has changed that has come into a place.
func (h *held) verdict(before *held, one object) Verdict {
	is := func(o *object) bool { return o != nil && o.hash == one.hash }
	switch {
	case slices.ContainsFunc(before.all(), func(o object) bool { return o.hash == one.hash }):
		return Known
	case is(&h.best) && (before == nil || one.Sequence > before.best.Sequence):
		if before != nil && !before.contested() && before.best.By == one.By && bytes.Equal(before.best.Body, one.Body) {
			return Renewed
		}
		return Taken
	case is(&h.best), is(h.rival):
		return Contested
	case is(h.behind):
		return Behind
	case one.Sequence == h.best.Sequence:
		return Known
	}
	return Older
}

// sum is the content.
func (h *held) sum() document.Hash {
	var rival []byte
	if h.contested() {
		rival = h.rival.content()
	}
	fields := [][]byte{h.best.content(), rival}
	if h.behind != nil {
		fields = append(fields, h.behind.content())
	}
	return document.HashOf(document.Message("kogge/shelf-content/v1", fields...))
}

// left is what is left in a place of those that are listed still; h itself: all; nil: nothing.
func (s *Shelf) left(h *held) *held {
	all := h.all()
	left := slices.DeleteFunc(slices.Clone(all), func(o object) bool { return !s.listed(o.Envelope) })
	switch len(left) {
	case len(all):
		return h
	case 0:
		return nil
	}
	return settle(left, s.shared(h))
}

// shared says whether objects of several keys may lie in a place.
func (s *Shelf) shared(h *held) bool {
	k := s.kind(h.best.Kind)
	return k != nil && k.About != nil
}
