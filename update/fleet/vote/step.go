package vote

import (
	"maps"
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// Step is what an event makes of a state, and what is to be done about it, in this order.
func Step(s State, e Event) (State, []Effect) {
	m := machine{State: s}
	switch e := e.(type) {
	case Begin:
		m.begin(e.Height)
	case Item:
		if e.Value != ballot.Nil && e.Value != m.Item {
			m.heard()
		}
		m.Item = e.Value
	case News:
		m.heard()
	case Received:
		m.receive(e.Ballot)
	case Judged:
		m.decideOn(e)
	case Timeout:
		m.timeout(e)
	case Answered:
		m.answer(e.Answer)
	}
	for m.upon() {
	}
	return m.State, m.effects
}

// machine is a state on its way to the next one.
type machine struct {
	State
	effects []Effect
}

func (m *machine) do(effects ...Effect) { m.effects = append(m.effects, effects...) }

// Mute says whether the seat takes no step at this height: it has no vote, does not know what it
// has signed, or stopped. What its journal proves to be decided is not voted about again.
func (s State) Mute() bool {
	signedLater := len(s.Own) > 0 && s.Own[len(s.Own)-1].Height > s.At.Number
	return s.At.Index(s.Self) < 0 || s.Asking || s.Phase >= Decided || signedLater || s.At.Number <= max(s.Abstain, s.Head.Height)
}

// begin is line 10, for the height that follows on the ledger's newest record.
func (m *machine) begin(h ballot.Height) {
	if m.Phase == Halted {
		return
	}
	head := journal.Head{Height: h.Number - 1, Record: h.Record}
	if head.Height == m.Head.Height && head != m.Head {
		m.Phase = Halted
		m.do(Fork{head.Height, m.Head.Record, head.Record})
		return
	}
	m.newest = m.newestOfAll()
	m.At, m.Phase, m.Round, m.Step, m.Item = h, Idle, 0, ballot.Proposal, ballot.Nil
	m.Locked, m.Valid, m.rounds, m.exposed, m.news = none, none, nil, nil, 0
	if head.Height > m.Head.Height {
		m.Head = head
		m.Own = slices.DeleteFunc(slices.Clone(m.Own), func(w ballot.Words) bool { return w.Height < h.Number })
		m.do(Persist{journal.Record{Head: &head}})
	}
	if m.Asking {
		m.ask()
		return
	}
	m.resume()
}

// resume goes on where the journal ends: what it holds of this height is sent again, as it was
// or was not before the power went, and nothing is signed twice.
func (m *machine) resume() {
	if m.Mute() || len(m.Own) == 0 {
		return
	}
	if l := m.lock; l != nil && l.Proposal.Height == m.At.Number {
		m.Locked = Choice{l.Proposal.Round, l.Proposal.Value}
		m.Valid = m.Locked
		m.keep(&l.Proposal)
		for _, b := range l.Ballots() {
			m.keep(b)
		}
	}
	last := m.Own[len(m.Own)-1]
	m.Phase, m.Round, m.Step, m.news = Running, last.Round, last.Kind, last.Round
	m.timed, m.judged = [3]bool{}, nil
	for _, w := range m.Own {
		m.do(Send{&ballot.Ballot{Words: w, Seat: m.Self}})
	}
	if m.Step == ballot.Proposal {
		m.timer(ballot.Proposal)
	}
}

// heard is news: fruitless rounds are counted from here, and time-outs begin short again.
func (m *machine) heard() {
	m.news = m.Round
	switch {
	case m.Mute():
	case m.Phase == Resting:
		m.news++ // Round is over
		m.startRound(m.news)
	case m.Phase == Running:
		for k, runs := range m.timed {
			if runs && ballot.Kind(k) >= m.Step {
				m.timer(ballot.Kind(k))
			}
		}
	}
}

// startRound is lines 11 to 21. The chair waits for its own proposal like everybody; it makes
// it as soon as it has something to put forward.
func (m *machine) startRound(r int32) {
	m.Phase, m.Round, m.Step = Running, r, ballot.Proposal
	m.timed, m.judged = [3]bool{}, nil
	m.forget()
	m.timer(ballot.Proposal)
}

// How long a time-out is. It grows with the rounds since something new was heard.
const (
	ForProposal = 3 * time.Second
	ForVotes    = 2 * time.Second
	EachRound   = time.Second
	Longest     = time.Minute
)

func (m *machine) timer(k ballot.Kind) {
	m.timed[k] = true
	after := ForVotes
	if k == ballot.Proposal {
		after = ForProposal
	}
	after += EachRound * time.Duration(m.Round-m.news)
	m.do(Timer{Timeout{m.At.Number, m.Round, k}, min(after, Longest)})
}

// timeout is lines 57 to 67.
func (m *machine) timeout(t Timeout) {
	if m.Mute() || m.Phase != Running || t.Height != m.At.Number || t.Round != m.Round || !m.timed[t.Step] {
		return
	}
	switch {
	case t.Step == ballot.Precommit && m.Round >= ballot.MaxRound:
	case t.Step == ballot.Precommit && m.Round-m.news+1 >= m.fruitless():
		m.Phase = Resting
	case t.Step == ballot.Precommit: // line 65
		m.startRound(m.Round + 1)
	case t.Step == ballot.Proposal && m.Step == ballot.Proposal: // line 57
		m.sign(ballot.Prevote, ballot.Nil, ballot.Fresh)
	case t.Step == ballot.Prevote && m.Step == ballot.Prevote: // line 61
		m.sign(ballot.Precommit, ballot.Nil, ballot.Fresh)
	}
}

// fruitless is after how many rounds without news a seat rests: waiting must not wear out its disk.
func (m *machine) fruitless() int32 { return int32(3 * len(m.At.Voters)) }

// sign comes to the step of a ballot and casts it, unless the journal has one of this kind and
// round: then that one stays.
func (m *machine) sign(k ballot.Kind, value document.Hash, validRound int32) {
	m.Step = k
	if m.signed(k) {
		return
	}
	b := &ballot.Ballot{Words: m.At.Words(k, m.Round, value, validRound), Seat: m.Self}
	m.Own = journal.Signed(m.Own, b.Words)
	r := journal.Record{Ballot: &b.Words}
	if k == ballot.Precommit && value != ballot.Nil {
		r.Lock = m.lock
	}
	m.do(Persist{r}, Send{b})
}

func (m *machine) signed(k ballot.Kind) bool {
	return slices.ContainsFunc(m.Own, func(w ballot.Words) bool { return w.Height == m.At.Number && w.Kind == k && w.Round == m.Round })
}

// receive takes a ballot of a voter, whose signature fits.
func (m *machine) receive(b *ballot.Ballot) {
	if b.Fleet != m.At.Fleet || m.At.Index(b.Seat) < 0 {
		return
	}
	if b.Seat == m.Self {
		m.mine(b)
	}
	if !m.At.Has(b.Words) {
		if o := m.newest[b.Seat]; b.Height > m.At.Number && (o == nil || o.Before(b.Words)) {
			m.newest = maps.Clone(m.newest)
			m.newest[b.Seat] = b
		}
		return
	}
	if o := m.keep(b); o != nil && !slices.Contains(m.exposed, b.Seat) {
		m.exposed = append(slices.Clip(m.exposed), b.Seat)
		m.do(Expose{ballot.Proof{One: o, Other: b}})
	}
}

// decideOn is line 23: the answer about a fresh proposal of this round.
func (m *machine) decideOn(j Judged) {
	if m.Mute() || m.Phase != Running || j.Height != m.At.Number || j.Round != m.Round || m.Step != ballot.Proposal || !slices.Contains(m.judged, j.Value) {
		return
	}
	value := ballot.Nil
	if j.Valid {
		value = j.Value
	}
	m.sign(ballot.Prevote, value, ballot.Fresh)
}

// upon applies the first rule that holds, and says whether there was one.
func (m *machine) upon() bool {
	if m.Phase < Halted && m.decide() {
		return true
	}
	if m.Mute() {
		return false // difference 5
	}
	if m.skip() {
		return true
	}
	if m.Phase == Idle {
		if m.Item != ballot.Nil {
			m.startRound(0)
		}
		return m.Item != ballot.Nil
	}
	if m.late() {
		return true
	}
	if m.Phase == Resting {
		return false
	}
	return m.propose() || m.prevote() || m.precommit() || m.wait()
}

// decide is line 49. The proposal is not waited for: the certificate alone proves the record,
// and whoever takes it into the ledger has to have it.
func (m *machine) decide() bool {
	for _, r := range m.rounds {
		for _, c := range r.votes[1].counts {
			if c.value == ballot.Nil || c.n < m.At.Quorum || m.Phase == Decided && c.value == m.decided {
				continue
			}
			if m.Phase == Decided {
				m.Phase = Halted
				m.do(Fork{m.At.Number, m.decided, c.value})
				return true
			}
			proof := ledger.Certificate{Version: 1, Round: r.number}
			for _, b := range r.votes[1].ballots(c.value) {
				proof.Seats = append(proof.Seats, signed.Signature{By: b.Seat, Signature: b.Signature})
			}
			m.Phase, m.decided = Decided, c.value
			m.do(Decide{c.value, proof})
			return true
		}
	}
	return false
}

// skip is line 55: an honest seat at least is in a later round.
func (m *machine) skip() bool {
	for _, r := range slices.Backward(m.rounds) {
		if r.number < m.Round || r.number == m.Round && m.Phase != Idle {
			return false
		}
		if r.voters(m.At) > m.At.Liars {
			m.startRound(r.number)
			return true
		}
	}
	return false
}

// late is lines 36 and 42, difference 3. In the current round it is so from the step of
// prevotes on.
func (m *machine) late() bool {
	for _, r := range slices.Backward(m.rounds) {
		if r.number > m.Round || r.number == m.Round && m.Step == ballot.Proposal {
			continue
		}
		if r.number <= m.Valid.Round {
			return false
		}
		for _, p := range r.proposals {
			if r.votes[0].for_(p.Value) >= m.At.Quorum {
				m.Valid = Choice{r.number, p.Value}
				if m.Phase == Resting {
					m.heard()
				}
				return true
			}
		}
	}
	return false
}

// propose is lines 14 to 19.
func (m *machine) propose() bool {
	if m.Step != ballot.Proposal || m.At.Chair(m.Round) != m.Self || m.signed(ballot.Proposal) {
		return false
	}
	switch {
	case m.Valid.Value != ballot.Nil:
		m.sign(ballot.Proposal, m.Valid.Value, m.Valid.Round)
	case m.Item != ballot.Nil:
		m.sign(ballot.Proposal, m.Item, ballot.Fresh)
	default:
		return false
	}
	return true
}

// prevote is lines 22 to 35, but for the answer about what is fresh.
func (m *machine) prevote() bool {
	if m.Step != ballot.Proposal {
		return false
	}
	here := m.at(m.Round)
	for _, p := range here.proposals {
		free := m.Locked.Round < 0 || m.Locked.Value == p.Value
		if p.ValidRound == ballot.Fresh { // line 22
			// Difference 2: what a quorum has prevoted, here or where the lock comes from, is
			// not asked about.
			known := m.Locked.Value == p.Value || here.votes[0].for_(p.Value) >= m.At.Quorum
			switch {
			case !free:
				m.sign(ballot.Prevote, ballot.Nil, ballot.Fresh) // line 26
			case known:
				m.sign(ballot.Prevote, p.Value, ballot.Fresh)
			case !slices.Contains(m.judged, p.Value):
				m.judged = append(slices.Clip(m.judged), p.Value)
				m.do(Judge{m.At.Number, m.Round, p.Value})
			default:
				continue // it was asked, and there is no answer so far
			}
			return true
		}
		if m.at(p.ValidRound).votes[0].for_(p.Value) >= m.At.Quorum { // line 28
			value := ballot.Nil // line 32
			if free || m.Locked.Round <= p.ValidRound {
				value = p.Value // line 30
			}
			m.sign(ballot.Prevote, value, ballot.Fresh)
			return true
		}
	}
	return false
}

// precommit is lines 36 to 46, from the step of prevotes.
func (m *machine) precommit() bool {
	if m.Step != ballot.Prevote {
		return false
	}
	r := m.at(m.Round)
	for _, p := range r.proposals {
		if r.votes[0].for_(p.Value) >= m.At.Quorum { // line 36
			m.Locked = Choice{m.Round, p.Value}
			m.lock = journal.LockOn(p, r.votes[0].ballots(p.Value))
			m.sign(ballot.Precommit, p.Value, ballot.Fresh)
			return true
		}
	}
	if r.votes[0].for_(ballot.Nil) >= m.At.Quorum { // line 44
		m.sign(ballot.Precommit, ballot.Nil, ballot.Fresh)
		return true
	}
	return false
}

// wait is lines 34 and 47: q voters were heard, and they do not agree.
func (m *machine) wait() bool {
	r := m.at(m.Round)
	for _, k := range []ballot.Kind{ballot.Prevote, ballot.Precommit} {
		if !m.timed[k] && r.tally(k).voters >= m.At.Quorum && (k == ballot.Precommit || m.Step == ballot.Prevote) {
			m.timer(k)
			return true
		}
	}
	return false
}
