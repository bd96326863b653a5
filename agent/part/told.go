package part

import (
	"log"
	"maps"
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// This file is what the node makes of keys of other nodes that the member has called revoked by which
// it came in. A stolen node is to find no door open here only because no operator has told this node
// yet; and a hostile member is not to keep this node from all others.

// shunned are the TLS keys of seats that were called revoked by a member alone, as long as those are no
// more seats than operators may isolate by themselves ([order.Most]): those left are as many as the
// fleet needs. Of more none is.
func shunned(told []string, r roster.Roster, tlsKey func(signed.Key) (document.Hash, bool)) map[string]roster.Seat {
	if len(told) == 0 {
		return nil
	}
	all := make(map[string]roster.Seat)
	seats, members := order.Most(r)
	for _, seat := range r.Seats {
		if key, ok := tlsKey(seat.Key); ok && slices.Contains(told, key.String()) {
			all[key.String()] = seat
			seats--
			if seat.Member || seat.Spare {
				members--
			}
		}
	}
	if seats < 0 || members < 0 {
		return nil
	}
	return all
}

// turnsAway says whether who has a TLS key is turned away as a node: it was revoked, or is one of shunned.
func (p *Part) turnsAway(tlsKey string) bool {
	if p.node.Revoked(tlsKey) {
		return true
	}
	shun := p.shun.Load()
	if shun == nil {
		return false
	}
	_, is := (*shun)[tlsKey]
	return is
}

// heedTold looks whom the node shuns now, and has those looked at with whom it has sessions.
func (s *session) heedTold(r roster.Roster) {
	now := shunned(s.part.node.Told(), r, s.tlsKey)
	before := s.part.shun.Swap(&now)
	if before == nil && len(now) == 0 || before != nil && maps.EqualFunc(*before, now, func(a, b roster.Seat) bool { return a.Key == b.Key }) {
		return
	}
	for key, seat := range now {
		log.Printf("agent: node %s is turned away: the member that let this node in has called its TLS key %.12s revoked", seat.Name, key)
	}
	s.advanced()
}
