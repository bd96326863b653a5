// Package explore walks through all that can happen between four seats that vote, one of which
// lies. What it drives is [vote.Step] itself, no model of it.
//
// In comes a [Config]: how many rounds, who lies, whether the power may fail, which reductions
// hold. Out goes a [Report]: how many states there are, whether these are all, and what went
// wrong in which, told from the beginning.
//
// Three seats are honest. Each ballot that one has signed may arrive at any other, and at itself,
// at any time or never; so may whatever the liar can sign, at one seat and not at another. Each
// time-out may be over as soon as it runs, each question about a value be answered with yes or no,
// each item come at any time, and once the power of one seat may fail between any two effects: it
// starts again from its journal.
//
// Ballots once signed do not vanish, and the liar may send what it likes at any time. So a state
// of all is the states of three seats and nothing else: what is under way follows from what each
// has signed.
//
// Three reductions make this few enough, see [Config]. Signatures are left out: nobody forges them,
// and the machine does not look at them.
package explore

import (
	"fmt"
	"math/bits"
	"runtime/metrics"
	"slices"
	"strings"
	"time"
)

// Config is what may happen.
type Config struct {
	Rounds int // from 0 on; no time-out leads beyond them
	// Liar is the seat that lies, of 1 to 4: 3 is chair of round 0, 4 of round 1, 1 of round 2.
	Liar int
	Cut  bool // once, the power of one seat fails
	// Lies says what the liar sends of all that it can sign; nil: everything.
	Lies func(Message) bool

	// Each of the reductions can be left out, to see that the same is found without it.
	//
	// Apart keeps apart what differs only in the names of seats or of values.
	Apart bool
	// Each takes every delivery for a step of its own. Without it a seat hears what it hears right
	// before it makes something of it, and no more of it than it takes: deliveries commute with all
	// that other seats do, and with each other as long as nothing is made of them.
	Each bool
	// Remember has a seat keep what it has heard. Without it a seat forgets that as soon as it has
	// made something of it, and has to hear again what it needs once more: it may, at any time. So
	// all happens that can, and a little more: a seat may time out over what it had in its hands.
	Remember bool
	// Deaf has a seat go on to hear after it has decided. Without it what it has heard is dropped:
	// whether there is a second certificate is seen from what all have signed.
	Deaf bool

	// Limits; 0: there is none. A run that comes to one of them ends with what it has.
	Memory uint64 // bytes
	Time   time.Duration
}

// Report is what was found.
type Report struct {
	States int    // of all seats together
	Depth  int    // steps to the farthest one
	Open   int    // states that were reached and not gone on from; 0: these are all
	Seats  int    // states of single seats
	Steps  int    // events given to [vote.Step]
	Bytes  uint64 // in memory at the end
	Ends   int    // states in which nobody does anything any more by itself
	Took   time.Duration
	Wrong  []Wrong
	// Together is what is ever signed, by each of the three seats, and decided, together: the same
	// with and without a reduction. Of one round alone.
	Together map[[4]uint64]bool
}

func (r Report) String() string {
	s := fmt.Sprintf("%d states, depth %d, %d open; %d states of single seats, %d events, %d ends; %d MB, %v", r.States, r.Depth, r.Open, r.Seats, r.Steps, r.Ends, r.Bytes>>20, r.Took.Round(time.Second/10))
	for _, w := range r.Wrong {
		s += "\n" + w.String()
	}
	return s
}

// Wrong is a state that must not be: the first one of its kind, and how it comes about.
type Wrong struct {
	What  string
	Depth int
	Trace []string
}

func (w Wrong) String() string {
	return fmt.Sprintf("%s, at depth %d:\n    %s", w.What, w.Depth, strings.Join(w.Trace, "\n    "))
}

// all is one state of all honest seats: the numbers of their nodes.
type all [3]uint32

// packed is a state in 63 bits. There are no more than 2^21 states of one seat.
func (a all) packed() uint64 { return uint64(a[0]) | uint64(a[1])<<width | uint64(a[2])<<(2*width) }

func unpack(p uint64) all {
	const mask = 1<<width - 1
	return all{uint32(p & mask), uint32(p >> width & mask), uint32(p >> (2 * width))}
}

const width = 21

// Run explores.
func Run(c Config) Report {
	start := time.Now()
	x := newExplorer(c)
	first := all{}
	for i, seat := range x.honest {
		first[i] = x.begin(seat)
	}
	x.reach(first, 0)
	depth, end := 0, 1 // where the states of the next depth begin
	next := 0
	for ; next < len(x.order); next++ {
		if next == end {
			depth, end = depth+1, len(x.order)
			if len(x.wrong) > 0 {
				break
			}
		}
		if x.full || next%256 == 0 && (c.Time > 0 && time.Since(start) > c.Time || c.Memory > 0 && heap() > c.Memory) {
			break
		}
		x.expand(uint32(next))
	}
	r := Report{States: len(x.order), Depth: depth, Open: len(x.order) - next, Seats: len(x.nodes), Steps: x.steps, Ends: x.ends, Bytes: heap(), Took: time.Since(start)}
	if c.Rounds == 1 {
		r.Together = x.together()
	}
	for _, w := range x.wrong {
		r.Wrong = append(r.Wrong, Wrong{w.what, depth, x.trace(w.at)})
	}
	return r
}

// heap is the bytes in memory.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// expand goes on from one state: each seat does what it can.
func (x *explorer) expand(at uint32) {
	a := unpack(x.order[at])
	pool, cut := x.pool(a)
	moved := false
	for i, n := range a {
		for _, to := range x.successors(n, pool, x.Cut && !cut) {
			b := a
			b[i] = to
			moved = true
			if k, fresh := x.reach(b, at); fresh {
				x.check(b, i, k)
			}
		}
	}
	x.checkEnd(a, pool, moved, at)
}

