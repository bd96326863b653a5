package sim

import (
	"slices"
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/vote"
)

// broadcast gives an object to all others.
func (m *machine) broadcast(o *object) {
	for _, to := range m.w.machines {
		if m.w.aim(m, to, o) {
			m.w.send(m, to, o)
		}
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
