package sim

import (
	"crypto/ed25519"
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/vote"
)

// machine is a node: what is on its disk, and what it forgets without power.
type machine struct {
	w     *world
	index int
	name  string
	key   ed25519.PrivateKey
	pub   signed.Key
	lie   Lie
	other *machine // of a clone, or a twin: the one that it is, too
	skew  float64  // of its clock

	disk disk
	page *page // its ledger, on disk as well

	dead   bool // destroyed
	side   int  // of the fleet, as those that conspire see it
	booted time.Duration
	asked  time.Duration // the others, whether a quorum lives
	up     bool
	life   int
	seat   int // its number; 0: none so far
	s      vote.State
	has    bits
	held   map[int64][]*object // ballots, by height
	views  map[*item]*view
	heard  []time.Duration // of each machine, when
	back   []int           // of each machine, how often that was news
	last   [4]int64        // where it stood at its last tick
	ticks  int
	stalls int
	dirty  bool // the queue has to be looked at
	judge  *vote.Judge
	decide *vote.Decide
	speak  bool   // it may have something else to show
	number uint64 // of the newest opinion
	nonce  uint64
	forked bool
	stash  []*object       // of a liar
	words  map[int]*object // in a plan of Newest, by seat

	signed map[step]ballot.Words // by an honest one, ever
}

// bits are which objects a machine has.
type bits []uint64

func (b bits) has(id int) bool { return id/64 < len(b) && b[id/64]&(1<<(id%64)) != 0 }

func (b *bits) set(id int) {
	for len(*b) <= id/64 {
		*b = append(*b, 0)
	}
	(*b)[id/64] |= 1 << (id % 64)
}

// What happens to a machine besides objects that arrive, time-outs, and answers.
type (
	tick   struct{}
	bundle []*object
)

// boot begins with what is on the disk.
func (m *machine) boot() {
	m.up, m.booted = true, m.w.now
	m.life++
	m.seat, m.s, m.has, m.held, m.views = 0, vote.State{}, nil, make(map[int64][]*object), make(map[*item]*view)
	m.heard, m.back = make([]time.Duration, len(m.w.machines)), make([]int, len(m.w.machines))
	m.words = make(map[int]*object)
	m.judge, m.decide, m.stash, m.dirty = nil, nil, nil, true
	m.w.tracef("%s boots at height %d", m.name, m.page.at.Number)
	m.disk.drafts = slices.DeleteFunc(m.disk.drafts, func(o *object) bool { return o.draft.record.Height < m.page.at.Number })
	for _, o := range m.disk.drafts {
		m.has.set(o.id)
	}
	m.seated()
	m.w.after(m.w.some(2*time.Second), m, tick{})
}

// seated begins to vote if the machine has a seat, and goes on with the height of its page.
func (m *machine) seated() {
	if m.seat == 0 {
		if m.seat = m.page.seatOf(m.pub); m.seat == 0 {
			return
		}
		memory := m.replay()
		s, effects := vote.New(m.seat, memory)
		if m.w.now == 0 && m.w.N > 10 { // all of them would ask all others at once, and nobody has signed anything
			s.Asking = false
		}
		m.s = s
		if !m.carryOut(effects) {
			return
		}
	}
	life := m.life
	m.give(vote.Begin{Height: m.page.at})
	for height := range m.held {
		if height < m.page.at.Number {
			delete(m.held, height)
		}
	}
	for _, o := range slices.Clone(m.held[m.page.at.Number]) {
		if m.up && m.life == life {
			m.offer(o)
		}
	}
}

// off is that the power is gone; it comes back after a while.
func (m *machine) off() {
	w := m.w
	m.up = false
	m.life++
	w.res.Faults.Cuts++
	w.tracef("%s loses power", m.name)
	back := min(w.some(30*time.Second), max(0, w.Wild-w.now-time.Millisecond))
	w.after(back, nil, func() bool {
		if !m.up && !m.dead {
			m.boot()
		}
		return false
	})
}

// give lets an event happen.
func (m *machine) give(e vote.Event) {
	if m.seat == 0 || !m.up || m.forked {
		return
	}
	if m.lie == Amnesia && m.w.chance(0.3) && m.s.Locked.Round >= 0 {
		m.s.Locked, m.s.Valid = vote.Choice{Round: -1}, vote.Choice{Round: -1}
		m.w.res.Faults.Lies++
	}
	s, effects := vote.Step(m.s, e)
	m.s, m.speak = s, m.speak || len(effects) > 0
	m.carryOut(effects)
}

