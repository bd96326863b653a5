package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// world is one run: its clock, its network, and what is looked at from above.
type world struct {
	Plan
	t        testing.TB
	rnd      *rand.Rand
	now      time.Duration
	events   events
	seq      uint64
	machines []*machine
	objects  []*object
	casts    map[cast]*object
	items    []*item
	words    int // that were said
	drafts   map[document.Hash]*draft
	genesis  *page // height 1, on which all begin
	keys     map[int]signed.Key

	part       []int    // of the network, by machine
	story      []string // kinds of changes of seats that are still to come
	turn       *item    // the last one
	generation string   // of the owner's keys
	glass      *broken
	halves     map[cast]int // in which half of the machines those that conspire show a value
	lastHalf   int
	forks      bool
	decided    map[int64]*page // by the first honest machine
	heights    map[int64]*progress
	last       *item // proposed when the network is whole
	res        Result
}

// cast is one ballot of one seat, whoever carries it.
type cast struct {
	ballot.Words
	seat int
}

// object is what carriers carry: one of these.
type object struct {
	id      int
	ballot  *ballot.Ballot
	good    bool // of a ballot: its signature fits
	opinion *opinion
	item    *item
	draft   *draft
	word    *word
}

// word is what a seat has to show of its vote: the newest counts.
type word struct {
	seat    int
	number  int
	height  int64
	ballots []*object
}

// progress is how far the honest machines are at a height.
type progress struct {
	ready bool  // the network is whole, and all hold the opinions
	open  bool  // it was open when the network became whole
	base  int32 // the highest round at that moment
	done  bool
}

// event is something that happens to a machine, or to the world.
type event struct {
	at   time.Duration
	seq  uint64
	to   *machine // nil: nobody
	life int      // of the machine: what was on its way when the power failed is lost
	what any
}

// events is a heap; the earliest is the first.
type events []event

func (e events) before(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}

