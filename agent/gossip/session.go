package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"kogge.example/agent/gossip/choice"
	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// session is one with a peer. All of it but queue, queued and conn is the engine's goroutine's.
type session struct {
	conn    Session
	key     signed.Key
	seat    roster.Seat
	dialled bool

	queue   chan [][]byte // to the goroutine that sends
	queued  atomic.Int64  // bytes in it
	out     [][]byte      // frames of this turn of the engine
	pending int           // their bytes
	closed  bool

	news, quiet map[shelf.ID]bool // what the peer is to be told
	quietAt     time.Time
	asked       map[shelf.ID]asking // what it has not answered yet
	given       map[shelf.ID]given  // what it was sent since givenAt
	givenAt     time.Time
	refused     map[shelf.ID]wire.Told // what it has that was looked at, and is not all here: see [Engine.withdrawn]
	asks        wire.Want              // what it is to be asked in this turn

	interval time.Duration // between digests, if this node opened the session
	digestAt time.Time
	sentAt   time.Time // of the last digest
	awaits   bool      // an answer to it that is no list and no digest
	heard    time.Time // of the last frame
	since    time.Time // it began

	ledger   wire.Head         // how far the peer's ledger is
	toldHead wire.Head         // how far this node's is, as it was told
	toldAt   time.Time         // when
	told     bool              // whether it was
	first    bool              // of two histories: it has shown this node's
	second   bool              // it has shown the other one
	owes     int               // answers about entries
	rests    time.Time         // it sends no objects before
	waiting  map[shelf.ID]bool // what it can be asked for once it has answered other things
	reading  int               // answers to it that wait for the disk
	papers   [2]document.Hash  // the sums of the peer's and of this node's
	lent     [2]document.Hash  // those for which it was asked the last time
	lentAt   time.Time         // when
	lends    int               // how often it was, without an answer
}

// asking is what a peer was asked for.
type asking struct {
	number uint64 // that it told
	at     time.Time
	late   bool // others are asked, and what it sends is taken
}

// given is what a peer was sent.
type given struct {
	item  shelf.Item
	times int
}

// Limits of what a session may hold.
const (
	maxAsked     = 64 // objects
	maxDemerits  = 16
	unaskedRate  = 16 << 10 // bytes a second
	unaskedBurst = 256 << 10
	unaskedPlace = 128 // bytes more at once, for each place of the shelf
)

// The reasons why a session ends that the peer is to blame for.
const (
	faultFrame    = "not a frame"
	faultFlood    = "flood"
	faultUnasked  = "unasked"
	faultLie      = "lie"
	faultUseless  = "useless"
	faultEntry    = "entry"
	faultHead     = "head"
	reasonSlow    = "slow"
	reasonSilent  = "silent"
	reasonEnded   = "ended"
	reasonMoved   = "turned to another"
	reasonAgain   = "there is another"
	reasonBusy    = "too many"
	reasonAway    = "kept away"
	reasonNoSeat  = "no seat"
	reasonRefused = "refused"
)