// carryOut does effects in their order. The power may fail before each of them, and leave half a record; then
// it says false.
func (m *machine) carryOut(effects []vote.Effect) bool {
	w, life := m.w, m.life
	for _, e := range effects {
		if w.wild() && w.chance(w.Cuts/10) {
			if p, ok := e.(vote.Persist); ok {
				torn := journal.Append(m.disk.next+int64(len(m.disk.records)), p.Record)
				m.disk.torn = torn[:w.rnd.IntN(len(torn))]
				w.res.Faults.Torn++
			}
			m.off()
			return false
		}
		m.carry(e)
		if m.life != life {
			return false
		}
	}
	return true
}

func (m *machine) carry(e vote.Effect) {
	w := m.w
	switch e := e.(type) {
	case vote.Persist:
		m.keeps(e.Record)
		m.disk.append(e.Record)
	case vote.Send:
		m.sends(e.Ballot)
	case vote.Timer:
		w.after(time.Duration(float64(e.After)*m.skew), m, e.Timeout)
	case vote.Judge:
		m.judge = &e
		m.judges()
	case vote.Ask:
		m.ask()
	case vote.Decide:
		m.decide = &e
		m.decides()
	case vote.Expose:
		if by := w.machineOf(e.Proof.One.Seat); by != nil && by.lie == Honest {
			w.wrong(SignedTwice, "%s exposes %s, which is honest: %+v, %+v", m.name, by.name, e.Proof.One.Words, e.Proof.Other.Words)
		}
	case vote.Lack:
		w.tracef("%s lacks a ballot of its own", m.name)
		if m.lie == Honest {
			w.wrong(Damaged, "%s is honest, and its journal lacks %+v", m.name, e.Ballot)
		}
	case vote.Fork:
		m.fork("height %d: %s and %s", e.Height, e.One.Short(), e.Other.Short())
	}
}

// keeps puts what a ballot is for on the disk before the ballot. A journal has hashes alone: if all lost power
// after they had voted, nobody would know what was decided.
func (m *machine) keeps(r journal.Record) {
	if r.Ballot == nil {
		return
	}
	d := m.w.drafts[r.Ballot.Value]
	if d != nil && m.has.has(d.object.id) && !slices.Contains(m.disk.drafts, d.object) {
		m.disk.drafts = append(m.disk.drafts, d.object)
	}
}

// fork is the alarm that there are two histories.
func (m *machine) fork(format string, args ...any) {
	m.w.tracef(m.name+" sees two histories: "+format, args...)
	m.forked = true
	if m.lie == Honest && !m.w.Hostile {
		m.w.wrong(TwoDecisions, m.name+": "+format, args...)
	}
}

func (w *world) machineOf(seat int) *machine {
	for _, m := range w.machines {
		if m.pub == w.keys[seat] {
			return m
		}
	}
	return nil
}

// sends signs a ballot and gives it to the carriers, and to the seat itself.
func (m *machine) sends(b *ballot.Ballot) {
	w := m.w
	if m.lie == Honest {
		k := step{b.Height, b.Round, b.Kind}
		if was, there := m.signed[k]; there && was != b.Words {
			w.wrong(SignedTwice, "%s signs %+v, and has signed %+v", m.name, b.Words, was)
		}
		m.signed[k] = b.Words
		if !m.written(b.Words) {
			w.wrong(SentFirst, "%s sends %+v, which is not on its disk", m.name, b.Words)
		}
	}
	o := w.publish(b.Sign(m.key), false)
	w.tracef("%s signs %s of %s, round %d, height %d", m.name, b.Kind, b.Value.Short(), b.Round, b.Height)
	m.hear(o)
	m.cast(o)
}

// written says whether a ballot is on the disk. Those of before the last boot were read from there.
func (m *machine) written(words ballot.Words) bool {
	for _, r := range slices.Backward(m.disk.records) {
		if r.Ballot != nil && *r.Ballot == words {
			return true
		}
	}
	return slices.Contains(m.replayed(), words)
}

// replayed is what the journal says that was signed.
func (m *machine) replayed() []ballot.Words {
	memory, err := journal.Replay(m.disk.bytes())
	if err != nil {
		m.w.wrong(Damaged, "the journal of %s: %v", m.name, err)
	}
	return memory.Own
}

