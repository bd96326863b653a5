package gossip

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// maxPart is the bytes of one part of an entry, at most.
const maxPart = ledger.MaxEntry

// entries is how the ledger grows by what peers have. Entries are fetched one at a time, in
// order; whoever offers one that is large, and others that have the same parts, send pieces.
type entries struct {
	fetch *fetch
	// known are the hashes of the records that this run has seen, the last ones.
	known map[int64]document.Hash
	// again is when the next one may be fetched: the ledger takes none now, for a reason that is
	// this node's. failures counts how often that was in a row.
	again    time.Time
	failures int
	cached   cachedEntry // the goroutine's of the disk
}

// maxKnown is how many records are known by their hash.
const maxKnown = 64

func (e *entries) note(height int64, record document.Hash) {
	if e.known == nil {
		e.known = make(map[int64]document.Hash)
	}
	e.known[height] = record
	delete(e.known, height-maxKnown)
}

// fetch is an entry that is being fetched:
//
//	asked ─entry───────────────────────▶ taking ─▶ taken, or the peer lied
//	  ├──offer─▶ pieces ─all are here──▶ taking
//	  └──lack, or nothing in time─▶ asked, of another peer
type fetch struct {
	height int64
	proof  bool     // of a fork: the peer's head is not the record that is here
	from   *session // who is asked first
	maker  *session // who says that this is the entry
	until  time.Time
	offer  *offer
	got    [parts][][]byte // pieces
	by     [parts]map[*session]bool
	asks   map[ask]asked
	left   int               // pieces that are not here
	passed map[*session]bool // who has nothing to give for it
	again  [parts]bool       // fetched for the second time, from the one who offers it alone
	taking bool
}

// ask is a piece that somebody was asked for.
type ask struct{ part, index int }

type asked struct {
	s     *session
	until time.Time
}

// Pieces: of how many peers, and how many of each at a time.
const (
	maxGivers    = 3
	piecesOfEach = 2
)

// sayHead tells a peer how far the ledger is, unless it has been told.
func (e *Engine) sayHead(s *session) {
	if now := (head{e.state.Height, e.state.Record}); !s.told || s.toldHead != now {
		s.told, s.toldHead = true, now
		s.say(now)
	}
}

// hearLedger takes frames that are about the ledger.
func (e *Engine) hearLedger(s *session, f frame) {
	switch f := f.(type) {
	case head:
		s.ledger = f
		e.tendEntries(time.Now())
	case wantEntry:
		e.lend(s, f.height, func() { e.giveEntry(s, f.height) })
	case wantPiece:
		e.lend(s, f.height, func() { e.givePiece(s, f) })
	case entry:
		e.hearEntry(s, f)
	case offer:
		e.hearOffer(s, f)
	case piece:
		e.hearPiece(s, f)
	case lack:
		e.hearLack(s, f)
	}
}

// tendEntries fetches the next entry if a peer has it, or asks another peer where one does not
// answer. It says when the next answer is due.
func (e *Engine) tendEntries(now time.Time) time.Time {
	f := e.entries.fetch
	if f != nil && !f.taking {
		e.tendFetch(f, now)
		f = e.entries.fetch
	}
	if f == nil {
		f = e.nextFetch(now)
	}
	switch {
	case f == nil && e.entries.again.After(now):
		return e.entries.again
	case f == nil: // until somebody tells of a record
		return time.Time{}
	case f.taking:
		return time.Time{}
	}
	var next time.Time
	if f.offer == nil {
		next = f.until
	}
	for _, a := range f.asks {
		if next.IsZero() || a.until.Before(next) {
			next = a.until
		}
	}
	if !next.IsZero() {
		e.at(next)
	}
	return next
}

// nextFetch begins with an entry that somebody has.
func (e *Engine) nextFetch(now time.Time) *fetch {
	if now.Before(e.entries.again) || e.pulled.wait(1, now) > 0 {
		return nil
	}
	for _, s := range e.sessions {
		record, known := e.entries.known[s.ledger.height]
		if s.ledger.height > 0 && s.ledger.height <= e.state.Height && known && record != s.ledger.record && !s.doubted {
			s.doubted = true
			return e.begin(&fetch{height: s.ledger.height, proof: true}, s, now)
		}
	}
	if s := e.giver(e.state.Height+1, nil); s != nil {
		return e.begin(&fetch{height: e.state.Height + 1}, s, now)
	}
	return nil
}

