package gossip

import (
	"errors"
	"slices"
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// entries is how the ledger grows by what peers have. Entries are fetched one at a time, in
// order: who offers one that is large sends it in pieces, and others do that have the same ones.
// Beside that, one peer at a time proves that its ledger is another one.
type entries struct {
	next  *fetch // of the next entry
	proof *fetch // of one that is another one here
	// kept are pieces of the next entry that came before its fetch was given up.
	kept map[document.Hash][]byte
	// again is when something may be fetched: the ledger takes nothing now, for a reason that
	// is this node's. failures counts how often that was in a row.
	again    time.Time
	failures int
	second   *second
	cached   cachedEntry // the goroutine's of the disk
}

// fetch is an entry that is being fetched:
//
//	asked ─entry───────────────────────▶ taking ─▶ taken, or the peer lied
//	  ├──offer─▶ pieces ─all are here──▶ taking
//	  └──lack, or not all in time─▶ asked, of another peer
type fetch struct {
	height int64
	from   *session  // who says what the entry is
	until  time.Time // when all that it sends has to be here
	offer  *wire.Offer
	got    map[document.Hash][]byte // pieces
	asks   map[document.Hash]asked  // for pieces
	passed map[signed.Key]bool      // who does not say what it is
	idle   map[signed.Key]bool      // who does not send pieces of what is offered
	fork   *fork                    // what the entry is to prove; nil: it is the next one
	taking bool
}

// asked is who was asked for a piece.
type asked struct {
	s     *session
	until time.Time
}

// fork is the search for the height at which a peer's ledger parts from the one here: both are
// the same at low, and at high the peer has another record.
type fork struct {
	low, high int64
	entry     ledger.Entry // the peer's at high, once it came
	previous  document.Hash
	until     time.Time // when the proof has to be here
}

// Pieces: of how many peers, and how many of each at a time.
const (
	maxGivers    = 3
	piecesOfEach = 2
)

const (
	// entryRate is how many bytes a second of a large entry have to come, on average.
	entryRate = 16 << 10
	// maxOwed is how many answers about entries a peer may owe before it is asked for no more.
	maxOwed = 64
	// proofLimit is how long a peer may take to prove that its ledger is another one, and
	// lookAgain after how long the same head is looked at again.
	proofLimit, lookAgain = 2 * time.Minute, time.Hour
)

// sayHead tells a peer how far the ledger is, unless it has been told.
func (e *Engine) sayHead(s *session) {
	if now := e.shown(s); !s.told || s.toldHead != now {
		s.told, s.toldHead, s.toldAt = true, now, time.Now()
		s.say(now)
	}
}

// hearLedger takes frames that are about the ledger.
func (e *Engine) hearLedger(s *session, f wire.Frame) {
	now := time.Now()
	switch f := f.(type) {
	case wire.Head:
		s.ledger = f
		if e.entries.second != nil {
			e.hearSide(s)
			e.sayHead(s)
		}
		e.tendEntries(now)
	case wire.WantEntry:
		not := wire.Lack{Height: f.Height}
		second := e.lentSecond(s, f.Height)
		e.lend(s, not, func() { e.giveEntry(s, second, not) })
	case wire.WantPiece:
		not := wire.Lack{Height: f.Height, Sum: f.Sum}
		second := e.lentSecond(s, f.Height)
		e.lend(s, not, func() { e.givePiece(s, second, f.Index, not) })
	case wire.Entry:
		if to := e.fetching(f.Height, s); to != nil && to.offer == nil {
			to.from = s
			e.whole(to, ledger.Entry{Record: f.Parts[0], Value: f.Parts[1], Certificate: f.Parts[2]}, now)
		}
	case wire.Offer:
		if to := e.fetching(f.Height, s); to != nil && to.offer == nil && to.from == s {
			e.hearOffer(to, f, now)
		}
	case wire.Piece:
		e.hearPiece(s, f, now)
	case wire.Lack:
		if to := e.fetching(f.Height, s); to != nil {
			e.hearLack(to, s, f.Sum, now)
		}
	}
}

// fetching is the fetch that waits for a peer's answer about a height; nil: it comes too late.
func (e *Engine) fetching(height int64, s *session) *fetch {
	for _, f := range []*fetch{e.entries.next, e.entries.proof} {
		if f != nil && !f.taking && f.height == height && (f.fork == nil || f.from == s) {
			return f
		}
	}
	return nil
}

// tendEntries fetches what peers have, or asks another peer where one does not answer. It says
// when the next answer is due.
func (e *Engine) tendEntries(now time.Time) (next time.Time) {
	for _, f := range []*fetch{e.entries.next, e.entries.proof} {
		if f != nil && !f.taking {
			e.tendFetch(f, now)
		}
	}
	if !now.Before(e.entries.again) {
		switch f := e.entries.next; {
		case f == nil:
			if s := e.giver(e.state.Height+1, nil, now); s != nil {
				e.entries.next = begin(e.state.Height + 1)
				e.entries.next.got, e.entries.kept = e.entries.kept, nil
				e.askEntry(e.entries.next, s, now)
			}
		case !f.taking: // somebody better may have it by now
			if s := e.giver(f.height, f.passed, now); s != nil && e.peer(s.key).missed < e.peer(f.from.key).missed {
				e.askEntry(f, s, now)
			}
		}
		if e.entries.proof == nil {
			if s := e.suspect(now); s != nil {
				e.askEntry(e.doubt(s.ledger.Height, now), s, now)
			}
		}
	} else {
		next = e.entries.again
	}
	for _, f := range []*fetch{e.entries.next, e.entries.proof} {
		if f == nil || f.taking {
			continue
		}
		if next.IsZero() || f.until.Before(next) {
			next = f.until
		}
		for _, a := range f.asks {
			if a.until.Before(next) {
				next = a.until
			}
		}
	}
	if !next.IsZero() {
		e.at(next)
	}
	return next
}

func begin(height int64) *fetch {
	return &fetch{height: height, asks: make(map[document.Hash]asked), passed: make(map[signed.Key]bool), idle: make(map[signed.Key]bool)}
}

// giver is a peer that has an entry, of those that are not passed over: who has missed the
// fewest comes first, then whom this node has chosen itself, then who was asked the longest ago.
func (e *Engine) giver(height int64, passed map[signed.Key]bool, now time.Time) (best *session) {
	for _, s := range e.sessions {
		if s.ledger.Height < height || passed[s.key] || s.owes >= maxOwed || e.peer(s.key).pulled.Wait(1, now) > 0 {
			continue
		}
		if best == nil || e.before(s, best) {
			best = s
		}
	}
	return best
}

func (e *Engine) before(a, b *session) bool {
	switch pa, pb := e.peer(a.key), e.peer(b.key); {
	case pa.missed != pb.missed:
		return pa.missed < pb.missed
	case a.dialled != b.dialled:
		return a.dialled
	case !pa.gave.Equal(pb.gave):
		return pa.gave.Before(pb.gave)
	}
	return a.key < b.key
}

// askEntry asks a peer for the entry, and forgets what another one has offered. Pieces that are
// here stay.
func (e *Engine) askEntry(f *fetch, s *session, now time.Time) {
	f.from, f.offer = s, nil
	f.wait(now.Add(entryLimit))
	clear(f.asks)
	clear(f.idle)
	e.peer(s.key).gave = now
	s.owes++
	s.say(wire.WantEntry{Height: f.height})
	e.at(f.until)
}

// wait has the one who is asked be waited for until a time.
func (f *fetch) wait(until time.Time) {
	if f.until = until; f.fork != nil && f.fork.until.Before(until) {
		f.until = f.fork.until
	}
}

// tendFetch turns from peers that do not answer in time.
func (e *Engine) tendFetch(f *fetch, now time.Time) {
	for sum, a := range f.asks {
		if a.s.closed || !now.Before(a.until) {
			delete(f.asks, sum)
			if !a.s.closed && !f.idle[a.s.key] {
				f.idle[a.s.key] = true
				e.peer(a.s.key).missed++
			}
		}
	}
	switch {
	case f.from.closed, f.idle[f.from.key], !now.Before(f.until):
		if !f.idle[f.from.key] {
			e.peer(f.from.key).missed++
		}
		if !f.from.closed && (f.offer == nil || f.fork != nil) {
			e.demerit(f.from)
		}
		e.pass(f, now)
	case f.offer != nil:
		e.askPieces(f, now)
	}
}

// pass turns to the next peer that has the entry, or gives up until somebody tells of it again.
func (e *Engine) pass(f *fetch, now time.Time) {
	if f.fork != nil {
		e.entries.proof = nil
		return
	}
	f.passed[f.from.key] = !f.from.closed // if it comes again it is asked again
	if s := e.giver(f.height, f.passed, now); s != nil {
		e.askEntry(f, s, now)
		return
	}
	e.entries.next, e.entries.kept = nil, f.got
	if f.from.closed { // of two sessions with one peer one ends: whoever comes tells of it anew
		return
	}
	e.entries.again = now.Add(entryLimit)
	e.at(e.entries.again)
}

// accuse sends away who has said what an entry is, and turns to others.
func (e *Engine) accuse(f *fetch, why string, now time.Time) {
	e.blame(f.from, why)
	e.pass(f, now)
}

// hearOffer has an entry be fetched in pieces. Those that came before, of the same, are kept.
func (e *Engine) hearOffer(f *fetch, o wire.Offer, now time.Time) {
	f.offer = &o
	f.wait(now.Add(entryLimit + time.Duration(o.Size()/entryRate)*time.Second))
	before := f.got
	f.got = make(map[document.Hash][]byte)
	for _, sum := range o.Sums {
		if data, ok := before[sum]; ok {
			f.got[sum] = data
		}
	}
	e.askPieces(f, now)
}

// askPieces asks for pieces that are missing, of the one who offers them and of others.
func (e *Engine) askPieces(f *fetch, now time.Time) {
	givers, busy := []*session{f.from}, make(map[*session]int)
	missed := e.peer(f.from.key).missed
	for _, s := range e.sessions {
		if f.fork == nil && s != f.from && len(givers) < maxGivers && s.ledger.Height >= f.height && !f.idle[s.key] && s.owes < maxOwed && e.peer(s.key).missed <= missed {
			givers = append(givers, s)
		}
	}
	for _, a := range f.asks {
		busy[a.s]++
	}
	all := true
	for i, sum := range f.offer.Sums {
		if _, here := f.got[sum]; here {
			continue
		}
		all = false
		if _, waits := f.asks[sum]; waits {
			continue
		}
		s := slices.MinFunc(givers, func(a, b *session) int { return busy[a] - busy[b] })
		if busy[s] >= piecesOfEach {
			break
		}
		busy[s]++
		until := now.Add(entryLimit)
		f.asks[sum] = asked{s, until}
		s.owes++
		s.say(wire.WantPiece{Height: f.height, Index: i, Sum: sum})
		e.at(until)
	}
	if all {
		e.join(f, now)
	}
}

// hearPiece takes a piece, also one that comes late.
func (e *Engine) hearPiece(s *session, p wire.Piece, now time.Time) {
	if document.HashOf(p.Data) != p.Sum {
		e.blame(s, faultEntry)
		e.tendEntries(now)
		return
	}
	for _, f := range []*fetch{e.entries.next, e.entries.proof} {
		if f != nil && !f.taking && f.offer != nil && slices.Contains(f.offer.Sums, p.Sum) {
			delete(f.asks, p.Sum)
			f.got[p.Sum] = p.Data
			e.askPieces(f, now)
		}
	}
}

// hearLack turns to others: for a piece, or for the whole entry, of which the sum is zero.
func (e *Engine) hearLack(f *fetch, s *session, sum document.Hash, now time.Time) {
	switch {
	case !sum.IsZero() && f.asks[sum].s != s: // it comes too late
	case s == f.from && (!sum.IsZero() || f.offer == nil):
		e.pass(f, now)
	case !sum.IsZero():
		delete(f.asks, sum)
		f.idle[s.key] = true
		e.askPieces(f, now)
	}
}

// join puts the pieces together.
func (e *Engine) join(f *fetch, now time.Time) {
	var all []byte
	for _, sum := range f.offer.Sums {
		all = append(all, f.got[sum]...)
	}
	if len(all) != f.offer.Size() {
		e.accuse(f, faultEntry, now)
		return
	}
	var p [wire.Parts][]byte
	for i, size := range f.offer.Sizes {
		p[i], all = all[:size:size], all[size:]
	}
	e.whole(f, ledger.Entry{Record: p[0], Value: p[1], Certificate: p[2]}, now)
}

// whole takes an entry that is here: as the next one if it follows on the ledger. One that
// follows on another record is a lie, or of another history: whoever sent it is to prove that.
func (e *Engine) whole(f *fetch, one ledger.Entry, now time.Time) {
	if f.fork != nil {
		e.search(f, one, now)
		return
	}
	r, err := ledger.ParseRecord(one.Record)
	before, none := e.config.Ledger.Record(f.height - 1)
	if err != nil || none != nil || r.Height != f.height || r.Previous == before {
		e.take(f, one)
		return
	}
	from := f.from
	e.peer(from.key).missed++
	e.pass(f, now)
	if e.entries.proof == nil {
		proof := e.doubt(f.height, now)
		proof.from = from
		e.search(proof, one, now)
	}
}

// suspect is a peer whose head is not the record that is here; nil: there is none.
func (e *Engine) suspect(now time.Time) (who *session) {
	for _, s := range e.sessions {
		p, h := e.peer(s.key), s.ledger
		if h.Height < 1 || h.Height > e.state.Height || h == p.looked && now.Sub(p.lookedAt) < lookAgain {
			continue
		}
		switch record, err := e.config.Ledger.Record(h.Height); {
		case err != nil:
		case record == h.Record:
			p.looked, p.lookedAt = h, now
		case who == nil || p.lookedAt.Before(e.peer(who.key).lookedAt):
			who = s
		}
	}
	if who != nil {
		p := e.peer(who.key)
		p.looked, p.lookedAt = who.ledger, now
	}
	return who
}

// doubt begins with the search for where a peer's ledger parts from the one here: it has another
// record at a height, as it says.
func (e *Engine) doubt(height int64, now time.Time) *fetch {
	f := begin(height)
	f.fork = &fork{high: height, until: now.Add(proofLimit)}
	e.entries.proof = f
	return f
}

// search goes on with what a peer has at a height, to the first height at which it has another
// record: that one proves that there are two histories, or that the peer lies.
func (e *Engine) search(f *fetch, one ledger.Entry, now time.Time) {
	k := f.fork
	r, err := ledger.ParseRecord(one.Record)
	mine, none := e.config.Ledger.Record(f.height)
	same := none == nil && r.Hash() == mine
	switch {
	case errors.Is(err, document.ErrNewer): // this node cannot tell
		e.entries.proof = nil
		return
	case err != nil || r.Height != f.height:
		e.accuse(f, faultEntry, now)
		return
	case same && f.height == k.high: // it has the record that is here
		e.accuse(f, faultHead, now)
		return
	case same:
		k.low = f.height
	default:
		k.high, k.entry, k.previous = f.height, one, r.Previous
	}
	switch before, err := e.config.Ledger.Record(k.high - 1); {
	case err == nil && k.previous == before:
		f.height = k.high
		e.take(f, k.entry)
	case k.high <= k.low+1: // its records do not follow on each other
		e.accuse(f, faultEntry, now)
	default:
		f.height = k.low + (k.high-k.low)/2
		e.askEntry(f, f.from, now)
	}
}

// take gives an entry to the ledger, which verifies it: that takes a while.
func (e *Engine) take(f *fetch, one ledger.Entry) {
	f.taking = true
	e.takes <- func() { // two at most
		err := e.config.Ledger.Take(f.height, one)
		e.post(func() { e.taken(f, err) })
	}
}

// taken notes what the ledger says of an entry.
func (e *Engine) taken(f *fetch, err error) {
	now := time.Now()
	if f.fork != nil {
		e.entries.proof = nil
	} else {
		e.entries.next = nil
	}
	lie := errors.Is(err, ledger.ErrRecord) || errors.Is(err, ledger.ErrValue) || errors.Is(err, ledger.ErrCertificate)
	switch {
	case errors.Is(err, document.ErrNewer): // this node is to be updated first
		e.retreat(err, now)
	case lie:
		e.blame(f.from, faultEntry)
	case errors.Is(err, ledger.ErrHeight): // somebody else has brought it
	case err != nil: // also a fork
		e.retreat(err, now)
	case f.fork == nil:
		e.entries.failures = 0
		if e.config.Grown != nil {
			e.config.Grown()
		}
		e.merit(f.from)
		p := e.peer(f.from.key)
		p.missed = max(0, p.missed-1)
	}
	e.follow()
	e.tendEntries(now)
}

// retreat lets the ledger be for a while, which takes nothing for a reason of its own.
func (e *Engine) retreat(err error, now time.Time) {
	if e.entries.failures == 0 {
		e.config.Logf("gossip: %v", err)
	}
	e.entries.again = now.Add(grown(time.Minute, quietDigest, e.entries.failures))
	e.entries.failures++
	e.at(e.entries.again)
}