func (e *events) push(v event) {
	*e = append(*e, v)
	h := *e
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.before(i, up) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (e *events) pop() event {
	h := *e
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = event{}
	h = h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && h.before(down+1, down) {
			down++
		}
		if !h.before(down, i) {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	*e = h
	return first
}

func newWorld(t testing.TB, p Plan) *world {
	w := &world{
		Plan: p, t: t, rnd: rand.New(rand.NewPCG(p.Seed, uint64(p.N))), casts: make(map[cast]*object), drafts: make(map[document.Hash]*draft),
		keys: make(map[int]signed.Key), halves: make(map[cast]int), decided: make(map[int64]*page), heights: make(map[int64]*progress),
	}
	w.res = Result{Plan: p, Kinds: make(map[string]int)}
	w.genesis = founded(t, p.N, p.Brief)
	w.learn(w.genesis)
	for i := range p.N {
		w.add(fmt.Sprintf("n%d", i+1), Honest, w.genesis)
	}
	w.corrupt()
	for _, m := range slices.Clone(w.machines) {
		m.boot()
	}
	w.schedule()
	return w
}

// add is a machine more.
func (w *world) add(name string, lie Lie, at *page) *machine {
	m := &machine{w: w, index: len(w.machines), name: name, key: keyOf(name), lie: lie, page: at, skew: 0.8 + 0.4*w.rnd.Float64()}
	m.pub = publicKey(w.t, m.key)
	m.signed = make(map[step]ballot.Words)
	m.disk.begin(m)
	w.machines = append(w.machines, m)
	w.part = append(w.part, 0)
	return m
}

// learn takes note of the seats of a page, for who looks from above.
func (w *world) learn(p *page) {
	for _, s := range p.state.Roster.Seats {
		w.keys[s.Number] = s.Key
	}
}

func (w *world) wild() bool { return w.now < w.Wild }

func (w *world) tracef(format string, args ...any) {
	if w.Trace != nil {
		fmt.Fprintf(w.Trace, "%9.3fs ", w.now.Seconds())
		fmt.Fprintf(w.Trace, format+"\n", args...)
	}
}

func (w *world) wrong(what What, format string, args ...any) {
	how := fmt.Sprintf(format, args...)
	w.tracef("WRONG: %s: %s", what, how)
	w.res.Wrong = append(w.res.Wrong, Wrong{what, fmt.Sprintf("at %.3fs: %s", w.now.Seconds(), how)})
}

// after has something happen later, to a machine if it lives until then.
func (w *world) after(d time.Duration, to *machine, what any) {
	w.seq++
	e := event{at: w.now + d, seq: w.seq, to: to, what: what}
	if to != nil {
		e.life = to.life
	}
	w.events.push(e)
}

func (w *world) some(most time.Duration) time.Duration {
	return time.Duration(w.rnd.Int64N(int64(most) + 1))
}

func (w *world) chance(p float64) bool { return p > 0 && w.rnd.Float64() < p }

// send carries something from one machine to another, or loses it.
func (w *world) send(from, to *machine, what any) {
	if !to.up || from == to {
		return
	}
	delay := w.Link + w.some(w.Link/4)
	if w.wild() {
		conspire := w.Hostile && (from.lie != Honest || to.lie != Honest)
		if w.part[from.index] != w.part[to.index] && !conspire || w.chance(w.Loss) {
			w.res.Faults.Lost++
			return
		}
		if w.Storm && w.chance(0.3) {
			w.res.Faults.Late++
			delay += w.some(30 * time.Second)
		}
	}
	w.after(delay, to, what)
}

// publish makes a ballot something that carriers carry. Its signature is verified as the bytes that travel.
func (w *world) publish(b *ballot.Ballot, forged bool) *object {
	key := cast{b.Words, b.Seat}
	if o, there := w.casts[key]; there && !forged {
		return o
	}
	read, err := ballot.Parse(b.Bytes())
	if err != nil {
		w.t.Errorf("seed %d: a ballot that nobody can read: %v", w.Seed, err)
		return nil
	}
	o := w.object(object{ballot: read, good: read.Verify(w.keys[b.Seat]) == nil})
	if o.good {
		w.casts[key] = o
	}
	return o
}

func (w *world) object(o object) *object {
	o.id = len(w.objects)
	w.objects = append(w.objects, &o)
	return &o
}

func (w *world) run() {
	for len(w.events) > 0 && w.events[0].at < w.End {
		e := w.events.pop()
		w.now = e.at
		if e.to == nil {
			if e.what.(func() bool)() {
				return
			}
			continue
		}
		if e.to.up && e.to.life == e.life {
			e.to.happens(e.what)
		}
	}
}

// honest are the machines that tell no lies and have a vote on the newest page of their own.
func (w *world) honest() (all []*machine) {
	for _, m := range w.machines {
		if m.lie == Honest && m.up {
			all = append(all, m)
		}
	}
	return all
}

// newest is the highest page that an honest machine has.
func (w *world) newest() *page {
	p := w.genesis
	for _, m := range w.machines {
		if m.lie == Honest && m.page.at.Number > p.at.Number {
			p = m.page
		}
	}
	return p
}

func (w *world) progress(height int64) *progress {
	p, there := w.heights[height]
	if !there {
		p = &progress{}
		w.heights[height] = p
	}
	return p
}

// readied looks whether all honest machines are at a height, in a whole network, and hold the opinions.
func (w *world) readied(height int64) {
	p := w.progress(height)
	if w.wild() || p.ready || p.done {
		return
	}
	base := int32(0)
	for _, m := range w.machines {
		if m.lie != Honest || m.dead || m.seat == 0 || m.page.index(m.seat) < 0 {
			continue
		}
		if !m.up || m.s.At.Number != height || m.s.Asking || m.s.Item == ballot.Nil || w.drafts[m.s.Item].item.contested() {
			return
		}
		base = max(base, m.s.Round)
	}
	p.ready, p.base = true, base
}

// decides takes note of the decision of an honest machine.
func (w *world) decides(m *machine, p *page, round int32) {
	height := p.at.Number - 1
	if was, there := w.decided[height]; there {
		if was != p {
			w.forks = true
			w.wrong(TwoDecisions, "height %d: %s has %s, and another machine %s", height, m.name, p.at.Record.Short(), was.at.Record.Short())
		}
		return
	}
	w.decided[height] = p
	w.learn(p)
	w.res.Heights++
	w.res.Kinds[p.kind]++
	w.tracef("%s decides height %d in round %d: %s, %s", m.name, height, round, p.kind, p.at.Record.Short())
	g := w.progress(height)
	g.done = true
	if !g.ready {
		return
	}
	rounds := int(round-g.base) + 1
	f := p.before.at.Liars
	switch {
	case g.open:
		w.res.Open = max(w.res.Open, rounds)
		if rounds > f+6 && !w.Hostile {
			w.wrong(Rounds, "height %d was open when the network became whole, and took %d more rounds; f is %d", height, rounds, f)
		}
	default:
		w.res.After++
		w.res.Rounds = max(w.res.Rounds, rounds)
		if rounds > f+3 && !w.Hostile {
			w.wrong(Rounds, "height %d took %d rounds; f is %d", height, rounds, f)
		}
	}
}

// whole is when the network is.
func (w *world) whole() bool {
	w.tracef("the network is whole")
	for i := range w.part {
		w.part[i] = 0
	}
	for _, m := range w.machines {
		if m.lie == Honest && m.seat != 0 {
			w.progress(m.s.At.Number).open = true
		}
	}
	for _, m := range w.machines {
		if m.up && m.seat != 0 {
			w.readied(m.s.At.Number)
		}
	}
	return false
}

// over says whether all is decided that has to be.
func (w *world) over() bool {
	w.after(time.Second, nil, w.over)
	w.operator()
	if w.wild() || w.last == nil || len(w.story) > 0 {
		return false
	}
	for _, m := range w.machines {
		if m.lie == Honest && !m.dead && (!m.up || len(m.wants()) > 0) {
			return false
		}
	}
	return !w.Hostile || w.now > w.Wild+2*time.Minute
}

func (w *world) result() Result {
	for _, m := range w.machines {
		w.res.Fsyncs += m.disk.written
		if w.Hostile && w.forks && m.lie == Honest && !m.dead && !m.forked {
			w.wrong(Undetected, "two records of one height are decided, and %s does not know", m.name)
		}
		if m.lie != Honest || w.Hostile && m.forked {
			continue
		}
		for _, it := range m.wants() {
			w.wrong(Stuck, "%s has not decided item %d (%s): height %d, %s, round %d, %s, asking %t, abstains to %d", m.name, it.number, it.kind, m.s.At.Number, m.s.Phase, m.s.Round, m.s.Step, m.s.Asking, m.s.Abstain)
			break
		}
	}
	return w.res
}
