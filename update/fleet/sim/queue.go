package sim

import (
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/vote"
)

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