func (e *Engine) begin(f *fetch, s *session, now time.Time) *fetch {
	f.asks, f.passed = make(map[ask]asked), make(map[*session]bool)
	e.entries.fetch = f
	e.askEntry(f, s, now)
	return f
}

// askEntry asks a peer for the entry, and forgets what another one has offered.
func (e *Engine) askEntry(f *fetch, s *session, now time.Time) {
	f.from, f.maker, f.until = s, s, now.Add(entryLimit)
	f.offer, f.got, f.by, f.again, f.left = nil, [parts][][]byte{}, [parts]map[*session]bool{}, [parts]bool{}, 0
	clear(f.asks)
	s.say(wantEntry{f.height})
	e.at(f.until)
}

// giver is a peer that has an entry, of those that are not passed over: the one that has been
// asked the longest ago.
func (e *Engine) giver(height int64, passed map[*session]bool) (best *session) {
	for _, s := range e.sessions {
		if s.ledger.height >= height && !passed[s] && (best == nil || s.gave.Before(best.gave) || s.gave.Equal(best.gave) && s.key < best.key) {
			best = s
		}
	}
	if best != nil {
		best.gave = time.Now()
	}
	return best
}

// tendFetch turns from peers that do not answer in time.
func (e *Engine) tendFetch(f *fetch, now time.Time) {
	for a, one := range f.asks {
		if one.s.closed || !now.Before(one.until) {
			delete(f.asks, a)
			f.passed[one.s] = true
			e.demerit(one.s)
		}
	}
	if f.from.closed || f.offer == nil && !now.Before(f.until) {
		if !f.from.closed {
			e.demerit(f.from)
		}
		e.pass(f, now)
		return
	}
	e.askPieces(f, now)
}

// pass turns to the next peer that has the entry, or gives up until somebody tells of it again.
func (e *Engine) pass(f *fetch, now time.Time) {
	f.passed[f.from] = true
	if f.proof {
		e.entries.fetch = nil
		return
	}
	if f.offer != nil && f.from.closed { // others may have what it offered
		if s := e.other(f); s != nil {
			f.from = s
			e.askPieces(f, now)
			return
		}
	}
	if s := e.giver(f.height, f.passed); s != nil {
		e.askEntry(f, s, now)
		return
	}
	e.entries.fetch = nil
	if f.from.closed { // of two sessions with one peer one ends: whoever comes tells of it anew
		return
	}
	e.entries.again = now.Add(entryLimit)
	e.at(e.entries.again)
}

// other is somebody who may have the same parts.
func (e *Engine) other(f *fetch) *session { return e.giver(f.height, f.passed) }

// hearEntry takes a small entry.
func (e *Engine) hearEntry(s *session, f entry) {
	now := e.entries.fetch
	if now == nil || now.taking || now.from != s || now.height != f.height || now.offer != nil {
		e.late(s)
		return
	}
	e.take(now, ledger.Entry{Record: f.parts[0], Value: f.parts[1], Certificate: f.parts[2]})
}

// late notes an answer that nobody waits for: it was asked for some time ago, or never.
func (e *Engine) late(s *session) { e.demerit(s) }

// hearOffer has the parts of an entry be fetched in pieces.
func (e *Engine) hearOffer(s *session, o offer) {
	f := e.entries.fetch
	if f == nil || f.taking || f.from != s || f.height != o.height || f.offer != nil {
		e.late(s)
		return
	}
	size := 0
	for _, p := range o.parts {
		size += p.size
	}
	if size > ledger.MaxEntry {
		e.blame(s, faultEntry)
		e.pass(f, time.Now())
		return
	}
	f.offer = &o
	for i, p := range o.parts {
		f.got[i], f.by[i] = make([][]byte, p.pieces()), make(map[*session]bool)
		f.left += p.pieces()
	}
	e.askPieces(f, time.Now())
}