// pool is what may arrive in a state, and whether the power has failed.
func (x *explorer) pool(a all) (pool uint64, cut bool) {
	pool = x.lies
	for _, n := range a {
		pool |= x.nodes[n].signed
		cut = cut || x.nodes[n].cut
	}
	return pool, cut
}

// reach takes note of a state, and says whether it is another one than those before.
func (x *explorer) reach(a all, from uint32) (at uint32, fresh bool) {
	key := x.canonical(a)
	if 2*len(x.order) >= len(x.table) {
		x.grow()
	}
	slot := x.slot(key)
	if x.table[slot] != 0 {
		return 0, false
	}
	x.order = append(x.order, a.packed())
	x.from = append(x.from, from)
	x.table[slot] = uint32(len(x.order))
	return uint32(len(x.order) - 1), true
}

// together gathers what was signed and decided in each state, under all names.
func (x *explorer) together() map[[4]uint64]bool {
	all := make(map[[4]uint64]bool)
	for _, p := range x.order {
		a := unpack(p)
		for g := range x.renamings {
			r := &x.renamings[g]
			var s [4]uint64
			for i, n := range a {
				s[r.place[i]] = r.mask(x.nodes[n].signed)
				s[3] |= uint64(r.flags(x.nodes[n].decided)) << (8 * r.place[i])
			}
			all[s] = true
		}
	}
	return all
}

// slot is where a canonical key stands in the table, or would.
func (x *explorer) slot(key uint64) uint64 {
	mask := uint64(len(x.table) - 1)
	h := (key ^ key>>31) * 0x9e3779b97f4a7c15
	for s := (h ^ h>>29) & mask; ; s = (s + 1) & mask {
		if n := x.table[s]; n == 0 || x.canonical(unpack(x.order[n-1])) == key {
			return s
		}
	}
}

// grow makes the table twice as large.
func (x *explorer) grow() {
	x.table = make([]uint32, max(1<<16, 2*len(x.table)))
	for i, p := range x.order {
		x.table[x.slot(x.canonical(unpack(p)))] = uint32(i + 1)
	}
}

// canonical is the least of the packed states that differ from this one by names.
func (x *explorer) canonical(a all) uint64 {
	least := ^uint64(0)
	for g, r := range x.renamings {
		var b all
		for i, n := range a {
			b[r.place[i]] = x.nodes[n].tokens[g]
		}
		least = min(least, b.packed())
	}
	return least
}

type wrong struct {
	what string
	at   uint32
}

func (x *explorer) found(at uint32, what string) {
	if !slices.ContainsFunc(x.wrong, func(w wrong) bool { return w.what == what }) {
		x.wrong = append(x.wrong, wrong{what, at})
	}
}

// check is what must hold in every state; seat i has come to it.
func (x *explorer) check(a all, i int, at uint32) {
	n := x.nodes[a[i]]
	if n.bad != "" {
		x.found(at, n.bad)
	}
	for _, group := range x.once {
		if bits.OnesCount64(n.signed&group) > 1 {
			x.found(at, "an honest seat signs twice")
		}
	}
	var decided, valid uint8
	var pool uint64
	for _, m := range a {
		decided |= x.nodes[m].decided
		valid |= x.nodes[m].valid
		pool |= x.nodes[m].signed
	}
	if bits.OnesCount8(decided) > 1 {
		x.found(at, "two decisions")
	}
	if decided&^valid != 0 {
		x.found(at, "what is decided was valid to nobody")
	}
	var provable uint8
	for _, p := range x.precommits {
		if bits.OnesCount64(pool&p.of) >= x.height.Quorum-x.height.Liars {
			provable |= 1 << p.value
		}
	}
	if bits.OnesCount8(provable) > 1 {
		x.found(at, "two certificates can be made")
	}
	if decided&^provable != 0 {
		x.found(at, "a decision that no certificate can prove")
	}
	if decided == 0 {
		return
	}
	for _, m := range a {
		if x.nodes[m].decided == 0 && !x.learns(m, pool) {
			x.found(at, "a seat has all ballots and does not decide")
		}
	}
}

// checkEnd wants that nobody waits for the liar: where none of the honest does anything more by
// itself, each is past the last round. What carried one of them beyond a round is passed on.
func (x *explorer) checkEnd(a all, pool uint64, moved bool, at uint32) {
	var decided uint8
	var round int32
	for _, n := range a {
		round = max(round, x.nodes[n].state.Round)
	}
	pool = pool&^x.lies | x.liesBefore(round)
	for _, n := range a {
		decided |= x.nodes[n].decided
		if moved && x.acts(n, pool) {
			return
		}
	}
	x.ends++
	if decided != 0 {
		return // and the others learn it: see check
	}
	for _, n := range a {
		if !x.past(n, pool) {
			x.found(at, "nothing more happens, and a seat has neither decided nor gone on")
		}
	}
}

// liesBefore is what the liar may send of rounds before this one.
func (x *explorer) liesBefore(round int32) (set uint64) {
	for i, m := range x.messages {
		if m.Round < round {
			set |= x.lies & (1 << i)
		}
	}
	return set
}

// trace tells how a state comes about.
func (x *explorer) trace(at uint32) (told []string) {
	var path []uint32
	for ; at != 0; at = x.from[at] {
		path = append(path, at)
	}
	a := unpack(x.order[0])
	for _, k := range slices.Backward(path) {
		b := unpack(x.order[k])
		pool, cut := x.pool(a)
		for i := range a {
			if a[i] != b[i] {
				told = append(told, fmt.Sprintf("seat %d: %s", x.honest[i], x.tell(a[i], b[i], pool, x.Cut && !cut)))
			}
		}
		a = b
	}
	return told
}