// happens is what arrives at a machine.
func (m *machine) happens(what any) {
	switch e := what.(type) {
	case *object:
		m.hear(e)
	case bundle:
		for _, o := range e {
			m.hear(o)
		}
	case tick:
		m.tick()
	case *page:
		m.shown(e)
	case forgery:
		m.refuses(e)
	case vote.Event:
		m.give(e)
	case func():
		e()
	}
	if m.dirty && m.up && (m.w.N <= 31 || m.enough()) {
		m.consider()
	}
	if m.speak && m.up && m.lie == Honest {
		m.speaks()
	}
}

// hear takes an object, once.
func (m *machine) hear(o *object) {
	if m.has.has(o.id) || !m.up {
		return
	}
	m.has.set(o.id)
	switch {
	case o.ballot != nil:
		if o.ballot.Height < m.page.at.Number {
			return
		}
		m.held[o.ballot.Height] = append(m.held[o.ballot.Height], o)
		m.offer(o)
	case o.item != nil:
		m.view(o.item).seen = m.w.now
		m.dirty = true
	case o.word != nil:
		m.hearsWord(o)
	case o.opinion != nil:
		m.opines(o.opinion)
	case o.draft != nil:
		m.judges()
		m.decides()
	}
	if m.lie != Honest && m.up {
		m.schemes(o)
	}
}

// offer gives a ballot to the vote, if its signature is that of a voter.
func (m *machine) offer(o *object) {
	b := o.ballot
	if m.page.index(b.Seat) < 0 || m.lie == Twins && b.Seat == m.seat && !m.own(b.Words) {
		return
	}
	good := o.good
	if m.w.Each {
		_, err := ballot.Open(b.Bytes(), m.page.at)
		good = err == nil
	}
	if good {
		m.give(vote.Received{Ballot: b})
	}
}

func (m *machine) own(words ballot.Words) bool { return slices.Contains(m.s.Own, words) }

// judges answers what the vote has asked, once the record and what it rests on are here.
func (m *machine) judges() {
	j := m.judge
	if j == nil || j.Height != m.page.at.Number {
		return
	}
	d := m.w.drafts[j.Value]
	if d == nil || !m.has.has(d.object.id) {
		return
	}
	m.judge = nil
	valid := m.page.judge(d) == nil && !m.page.has(d.item) && m.willing(d.item)
	m.w.after(m.w.some(20*time.Millisecond), m, vote.Judged{Height: j.Height, Round: j.Round, Value: j.Value, Valid: valid})
}

// decides takes a decision into the ledger, once the record is here, and begins the next height.
func (m *machine) decides() {
	e := m.decide
	if e == nil {
		return
	}
	d := m.w.drafts[e.Value]
	if d == nil || !m.has.has(d.object.id) {
		return
	}
	m.decide = nil
	next, err := m.w.follows(m.page, d, e.Certificate)
	if err != nil {
		m.w.wrong(Forged, "%s has a certificate of height %d that does not hold: %v", m.name, m.page.at.Number, err)
		return
	}
	m.take(next, e.Certificate.Round)
}

// take goes on to the next page.
func (m *machine) take(next *page, round int32) {
	m.page, m.decide, m.judge, m.dirty = next, nil, nil, true
	if m.lie == Honest {
		m.w.decides(m, next, round)
	}
	if next.item != nil && next.item == m.w.last && m.lie == Honest {
		m.w.res.Took = m.w.now - next.item.at
	}
	for it, v := range m.views {
		if next.item == it {
			v.left = true
		}
	}
	m.seated()
}

// shown is a page that somebody else has.
func (m *machine) shown(p *page) {
	switch {
	case m.forked:
	case p.before == m.page:
		m.take(p, -1)
	case p.at.Number == m.s.At.Number && m.page != p:
		if m.give(vote.Begin{Height: p.at}); m.up && !m.forked {
			m.w.wrong(Undetected, "%s is told of another record of height %d than its own, and goes on", m.name, p.at.Number-1)
		}
	case p.at.Number <= m.page.at.Number && m.pageAt(p.at.Number) != p:
		m.fork("height %d: %s, and %s is shown", p.at.Number-1, m.pageAt(p.at.Number).at.Record.Short(), p.at.Record.Short())
	}
}

// pageAt is the page of the machine's own ledger on which a height begins.
func (m *machine) pageAt(number int64) *page {
	p := m.page
	for p.at.Number > number {
		p = p.before
	}
	return p
}
