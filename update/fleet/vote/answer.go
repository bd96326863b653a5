package vote

import (
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/journal"
)

// Answer answers a question. Who abstains answers, too.
func (s State) Answer(q ballot.Question) ballot.Answer {
	return ballot.Answer{Question: q, Fleet: s.At.Fleet, By: s.Self, At: s.At.Number, Ballot: s.newestOf(q.Seat)}
}

// reply is what is kept of an answer.
type reply struct {
	by int
	at int64
}

// answer takes an answer. Where its seat is beyond this ledger, the ledger has to follow first:
// a liar cannot make up heights, and this seat asks again.
func (m *machine) answer(a ballot.Answer) {
	if a.Ballot != nil {
		m.receive(a.Ballot)
	}
	if !m.Asking || a.At > m.At.Number {
		return
	}
	m.replies = append(slices.Clip(m.replies), reply{a.By, a.At})
	m.answered()
}

// ask asks the others, where there have to be any.
func (m *machine) ask() {
	if m.answered(); m.Asking {
		m.do(Ask{})
	}
}

// answered ends the question when q seats have answered, this one among them.
func (m *machine) answered() {
	by, highest := []int{m.Self}, m.At.Number
	for _, r := range m.replies {
		if !slices.Contains(by, r.by) && m.At.Index(r.by) >= 0 {
			by = append(by, r.by)
		}
		highest = max(highest, r.at)
	}
	if len(by) < m.At.Quorum {
		return
	}
	m.Asking, m.replies = false, nil
	if m.Behind {
		// Who answers was at the height at which this seat signed its last ballot, or beyond
		// the one before: q that signed there and q that answer have an honest seat in common.
		m.Behind = false
		m.abstain(highest + 1)
	}
	m.resume()
}

// abstain takes no step up to a height. While the answers are not there the journal says so, too:
// they may say that it is more.
func (m *machine) abstain(height int64) {
	m.Abstain = max(m.Abstain, height)
	m.do(Persist{journal.Record{Abstain: m.Abstain, Behind: m.Behind}})
}

// mine looks at an own ballot that somebody has: the journal has it, or it is of a height or a round
// about which nothing is signed any more, or this is another machine than the one that cast it.
func (m *machine) mine(b *ballot.Ballot) {
	if b.Height <= max(m.Head.Height, m.Abstain) || slices.Contains(m.Own, b.Words) || journal.Forgotten(m.Own, b.Words) {
		return
	}
	m.Asking, m.Behind, m.replies = true, true, nil
	m.do(Lack{b})
	m.abstain(max(b.Height, m.At.Number) + 1)
	m.ask()
}

// newestOf is the newest ballot that was seen of a seat; nil: none.
func (s State) newestOf(seat int) *ballot.Ballot {
	if b := s.newest[seat]; b != nil && b.Height > s.At.Number {
		return b
	}
	if i := s.At.Index(seat); i >= 0 {
		for _, r := range slices.Backward(s.rounds) {
			if all := r.of(i, seat); len(all) > 0 {
				return all[len(all)-1]
			}
		}
	}
	return s.newest[seat]
}

// newestOfAll are the newest ballots of all seats.
func (s State) newestOfAll() map[int]*ballot.Ballot {
	all := make(map[int]*ballot.Ballot)
	for _, seat := range s.At.Voters {
		if b := s.newestOf(seat.Number); b != nil {
			all[seat.Number] = b
		}
	}
	return all
}
