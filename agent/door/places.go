package door

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Limits of the places. A connection costs some 60 KiB once it speaks, and next to
// nothing while it waits for a place.
const (
	MaxConnections = 256  // that have a place
	maxStrangers   = 64   // of them, before an operator's first call: the others are kept for those known
	maxFamiliar    = 16   // strangers beyond those, of addresses from which a caller of the fleet came
	maxOfAddress   = 32   // strangers of one address, or of one IPv6 network
	maxOfKey       = 32   // those known by one certificate
	maxWaiting     = 1024 // that have none yet
	// maxCommon are those known who are no admins: readers and operators never have all
	// places, so that an admin's connection finds one, as a stranger first.
	maxCommon = MaxConnections - maxStrangers - maxFamiliar
	// maxAddresses is how many addresses are remembered as familiar.
	maxAddresses = 256

	// How long one keeps its place while others wait: a stranger for a handshake and
	// a call, which is one journey there and back, an idle connection for another call.
	strangerGrace = time.Second
	callGrace     = strangerGrace / 2 // of that, from the end of the handshake on
	idleGrace     = 500 * time.Millisecond
)

// errBusy is the answer to a caller for whose connection there is no place beside those of
// his certificate, or of all who are no admins.
var errBusy = fmt.Errorf("%d connections are busy with your certificate, or %d with those of readers and operators: end one of them", maxOfKey, maxCommon)

// place is one connection that speaks, or waits until it may:
//
//	waiting ─Next─▶ stranger ─Known─▶ known ─Busy/Idle─▶ …
//	    └──────────────┴──────────────────┴──▶ gone
//
// A stranger has shown nothing yet and yields when others wait; one that is known
// yields when it is idle.
type place struct {
	from        origin // whose turn it takes
	familiar    bool   // a caller of the fleet came from that address before
	key         string // of the certificate, as in fleet.Peer.Key, once it is known
	admin       bool   // by that certificate
	known, busy bool
	since       time.Time // of the last change
}

// places says who speaks. It opens and closes nothing and reads no clock.
type places struct {
	held    []*place
	waiting []*place // in the order in which they came
	waits   crowd
	served  served
	count   int // of turns
	// addresses are those of callers of the fleet, the latest one last.
	addresses []netip.Addr
	// blocked is until when strangers of a network have all places that they may, unless one
	// leaves, and full until when that is so of all who wait: while many come, who waits is not
	// looked through for each of them.
	blocked map[netip.Addr]time.Time
	full    time.Time
}

// Familiar says whether a caller of the fleet came from address.
func (s *places) Familiar(address netip.Addr) bool {
	return slices.Contains(s.addresses, address.Unmap())
}

// remember makes address a familiar one.
func (s *places) remember(address netip.Addr) {
	s.addresses = slices.DeleteFunc(s.addresses, func(a netip.Addr) bool { return a == address })
	s.addresses = append(s.addresses, address)
	if len(s.addresses) > maxAddresses {
		s.addresses = slices.Delete(s.addresses, 0, 1)
	}
}

// Arrive lets p wait. It returns who has to leave the full waiting room: of the network that
// has most of it the last to come of the host that has most, and nil while there is room.
func (s *places) Arrive(p *place) *place {
	s.waiting = append(s.waiting, p)
	if s.waits == nil {
		s.waits = crowd{}
	}
	s.waits.add(p.from, 1)
	if _, blocked := s.blocked[p.from.net]; !blocked {
		s.full = time.Time{}
	}
	if len(s.waiting) <= maxWaiting {
		return nil
	}
	return s.last()
}

// last is who has to leave the full waiting room.
func (s *places) last() *place {
	most := slices.Max(slices.Collect(maps.Values(s.waits))) // of a network: no host has more than its own
	var last *place
	for _, p := range slices.Backward(s.waiting) {
		if s.waits[p.from.net] == most && (last == nil || s.waits[p.from.host] > s.waits[last.from.host]) {
			last = p
		}
	}
	return last
}

// Next gives a place to one of those who wait: of the network that has had its turn the
// longest ago, and of the host in it that has, the last to come, because who has waited for
// long has most likely given up. yield is who has to be gone before; with next nil nobody can be served
// before the time again (zero: before something changes).
func (s *places) Next(now time.Time) (next, yield *place, again time.Time) {
	if now.Before(s.full) {
		return nil, nil, s.full
	}
	strangers := slices.DeleteFunc(slices.Clone(s.held), func(p *place) bool { return p.known })
	of := crowd{}
	for _, p := range strangers {
		of.add(p.from, 1)
	}
	unknown := slices.DeleteFunc(slices.Clone(strangers), func(p *place) bool { return p.familiar })
	all := true // who waits is blocked
	for _, p := range s.front() {
		if end := s.blocked[p.from.net]; now.Before(end) {
			again = sooner(again, end)
			continue
		}
		candidates := strangers
		mixed := false // with those who are known
		full := !p.familiar && len(unknown) >= maxStrangers
		if full {
			candidates = unknown
		}
		switch {
		case of[p.from.net] >= maxOfAddress: // some of them may have come after it became familiar
			candidates = slices.DeleteFunc(slices.Clone(candidates), func(q *place) bool { return q.from.net != p.from.net })
		case full || len(strangers) >= maxStrangers+maxFamiliar:
		case len(s.held) >= MaxConnections:
			candidates, mixed = s.held, true
		default:
			s.seat(p, now)
			return p, nil, time.Time{}
		}
		out, at := weakest(candidates, of, now)
		if out != nil {
			s.Leave(out)
			s.seat(p, now)
			return p, out, time.Time{}
		}
		again = sooner(again, at)
		if at.IsZero() || mixed { // one that is known may become idle before
			all = false
			continue
		}
		if s.blocked == nil {
			s.blocked = map[netip.Addr]time.Time{}
		}
		s.blocked[p.from.net] = at
	}
	if all {
		s.full = again
	}
	return nil, nil, again
}