// accept takes the sessions that peers open.
func (e *Engine) accept(ctx context.Context) {
	for {
		conn, err := e.config.Transport.Accept(ctx)
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			e.config.Logf("gossip: %v", err)
			select { // whatever it is, it is not better at once
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if !e.post(func() { e.opened(conn, false) }) {
			conn.Close()
			return
		}
	}
}

// opened begins a session, or closes it if there is to be none.
func (e *Engine) opened(conn Session, dialled bool) {
	key, now := conn.Peer(), time.Now()
	seat, listed := e.state.Roster.ByKey(key)
	why, before := "", e.sessions[key]
	switch {
	case !listed || key == e.config.Self:
		why = reasonNoSeat
	case e.refused(seat), e.outdated(conn):
		why = reasonRefused
	case e.peers[key] != nil && now.Before(e.peers[key].away):
		why = reasonAway
	case before != nil && now.Sub(before.since) < dialLimit && (before.dialled == dialled || before.dialled == (e.config.Self < key)):
		// Both have opened one: both keep the one that the lower key opened. Or two machines
		// have one key, and do not take turns without end.
		why = reasonAgain
	case !dialled && (before == nil || before.dialled) && !e.place(seat):
		why = reasonBusy
	case before != nil:
		e.drop(before, reasonAgain)
	}
	if why != "" {
		if dialled && why == reasonRefused {
			e.failed(key, now)
		}
		e.stats.Dropped[why]++
		conn.Close()
		return
	}
	s := &session{
		conn: conn, key: key, seat: seat, dialled: dialled, queue: make(chan [][]byte, maxQueue),
		news: make(map[shelf.ID]bool), quiet: make(map[shelf.ID]bool), asked: make(map[shelf.ID]asking), given: make(map[shelf.ID]given), refused: make(map[shelf.ID]wire.Told),
		waiting:  make(map[shelf.ID]bool),
		interval: openDigest, since: now, heard: now, digestAt: now,
	}
	p := e.peer(key)
	p.unasked.Rate, p.unasked.Most = unaskedRate, float64(unaskedBurst+unaskedPlace*len(e.state.Roster.Seats)*len(e.config.Kinds))
	p.served.Rate, p.served.Most = e.served.Rate/4, e.served.Most/4
	p.pulled.Rate, p.pulled.Most = p.served.Rate, p.served.Most
	p.vain.Rate, p.vain.Most = 1/perSeat.Seconds(), burst
	p.papers.Rate, p.papers.Most = 1/paperRate.Seconds(), burst
	e.sessions[key] = s
	e.running.Go(func() { s.send() })
	e.running.Go(func() { e.receive(s) })
	if !dialled {
		e.sayHead(s)
		e.sayPapers(s)
	}
	e.at(now)
}

// place says whether there is a place for one more session that a seat opens. Where all are
// taken a voter gets that of a seat without a vote, or the voters would not reach each other: of
// the one with the most demerits, or of the newest.
func (e *Engine) place(seat roster.Seat) bool {
	count := 0
	var out *session
	for _, s := range e.sessions {
		if s.dialled {
			continue
		}
		count++
		if s.seat.Vote {
			continue
		}
		if out != nil {
			d, most := e.peer(s.key).demerits, e.peer(out.key).demerits
			if d < most || d == most && !s.since.After(out.since) {
				continue
			}
		}
		out = s
	}
	if count < e.config.Inbound {
		return true
	}
	if !seat.Vote || out == nil {
		return false
	}
	e.drop(out, reasonBusy)
	return true
}

// receive hands frames to the engine, one at a time: a peer that sends much waits for its turn
// like all others.
func (e *Engine) receive(s *session) {
	for {
		raw, err := s.conn.Receive()
		if err != nil {
			e.post(func() { e.drop(s, reasonEnded) })
			return
		}
		done := make(chan struct{})
		if !e.post(func() { defer close(done); e.heard(s, raw) }) {
			return
		}
		select {
		case <-done:
		case <-e.over:
			return
		}
	}
}

// drop ends a session.
func (e *Engine) drop(s *session, why string) {
	if s.closed {
		return
	}
	s.closed = true
	if e.sessions[s.key] == s {
		delete(e.sessions, s.key)
	}
	if now := time.Now(); s.dialled && why != reasonMoved {
		if now.Sub(s.since) < settled {
			e.failed(s.key, now)
		} else {
			e.peer(s.key).reached()
		}
	}
	e.stats.Dropped[why]++
	close(s.queue)
	s.conn.Close()
	e.unask(s)
	e.at(time.Now())
}

// blame sends the peer of a session away, which may have ended, for a fault.
func (e *Engine) blame(s *session, why string) {
	p := e.peer(s.key)
	p.sendAway(time.Now())
	e.config.Logf("gossip: %s is sent away for %s: %s", s.seat.Name, time.Until(p.away).Round(time.Second), why)
	if s.closed {
		s = e.sessions[s.key]
	}
	if s != nil {
		e.drop(s, why)
	}
}

// demerit notes what may be a mishap. Many are none, if what is right is not more.
func (e *Engine) demerit(s *session) {
	p := e.peer(s.key)
	if p.demerits++; p.demerits >= maxDemerits {
		p.demerits = 0
		e.blame(s, faultUseless)
	}
}

// merit notes that a peer has done right.
func (e *Engine) merit(s *session) {
	p := e.peer(s.key)
	p.demerits = max(0, p.demerits-1)
}

// failed notes that a peer was not reached, or not for long.
func (e *Engine) failed(key signed.Key, now time.Time) { e.peer(key).failed(now, rand.Float64()) }

func (e *Engine) peer(key signed.Key) *peer {
	p := e.peers[key]
	if p == nil {
		p = &peer{}
		e.peers[key] = p
	}
	return p
}

// heard takes a frame of a peer.
func (e *Engine) heard(s *session, raw []byte) {
	if s.closed {
		return
	}
	now := time.Now()
	e.stats.Received += uint64(len(raw))
	s.heard = now
	f, err := wire.Decode(raw)
	if err != nil {
		e.blame(s, faultFrame)
		return
	}
	switch asked, answer := e.asked(s, f); {
	case asked:
		e.peer(s.key).pulled.Owe(len(raw), now)
	case answer:
		e.blame(s, faultUnasked)
		return
	case !e.peer(s.key).unasked.Take(20+len(raw), now):
		e.blame(s, faultFlood)
		return
	}
	switch f := f.(type) {
	case wire.Digest:
		e.hearDigest(s, f)
	case wire.List:
		e.hearList(s, shelf.List(f))
	case wire.Same:
	case wire.Tell:
		e.hearTold(s, f)
	case wire.Want:
		e.hearWant(s, f)
	case wire.Objects:
		e.hearObjects(s, f)
	case wire.Renewals:
		e.hearRenewals(s, f)
	case wire.Denied:
		e.hearDenied(s, f)
	case wire.PaperSum, wire.WantPapers, wire.Papers:
		e.hearPapers(s, f)
	default:
		e.hearLedger(s, f)
	}
}

// asked says whether a frame answers what the peer was asked for and has not answered yet. All
// else it sends at its own cost; answer: no honest peer sends it then.
func (e *Engine) asked(s *session, f wire.Frame) (asked, answer bool) {
	switch f := f.(type) {
	case wire.Objects:
		if object, err := signed.Parse(f[0]); err == nil {
			_, asked = s.asked[e.shelf.Place(object)]
		}
		return asked, true
	case wire.Renewals:
		_, asked = s.asked[f[0].ID]
		return asked, true
	case wire.Denied:
		_, asked = s.asked[f[0]]
		return asked, true
	case wire.Papers:
		if asked = s.lends > 0; asked {
			s.lends--
		}
		return asked, true
	case wire.Same:
		asked, s.awaits = s.awaits, false
		return asked, false
	case wire.Lack:
		if f.Height == 0 {
			asked, s.awaits = s.awaits, false
			return asked, false
		}
	case wire.Entry, wire.Offer, wire.Piece:
	default:
		return false, false
	}
	if s.owes == 0 {
		return false, true
	}
	s.owes--
	return true, true
}

// hurry has the session's next digest be soon.
func (s *session) hurry(now time.Time) {
	s.interval = openDigest
	if next := now.Add(spread(openDigest)); s.digestAt.After(next) {
		s.digestAt = next
	}
}

// tend does what is due in a session, and says when the next thing is.
func (e *Engine) tend(s *session, now time.Time) time.Time {
	e.askPapers(s)
	if !s.dialled {
		if now.Sub(s.heard) > silence {
			e.drop(s, reasonSilent)
			return time.Time{}
		}
	} else if waits := !s.sentAt.IsZero() && s.heard.Before(s.sentAt); waits && now.Sub(s.sentAt) >= digestLimit {
		e.drop(s, reasonSilent)
		return time.Time{}
	}
	next := s.heard.Add(silence + time.Second)
	if until := e.overdue(s, now); s.closed {
		return time.Time{}
	} else if until.Before(next) && !until.IsZero() {
		next = until
	}
	if now.Sub(s.givenAt) > quietDigest {
		clear(s.given)
		s.givenAt = now
	}
	if s.dialled {
		if !now.Before(s.digestAt) {
			e.sendDigest(s, now)
		}
		if s.digestAt.Before(next) {
			next = s.digestAt
		}
		if answer := s.sentAt.Add(digestLimit); !s.sentAt.IsZero() && s.heard.Before(s.sentAt) && answer.Before(next) {
			next = answer
		}
	}
	if len(s.quiet) > 0 {
		if !now.Before(s.quietAt) {
			e.tell(s)
		} else if s.quietAt.Before(next) {
			next = s.quietAt
		}
	}
	return next
}

// overdue turns to others for what a peer has not sent in time, and says when it has to look
// again. However much it is, it is one mishap, which is forgotten when the answers come after
// all; of a peer that says nothing at all, it is the network's.
func (e *Engine) overdue(s *session, now time.Time) (next time.Time) {
	late, silent := false, false
	for id, a := range s.asked {
		wait := answerLimit
		switch age := now.Sub(a.at); {
		case age >= lateLimit:
			late = true
			delete(s.asked, id)
			continue
		case age >= digestLimit:
			silent = silent || s.heard.Before(a.at)
			wait = lateLimit
		case age >= answerLimit:
			wait = digestLimit
		}
		if wait > answerLimit && !a.late {
			late, a.late = true, true
			s.asked[id] = a
			e.unanswered(id, s, now)
		}
		if due := a.at.Add(wait); next.IsZero() || due.Before(next) {
			next = due
		}
	}
	if late {
		e.demerit(s)
	}
	if silent && !s.closed {
		e.drop(s, reasonSilent)
	}
	return next
}

// sendDigest asks what this node or the peer has missed.
func (e *Engine) sendDigest(s *session, now time.Time) {
	e.sayHead(s)
	e.sayPapers(s)
	e.tell(s) // else it would be found to be missing
	s.say(wire.Digest(e.shelf.Roots()))
	s.sentAt, s.awaits = now, true
	s.digestAt = now.Add(s.interval*9/10 + spread(s.interval/5))
	if e.open {
		s.interval = openDigest
	} else {
		s.interval = min(2*s.interval, quietDigest)
	}
}

// errNoPeer is of a peer that is not the seat that was dialled.
var errNoPeer = errors.New("another seat answers there")

// tendPeers opens sessions where some are missing, and turns to other peers now and then.
func (e *Engine) tendPeers(ctx context.Context, now time.Time) (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	every := rotation * quietDigest
	if e.open {
		every = rotation * openDigest
	}
	switch {
	case e.rotateAt.IsZero():
		e.rotateAt = now.Add(spread(every))
	case !now.Before(e.rotateAt):
		e.turn++
		e.rotateAt = now.Add(every*9/10 + spread(every/5))
	case e.rotateAt.Sub(now) > every*11/10: // something has been opened
		e.rotateAt = now.Add(spread(every))
	}
	sooner(e.rotateAt)
	usable := func(faulty bool) func(roster.Seat) bool {
		return func(seat roster.Seat) bool {
			p := e.peers[seat.Key]
			switch {
			case e.refused(seat):
				return false
			case p == nil:
				return true
			case !faulty && !p.last.IsZero() && now.Sub(p.last) < forgiven:
				return false
			case e.sessions[seat.Key] != nil || e.dialling[seat.Key]:
				return true
			}
			if until := later(p.again, p.away); now.Before(until) {
				sooner(until)
				return false
			}
			return true
		}
	}
	chosen := choice.Targets(e.voters, e.rest, e.turn, usable(false))
	if len(chosen) < choice.Outbound { // then also those that were sent away and are back
		chosen = choice.Targets(e.voters, e.rest, e.turn, usable(true))
	}
	wanted, missing := make(map[signed.Key]bool), 0
	for _, seat := range chosen {
		wanted[seat.Key] = true
		if e.sessions[seat.Key] != nil {
			continue
		}
		missing++
		if !e.dialling[seat.Key] && len(e.dialling) < choice.Outbound {
			e.dial(ctx, seat)
		}
	}
	if missing == 0 {
		for key, s := range e.sessions {
			if s.dialled && !wanted[key] {
				e.drop(s, reasonMoved)
			}
		}
	}
	return next
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// dial opens a session with a seat.
func (e *Engine) dial(ctx context.Context, seat roster.Seat) {
	e.dialling[seat.Key] = true
	e.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, dialLimit)
		defer cancel()
		conn, err := e.config.Transport.Dial(ctx, seat)
		if err == nil && conn.Peer() != seat.Key {
			conn.Close()
			err = errNoPeer
		}
		posted := e.post(func() {
			delete(e.dialling, seat.Key)
			if err != nil {
				e.stats.Dropped["not reached"]++
				e.failed(seat.Key, time.Now())
			} else {
				e.opened(conn, true)
			}
			e.at(time.Now())
		})
		if !posted && err == nil {
			conn.Close()
		}
	})
}
