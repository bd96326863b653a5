package sim

import (
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
)

// corrupt makes liars of so many machines as the plan says.
func (w *world) corrupt() {
	defer func() {
		for i, m := range w.honestOnes() {
			m.side = i % 2
		}
	}()
	for i, at := range w.rnd.Perm(w.N) {
		if i >= w.Liars {
			return
		}
		m := w.machines[at]
		m.lie = w.Lie
		if m.lie == Mixed {
			m.lie = Lies[w.rnd.IntN(len(Lies)-1)]
		}
		w.tracef("%s lies: %s", m.name, m.lie)
		if m.lie == Twins {
			m.other = w.add(m.name, Twins, m.page)
			m.other.other = m
		}
	}
}

func (w *world) honestOnes() []*machine {
	return slices.DeleteFunc(slices.Clone(w.machines), func(m *machine) bool { return m.lie != Honest })
}

// forgery is a record that nobody may take.
type forgery struct{ entry ledger.Entry }

// cast carries a ballot of the machine to whom it wants to have it.
func (m *machine) cast(o *object) {
	w := m.w
	if d := w.drafts[o.ballot.Value]; o.ballot.Kind == ballot.Proposal && d != nil && m.has.has(d.object.id) {
		m.broadcast(d.object)
	}
	switch m.lie {
	case Silent, Equivocate: // an equivocator votes when it hears what there is
		w.res.Faults.Lies++
		if m.lie == Equivocate && o.ballot.Kind == ballot.Proposal {
			m.half(o)
			m.sign(ballot.Proposal, o.ballot.Round, m.otherThan(o.ballot.Value), ballot.Fresh)
		}
	case SilentChair:
		if o.ballot.Kind == ballot.Proposal {
			w.res.Faults.Lies++
			return
		}
		m.broadcast(o)
	case Withhold:
		w.res.Faults.Lies++
		w.send(m, w.machines[w.rnd.IntN(len(w.machines))], o)
	case Hoard:
		m.stash = append(m.stash, o)
	case Timing:
		w.res.Faults.Lies++
		w.after(2*time.Second+w.some(2*time.Second), m, func() { m.broadcast(o) })
	default:
		if m.lie != Honest || !w.Newest { // else its word has it
			m.broadcast(o)
		}
	}
}

// sign has a liar sign what it likes, for some of the others. It signs for its own seat alone.
func (m *machine) sign(k ballot.Kind, round int32, value document.Hash, valid int32) {
	if m.seat == 0 || round < 0 {
		return
	}
	m.w.res.Faults.Lies++
	b := ballot.Ballot{Words: m.page.at.Words(k, round, value, valid), Seat: m.seat}.Sign(m.key)
	if m.w.Hostile && m.lie == Equivocate {
		m.split(m.w.publish(b, false))
		return
	}
	m.half(m.w.publish(b, false))
}

// split shows one value of a round to every second machine and another one to the rest, as all that conspire
// do: if there are enough of them, each half decides.
func (m *machine) split(o *object) {
	w := m.w
	k := cast{Words: ballot.Words{Height: o.ballot.Height, Round: o.ballot.Round, Value: o.ballot.Value}}
	half, there := w.halves[k]
	if !there { // where an honest machine wants it, or the other one than the last time
		w.lastHalf = 1 - w.lastHalf
		half = w.lastHalf
		w.halves[k] = half
	}
	for _, to := range w.machines {
		if to.lie != Honest || to.side == half {
			w.send(m, to, o)
		}
	}
}

func (m *machine) half(o *object) {
	for _, to := range m.w.machines {
		if m.w.chance(0.5) {
			m.w.send(m, to, o)
		}
	}
}

// otherThan is another value that could be decided at the machine's height, or one that nobody knows.
func (m *machine) otherThan(value document.Hash) document.Hash {
	for _, it := range m.w.items {
		if v := m.views[it]; v == nil || m.page.has(it) || m.page.valid(it) != nil {
			continue
		}
		if d := m.w.draft(m.page, it, m.views[it].opinions); d.lacks == nil && d.hash != value {
			m.has.set(d.object.id)
			m.broadcast(d.object)
			return d.hash
		}
	}
	return document.HashOf(fmt.Appendf(nil, "a lie about height %d", m.page.at.Number))
}

// schemes is what a liar does about something that it hears.
func (m *machine) schemes(o *object) {
	b := o.ballot
	if m.lie != Equivocate || b == nil || b.Value == ballot.Nil && m.w.Hostile || b.Height != m.page.at.Number || m.seat == 0 {
		return
	}
	key := cast{Words: m.page.at.Words(ballot.Prevote, b.Round, b.Value, ballot.Fresh), seat: m.seat}
	if m.w.casts[key] != nil {
		return
	}
	values := []document.Hash{b.Value, ballot.Nil}
	if m.w.Hostile {
		values = values[:1]
	}
	if by := m.w.machineOf(b.Seat); m.w.Hostile && by != nil && by.lie == Honest {
		k := cast{Words: ballot.Words{Height: b.Height, Round: b.Round, Value: b.Value}}
		if _, there := m.w.halves[k]; !there {
			m.w.halves[k] = by.side
		}
	}
	for _, value := range values {
		for k := ballot.Prevote; k <= ballot.Precommit; k++ {
			m.sign(k, b.Round, value, ballot.Fresh)
		}
	}
}

