package vote

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
)

// chaos is a fleet in which one schedule after the other goes wrong, by seed: ballots come in any order,
// twice, or not at all; power fails between any two effects; and up to f seats lie. Carriers repair: what
// was sent once is offered again, to everybody, until the height is over.
type chaos struct {
	t       testing.TB
	rnd     *rand.Rand
	h       ballot.Height
	seats   []State
	journal [][]byte
	next    []int64
	liars   []int // indexes: they never step, and sign what they like
	pool    []*ballot.Ballot
	timers  []timer
	judged  []letter
	asking  map[int]bool
	decided map[int64]document.Hash
	signed  map[string]document.Hash // what honest seats have signed, by seat, kind, height and round
	cuts    int
	whole   bool // the network carries all, and q opinions call the items valid
}

func newChaos(t testing.TB, n int, seed uint64) *chaos {
	c := &chaos{
		t: t, rnd: rand.New(rand.NewPCG(seed, uint64(n))), h: height(t, n, 2), asking: make(map[int]bool),
		decided: make(map[int64]document.Hash), signed: make(map[string]document.Hash),
	}
	for len(c.liars) < c.h.Liars {
		if i := c.rnd.IntN(n); !slices.Contains(c.liars, i) {
			c.liars = append(c.liars, i)
		}
	}
	for i := range n {
		c.seats = append(c.seats, State{})
		c.journal = append(c.journal, journal.Begun(journal.Title{Fleet: c.h.Fleet, Key: c.h.Voters[i].Key}))
		c.next = append(c.next, 0)
		c.boot(i)
	}
	return c
}

func (c *chaos) lies(i int) bool { return slices.Contains(c.liars, i) }

func (c *chaos) boot(i int) {
	m, err := journal.Replay(c.journal[i])
	if err != nil || m.Damage != "" {
		c.t.Fatal(err, m.Damage)
	}
	c.journal[i], c.next[i] = c.journal[i][:m.Size], m.Next
	c.timers = slices.DeleteFunc(c.timers, func(t timer) bool { return t.at == i })
	c.judged = slices.DeleteFunc(c.judged, func(l letter) bool { return l.to == i })
	s, effects := New(i+1, m)
	c.seats[i], c.asking[i] = s, true
	c.carryOut(i, effects, -1)
	c.give(i, Begin{c.h})
}

// give lets an event happen, and the power of that seat fail now and then before all is carried out.
func (c *chaos) give(i int, e Event) {
	if c.lies(i) {
		return
	}
	s, effects := Step(c.seats[i], e)
	c.seats[i] = s
	left := -1
	if len(effects) > 0 && c.rnd.IntN(60) == 0 {
		left = c.rnd.IntN(len(effects) + 1)
	}
	c.carryOut(i, effects, left)
}

// carryOut does effects; left: the power fails after so many of them, and half a record may be on the disk.
func (c *chaos) carryOut(i int, effects []Effect, left int) {
	for k, e := range effects {
		if k == left {
			if p, ok := e.(Persist); ok {
				torn := journal.Append(c.next[i], p.Record)
				c.journal[i] = append(c.journal[i], torn[:c.rnd.IntN(len(torn))]...)
			}
			break
		}
		switch e := e.(type) {
		case Persist:
			c.journal[i] = append(c.journal[i], journal.Append(c.next[i], e.Record)...)
			c.next[i]++
		case Send:
			c.sends(i, e.Ballot.Sign(private(i+1)))
		case Timer:
			c.timers = append(slices.DeleteFunc(c.timers, func(t timer) bool { return t.at == i && t.Timeout == e.Timeout }), timer{i, e})
		case Judge:
			c.judged = append(c.judged, letter{i, Judged{e.Height, e.Round, e.Value, c.whole || c.rnd.IntN(8) > 0}})
		case Ask:
			c.asking[i] = true
		case Decide:
			c.decides(i, e)
		case Expose:
			if seat := e.Proof.One.Seat - 1; !c.lies(seat) {
				c.t.Fatalf("seat %d is honest, and has voted twice: %+v, %+v", seat+1, e.Proof.One, e.Proof.Other)
			}
		default:
			c.t.Fatalf("seat %d: %#v", i+1, e)
		}
	}
	if left >= 0 {
		c.cuts++
		c.boot(i)
	}
}

// sends takes note of what a seat has signed: an honest one never says two things.
func (c *chaos) sends(i int, b *ballot.Ballot) {
	key := fmt.Sprint(i, b.Kind, b.Height, b.Round)
	if was, ok := c.signed[key]; ok && was != b.Value && !c.lies(i) {
		c.t.Fatalf("seat %d signs %s and %s: %s", i+1, was.Short(), b.Value.Short(), key)
	}
	c.signed[key] = b.Value
	if !slices.ContainsFunc(c.pool, func(o *ballot.Ballot) bool { return o.Words == b.Words && o.Seat == b.Seat }) {
		c.pool = append(c.pool, b)
	}
}

func (c *chaos) decides(i int, d Decide) {
	number := c.seats[i].At.Number
	if was, ok := c.decided[number]; ok && was != d.Value {
		c.t.Fatalf("height %d: seat %d decides %s, and another one %s", number, i+1, d.Value.Short(), was.Short())
	}
	c.decided[number] = d.Value
	for _, s := range d.Certificate.Seats {
		b := ballot.Ballot{Words: c.h.Words(ballot.Precommit, d.Certificate.Round, d.Value, ballot.Fresh), Seat: s.By, Signature: s.Signature}
		if err := b.Verify(c.h.Voters[c.h.Index(s.By)].Key); err != nil {
			c.t.Fatal(err)
		}
	}
	if len(d.Certificate.Seats) < c.h.Quorum {
		c.t.Fatalf("%d votes decide", len(d.Certificate.Seats))
	}
}

