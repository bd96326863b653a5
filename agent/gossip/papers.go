package gossip

import (
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/token"
)

// Papers are what operators and nodes have signed that have no seat, so that no place of the
// shelf is theirs. Peers tell each other the sum of all; where two differ, each asks for what it
// lacks. agent/papers' Store fits.
type Papers interface {
	Sum() document.Hash
	IDs() []token.Short
	// Lacking are those that somebody lacks who has others, as many as have so many bytes.
	Lacking(has []token.Short, most int) [][]byte
	// Take verifies one and keeps it.
	Take(raw []byte) (news bool, err error)
}

// The frames: the sum of all papers, a question for all but some of them, and some.
type (
	paperSum   struct{ sum document.Hash }
	wantPapers []token.Short
	papers     [][]byte
)

// maxPapers is the bytes of papers in one frame, and paperRate how often a peer is asked for some,
// after a few times at once.
const maxPapers, paperRate = 64 << 10, 10 * time.Second

func (paperSum) kind() byte   { return 15 }
func (wantPapers) kind() byte { return 16 }
func (papers) kind() byte     { return 17 }

func (f paperSum) write(w *writer) { w.bytes(f.sum[:]) }

func (f wantPapers) write(w *writer) {
	w.number(uint64(len(f)))
	for _, id := range f {
		w.bytes(id[:])
	}
}

func (f papers) write(w *writer) { objects(f).write(w) }

func (r *reader) paperFrame(kind byte) frame {
	switch kind {
	case paperSum{}.kind():
		var f paperSum
		r.bytes(f.sum[:])
		return f
	case wantPapers{}.kind():
		f := wantPapers{}
		for n := r.number(token.MaxSet); n > 0 && !r.bad; n-- {
			var id token.Short
			r.bytes(id[:])
			f = append(f, id)
		}
		return f
	case papers{}.kind():
		var f papers
		r.each(maxPapers, func() { f = append(f, r.sized(token.MaxPaper)) })
		return f
	}
	return nil
}

// Papered says that there are other papers than before.
func (e *Engine) Papered() {
	e.post(func() {
		for _, s := range e.sessions {
			e.sayPapers(s)
			e.askPapers(s)
		}
	})
}

// sayPapers tells a peer the sum of all papers.
func (e *Engine) sayPapers(s *session) {
	if e.config.Papers != nil {
		s.say(paperSum{e.config.Papers.Sum()})
	}
}

// askPapers asks a peer for papers that are not here, if it has some.
func (e *Engine) askPapers(s *session) {
	p, now := e.config.Papers, time.Now()
	if p == nil || s.papers.IsZero() || s.papers == p.Sum() || e.pulled.wait(1, now) > 0 || !s.paperAsks.take(1, now) {
		return
	}
	s.paperAsked++
	s.say(wantPapers(p.IDs()))
}

// hearPapers takes frames that are about papers.
func (e *Engine) hearPapers(s *session, f frame) {
	p := e.config.Papers
	switch f := f.(type) {
	case paperSum:
		s.papers = f.sum
		e.askPapers(s)
	case wantPapers:
		if p == nil {
			return
		}
		if answer := papers(p.Lacking(f, maxPapers)); len(answer) > 0 && e.serve(s, len(encode(answer))) {
			s.say(answer)
		}
	case papers:
		if s.paperAsked--; s.paperAsked < 0 || p == nil {
			e.blame(s, faultUnasked)
			return
		}
		e.library1(func() { // or the next sum tells of them again
			for _, raw := range f {
				_, _ = p.Take(raw) // what this node does not take, as of an operator it does not know yet, is no lie
			}
		})
	}
}