// plots is what a liar does from time to time.
func (m *machine) plots() {
	w := m.w
	if m.seat == 0 || len(w.objects) == 0 {
		return
	}
	switch m.lie {
	case Untruth:
		m.untruth()
	case Hoard:
		var kept []*object
		for _, o := range m.stash {
			if o.ballot.Height == m.page.at.Number && o.ballot.Round > m.s.Round-2 && w.chance(0.8) {
				kept = append(kept, o)
				continue
			}
			w.res.Faults.Lies++
			m.half(o)
		}
		m.stash = kept
	case Replay:
		for range 5 {
			o := w.objects[w.rnd.IntN(len(w.objects))]
			if to := w.machines[w.rnd.IntN(len(w.machines))]; to.up {
				w.res.Faults.Lies++
				to := to
				w.after(w.some(time.Second), to, func() { to.again(o) })
			}
		}
	case Forge:
		m.forge()
	case Equivocate:
		if m.page.at.Chair(m.s.Round) == m.seat && w.chance(0.5) {
			first := m.otherThan(ballot.Nil)
			m.sign(ballot.Proposal, m.s.Round, first, ballot.Fresh)
			m.sign(ballot.Proposal, m.s.Round, m.otherThan(first), ballot.Fresh)
		}
	}
}

// untruth signs at random: any kind, any value that is about, rounds around the one that is on; and the
// opposite of its last opinion.
func (m *machine) untruth() {
	w := m.w
	values := []document.Hash{ballot.Nil, m.otherThan(ballot.Nil), document.HashOf([]byte("a lie"))}
	for range 2 {
		k, round := ballot.Kind(w.rnd.IntN(3)), m.s.Round+int32(w.rnd.IntN(4))-1
		valid := int32(ballot.Fresh)
		if k == ballot.Proposal && round > 0 {
			valid = int32(w.rnd.IntN(int(round)+1)) - 1
		}
		if w.chance(0.05) {
			round += int32(w.rnd.IntN(ballot.MaxRound / 2))
		}
		m.sign(k, round, values[w.rnd.IntN(len(values))], valid)
	}
	for _, it := range w.items {
		v := m.views[it]
		if v == nil || v.left || v.mine == nil || !w.chance(0.3) {
			continue
		}
		o := proposal.Opinion{Proposal: it.id, Height: m.page.at.Number - 1, Valid: !v.mine.Valid, Ready: true}
		if !o.Valid {
			o.Why = []string{"a lie"}
		}
		v.mine = &o
		m.number++
		e, err := proposal.SealOpinion(m.page.state.Fleet(), m.key, m.number, o)
		if err != nil {
			w.t.Fatal(err)
		}
		mine := &opinion{item: it, seat: m.seat, opinion: o, envelope: e}
		mine.object = w.object(object{opinion: mine})
		w.res.Faults.Lies++
		m.half(mine.object)
	}
}

// again is something that arrives once more.
func (m *machine) again(o *object) {
	switch {
	case !m.up:
	case o.ballot != nil && o.ballot.Height <= m.page.at.Number:
		m.offer(o)
	case o.opinion != nil:
		m.opines(o.opinion)
	}
}

// forge makes up a roster in which the liar is alone, ballots of another seat, and a record that the liar has
// decided by itself.
func (m *machine) forge() {
	w := m.w
	alone := m.page.at
	alone.Roster = document.HashOf([]byte("a roster of one"))
	value := m.otherThan(ballot.Nil)
	for _, words := range []ballot.Words{
		alone.Words(ballot.Precommit, m.s.Round, value, ballot.Fresh), m.page.at.Words(ballot.Precommit, m.s.Round, value, ballot.Fresh),
	} {
		b := ballot.Ballot{Words: words, Seat: m.seat}.Sign(m.key)
		if words.Roster == m.page.at.Roster { // that of somebody else, with a signature of its own
			b.Seat = m.page.at.Voters[w.rnd.IntN(len(m.page.at.Voters))].Number
			if b.Seat == m.seat {
				continue
			}
		}
		w.res.Faults.Lies++
		m.half(w.publish(b, true))
	}
	d := w.drafts[value]
	if d == nil || m.page.at.Quorum == 1 {
		return
	}
	c := ledger.Certificate{Version: 1, Round: m.s.Round, Evidence: d.evidence}
	words := m.page.at.Words(ballot.Precommit, m.s.Round, d.hash, ballot.Fresh)
	for i := range m.page.at.Quorum {
		seat := m.page.at.Voters[i].Number
		c.Seats = append(c.Seats, signed.Sign(seat, m.key, words.Message()))
	}
	e := ledger.Entry{Record: d.record.Encode(), Value: d.value.Encode(), Certificate: c.Encode()}
	to := w.machines[w.rnd.IntN(len(w.machines))]
	w.res.Faults.Lies++
	w.send(m, to, forgery{e})
}

// refuses wants a machine to take no record that was made up.
func (m *machine) refuses(f forgery) {
	if err := m.page.log.Clone().Append(f.entry); err == nil {
		m.w.wrong(Forged, "%s takes a record of height %d that one liar has signed", m.name, m.page.at.Number)
	}
}

// copied has the disk of a machine be copied: from now on there are two of it.
func (w *world) copied(m *machine) {
	if m.other != nil {
		return
	}
	w.res.Faults.Lies++
	w.tracef("the disk of %s is copied", m.name)
	m.other = w.add(m.name, Clone, m.page)
	m.other.other = m
	m.other.disk = disk{raw: m.disk.bytes(), next: m.disk.next + int64(len(m.disk.records))}
	m.other.boot()
}

// rollback cuts the journals of all that lie so at one moment, as a wave of nodes that go back to a slot with
// an old copy would.
func (w *world) rollback() bool {
	for _, m := range w.machines {
		d := &m.disk
		if m.lie != Rollback || len(d.records) == 0 {
			continue
		}
		d.records = d.records[:w.rnd.IntN(len(d.records))]
		d.torn = nil
		w.res.Faults.Rollbacks++
		w.tracef("the journal of %s goes back to record %d", m.name, d.next+int64(len(d.records))-1)
		if m.up {
			m.off()
		}
	}
	return false
}
