package gossip

import (
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/ledger"
)

// second is the record with which a second history begins. Whoever has seen both histories shows
// each peer the one that it does not know: a node whose peers are all of its own history would
// learn of the other one only when it turns to other peers.
type second struct {
	head  wire.Head
	entry cachedEntry
}

// findSecond takes note of a second history that the ledger has seen.
func (e *Engine) findSecond() bool {
	height, one := e.config.Ledger.Second()
	if height == 0 {
		return false
	}
	r, err := ledger.ParseRecord(one.Record)
	if err != nil { // it is of a later release: this node stops, and cannot explain it
		return false
	}
	e.entries.second = &second{wire.Head{Height: height, Record: r.Hash()}, asSent(height, one)}
	for _, s := range e.sessions {
		e.hearSide(s)
	}
	return true
}

// hearSide takes note of which of two histories a peer's head is.
func (e *Engine) hearSide(s *session) {
	two, h := e.entries.second, s.ledger
	if two == nil || h.Height < two.head.Height {
		return
	}
	switch record, err := e.config.Ledger.Record(h.Height); {
	case h == two.head, err == nil && record != h.Record:
		s.second = true
	case err == nil:
		s.first = true
	}
}

// shown is what a peer is told as the head of the ledger: of two histories the one that it has
// not shown itself. One that is further than this node is told of one after the other, and has
// time in between to look at each.
func (e *Engine) shown(s *session) wire.Head {
	own, two := wire.Head{Height: e.state.Height, Record: e.state.Record}, e.entries.second
	switch {
	case two == nil, s.ledger.Height == 0:
		return own
	case s.first && s.second:
		return s.toldHead
	case s.second:
		return own
	case s.first, s.ledger.Height <= e.state.Height:
		return two.head
	case s.told && time.Since(s.toldAt) < proofLimit:
		return s.toldHead
	case !s.told, s.toldHead == two.head:
		return own
	}
	return two.head
}

// lentSecond is the second entry, if the one that a peer asks for is that of what it was shown.
func (e *Engine) lentSecond(s *session, height int64) *second {
	if two := e.entries.second; two != nil && s.toldHead == two.head && height == two.head.Height {
		return two
	}
	return nil
}