// askPieces asks for pieces that are missing, of the one who offers them and of others.
func (e *Engine) askPieces(f *fetch, now time.Time) {
	if f.offer == nil || f.taking {
		return
	}
	if f.left == 0 {
		e.whole(f)
		return
	}
	busy := make(map[*session]int)
	for _, a := range f.asks {
		busy[a.s]++
	}
	givers := []*session{f.from}
	for _, s := range e.sessions {
		if s != f.from && len(givers) < maxGivers && s.ledger.height >= f.height && !f.passed[s] {
			givers = append(givers, s)
		}
	}
	givers = slices.DeleteFunc(givers, func(s *session) bool { return s.closed || f.passed[s] })
	if len(givers) == 0 {
		e.pass(f, now)
		return
	}
	for i, p := range f.offer.parts {
		for index := range p.pieces() {
			if f.got[i][index] != nil {
				continue
			}
			if _, waits := f.asks[ask{i, index}]; waits {
				continue
			}
			s := leastBusy(givers, busy, f.again[i], f.from)
			if s == nil {
				return
			}
			busy[s]++
			until := now.Add(entryLimit)
			f.asks[ask{i, index}] = asked{s, until}
			s.say(wantPiece{f.height, i, p.hash, index})
			e.at(until)
		}
	}
}

// leastBusy is who can be asked for one more piece; nil: nobody.
func leastBusy(givers []*session, busy map[*session]int, alone bool, from *session) (best *session) {
	for _, s := range givers {
		if busy[s] < piecesOfEach && (!alone || s == from) && (best == nil || busy[s] < busy[best]) {
			best = s
		}
	}
	return best
}

// hearPiece takes a piece that was asked for.
func (e *Engine) hearPiece(s *session, p piece) {
	f := e.entries.fetch
	a := ask{p.part, p.index}
	if f == nil || f.offer == nil || f.height != p.height || f.asks[a].s != s {
		e.late(s)
		return
	}
	delete(f.asks, a)
	of := f.offer.parts[p.part]
	if want := min(pieceSize, of.size-p.index*pieceSize); len(p.data) != want {
		e.blame(s, faultEntry)
		e.tendFetch(f, time.Now())
		return
	}
	f.got[p.part][p.index] = p.data
	f.by[p.part][s] = true
	f.left--
	e.merit(s)
	e.askPieces(f, time.Now())
}

// hearLack turns to others. Height 0 is about objects: the peer sends none for a while.
func (e *Engine) hearLack(s *session, l lack) {
	now := time.Now()
	if l.height == 0 {
		s.rests = now.Add(time.Minute)
		for id := range s.asked {
			e.answered(id, s)
		}
		return
	}
	f := e.entries.fetch
	if f == nil || f.taking || f.height != l.height {
		e.late(s)
		return
	}
	for a, one := range f.asks {
		if one.s == s {
			delete(f.asks, a)
		}
	}
	f.passed[s] = true
	if s == f.from {
		e.pass(f, now)
		return
	}
	e.askPieces(f, now)
}

// whole puts the pieces together, and takes the entry if its parts are what was offered.
func (e *Engine) whole(f *fetch) {
	var all [parts][]byte
	for i, p := range f.offer.parts {
		all[i] = bytes.Join(f.got[i], nil)
		if document.HashOf(all[i]) == p.hash {
			continue
		}
		// Who sent all pieces has lied. Of several it is not known who: then the one who offers
		// the part sends it alone.
		if len(f.by[i]) == 1 || f.again[i] {
			for s := range f.by[i] {
				e.blame(s, faultEntry)
			}
			e.pass(f, time.Now())
			return
		}
		f.again[i] = true
		f.left += p.pieces()
		f.got[i], f.by[i] = make([][]byte, p.pieces()), make(map[*session]bool)
		e.askPieces(f, time.Now())
		return
	}
	e.take(f, ledger.Entry{Record: all[0], Value: all[1], Certificate: all[2]})
}

// take gives the entry to the ledger, which verifies it: that takes a while.
func (e *Engine) take(f *fetch, one ledger.Entry) {
	f.taking = true
	clear(f.asks)
	job := func() {
		err := e.config.Ledger.Take(f.height, one)
		e.post(func() { e.taken(f, err) })
	}
	if !e.library1(job) { // there is much to do: later
		e.entries.fetch = nil
		e.entries.again = time.Now().Add(time.Second)
		e.at(e.entries.again)
	}
}

