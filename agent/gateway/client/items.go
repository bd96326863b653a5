package client

import (
	"errors"
	"time"

	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// hearItems takes what lies on the board, as far as it counts. An error ends the session with a
// gateway that lies.
func (s *stay) hearItems(f wire.Items, now time.Time) error {
	for _, i := range f.Items {
		if s.config.Told != nil {
			s.config.Told(f.Topic, i)
		}
		p, ok := board.Parse(i.Key)
		lost := !ok || p.Topic != f.Topic
		if !lost && p.Topic == board.Nodes && !s.lists(p.Node) {
			lost, s.strange = true, s.seats.height
		}
		if lost {
			s.count("nowhere")
			continue
		}
		what, lie := "", false
		if p.Topic == board.Ledger {
			what, lie = s.hearEntry(p.Height, i, now)
		} else {
			what, lie = s.hearObject(p, i)
		}
		if what == entryTaken {
			s.room.gainsBack(i)
		}
		if what != "" {
			s.count(what)
		}
		if lie {
			if s.lies++; s.lies > maxLies {
				s.avoid(s.seat, shunned)
				return errLies
			}
		}
	}
	return nil
}

// hearObject judges an object of a seat, and notes whether the seat holds a lease: whatever the
// object says, that is the gateway's word alone. It returns what became of the object, and
// whether no honest gateway had passed it on.
func (s *stay) hearObject(p board.Place, i wire.Item) (what string, lie bool) {
	if i.State != wire.Gone {
		e, err := signed.Parse(i.Value)
		own, _ := board.Of(e)
		if err != nil {
			return shelf.Malformed.String(), true
		}
		if own != p {
			return "misplaced", true
		}
		v, err := s.config.Judge(i.Value)
		if err != nil {
			return err.Error(), false
		}
		what = v.String()
		if v.Lie() {
			return what, true
		}
		if v > shelf.Older { // of no seat, or what this release does not know
			return what, false
		}
	}
	if p.Kind == notice.StatusKind {
		s.note(p, i)
	}
	return what, false
}

// note notes whether a seat holds a lease.
func (s *stay) note(p board.Place, i wire.Item) {
	now := presence{i.State == wire.Leased, i.Revision}
	if t := s.topics[board.Nodes]; t != nil && t.present != nil {
		if t.present[p.Node].revision <= now.revision {
			t.present[p.Node] = now
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.present[p.Node].revision <= now.revision {
		s.present[p.Node] = now
	}
}

const entryTaken = "entry taken"

// maxBelow is of how many entries below the ledger's height a gateway may tell in a session:
// each is read and compared.
const maxBelow = 64

// hearEntry takes an entry of the ledger. A height that was taken is never taken lower: what
// comes below it can only show that there are two histories, and then the ledger stops.
func (s *stay) hearEntry(height int64, i wire.Item, now time.Time) (what string, lie bool) {
	if i.State == wire.Gone {
		return "", false
	}
	mine := s.config.Ledger.State().Height
	if height > mine+1 { // some are missing: they are asked for, or gossip has them
		if t := s.topics[board.Ledger]; t != nil && t.live {
			s.askAgain(board.Ledger, now)
		}
		return "entry ahead", false
	}
	if height <= mine {
		if s.below++; s.below > maxBelow {
			return "entry below", false
		}
	}
	e, err := ledger.ParseEntry(i.Value, height)
	if err != nil {
		return "no entry", true
	}
	switch err := s.config.Ledger.Take(height, e); {
	case err == nil && height > mine:
		if s.config.Grown != nil {
			s.config.Grown()
		}
		return entryTaken, false
	case err == nil:
		return "entry known", false
	case errors.Is(err, ledger.ErrCertificate), errors.Is(err, ledger.ErrRecord), errors.Is(err, ledger.ErrValue):
		return "entry not proved", true
	default:
		if !s.logged {
			s.logged = true
			s.config.Logf("gateway: %v", err)
		}
		return "entry refused", false
	}
}
