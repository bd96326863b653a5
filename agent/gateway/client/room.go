package client

import (
	"errors"
	"time"

	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
)

// room is how much more a gateway may tell in a session: what an honest one does when all seats
// say as much as they may, and each list that the node has asked for. What is told costs one,
// and one more for each 8 KiB.
type room struct {
	left float64
	at   time.Time
}

const (
	perUnit   = 8 << 10 // bytes
	someNews  = 16      // a second, in any fleet
	aList     = 1 << 10 // for each list
	aLedger   = 1 << 14 // for one of the ledger: a node that cannot write takes none of it
	mostLists = 2       // that are saved up
)

// errFlood is of a gateway that tells more than there is.
var errFlood = errors.New("the gateway tells more than the fleet says")

// ofList is what a list may cost.
func ofList(topic board.Topic, seats int) float64 {
	if topic == board.Ledger {
		return aLedger
	}
	return float64(aList + 4*seats)
}

// asked gives room for a list.
func (r *room) asked(topic board.Topic, seats int) {
	most := float64(0)
	for _, t := range board.Topics() {
		most += mostLists * ofList(t, seats)
	}
	r.left = min(r.left+ofList(topic, seats), most)
}

// spend spends what a frame costs; false: there is not so much.
func (r *room) spend(f wire.Frame, seats int, now time.Time) bool {
	most := ofList(board.Nodes, seats)
	if r.at.IsZero() {
		r.left += most
	} else if r.left < most {
		r.left = min(r.left+now.Sub(r.at).Seconds()*(someNews+float64(seats)/8), most)
	}
	r.at = now
	cost := 1.
	if items, ok := f.(wire.Items); ok {
		cost = 0
		for _, i := range items.Items {
			cost += float64(1 + i.Size()/perUnit)
		}
	}
	r.left -= cost
	return r.left >= 0
}

// gainsBack takes back what an entry has cost that was taken: there are no more of them than records.
func (r *room) gainsBack(i wire.Item) { r.left += float64(1 + i.Size()/perUnit) }

// seated are the seats that the ledger lists, by the fingerprints of their keys.
type seated struct {
	ids    map[document.Hash]bool
	height int64
	record document.Hash
}

// lists says whether a node has a seat. What was known of nodes that have none any more is
// forgotten.
func (s *stay) lists(id document.Hash) bool {
	state := s.config.Ledger.State()
	if s.seats.ids == nil || s.seats.height != state.Height || s.seats.record != state.Record {
		ids := make(map[document.Hash]bool, len(state.Roster.Seats))
		for _, seat := range state.Roster.Seats {
			ids[seat.Key.ID()] = true
		}
		s.seats = seated{ids, state.Height, state.Record}
		s.mu.Lock()
		for id := range s.present {
			if !ids[id] {
				delete(s.present, id)
			}
		}
		s.mu.Unlock()
	}
	return s.seats.ids[id]
}
