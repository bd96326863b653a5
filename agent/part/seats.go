package part

import (
	"log"
	"net/netip"
	"reflect"
	"slices"

	"kogge.example/agent/api"
	"kogge.example/init/control"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// objects looks for what a seat has said.
type objects func(kind string, by signed.Key) (signed.Envelope, bool)

// maxLeaving is how many seats the service etcd is told of that the roster does not have run it.
const maxLeaving = 64

// seatsOf is what the service etcd has to know of the seats that run it: which TLS key each calls
// its own, where it may be, and what operators have ordered. Those are the seats that the roster
// has run etcd, and those that it has had or that etcd lists, for as long as they have a seat: they
// go once etcd has let them. What was known before counts until the same seat key says something
// newer: an engine begins with nothing, and may hear the old word first.
func seatsOf(object objects, r roster.Roster, standing order.Standing, before control.Seats, listed []int) (all control.Seats) {
	all.Ordered = standing.Generation
	leaving := 0
	for _, seat := range r.Seats {
		i := slices.IndexFunc(before.Seats, func(b control.Seat) bool { return b.Number == seat.Number })
		if !seat.Member && !seat.Spare {
			if i < 0 && !slices.Contains(listed, seat.Number) || leaving == maxLeaving {
				continue
			}
			leaving++
		}
		s := control.Seat{Number: seat.Number, Key: seat.Key.ID().String()}
		if i >= 0 && before.Seats[i].Key == s.Key {
			s = before.Seats[i]
		}
		absent, _ := standing.Absence(seat.Key)
		s.Away, s.Yields = absent.State == order.Away, absent.State == order.Away || absent.State == order.Drained
		all.Seats = append(all.Seats, object.update(s, seat.Key))
	}
	return all
}

// update is what is known of a seat, with what it says itself.
func (o objects) update(s control.Seat, key signed.Key) control.Seat {
	if word, ok := o(notice.TLSKeyKind, key); ok && word.Sequence >= s.TLSNumber {
		if k, err := notice.OpenTLSKey(word); err == nil && k.Seat == s.Number {
			s.TLSKey, s.TLSNumber = k.Key.String(), word.Sequence
		}
	}
	if record, ok := o(notice.NodeKind, key); ok {
		if n, err := notice.OpenNode(record); err == nil {
			s.Addresses = nil
			for _, a := range n.Addresses {
				s.Addresses = append(s.Addresses, netip.AddrPortFrom(a.Addr(), api.MemberPort))
			}
		}
	}
	return s
}

// tellSeats writes the seats for the service etcd when they are others than the last time. The key
// of an isolated seat, or one that this node turns away, is none.
func (s *session) tellSeats() {
	r := s.taken.State().Roster
	own, _ := control.ReadEtcd(s.part.run) // none: etcd does not run here
	now := seatsOf(s.engine.Object, r, s.standing, s.seats, slices.Concat(own.Members, own.Learners))
	heeded := make(map[signed.Key]bool)
	for i, one := range now.Seats {
		seat, ok := r.Seat(one.Number)
		if ok {
			heeded[seat.Key] = true
		}
		if _, isolated := s.standing.Isolates(seat.Key); isolated || one.TLSKey != "" && s.part.turnsAway(one.TLSKey) {
			now.Seats[i].TLSKey = ""
		}
	}
	defer s.heeded.Store(&heeded)
	if reflect.DeepEqual(now, s.seats) {
		return
	}
	if err := now.Write(s.part.run); err != nil {
		log.Printf("agent: %v", err)
		return
	}
	s.seats = now
}
