package sim

import (
	"crypto/ed25519"
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/proposal"
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

// view is what a machine knows of an item.
type view struct {
	seen     time.Duration
	left     bool
	opinions map[int]*opinion
	all      proposal.Opinions
	mine     *proposal.Opinion
	vain     bool  // rounds about it were in vain: those since
	height   int64 // … at this height
	round    int32 // … this one
	value    document.Hash
	news     map[int]bool // seats whose opinion was news
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

// tried takes note that rounds about an item were in vain, so that the queue tries something else.
func (m *machine) tried() {
	d := m.w.drafts[m.s.Item]
	if d == nil || m.s.Phase != vote.Running && m.s.Phase != vote.Resting {
		return
	}
	v := m.view(d.item)
	if v.height != m.s.At.Number || m.s.Item != v.value {
		v.height, v.value, v.round = m.s.At.Number, m.s.Item, m.s.Round
	}
	if m.s.Round-v.round >= int32(m.s.At.Liars)+3 || m.s.Phase == vote.Resting {
		v.vain = true
	}
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

// broadcast gives an object to all others.
func (m *machine) broadcast(o *object) {
	for _, to := range m.w.machines {
		if m.w.aim(m, to, o) {
			m.w.send(m, to, o)
		}
	}
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

// hearsWord takes the newest word of a seat, and what it says.
func (m *machine) hearsWord(o *object) {
	if was := m.words[o.word.seat]; was != nil && was.word.number > o.word.number {
		return
	}
	m.words[o.word.seat] = o
	for _, b := range o.word.ballots {
		m.hear(b)
	}
}

// speaks says what the seat shows of its vote, if that is something else than before.
func (m *machine) speaks() {
	m.speak = false
	if m.seat == 0 || !m.w.Newest || m.page.index(m.seat) < 0 {
		return
	}
	says := word{seat: m.seat, height: m.page.at.Number}
	for _, b := range m.s.Shown() {
		if o := m.w.casts[cast{b.Words, b.Seat}]; o != nil {
			says.ballots = append(says.ballots, o)
		}
	}
	if was := m.words[m.seat]; was != nil && was.word.height == says.height && slices.Equal(was.word.ballots, says.ballots) || len(says.ballots) == 0 {
		return
	}
	m.w.words++
	says.number = m.w.words
	o := m.w.object(object{word: &says})
	m.hear(o)
	m.broadcast(o)
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

func (m *machine) view(it *item) *view {
	v, there := m.views[it]
	if !there {
		v = &view{seen: m.w.now, opinions: make(map[int]*opinion), all: make(proposal.Opinions), news: make(map[int]bool)}
		m.views[it] = v
	}
	return v
}

func (m *machine) opines(o *opinion) {
	if m.w.Each && o.envelope.Verify() != nil {
		return
	}
	v := m.view(o.item)
	if was, there := v.opinions[o.seat]; there && was.envelope.Sequence >= o.envelope.Sequence {
		return
	}
	v.opinions[o.seat], v.all[o.seat] = o, o.opinion
	m.dirty = true
	if o.opinion.Valid && !v.news[o.seat] && m.seat != 0 {
		v.news[o.seat], v.vain = true, false
		if m.s.Phase == vote.Resting || m.s.Phase == vote.Running {
			m.give(vote.News{})
		}
	}
}

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

// ask puts the question of after a boot to all others.
func (m *machine) ask() {
	w := m.w
	m.nonce++
	q := ballot.Question{Seat: m.seat}
	q.Nonce[0], q.Nonce[1], q.Nonce[2] = byte(m.nonce), byte(m.nonce>>8), byte(m.life)
	for _, other := range w.machines {
		if other == m || other.seat == 0 || other.seat == m.seat {
			continue
		}
		w.send(m, other, func() {
			if a, ok := other.answers(q); ok {
				w.send(other, m, func() { m.answered(q, a) })
			}
		})
	}
}

func (m *machine) answers(q ballot.Question) (raw []byte, ok bool) {
	if m.lie == Silent || m.page.index(m.seat) < 0 {
		return nil, false
	}
	a := m.s.Answer(q)
	if m.lie != Honest && m.w.chance(0.5) {
		m.w.res.Faults.Lies++
		a.Ballot = nil
		if m.w.chance(0.5) {
			a.At += int64(m.w.rnd.IntN(5)) - 2
		}
	}
	return a.Sign(m.key).Bytes(), true
}

func (m *machine) answered(q ballot.Question, raw []byte) {
	a, err := ballot.OpenAnswer(raw, m.page.at, q)
	if err != nil {
		return // of a seat that one of the two does not know yet
	}
	m.give(vote.Answered{Answer: a})
}

// tick is what carriers do slowly, beside what they push at once: they give others what those lack.
func (m *machine) tick() {
	w, life := m.w, m.life
	m.ticks++
	w.after(1500*time.Millisecond+w.some(time.Second), m, tick{})
	if w.wild() && w.chance(w.Cuts) {
		m.off()
		return
	}
	if m.lie != Honest {
		m.plots()
	}
	if m.s.Asking && m.seat != 0 {
		m.ask()
	}
	if m.lie != Withhold && m.lie != Silent && m.lie != Hoard {
		for range 2 {
			if to := w.machines[w.rnd.IntN(len(w.machines))]; to != m {
				m.syncs(to)
			}
		}
	}
	m.stalled()
	m.waits()
	m.speak = true
	if m.up && m.life == life {
		m.consider()
	}
}

// syncs gives another machine what it lacks.
func (m *machine) syncs(to *machine) {
	w := m.w
	w.send(m, to, func() { to.meets(m) })
	if p := m.page; p.at.Number > to.page.at.Number {
		for p.before != nil && p.before.at.Number > to.page.at.Number {
			p = p.before
		}
		w.send(m, to, p)
		if to.page.at.Number == p.before.at.Number && to.page != p.before && w.Hostile {
			w.send(m, to, p.before)
		}
	} else if w.Hostile && p != to.pageAt(p.at.Number) {
		w.send(m, to, p)
	}
	var lack bundle
	for i, word := range m.has {
		if i < len(to.has) {
			word &^= to.has[i]
		}
		for bit := 0; word != 0 && len(lack) < 400; bit++ {
			if word&1 != 0 {
				o := w.objects[i*64+bit]
				if m.carries(o, to) && w.aim(m, to, o) {
					lack = append(lack, o)
				}
			}
			word >>= 1
		}
	}
	if len(lack) > 0 {
		w.send(m, to, lack)
	}
}

// carries says whether an object is still carried to another machine.
func (m *machine) carries(o *object, to *machine) bool {
	switch {
	case o.word != nil:
		return m.words[o.word.seat] == o && o.word.height >= to.page.at.Number
	case o.ballot != nil:
		return !m.w.Newest && o.ballot.Height >= to.page.at.Number
	}
	return true
}

// meets hears from another machine. One that was not heard for a minute is back, which is news; but the
// more often, the longer it has to have been away: else a liar made news for ever.
func (m *machine) meets(other *machine) {
	i := other.index
	for i >= len(m.heard) {
		m.heard, m.back = append(m.heard, m.w.now), append(m.back, 0)
	}
	away := m.w.now - m.heard[i]
	m.heard[i] = m.w.now
	if m.seat != 0 && away > time.Minute<<min(m.back[i], 10) {
		m.back[i]++
		m.give(vote.News{})
	}
}

// stalled offers ballots again when nothing has moved for a while: the vote keeps only what it needs, and
// what it needs changes.
func (m *machine) stalled() {
	at := [4]int64{m.page.at.Number, int64(m.s.Round), int64(m.s.Phase), int64(m.s.Step)}
	if m.seat == 0 || at != m.last {
		m.last, m.stalls = at, 0
		return
	}
	if m.stalls++; m.w.N > 100 && m.stalls%8 != 7 {
		return
	}
	life := m.life
	for _, o := range slices.Clone(m.held[m.page.at.Number]) {
		if m.up && m.life == life && m.page.at.Number == at[0] {
			m.offer(o)
		}
	}
}

// enough says, quickly, whether the queue may have something that is decided next.
func (m *machine) enough() bool {
	if m.seat == 0 || m.s.Item != ballot.Nil {
		return false
	}
	for it, v := range m.views {
		if !v.left && (v.mine == nil || len(v.all) >= m.page.at.Quorum) && !m.page.has(it) {
			return true
		}
	}
	return false
}

// willing says whether a machine finds an item good, whatever the ledger says.
func (m *machine) willing(it *item) bool {
	at, flips := it.flips[m.name]
	return !it.against[m.name] && (!flips || m.w.now < at)
}

// consider looks at the queue: it says what the machine thinks of each item, and tells the vote what is
// decided next.
func (m *machine) consider() {
	m.dirty = false
	if m.seat == 0 || m.page.index(m.seat) < 0 {
		return
	}
	m.tried()
	items := m.queue()
	turn := proposal.Queue(m.page.state.Roster, items, m.page.state.Policy.Queue)
	for _, l := range turn.Left {
		for it, v := range m.views {
			if it.id == l.Item.ID && !v.left {
				v.left = true
				if !m.page.has(it) && m.lie == Honest {
					m.w.res.Left++
					m.w.tracef("%s: item %d leaves the queue: %s", m.name, it.number, l.Why)
				}
			}
		}
	}
	value := ballot.Nil
	if turn.Next != nil {
		if d := m.w.draft(m.page, m.itemOf(turn.Next.ID), m.view(m.itemOf(turn.Next.ID)).opinions); d.lacks == nil {
			value = d.hash
			m.hear(d.object)
		}
	}
	if m.up && value != m.s.Item {
		m.give(vote.Item{Value: value})
		if m.up {
			m.w.readied(m.page.at.Number)
		}
	}
}

func (m *machine) itemOf(id document.Hash) *item {
	for it := range m.views {
		if it.id == id {
			return it
		}
	}
	return nil
}

// queue are the items that wait, as the machine sees them.
func (m *machine) queue() (items []proposal.Item) {
	for _, it := range m.w.items {
		v := m.views[it]
		if v == nil || v.left || !m.has.has(it.object.id) {
			continue
		}
		if m.page.has(it) {
			v.left = true
			continue
		}
		m.opine(it, v)
		one := proposal.Item{ID: it.id, Number: it.number, Height: int64(it.number), First: it.early, Waited: document.Duration(m.w.now - v.seen), Vain: v.vain, Opinions: v.all}
		if len(v.all) >= m.page.at.Quorum && m.page.valid(it) == nil {
			if d := m.w.draft(m.page, it, v.opinions); d.lacks != nil {
				one.Lacks = d.lacks.Error()
			}
		}
		items = append(items, one)
	}
	return items
}

// opine signs what the machine thinks of an item, if it thinks something new.
func (m *machine) opine(it *item, v *view) {
	w := m.w
	if m.page.at.Number-1 < it.height {
		return // its ledger is behind: it does not know
	}
	err := m.page.valid(it)
	o := proposal.Opinion{Proposal: it.id, Height: m.page.at.Number - 1, Valid: err == nil && m.willing(it), Ready: true}
	if m.lie == Untruth && v.mine == nil {
		o.Valid = w.chance(0.5)
	}
	if !o.Valid {
		o.Why = []string{"the node does not want it"}
		if err != nil {
			o.Why = []string{proposal.Reason(err.Error())}
		}
	}
	stale := v.mine != nil && slices.Contains(m.page.state.Awaited, m.seat) && v.mine.Height < m.page.state.Seated
	if m.lie == Silent || v.mine != nil && v.mine.Valid == o.Valid && !stale {
		return
	}
	v.mine = &o
	m.number = max(m.number+1, uint64(w.now/time.Millisecond)+1)
	e, failed := proposal.SealOpinion(m.page.state.Fleet(), m.key, m.number, o)
	if failed != nil {
		w.t.Fatal(failed)
	}
	mine := &opinion{item: it, seat: m.seat, opinion: o, envelope: e}
	mine.object = w.object(object{opinion: mine})
	m.hear(mine.object)
	m.broadcast(mine.object)
}

// wants are the items that have to be decided and are not.
func (m *machine) wants() (all []*item) {
	if m.dead || m.page.seatOf(m.pub) == 0 {
		return nil
	}
	for _, it := range m.w.items {
		if !it.minority && len(it.flips) == 0 && !m.page.has(it) && m.w.must(it) {
			all = append(all, it)
		}
	}
	return all
}
