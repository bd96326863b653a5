package gossip

import (
	"context"
	"slices"
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// library does what waits for the disk, one thing after the other.
func (e *Engine) library(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-e.takes:
			job()
		case job := <-e.reads:
			job()
		}
	}
}

const (
	// maxReading is how many answers to a peer may wait for the disk.
	maxReading = 8
	// lookSize is what a look at the ledger costs whoever asks for one, in bytes.
	lookSize = 512
)

// lend has the library look for what a peer asks for, if the peer may ask for more: or it says
// that it is not to be had.
func (e *Engine) lend(s *session, not wire.Lack, job func()) {
	switch {
	case s.reading >= maxReading: // who waits for answers asks for a few things at a time
		s.say(not)
		e.demerit(s)
		return
	case not.Height < 1 || not.Height > max(e.state.Height, s.toldHead.Height) || !e.room(s, lookSize):
		s.say(not)
		return
	}
	select {
	case e.reads <- job:
		s.reading++
	default:
		s.say(not)
	}
}

// cachedEntry is an entry as it is sent: the one that was asked for last, or a second one.
type cachedEntry struct {
	height int64
	parts  [wire.Parts][]byte
	all    []byte
	sums   []document.Hash // of its pieces
}

// read is an entry of the ledger, and how many bytes the disk had to read for it; nil: there is
// none. The goroutine of the disk calls it.
func (e *Engine) read(height int64) (c *cachedEntry, cost int) {
	if c = &e.entries.cached; c.height == height {
		return c, 0
	}
	one, err := e.config.Ledger.Entry(height)
	if err != nil {
		return nil, 0
	}
	*c = asSent(height, one)
	return c, len(c.all)
}

func asSent(height int64, one ledger.Entry) cachedEntry {
	c := cachedEntry{height: height, parts: [wire.Parts][]byte{one.Record, one.Value, one.Certificate}}
	c.all = slices.Concat(c.parts[:]...)
	for some := range slices.Chunk(c.all, wire.PieceSize) {
		c.sums = append(c.sums, document.HashOf(some))
	}
	return c
}

// either is an entry of the ledger, or the second one where that is to be given.
func (e *Engine) either(height int64, second *second) (c *cachedEntry, cost int) {
	if second != nil {
		return &second.entry, 0
	}
	return e.read(height)
}

// giveEntry answers with an entry, or with what its pieces are if it is not small.
func (e *Engine) giveEntry(s *session, second *second, not wire.Lack) {
	c, cost := e.either(not.Height, second)
	switch {
	case c == nil:
		e.answer(s, cost, nil, not)
	case len(c.all) <= wire.PieceSize:
		e.answer(s, cost, wire.Entry{Height: c.height, Parts: c.parts}, not)
	default:
		o := wire.Offer{Height: c.height, Sums: c.sums}
		for i, p := range c.parts {
			o.Sizes[i] = len(p)
		}
		e.answer(s, cost, o, not)
	}
}

// givePiece answers with a piece, if it is the one that is meant.
func (e *Engine) givePiece(s *session, second *second, index int, not wire.Lack) {
	c, cost := e.either(not.Height, second)
	if c == nil || index >= len(c.sums) || c.sums[index] != not.Sum {
		e.answer(s, cost, nil, not)
		return
	}
	data := c.all[index*wire.PieceSize:]
	e.answer(s, cost, wire.Piece{Sum: not.Sum, Data: data[:min(len(data), wire.PieceSize)]}, not)
}

// answer sends what the goroutine of the disk has found, as far as the peer may ask for so much.
// It pays for what was read for it, whatever the answer is.
func (e *Engine) answer(s *session, cost int, f wire.Frame, not wire.Lack) {
	var raw []byte
	if f != nil {
		raw = wire.Encode(f)
	}
	e.post(func() {
		s.reading--
		e.peer(s.key).served.Owe(max(lookSize, cost-len(raw)), time.Now())
		switch {
		case s.closed:
		case len(raw) > 0 && e.serve(s, len(raw)):
			s.sayRaw(raw)
		default:
			s.say(not)
		}
	})
}
