package gossip

import (
	"slices"
	"time"

	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// wish is an object that this node lacks, and who has told of it.
type wish struct {
	sources []source
	asked   *session // who is asked; nil: nobody
	until   time.Time
	again   time.Time // nobody is asked before
	limit   time.Time // nor before this: the seat says too much
}

type source struct {
	s      *session
	number uint64
}

// maxSources is how many peers are remembered that have an object: one of them is honest, or
// the digests find it.
const maxSources = 8

// took notes an object that is news here, and will be to others.
func (e *Engine) took(object signed.Envelope, v shelf.Verdict, from *session) {
	id, now := e.shelf.Place(object), time.Now()
	e.origin(id).owe(1, now)
	for _, s := range e.sessions {
		if s == from {
			continue
		}
		if v != shelf.Renewed {
			s.news[id] = true
			delete(s.quiet, id)
			continue
		}
		if !s.news[id] {
			s.quiet[id] = true
		}
		if s.quietAt.IsZero() || s.quietAt.Before(now) {
			every := quietly
			if e.open {
				every = openDigest
			}
			s.quietAt = now.Add(spread(every))
			e.at(s.quietAt)
		}
	}
	if v != shelf.Renewed && e.newsAt.IsZero() {
		e.newsAt = now.Add(soon)
		e.at(e.newsAt)
	}
	if e.config.News != nil {
		if held := e.shelf.Held(id); len(held) > 0 {
			e.config.News(held[0])
		}
	}
}

func (e *Engine) origin(id shelf.ID) *bucket {
	b := e.origins[id]
	if b == nil {
		b = &bucket{rate: 1 / perSeat.Seconds(), most: burst}
		e.origins[id] = b
	}
	return b
}

// tell tells a peer of all that it is to be told.
func (e *Engine) tell(s *session) {
	var f tell
	for _, ids := range []map[shelf.ID]bool{s.news, s.quiet} {
		for id := range ids {
			if item, ok := e.shelf.Item(id); ok {
				f = append(f, told{id, item.Number, [8]byte(item.Sum[:])})
			}
		}
		clear(ids)
	}
	for some := range slices.Chunk(f, maxItems) {
		s.say(some)
	}
}

// hearTold asks for what is news. What the peer has it need not be told.
func (e *Engine) hearTold(s *session, f tell) {
	now := time.Now()
	for _, t := range f {
		own, ok := e.shelf.Item(t.id)
		switch {
		case !ok && !e.shelf.Lacks(shelf.Item{ID: t.id}):
			e.stats.Unlisted++
		case !ok, t.number > own.Number:
			delete(s.news, t.id)
			delete(s.quiet, t.id)
			e.wish(t.id, t.number, s, now)
		case t.number < own.Number:
			s.quiet[t.id] = true // he has been told by now, or the digest finds it
			if s.quietAt.Before(now) {
				s.quietAt = now.Add(spread(openDigest))
				e.at(s.quietAt)
			}
		case t.sum != [8]byte(own.Sum[:]): // the seat has said two things
			e.wish(t.id, t.number, s, now)
		default:
			delete(s.news, t.id)
			delete(s.quiet, t.id)
		}
	}
}

// wish notes that an object is lacking that a peer has.
func (e *Engine) wish(id shelf.ID, number uint64, s *session, now time.Time) {
	w := e.wants[id]
	if w == nil {
		w = &wish{}
		e.wants[id] = w
		if wait := e.origin(id).wait(1, now); wait > 0 {
			e.stats.TooOften++
			w.limit = now.Add(wait)
		}
	}
	w.again = w.limit // somebody more can be asked
	if w.asked != nil && e.peer(w.asked.key).demerits > e.peer(s.key).demerits+1 {
		w.asked = nil // who is better than the one whose answer is waited for
	}
	at := slices.IndexFunc(w.sources, func(one source) bool { return one.s == s })
	switch {
	case at >= 0:
		w.sources[at].number = max(w.sources[at].number, number)
	case len(w.sources) < maxSources:
		w.sources = append(w.sources, source{s, number})
	}
	e.ask(id, w, now)
}

// ask asks the peer that says that it has the newest one, if it can be asked now.
func (e *Engine) ask(id shelf.ID, w *wish, now time.Time) {
	if w.asked != nil {
		return
	}
	if now.Before(w.again) {
		e.at(w.again)
		return
	}
	if wait := e.pulled.wait(1, now); wait > 0 {
		w.again = now.Add(wait)
		e.at(w.again)
		return
	}
	best := -1
	for i, one := range w.sources {
		_, asked := one.s.asked[id]
		switch {
		case one.s.closed || asked || now.Before(one.s.rests):
		case len(one.s.asked) >= maxAsked:
			one.s.waiting[id] = true
		case best < 0 || e.rather(one, w.sources[best]):
			best = i
		}
	}
	if best < 0 {
		w.again = now.Add(answerLimit)
		e.at(w.again)
		return
	}
	s := w.sources[best].s
	own, _ := e.shelf.Item(id)
	w.asked, w.until = s, now.Add(patience)
	s.asked[id] = asking{w.sources[best].number, now.Add(answerLimit)}
	if s.asks = append(s.asks, wanted{id, own.Number}); len(s.asks) == maxWants {
		s.say(s.asks)
		s.asks = nil
	}
	e.at(w.until)
}

// rather says whether a source is asked before another: who has often failed comes last, then
// the one that tells of the newer object comes first.
func (e *Engine) rather(a, b source) bool {
	if da, db := e.peer(a.s.key).demerits, e.peer(b.s.key).demerits; da > db+1 || db > da+1 {
		return da < db
	}
	return a.number > b.number
}

// unanswered notes that a peer has not sent an object.
func (e *Engine) unanswered(id shelf.ID, s *session, now time.Time) {
	w := e.wants[id]
	if w == nil {
		return
	}
	if w.asked == s {
		w.asked = nil
	}
	w.sources = slices.DeleteFunc(w.sources, func(one source) bool { return one.s == s })
	if len(w.sources) == 0 {
		delete(e.wants, id)
		return
	}
	e.ask(id, w, now)
}

// answered notes that a peer has sent what lies in a place now, or that it cannot: then the
// others are asked, if they have more.
func (e *Engine) answered(id shelf.ID, s *session) {
	delete(s.asked, id)
	defer e.askMore(s)
	w := e.wants[id]
	if w == nil {
		return
	}
	if w.asked == s {
		w.asked = nil
	}
	w.sources = slices.DeleteFunc(w.sources, func(one source) bool {
		own, ok := e.shelf.Item(id)
		return one.s == s || one.s.closed || ok && one.number <= own.Number
	})
	if len(w.sources) == 0 {
		delete(e.wants, id)
		return
	}
	e.ask(id, w, time.Now())
}

// askMore asks a peer for what waited until it had answered something else.
func (e *Engine) askMore(s *session) {
	for id := range s.waiting {
		if s.closed || len(s.asked) >= maxAsked {
			return
		}
		delete(s.waiting, id)
		if w := e.wants[id]; w != nil && w.asked == nil {
			w.again = w.limit
			e.ask(id, w, time.Now())
		}
	}
}

// unask forgets a session that has ended as one that has objects.
func (e *Engine) unask(s *session) {
	for id, w := range e.wants {
		if slices.ContainsFunc(w.sources, func(one source) bool { return one.s == s }) {
			e.answered(id, s)
		}
	}
}

// tendWants asks others for what was not answered soon, and says when the next answer is due.
func (e *Engine) tendWants(now time.Time) (next time.Time) {
	for id, w := range e.wants {
		at := w.again
		switch {
		case w.asked != nil && !now.Before(w.until):
			w.asked = nil // it may still answer
			e.ask(id, w, now)
			at = w.again
		case w.asked == nil && !now.Before(w.again):
			e.ask(id, w, now)
			at = w.again
		}
		if w.asked != nil {
			at = w.until
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// hearWant sends what is asked for, as far as the peer may ask for so much.
func (e *Engine) hearWant(s *session, f want) {
	var some renewals
	served := true
	for _, t := range f {
		if !e.mayHave(s, t.id) {
			if e.demerit(s); s.closed {
				return
			}
			continue
		}
		if r, ok := e.shelf.Renewal(t.id, t.have); ok && t.have > 0 {
			if served = served && e.serve(s, renewalSize); served {
				some = append(some, r)
			}
			continue
		}
		var answer objects
		size := 0
		for _, object := range e.shelf.Held(t.id) {
			answer = append(answer, object.Bytes())
			size += len(object.Bytes())
		}
		if len(answer) == 0 {
			continue
		}
		if served = served && e.serve(s, size); served {
			s.say(answer)
		}
	}
	if len(some) > 0 {
		s.say(some)
	}
	if !served {
		s.say(lack{})
	}
}

// askedTwice is how often a peer may ask for one object: in short, and then for all of it.
const askedTwice = 2

// mayHave says whether a peer may ask for what lies in a place. Who has been sent it does not
// need it again.
func (e *Engine) mayHave(s *session, id shelf.ID) bool {
	item, ok := e.shelf.Item(id)
	if !ok {
		return true // there is nothing to give
	}
	before := s.given[id]
	if before.number != item.Number {
		before = given{number: item.Number}
	}
	before.times++
	s.given[id] = before
	return before.times <= askedTwice
}

// renewalSize is about the bytes of one renewal.
const renewalSize = 90

// serve says whether a peer may be sent so many bytes more.
func (e *Engine) serve(s *session, size int) bool {
	now := time.Now()
	if s.served.wait(size, now) > 0 || !e.served.take(size, now) {
		return false
	}
	s.served.owe(size, now)
	return true
}

// hearObjects takes an object that was asked for.
func (e *Engine) hearObjects(s *session, f objects) {
	var id shelf.ID
	for i, raw := range f {
		object, err := signed.Parse(raw)
		if err != nil {
			e.blame(s, faultLie)
			return
		}
		one := e.shelf.Place(object)
		if i == 0 {
			id = one
		}
		told, asked := s.asked[id]
		if !asked || one != id {
			e.blame(s, faultUnasked)
			return
		}
		v := e.shelf.Put(raw)
		switch {
		case v.News():
			e.merit(s)
			e.took(object, v, s)
		case v.Lie():
			e.blame(s, faultLie)
			return
		case object.Sequence < told.number || v != shelf.Known && v != shelf.Older:
			e.demerit(s) // it told of a newer one, or passes on what is refused
			if s.closed {
				return
			}
		default:
			e.origin(id).owe(1, time.Now()) // or it would be asked for without end
		}
	}
	e.answered(id, s)
}

// hearRenewals takes objects that were asked for, and are here under a lower number.
func (e *Engine) hearRenewals(s *session, f renewals) {
	for _, r := range f {
		if _, asked := s.asked[r.ID]; !asked {
			e.blame(s, faultUnasked)
			return
		}
		v := e.shelf.Renew(r)
		switch {
		case v == shelf.Missing: // the whole object is needed
			if e.demerit(s); s.closed {
				return
			}
			s.asks = append(s.asks, wanted{r.ID, 0})
			continue
		case v.News():
			e.merit(s)
			if held := e.shelf.Held(r.ID); len(held) > 0 {
				e.took(held[0], v, s)
			}
		}
		e.answered(r.ID, s)
	}
}

// hearDigest answers sums: the same, or more of them, or lists.
func (e *Engine) hearDigest(s *session, f digest) {
	sums, lists := e.shelf.Answer(f)
	if len(sums)+len(lists) == 0 {
		if f[0].Depth == 0 {
			e.sayHead(s)
			s.say(same{})
		}
		return
	}
	before := len(s.out)
	for some := range slices.Chunk(sums, maxSums) {
		s.say(digest(some))
	}
	for _, l := range lists {
		l.Items = l.Items[:min(len(l.Items), maxItems)]
		s.say(list(l))
	}
	for _, f := range s.out[before:] { // who makes others talk is as loud as who talks
		s.unasked.owe(len(f), time.Now())
	}
}

// hearList asks for what a part has that is news, and tells what is news to the peer.
func (e *Engine) hearList(s *session, l shelf.List) {
	now := time.Now()
	lacks, ahead := e.shelf.Compare(l)
	for _, item := range lacks {
		e.wish(item.ID, item.Number, s, now)
	}
	for _, id := range ahead {
		s.news[id] = true
	}
	if len(ahead) > 0 && e.newsAt.IsZero() {
		e.newsAt = now.Add(soon)
		e.at(e.newsAt)
	}
	if len(lacks)+len(ahead) > 0 {
		s.hurry(now)
		e.at(s.digestAt)
	}
}