// taken notes what the ledger says of an entry.
func (e *Engine) taken(f *fetch, err error) {
	now := time.Now()
	e.entries.fetch = nil
	lie := errors.Is(err, ledger.ErrRecord) || errors.Is(err, ledger.ErrValue) || errors.Is(err, ledger.ErrCertificate)
	switch {
	case err == nil && f.proof: // the peer's head is a lie: it has the record that is here
		e.blame(f.maker, faultHead)
	case err == nil:
		e.entries.failures = 0
		if e.config.Grown != nil {
			e.config.Grown()
		}
		e.merit(f.maker)
	case errors.Is(err, document.ErrNewer): // this node is to be updated first
		e.retreat(err, now)
	case lie:
		e.blame(f.maker, faultEntry)
	case errors.Is(err, ledger.ErrHeight): // somebody else has brought it
	default:
		e.retreat(err, now)
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

// library does what waits for the disk, one thing after the other.
func (e *Engine) library(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-e.disk:
			job()
		}
	}
}

// library1 has the library do one thing more; false: it has too much to do.
func (e *Engine) library1(job func()) bool {
	select {
	case e.disk <- job:
		return true
	default:
		return false
	}
}

// maxReading is how many answers to a peer may wait for the disk.
const maxReading = 8

// lend has the library look for what a peer asks for, if the peer may ask for more.
func (e *Engine) lend(s *session, height int64, job func()) {
	if s.reading >= maxReading {
		e.demerit(s) // who waits for answers asks for a few things at a time
		return
	}
	if s.served.wait(1, time.Now()) > 0 || !e.library1(job) {
		s.say(lack{height})
		return
	}
	s.reading++
}

// cachedEntry is the entry that was asked for last.
type cachedEntry struct {
	height int64
	parts  [parts][]byte
	hashes [parts]document.Hash
}

// read is an entry of the ledger; false: there is none. The goroutine of the disk calls it.
func (e *Engine) read(height int64) (*cachedEntry, bool) {
	c := &e.entries.cached
	if c.height == height && height > 0 {
		return c, true
	}
	one, err := e.config.Ledger.Entry(height)
	if err != nil {
		return nil, false
	}
	*c = cachedEntry{height: height, parts: [parts][]byte{one.Record, one.Value, one.Certificate}}
	for i, p := range c.parts {
		c.hashes[i] = document.HashOf(p)
	}
	return c, true
}

// giveEntry answers with an entry, or with what its parts are if it is not small.
func (e *Engine) giveEntry(s *session, height int64) {
	c, ok := e.read(height)
	if !ok {
		e.answer(s, 0, lack{height})
		return
	}
	o, size := offer{height: height}, 0
	for i, p := range c.parts {
		o.parts[i] = part{c.hashes[i], len(p)}
		size += len(p)
	}
	if size <= pieceSize {
		e.answer(s, size, entry{height, c.parts})
		return
	}
	e.answer(s, pieceSize/4, o) // to say what it is costs a look at all of it
}

// givePiece answers with a piece of a part, if the part is the one that is meant.
func (e *Engine) givePiece(s *session, w wantPiece) {
	c, ok := e.read(w.height)
	if !ok || c.hashes[w.part] != w.hash || w.index*pieceSize >= len(c.parts[w.part]) {
		e.answer(s, 0, lack{w.height})
		return
	}
	data := c.parts[w.part][w.index*pieceSize:]
	data = data[:min(len(data), pieceSize)]
	e.answer(s, len(data), piece{w.height, w.part, w.index, data})
}

// answer sends what the goroutine of the disk has found, as far as the peer may ask for so much.
func (e *Engine) answer(s *session, size int, f frame) {
	e.post(func() {
		if s.reading--; s.closed {
			return
		}
		if size > 0 && !e.serve(s, size) {
			if p, ok := f.(piece); ok {
				f = lack{p.height}
			} else if one, ok := f.(entry); ok {
				f = lack{one.height}
			} else if o, ok := f.(offer); ok {
				f = lack{o.height}
			}
		}
		s.say(f)
	})
}
