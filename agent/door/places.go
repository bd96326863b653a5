package door

import (
	"fmt"
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
	// idleLimit is how long one keeps it without a call while nobody waits.
	idleLimit = 2 * time.Minute
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
	waits       []*share  // of its networks, while it waits
	speaks      []*share  // of its networks, while it has a place as a stranger
}

// places says who speaks. It opens and closes nothing and reads no clock.
type places struct {
	held      []*place
	waiting   []*place // in the order in which they came
	waits     crowd    // of those
	strangers crowd    // that have places
	turns     int      // so far
	// addresses are those of callers of the fleet, the latest one last.
	addresses []netip.Addr
	// blocked is until when nobody of a kind can have a place, unless one leaves, and full
	// until when that is so of all who wait: while many come, who waits is not looked through
	// for each of them.
	blocked map[kind]time.Time
	full    time.Time
}

// kind are those who wait of whom the same is true.
type kind struct {
	familiar bool
	of       network // that has all places that it may; zero: theirs has not
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

// Arrive lets p wait. It returns who has to leave the full waiting room, nil while there is
// room.
func (s *places) Arrive(p *place) *place {
	if s.waits == nil {
		s.waits, s.strangers = crowd{}, crowd{}
	}
	s.waiting = append(s.waiting, p)
	p.waits = s.waits.add(p.from)
	if until, blocked := s.blocked[s.kind(p)]; !blocked {
		s.full = time.Time{}
	} else if until.Before(s.full) {
		s.full = until
	}
	if len(s.waiting) <= maxWaiting {
		return nil
	}
	return s.last()
}

// last is who has to leave the full waiting room: of the widest network that has most of it,
// of that in it which has, and so on to the host, who has waited the longest, and has most
// likely given up. Strangers leave before those of familiar addresses, while these have no
// more than half of the room.
func (s *places) last() *place {
	familiar := 0
	for _, p := range s.waiting {
		if p.familiar {
			familiar++
		}
	}
	var last *place
	for _, p := range s.waiting {
		if p.familiar && familiar <= maxWaiting/2 {
			continue
		}
		if last == nil || larger(p.waits, last.waits) {
			last = p
		}
	}
	return last
}

// Next gives a place to one of those who wait. yield is who has to be gone before; with next
// nil nobody can be served before the time again (zero: before something changes).
func (s *places) Next(now time.Time) (next, yield *place, again time.Time) {
	if now.Before(s.full) {
		return nil, nil, s.full
	}
	all := true // who waits is blocked
	var asked []kind
	for {
		p := s.front(asked)
		if p == nil {
			break
		}
		k := s.kind(p)
		asked = append(asked, k)
		if end := s.blocked[k]; now.Before(end) {
			again = sooner(again, end)
			continue
		}
		rivals, mixed := s.rivals(k)
		if rivals == nil {
			s.seat(p, now)
			return p, nil, time.Time{}
		}
		out, at := weakest(rivals, now)
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
			s.blocked = map[kind]time.Time{}
		}
		s.blocked[k] = at
	}
	if all {
		s.full = again
	}
	return nil, nil, again
}

// kind is that of one who waits.
func (s *places) kind(p *place) kind {
	k := kind{familiar: p.familiar}
	if of := s.strangers[p.from.net]; of != nil && of.count >= maxOfAddress {
		k.of = p.from.net
	}
	return k
}

// rivals are those of whom one has to yield for one of a kind, nil where a place is free.
// mixed says that there are some among them who are known.
func (s *places) rivals(k kind) (rivals []*place, mixed bool) {
	var strangers, unknown []*place
	for _, p := range s.held {
		if p.known {
			continue
		}
		strangers = append(strangers, p)
		if !p.familiar {
			unknown = append(unknown, p)
		}
	}
	rivals = strangers
	full := !k.familiar && len(unknown) >= maxStrangers
	if full {
		rivals = unknown
	}
	switch {
	case k.of.IsValid(): // some of them may have come after it became familiar
		return slices.DeleteFunc(rivals, func(p *place) bool { return p.from.net != k.of }), false
	case full || len(strangers) >= maxStrangers+maxFamiliar:
		return rivals, false
	case len(s.held) >= MaxConnections:
		return s.held, true
	}
	return nil, false
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

// front is whose turn it is of those who wait and are of none of the kinds: a familiar one,
// then of the widest network that has had its turn the longest ago, of that in it which has,
// and so on to the host, the last to come, because who has waited for long has most likely
// given up. Of those who have had none yet it is the network that waits the longest.
func (s *places) front(but []kind) *place {
	var front *place
	for _, p := range s.waiting {
		if len(but) > 0 && slices.Contains(but, s.kind(p)) {
			continue
		}
		switch {
		case front == nil, p.familiar && !front.familiar, p.from.host == front.from.host && p.familiar == front.familiar:
			front = p
		case p.familiar == front.familiar && earlier(p.waits, front.waits):
			front = p
		}
	}
	return front
}

// seat gives p its place.
func (s *places) seat(p *place, now time.Time) {
	s.stop(p)
	s.held = append(s.held, p)
	p.speaks = s.strangers.add(p.from)
	p.since = now
	s.turns++
	s.waits.turn(p.from, s.turns)
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
	s.silence(p)
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

// weakest is who yields: a stranger of the widest network that has most of them, of that in
// it which has, and so on, the oldest first; then who has been idle the longest. If all are within their grace it
// returns when the first of them will not be; zero if all are busy.
func weakest(held []*place, now time.Time) (*place, time.Time) {
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
		if out == nil || weaker(p, out) {
			out = p
		}
	}
	return out, again
}

// Done are those who have made no call for so long that they have to leave, whether or not
// somebody waits.
func (s *places) Done(now time.Time) (done []*place) {
	for _, p := range s.held {
		if !p.busy && !now.Before(p.since.Add(idleLimit)) {
			done = append(done, p)
		}
	}
	return done
}

func weaker(p, q *place) bool {
	switch {
	case p.known != q.known:
		return q.known
	case larger(p.speaks, q.speaks):
		return true
	case larger(q.speaks, p.speaks):
		return false
	}
	return p.since.Before(q.since)
}

// Leave forgets p.
func (s *places) Leave(p *place) {
	s.stop(p)
	if i := slices.Index(s.held, p); i >= 0 {
		s.held = slices.Delete(s.held, i, i+1)
		s.silence(p)
		s.moved()
	}
}

// silence has p be no stranger any more.
func (s *places) silence(p *place) {
	if p.speaks != nil {
		s.strangers.remove(p.from)
		p.speaks = nil
	}
}

// stop has p wait no longer.
func (s *places) stop(p *place) {
	i := slices.Index(s.waiting, p)
	if i < 0 {
		return
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	s.waits.remove(p.from)
	p.waits = nil
}