// sooner is the earlier of two times; a zero one is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// moved forgets who is blocked: there may be room.
func (s *places) moved() { s.blocked, s.full = nil, time.Time{} }

// front is one place of each network, familiar ones first, in the order of their turns: of
// the host that has had its turn the longest ago the last to come. What is true of one
// stranger of a network is true of all.
func (s *places) front() []*place {
	seen := map[netip.Addr]bool{}
	of := map[netip.Addr]*place{}
	for _, p := range slices.Backward(s.waiting) {
		if seen[p.from.host] {
			continue
		}
		seen[p.from.host] = true
		if best := of[p.from.net]; best == nil || s.served[p.from.host] <= s.served[best.from.host] {
			of[p.from.net] = p
		}
	}
	var all []*place
	for _, p := range s.waiting {
		if of[p.from.net] == p {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(p, q *place) int {
		if p.familiar != q.familiar {
			return map[bool]int{true: -1, false: 1}[p.familiar]
		}
		return s.served[p.from.net] - s.served[q.from.net]
	})
	return all
}

// seat gives p its place.
func (s *places) seat(p *place, now time.Time) {
	s.stop(p)
	s.held = append(s.held, p)
	p.since = now
	s.count++
	s.served = s.served.turn(p.from, s.count, s.waits)
}

// greet notes that the handshake of a stranger is over: a call comes at once, or never.
func (p *place) greet(now time.Time) {
	if since := now.Add(callGrace - strangerGrace); !p.known && since.After(p.since) {
		p.since = since
	}
}

// Know notes whose certificate a stranger has shown, and whether it is that of an admin.
// Where key, or those who are no admins, have all the places that they may, the longest idle
// one of them yields; if all are busy, p is no better than a stranger and ok is false.
func (s *places) Know(p *place, key string, admin bool, now time.Time) (yield *place, ok bool) {
	own := func(q *place) bool { return q.known && q.key == key }
	common := func(q *place) bool { return q.known && !q.admin }
	switch {
	case s.among(own) >= maxOfKey:
		yield = s.idle(own)
	case !admin && s.among(common) >= maxCommon:
		yield = s.idle(common)
	default:
		ok = true
	}
	switch {
	case yield != nil:
		s.Leave(yield)
	case !ok:
		return nil, false
	}
	p.key, p.admin, p.known, p.since = key, admin, true, now
	s.moved()
	s.remember(p.from.host)
	return yield, true
}

// among counts those who have places and are as is says.
func (s *places) among(is func(*place) bool) int {
	n := 0
	for _, p := range s.held {
		if is(p) {
			n++
		}
	}
	return n
}

// idle is who of those has been idle the longest; nil: all are busy.
func (s *places) idle(is func(*place) bool) *place {
	var out *place
	for _, p := range s.held {
		if is(p) && !p.busy && (out == nil || p.since.Before(out.since)) {
			out = p
		}
	}
	return out
}

// weakest is who yields: a stranger of the address that has most of them, the oldest
// first; then who has been idle the longest. If all are within their grace it
// returns when the first of them will not be; zero if all are busy.
func weakest(held []*place, of crowd, now time.Time) (*place, time.Time) {
	var out *place
	var again time.Time
	for _, p := range held {
		if p.known && p.busy {
			continue
		}
		grace := strangerGrace
		if p.known {
			grace = idleGrace
		}
		if end := p.since.Add(grace); now.Before(end) {
			if again.IsZero() || end.Before(again) {
				again = end
			}
			continue
		}
		if out == nil || weaker(p, out, of) {
			out = p
		}
	}
	return out, again
}

func weaker(p, q *place, of crowd) bool {
	switch {
	case p.known != q.known:
		return q.known
	case !p.known && of[p.from.net] != of[q.from.net]:
		return of[p.from.net] > of[q.from.net]
	}
	return p.since.Before(q.since)
}

// Leave forgets p.
func (s *places) Leave(p *place) {
	s.stop(p)
	if i := slices.Index(s.held, p); i >= 0 {
		s.held = slices.Delete(s.held, i, i+1)
		s.moved()
	}
}

// stop has p wait no longer.
func (s *places) stop(p *place) {
	i := slices.Index(s.waiting, p)
	if i < 0 {
		return
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	s.waits.add(p.from, -1)
}
