package sim

import (
	"fmt"
	"time"

	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// broken is a record by which owners seat the fleet anew after machines were destroyed.
type broken struct {
	before, after *page
}

// destroy takes machines away for good. A little later the owner breaks the glass, rightly or not.
func (w *world) destroy() bool {
	gone := 0
	for _, m := range w.machines {
		if gone == w.Destroyed || m.index == 0 || m.seat == 0 {
			continue
		}
		gone++
		if m.up {
			m.off()
		}
		m.dead = true
		w.tracef("%s is destroyed", m.name)
	}
	w.after(w.some(20*time.Second), nil, w.breaks)
	return false
}

// breaks has the owner sign a roster without the machines that were destroyed, and with another one.
func (w *world) breaks() bool {
	// He knows what is left. What those alone had decided that are destroyed is lost with them.
	p := w.genesis
	for _, m := range w.machines {
		if !m.dead && m.page.at.Number > p.at.Number {
			p = m.page
		}
	}
	for height := range w.decided {
		if height >= p.at.Number {
			delete(w.decided, height)
		}
	}
	r := p.state.Roster
	for _, s := range r.Seats {
		if m := w.machineOf(s.Number); m != nil && m.dead {
			r = r.WithoutSeats(s.Number)
		}
	}
	s := newSeat(w.t, p.state.Roster.Given+1, fmt.Sprintf("n%d", p.state.Roster.Given+1))
	r = r.WithSeats(s)
	r.Rule, r.Given = roster.RuleFor(r.Votes()), s.Number
	evidence := [][]byte{p.fleet().Request(w.t, s)}
	v := ledger.Value{Version: 1, BreakGlass: &decision.BreakGlass{Roster: r}}.Resting(evidence)
	record := ledgertest.Must[ledger.Record](w.t)(p.state.Next(v))
	c := ledger.Certificate{Version: 1, Evidence: evidence}
	for i := 1; i <= 2; i++ {
		c.Owners = append(c.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), ledger.BreakGlassBytes(record)))
	}
	log := p.log.Clone()
	e := ledger.Entry{Record: record.Encode(), Value: v.Encode(), Certificate: c.Encode()}
	if err := log.Append(e); err == nil {
		w.wrong(Forged, "a ledger takes a record that owners have signed in the place of votes at once")
	}
	if err := log.AppendBroken(e); err != nil {
		w.t.Errorf("seed %d: the glass cannot be broken: %v", w.Seed, err)
		return false
	}
	next := newPage(p, log)
	next.entry, next.kind = e, string(v.Kind())
	w.glass = &broken{before: p, after: next}
	w.add(s.Name, Honest, w.genesis).boot()
	w.tracef("the owner breaks the glass at height %d", p.at.Number)
	return false
}

// waits counts how long no quorum answers this machine, and takes the owner's record when that was long
// enough. It asks whenever it ticks; what it has counted is on its disk.
func (m *machine) waits() {
	w, b := m.w, m.w.glass
	if b == nil || m.page != b.before {
		return
	}
	ran := w.now - max(m.asked, m.booted)
	m.asked = w.now
	answers := 0
	for _, o := range w.machines {
		if m.page.seatOf(o.pub) != 0 && o.up && w.part[o.index] == w.part[m.index] && (o == m || !w.wild() || !w.chance(w.Loss)) {
			answers++
		}
	}
	if answers >= m.page.at.Quorum {
		m.disk.glass = m.disk.glass.Answered()
	} else {
		m.disk.glass = m.disk.glass.Ran(document.Duration(ran))
	}
	verdict, why := m.disk.glass.Verdict(m.page.state.Policy, b.before.state.Roster, b.after.state.Roster, nil)
	if verdict != proposal.Take {
		return
	}
	w.tracef("%s takes what the owner has signed in the place of votes %s", m.name, why)
	if w.Destroyed <= w.N-w.genesis.at.Quorum {
		w.wrong(Forged, "%s takes a roster of the owner though a quorum lives", m.name)
	}
	m.take(b.after, -1)
}
