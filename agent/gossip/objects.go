package gossip

import (
	"slices"
	"time"

	"kogge.example/agent/bucket"
	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/notice"
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

const (
	// maxSources is how many peers are remembered that have an object, the best ones: one of
	// them is honest, or the digests find it.
	maxSources = 8
	// toldSize is about the bytes of an item that is told, and renewalSize of a renewal.
	toldSize, renewalSize = 30, 90
	// askedTwice is how often a peer may be sent one object: in short, and then all of it.
	askedTwice = 2
	// maxEarly is of how many seats a peer whose ledger is said to be further may have what nobody may say yet.
	maxEarly = 16
)

// took notes an object that is news here, and will be to others.
func (e *Engine) took(object signed.Envelope, v shelf.Verdict, from *session) {
	id, now := e.shelf.Place(object), time.Now()
	e.origin(id).Owe(1, now)
	for _, k := range e.config.Kinds {
		if k.Name == object.Kind && k.Pace > 0 {
			e.origin(id).Rate, e.origin(id).Most = 1/k.Pace.Seconds(), float64(k.Burst)
		}
	}
	if s := e.sessions[object.By]; s != nil && object.Kind == notice.TLSKeyKind && e.outdated(s.conn) {
		e.drop(s, reasonRefused) // the seat has another key by now: who has this one may not be its node
	}
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
	if e.config.News != nil && v != shelf.Behind {
		if held := e.shelf.Held(id); len(held) > 0 {
			e.config.News(held[0])
		}
	}
}

func (e *Engine) origin(id shelf.ID) *bucket.Bucket {
	b := e.origins[id]
	if b == nil {
		b = &bucket.Bucket{Rate: 1 / perSeat.Seconds(), Most: burst}
		e.origins[id] = b
	}
	return b
}

// tell tells a peer of all that it is to be told.
func (e *Engine) tell(s *session) {
	var f wire.Tell
	for _, ids := range []map[shelf.ID]bool{s.news, s.quiet} {
		for id := range ids {
			if item, ok := e.shelf.Item(id); ok {
				f = append(f, wire.ToldOf(item))
			}
		}
		clear(ids)
	}
	for some := range slices.Chunk(f, wire.MaxItems) {
		s.say(some)
	}
}

// hearTold asks for what is news. What the peer has it need not be told.
func (e *Engine) hearTold(s *session, f wire.Tell) {
	now := time.Now()
	for _, t := range f {
		own, ok := e.shelf.Item(t.ID)
		behind, may := e.shelf.Behind(t.ID)
		switch {
		case ok && t == wire.ToldOf(own):
			delete(s.news, t.ID)
			delete(s.quiet, t.ID)
		case s.refused[t.ID] == t:
		case !ok && !e.shelf.Lacks(shelf.Item{ID: t.ID}):
			e.stats.Unlisted++
		case !ok, t.Number > own.Number:
			delete(s.news, t.ID)
			delete(s.quiet, t.ID)
			e.wish(t.ID, t.Number, s, now)
		case t.Number < own.Number:
			s.quiet[t.ID] = true // he has been told by now, or the digest finds it
			if s.quietAt.Before(now) {
				s.quietAt = now.Add(spread(openDigest))
				e.at(s.quietAt)
			}
			if may && t != wire.ToldOf(behind) {
				e.wish(t.ID, t.Number, s, now)
			}
		default: // the seat has said two things, or several operators have
			e.wish(t.ID, t.Number, s, now)
		}
	}
}

// wish notes that an object is lacking that a peer has. Who has often said for nothing that a
// seat has said two things, or that an operator has said something else, is heard of that less often.
func (e *Engine) wish(id shelf.ID, number uint64, s *session, now time.Time) {
	if own, ok := e.shelf.Item(id); ok && own.Number >= number && e.peer(s.key).vain.Wait(1, now) > 0 {
		return
	}
	w := e.wants[id]
	if w == nil {
		w = &wish{}
		e.wants[id] = w
		if wait := e.origin(id).Wait(1, now); wait > 0 {
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
	default:
		worst := 0
		for i, one := range w.sources {
			if e.rather(w.sources[worst], one) {
				worst = i
			}
		}
		if one := (source{s, number}); e.rather(one, w.sources[worst]) {
			w.sources[worst] = one
		}
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
	best := -1
	for i, one := range w.sources {
		_, asked := one.s.asked[id]
		switch {
		case one.s.closed || asked || now.Before(one.s.rests) || e.peer(one.s.key).pulled.Wait(1, now) > 0:
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
	s.asked[id] = asking{number: w.sources[best].number, at: now}
	if s.asks = append(s.asks, wire.Wanted{ID: id, Have: own.Number}); len(s.asks) == wire.MaxWants {
		s.say(s.asks)
		s.asks = nil
	}
	e.at(w.until)
}

// rather says whether a source is asked before another: who has often failed comes last, then
// those come first whom this node has chosen itself, then who tells of the newer object.
func (e *Engine) rather(a, b source) bool {
	if da, db := e.peer(a.s.key).demerits, e.peer(b.s.key).demerits; da > db+1 || db > da+1 {
		return da < db
	}
	if a.s.dialled != b.s.dialled {
		return a.s.dialled
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
func (e *Engine) hearWant(s *session, f wire.Want) {
	var some wire.Renewals
	var not wire.Denied
	greedy := false
	for _, t := range f {
		r, short := e.shelf.Renewal(t.ID, t.Have)
		short = short && t.Have > 0
		var all wire.Objects
		size := renewalSize
		if !short {
			size = 0
			for _, object := range e.shelf.Held(t.ID) {
				all = append(all, object.Bytes())
				size += len(object.Bytes())
			}
		}
		may := size > 0 && e.mayHave(s, t.ID)
		greedy = greedy || size > 0 && !may
		switch {
		case !may || !e.serve(s, size):
			not = append(not, t.ID)
			continue
		case short:
			some = append(some, r)
		default:
			s.say(all)
		}
		e.gave(s, t.ID)
	}
	if len(some) > 0 {
		s.say(some)
	}
	if len(not) > 0 {
		s.say(not)
	}
	if greedy {
		e.demerit(s)
	}
}

// mayHave says whether a peer may be sent what lies in a place. Who has been does not need it
// again.
func (e *Engine) mayHave(s *session, id shelf.ID) bool {
	item, _ := e.shelf.Item(id)
	before := s.given[id]
	return before.item != item || before.times < askedTwice
}

// gave notes that a peer is sent what lies in a place.
func (e *Engine) gave(s *session, id shelf.ID) {
	item, _ := e.shelf.Item(id)
	before := s.given[id]
	if before.item != item {
		before = given{item: item}
	}
	before.times++
	s.given[id] = before
}

// room says whether a peer may be sent so many bytes more: what is its own is not used up, and
// what was sent to it before does not lie here for long.
func (e *Engine) room(s *session, size int) bool {
	more := int64(s.pending + size)
	return s.queued.Load()+more <= maxQueueBytes/2 && e.queued+more <= maxAllQueued/2 && e.peer(s.key).served.Wait(size, time.Now()) == 0
}

// serve says whether a peer is sent so many bytes more, and counts them.
func (e *Engine) serve(s *session, size int) bool {
	now := time.Now()
	if !e.room(s, size) || !e.served.Take(size, now) {
		return false
	}
	e.peer(s.key).served.Owe(size, now)
	return true
}

// hearObjects takes an object that was asked for.
func (e *Engine) hearObjects(s *session, f wire.Objects) {
	var id shelf.ID
	news, refused, further := false, false, s.ledger.Height > e.state.Height && len(s.refused) < maxEarly
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
			news = true
		case v.Lie():
			e.blame(s, faultLie)
			return
		case (v == shelf.Withdrawn || v == shelf.Early || v == shelf.Unlisted && further && s.refused[id] == (wire.Told{})) && (i > 0 || object.Sequence >= told.number):
			refused = true // who passes it on need not know that a key was revoked, or has got later records
		case i == 0 && object.Sequence < told.number || v != shelf.Known && v != shelf.Older:
			e.demerit(s) // it told of a newer one, or passes on what is refused
			if s.closed {
				return
			}
		}
	}
	if _, several := e.shelf.Behind(id); refused || several {
		s.refused[id] = wire.ToldOf(e.shelf.ItemOf(id, f)) // what counts here of it is here
	}
	if !news {
		e.peer(s.key).vain.Owe(1, time.Now()) // or it would be asked without end
	}
	if s.asked[id].late { // it was slow, and no more than that
		e.merit(s)
	}
	e.answered(id, s)
}

// hearDenied asks others, or the same peer after a while.
func (e *Engine) hearDenied(s *session, f wire.Denied) {
	now := time.Now()
	s.rests = now.Add(restLimit)
	for _, id := range f {
		if _, asked := s.asked[id]; !asked {
			e.blame(s, faultUnasked)
			return
		}
		delete(s.asked, id)
		if w := e.wants[id]; w != nil {
			if w.asked == s {
				w.asked = nil
			}
			w.again = w.limit
			e.ask(id, w, now)
		}
	}
	e.askMore(s)
}

// hearRenewals takes objects that were asked for, and are here under a lower number.
func (e *Engine) hearRenewals(s *session, f wire.Renewals) {
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
			s.asks = append(s.asks, wire.Wanted{ID: r.ID})
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
func (e *Engine) hearDigest(s *session, f wire.Digest) {
	sums, lists := e.shelf.Answer(f)
	if len(sums)+len(lists) == 0 {
		if f[0].Depth == 0 {
			e.sayHead(s)
			s.say(wire.Same{})
		}
		return
	}
	var answer []wire.Frame
	size := 0
	for some := range slices.Chunk(sums, wire.MaxSums) {
		answer = append(answer, wire.Digest(some))
	}
	for _, l := range lists {
		l.Items = l.Items[:min(len(l.Items), wire.MaxItems)]
		answer = append(answer, wire.List(l))
	}
	for _, f := range answer {
		size += len(wire.Encode(f))
	}
	e.peer(s.key).unasked.Owe(size, time.Now()) // who makes others talk is as loud as who talks
	if !e.serve(s, size) {
		answer = nil
		if f[0].Depth == 0 {
			answer = []wire.Frame{wire.Lack{}}
		}
	}
	for _, f := range answer {
		s.say(f)
	}
}

// hearList asks for what a part has that is news, and tells what is news to the peer.
func (e *Engine) hearList(s *session, l shelf.List) {
	now := time.Now()
	lacks, ahead := e.shelf.Compare(l)
	lacks = slices.DeleteFunc(lacks, func(item shelf.Item) bool { return s.refused[item.ID] == wire.ToldOf(item) })
	for _, item := range lacks {
		e.wish(item.ID, item.Number, s, now)
	}
	size := toldSize * len(ahead)
	e.peer(s.key).unasked.Owe(size, now)
	if !e.serve(s, size) {
		ahead = nil
	}
	for _, id := range ahead {
		s.news[id] = true
	}
	if len(ahead) > 0 && e.newsAt.IsZero() {
		e.newsAt = now.Add(soon)
		e.at(e.newsAt)
	}
	for _, item := range l.Items { // he may know that what counts here does not, and be told each time
		if behind, _ := e.shelf.Behind(item.ID); item == behind || s.refused[item.ID] == wire.ToldOf(item) {
			ahead = slices.DeleteFunc(ahead, func(id shelf.ID) bool { return id == item.ID })
		}
	}
	if len(lacks)+len(ahead) > 0 {
		s.hurry(now)
		e.at(s.digestAt)
	}
}