// lie has a liar sign something for a round that somebody is in: any kind, any value that is about, nil.
func (c *chaos) lie() {
	if len(c.liars) == 0 {
		return
	}
	i := c.liars[c.rnd.IntN(len(c.liars))]
	values := []document.Hash{record(c.h.Number, "item 0"), record(c.h.Number, "item 1"), record(c.h.Number, "a lie"), ballot.Nil}
	var round int32
	for _, s := range c.seats {
		round = max(round, s.Round)
	}
	round = max(0, round-int32(c.rnd.IntN(2))+int32(c.rnd.IntN(2)))
	kind, valid := ballot.Kind(c.rnd.IntN(3)), int32(ballot.Fresh)
	if kind == ballot.Proposal && round > 0 {
		valid = int32(c.rnd.IntN(int(round)+1)) - 1
	}
	c.sends(i, ballot.Ballot{Words: c.h.Words(kind, round, values[c.rnd.IntN(4)], valid), Seat: i + 1}.Sign(private(i+1)))
}

// answers has a seat that asks get an answer, of an honest seat, or of a liar that shows nothing.
func (c *chaos) answers(i int) {
	other, q := c.rnd.IntN(len(c.seats)), ballot.Question{Seat: i + 1}
	if other == i || !c.seats[i].Asking {
		return
	}
	a := ballot.Answer{Question: q, Fleet: c.h.Fleet, By: other + 1, At: c.h.Number}
	if !c.lies(other) {
		a = c.seats[other].Answer(q)
	}
	opened, err := ballot.OpenAnswer(a.Sign(private(other+1)).Bytes(), c.h, q)
	if err != nil {
		c.t.Fatal(err)
	}
	c.give(i, Answered{opened})
}

// decide runs one height: wild steps at random, then a network that carries all, until all honest seats
// have decided.
func (c *chaos) decide(wild int) {
	n := len(c.seats)
	items := make([]document.Hash, n)
	for i := range n {
		items[i] = record(c.h.Number, fmt.Sprintf("item %d", c.rnd.IntN(2)))
	}
	c.whole = false
	for range wild {
		i := c.rnd.IntN(n)
		switch c.rnd.IntN(12) {
		case 0:
			c.give(i, Item{items[i]})
		case 1:
			c.lie()
		case 2:
			c.answers(i)
		case 3:
			c.expire(c.rnd.IntN(max(1, len(c.timers))))
		case 4:
			c.opinion(c.rnd.IntN(max(1, len(c.judged))))
		default:
			if len(c.pool) > 0 {
				c.give(i, Received{c.pool[c.rnd.IntN(len(c.pool))]})
			}
		}
	}
	c.whole = true
	for turns := 0; c.undecided(); turns++ {
		if turns > 400 {
			c.t.Fatalf("height %d is not decided; %d seats, liars %v, rounds %v", c.h.Number, n, c.liars, c.roundsOf())
		}
		for i := range n {
			c.give(i, Item{items[i]})
			if c.seats[i].Phase == Resting {
				c.give(i, News{})
			}
			c.answers(i)
			for _, b := range slices.Clone(c.pool) {
				c.give(i, Received{b})
			}
		}
		for len(c.judged) > 0 {
			c.opinion(0)
		}
		if turns%3 == 2 {
			for range len(c.timers) {
				c.expire(0)
			}
		}
	}
}

func (c *chaos) roundsOf() (all []string) {
	for _, s := range c.seats {
		all = append(all, fmt.Sprintf("%s %d %s", s.Phase, s.Round, s.Step))
	}
	return all
}

func (c *chaos) expire(k int) {
	if k < len(c.timers) {
		t := c.timers[k]
		c.timers = slices.Delete(c.timers, k, k+1)
		c.give(t.at, t.Timeout)
	}
}

func (c *chaos) opinion(k int) {
	if k < len(c.judged) {
		l := c.judged[k]
		c.judged = slices.Delete(c.judged, k, k+1)
		c.give(l.to, l.event)
	}
}

func (c *chaos) undecided() bool {
	for i, s := range c.seats {
		if !c.lies(i) && s.Phase != Decided {
			return true
		}
	}
	return false
}

// follow begins the next height.
func (c *chaos) follow() {
	value := c.decided[c.h.Number]
	next := height(c.t, len(c.seats), c.h.Number+1)
	next.Record = value
	c.h, c.pool, c.timers, c.judged = next, nil, nil, nil
	for i := range c.seats {
		c.give(i, Begin{c.h})
	}
}

// TestChaos decides some heights in fleets of each size, by seeds: there is one decision at a height, no
// honest seat signs two things, and each height is decided once the network carries all.
func TestChaos(t *testing.T) {
	cuts, heights := 0, 0
	rounds := make(map[int32]int)
	for n := 1; n <= 7; n++ {
		for seed := range uint64(60) {
			c := newChaos(t, n, seed)
			for range 3 {
				c.decide(200 * n)
				heights++
				rounds[c.seats[(c.h.Liars+slices.Max(append(c.liars, 0)))%n].Round]++
				c.follow()
			}
			cuts += c.cuts
		}
	}
	if cuts == 0 {
		t.Error("the power never failed")
	}
	t.Logf("%d heights, power failed %d times, decided in round %v", heights, cuts, slices.Sorted(maps.Keys(rounds)))
}
