package gossip

import (
	"time"

	"kogge.example/agent/gossip/wire"
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

// maxPapers is the bytes of papers in one frame, and paperRate how often a peer is asked for some,
// after a few times at once.
const maxPapers, paperRate = 64 << 10, 10 * time.Second

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
		s.say(wire.PaperSum{Sum: e.config.Papers.Sum()})
	}
}

// askPapers asks a peer for papers that are not here, if it has some: once for what both have, and
// again after a while.
func (e *Engine) askPapers(s *session) {
	p, now := e.config.Papers, time.Now()
	if p == nil || s.papers[0].IsZero() {
		return
	}
	if s.papers[1] = p.Sum(); s.papers[0] == s.papers[1] || s.papers == s.lent && now.Sub(s.lentAt) < quietDigest {
		return
	}
	if wait := max(e.peer(s.key).pulled.Wait(1, now), e.peer(s.key).papers.Wait(1, now)); wait > 0 {
		e.at(now.Add(wait))
		return
	}
	e.peer(s.key).papers.Owe(1, now)
	s.lends++
	s.lent, s.lentAt = s.papers, now
	s.say(wire.WantPapers(p.IDs()))
}

// hearPapers takes frames that are about papers.
func (e *Engine) hearPapers(s *session, f wire.Frame) {
	p := e.config.Papers
	switch f := f.(type) {
	case wire.PaperSum:
		s.papers[0] = f.Sum
		e.askPapers(s)
	case wire.WantPapers:
		if p == nil || !e.room(s, lookSize) {
			return
		}
		e.peer(s.key).served.Owe(lookSize, time.Now()) // a look costs, whatever comes of it
		if answer := wire.Papers(p.Lacking(f, maxPapers)); len(answer) > 0 && e.serve(s, len(wire.Encode(answer))) {
			s.say(answer)
		}
	case wire.Papers:
		select {
		case e.reads <- func() {
			for _, raw := range f {
				_, _ = p.Take(raw) // what this node does not take, as of an operator it does not know yet, is no lie
			}
		}:
		default: // the next sum tells of them again
		}
	}
}
