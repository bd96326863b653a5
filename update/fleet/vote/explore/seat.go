package explore

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/vote"
)

// explorer is a run on its way.
type explorer struct {
	Config
	height   ballot.Height
	honest   []int
	messages []Message
	ballots  []*ballot.Ballot
	lies     uint64   // what the liar may send
	once     []uint64 // sets of messages of which an honest seat signs one
	topics   []topic

	precommits []precommits
	renamings  []renaming
	namings    []vote.Naming

	nodes  []*node
	known  map[string]uint32 // nodes by their key
	tokens map[string]uint32 // and what stands for a key, whether there is such a node or not
	wanted map[step][]uint32 // successors
	ask    map[step]bool     // what learns and past have found

	order []uint64 // states, as they were found
	from  []uint32 // which state each was reached from
	table []uint32 // by hash of the canonical form, places in order from 1 on

	full  bool
	wrong []wrong
	steps int
	ends  int
}

// precommits are those for a value in a round, of honest seats.
type precommits struct {
	of    uint64
	value int
}

// step is what a seat may do in a state, while so much is signed and sent.
type step struct {
	node uint32
	pool uint64
}

// topic is messages that may make something happen together: the votes of one kind and round
// that count together, and the proposals that they are about. few: no more than this of them.
type topic struct {
	order []int // votes first
	few   int
	about bool // prevotes and proposals
	// ahead: it is about whether somebody is in that round already
	ahead bool
	round int32
}

func newExplorer(c Config) *explorer {
	x := &explorer{Config: c, height: height(), known: make(map[string]uint32), tokens: make(map[string]uint32), wanted: make(map[step][]uint32), ask: make(map[step]bool)}
	for seat := 1; seat <= 4; seat++ {
		if seat != c.Liar {
			x.honest = append(x.honest, seat)
		}
	}
	x.messages = alphabet(x.height, c.Rounds)
	if len(x.messages) > 63 {
		panic("too many messages for a set of 63")
	}
	groups := make(map[Message]uint64)
	for i, m := range x.messages {
		x.ballots = append(x.ballots, m.ballot(x.height))
		if m.Seat == c.Liar {
			if c.Lies == nil || c.Lies(m) {
				x.lies |= 1 << i
			}
			continue
		}
		groups[Message{Kind: m.Kind, Round: m.Round, Seat: m.Seat}] |= 1 << i
	}
	for _, set := range groups {
		x.once = append(x.once, set)
	}
	for r := range int32(c.Rounds) {
		var proposals []int
		about := topic{round: r, about: true}
		votes, ahead := topic{round: r}, topic{round: r, few: 2, ahead: true}
		for i, m := range x.messages {
			if m.Round == r {
				ahead.order = append(ahead.order, i)
			}
			switch {
			case m.Kind == ballot.Precommit && m.Round == r:
				votes.order = append(votes.order, i)
			case m.Kind == ballot.Prevote && m.Round == r:
				about.order = append(about.order, i)
			case m.Kind == ballot.Proposal && (m.Round == r || m.ValidRound == r):
				proposals = append(proposals, i)
			}
		}
		about.order = append(about.order, proposals...)
		x.topics = append(x.topics, about, votes, ahead)
		for v := valueX; v <= valueY; v++ {
			p := precommits{value: v}
			for i, m := range x.messages {
				if m.Kind == ballot.Precommit && m.Round == r && m.Value == v && m.Seat != c.Liar {
					p.of |= 1 << i
				}
			}
			x.precommits = append(x.precommits, p)
		}
	}
	x.renamings = x.renames()
	for i := range x.renamings {
		x.namings = append(x.namings, x.renamings[i].naming())
	}
	return x
}

func (x *explorer) chair(seat int) bool {
	for r := range int32(x.Rounds) {
		if x.height.Chair(r) == seat {
			return true
		}
	}
	return false
}

// node is what one seat may have come to: its state, its journal, and what has become of it.
type node struct {
	state   vote.State
	journal journal.Memory
	signed  uint64
	valid   uint8 // values that it has found valid, one bit each
	decided uint8 // values that it has decided, before a cut of power, too
	cut     bool
	bad     string // why it must not be

	tokens  []uint32 // its number under each renaming
	control string
	heard   string
	opened  bool
	edges   []edge
}

// edge is how a seat gets from one node to another: it hears so much, and then something happens.
type edge struct {
	to    uint32
	seen  bool // others notice it, or its journal does
	cut   bool // the power fails
	needs uint64
	what  string
}

// begin is the node of a seat that has booted with an empty journal.
func (x *explorer) begin(seat int) uint32 {
	n := node{journal: journal.Memory{Head: journal.Head{Height: number - 1, Record: x.height.Record}}}
	return x.number(x.forget(x.boot(n, seat)))
}

// forget is a node that has to hear all again.
func (x *explorer) forget(n node) node {
	if !x.Remember {
		n.state = n.state.Unheard()
		if l := n.journal.Lock; l != nil {
			n.journal.Lock = &journal.Lock{Proposal: l.Proposal}
		}
	}
	return n
}

// boot starts a seat from its journal. Two others answer that they have seen nothing of it: that is
// the least that they may say.
func (x *explorer) boot(n node, seat int) node {
	s, effects := vote.New(seat, n.journal)
	n.state = s
	n = x.carryOut(n, effects, -1)
	events := []vote.Event{vote.Begin{Height: x.height}}
	for _, other := range x.height.Voters {
		if other.Number != seat && len(events) < x.height.Quorum {
			events = append(events, vote.Answered{Answer: ballot.Answer{By: other.Number, At: number}})
		}
	}
	for _, e := range events {
		n, _ = x.give(n, e, -1)
	}
	return n
}

// give lets an event happen; left: the power fails after so many effects, -1: it does not.
func (x *explorer) give(n node, e vote.Event, left int) (node, []vote.Effect) {
	x.steps++
	s, effects := vote.Step(n.state, e)
	n.state = s
	n = x.carryOut(n, effects, left)
	return n, effects
}

// carryOut does effects, or only so many of them.
func (x *explorer) carryOut(n node, effects []vote.Effect, left int) node {
	for k, e := range effects {
		if k == left {
			break
		}
		switch e := e.(type) {
		case vote.Persist:
			n.journal = n.journal.With(e.Record)
		case vote.Send:
			w := e.Ballot.Words
			m := Message{w.Kind, w.Round, int(valueOf(w.Value)), w.ValidRound, e.Ballot.Seat}
			i := slices.Index(x.messages, m)
			if i < 0 {
				n.bad = "an honest seat signs what none ever may: " + m.String()
				continue
			}
			n.signed |= 1 << i
		case vote.Decide:
			n.decided |= 1 << valueOf(e.Value)
		case vote.Expose:
			if e.Proof.One.Seat != x.Liar {
				n.bad = "a double vote of an honest seat"
			}
		case vote.Lack:
			n.bad = "an honest seat has signed what its journal lacks"
		case vote.Fork:
			n.bad = "a seat sees two decisions"
		}
	}
	return n
}

// number is the number of a node, which is new or not.
func (x *explorer) number(n node) uint32 {
	control, heard := n.state.Key(x.namings[0])
	n.control, n.heard, n.tokens, n.edges, n.opened = string(control), string(heard), nil, nil, false
	key := x.key(&n, 0)
	if id, ok := x.known[key]; ok {
		return id
	}
	id := uint32(len(x.nodes))
	x.known[key] = id
	x.nodes = append(x.nodes, &n)
	for g := range x.renamings {
		k := key
		if g > 0 {
			k = x.key(&n, g)
		}
		token, ok := x.tokens[k]
		if !ok {
			token = uint32(len(x.tokens))
			x.tokens[k] = token
		}
		n.tokens = append(n.tokens, token)
	}
	x.full = len(x.tokens) >= 1<<width-len(x.renamings)
	return id
}

// key is what a node is, under a renaming.
func (x *explorer) key(n *node, g int) string {
	r := &x.renamings[g]
	control, heard := []byte(n.control), []byte(n.heard)
	if g > 0 {
		control, heard = n.state.Key(x.namings[g])
	}
	if n.decided != 0 && n.state.Phase == vote.Decided && !x.Deaf {
		heard = nil
		control = []byte{r.seat[n.state.Self], byte(n.state.Phase)}
	}
	key := binary.LittleEndian.AppendUint64(nil, r.mask(n.signed))
	key = append(key, r.flags(n.valid), r.flags(n.decided), byte(len(control)), byte(len(control)>>8))
	if n.cut {
		key[8] |= 1 << 7
	}
	key = append(append(key, control...), heard...)
	key = r.journal(key, n.journal)
	return string(append(key, n.bad...))
}

// done says whether nothing more is looked for in a node.
func (x *explorer) done(n *node) bool {
	return n.bad != "" || n.state.Phase == vote.Decided && !x.Deaf
}

// open finds the edges of a node.
func (x *explorer) open(id uint32) {
	n := x.nodes[id]
	n.opened = true
	if n.bad != "" {
		return
	}
	if x.Cut && !n.cut {
		b := *n
		b.cut = true
		x.edge(n, x.boot(b, n.state.Self), edge{cut: true, what: "the power fails"})
	}
	if x.done(n) {
		return
	}
	if n.state.Item == ballot.Nil {
		v := x.item(n)
		x.event(n, *n, 0, vote.Item{Value: values[v]}, "its item is "+valueNames[v])
	}
	for v := valueX; v <= valueY; v++ {
		b := *n
		b.valid |= 1 << v
		x.event(n, b, 0, vote.Judged{Height: number, Round: n.state.Round, Value: values[v], Valid: true}, "finds valid "+valueNames[v])
		x.event(n, *n, 0, vote.Judged{Height: number, Round: n.state.Round, Value: values[v]}, "finds invalid "+valueNames[v])
	}
	for k := ballot.Proposal; k <= ballot.Precommit; k++ {
		if k < ballot.Precommit || int(n.state.Round) < x.Rounds-1 {
			x.event(n, *n, 0, vote.Timeout{Height: number, Round: n.state.Round, Step: k}, "time, "+k.String())
		}
	}
	if x.Each {
		for i := range x.messages {
			if x.may(n, i) {
				x.event(n, *n, 1<<i, vote.Received{Ballot: x.ballots[i]}, "")
			}
		}
		return
	}
	for _, t := range x.topics {
		if t.ahead && (t.round < n.state.Round || t.round == n.state.Round && n.state.Phase != vote.Idle) {
			continue
		}
		if t.about && int(n.state.Round) == x.Rounds-1 && n.state.Step == ballot.Precommit {
			continue // what a quorum has prevoted is of use for a later round alone
		}
		x.hear(n, t)
	}
}

// item is what a seat's queue has: another one after a cut of power than before.
func (x *explorer) item(n *node) int {
	switch {
	case !x.chair(n.state.Self):
		return unspoken
	case (n.state.Self == x.height.Chair(0)) == n.cut:
		return valueY
	}
	return valueX
}

// may says whether a message can be there at all: an own one, if it was signed.
func (x *explorer) may(n *node, i int) bool {
	switch x.messages[i].Seat {
	case n.state.Self:
		return n.signed>>i&1 == 1
	case x.Liar:
		return x.lies>>i&1 == 1
	}
	return true
}

// event adds the edges of an event that happens to b, which n has become by hearing.
func (x *explorer) event(n *node, b node, needs uint64, e vote.Event, what string) {
	after, effects := x.give(b, e, -1)
	if x.same(n, &after) {
		return
	}
	x.edge(n, after, edge{needs: needs, what: what})
	if !x.Cut || b.cut {
		return
	}
	for left := 1; left < len(effects); left++ {
		half, _ := x.give(b, e, left)
		half.cut = true
		x.edge(n, x.boot(half, n.state.Self), edge{cut: true, needs: needs, what: fmt.Sprintf("%s, and the power fails after %d of %d effects", what, left, len(effects))})
	}
}

// same says whether nothing has happened.
func (x *explorer) same(n, after *node) bool {
	if n.signed != after.signed || n.decided != after.decided || after.bad != "" {
		return false
	}
	control, heard := after.state.Key(x.namings[0])
	return string(control) == n.control && string(heard) == n.heard
}

func (x *explorer) edge(n *node, after node, e edge) {
	if after.bad == impossible {
		return
	}
	e.seen = e.cut || x.Each || n.signed != after.signed || n.decided != after.decided || after.bad != ""
	e.needs &^= n.signed
	after = x.forget(after)
	e.to = x.number(after)
	if slices.ContainsFunc(n.edges, func(o edge) bool { return o.to == e.to && o.needs&^e.needs == 0 && (e.cut || !o.cut) }) {
		return
	}
	n.edges = append(n.edges, e)
}

// impossible is a node in which an honest seat is heard to say two things of one kind and round. As
// long as none signs twice, and that is looked for, nobody hears that.
const impossible = "a double vote of an honest seat"

// hear finds what happens when a seat hears some messages of a topic, in no more of them than it
// takes.
func (x *explorer) hear(n *node, t topic) {
	type partial struct {
		node
		set  uint64
		next int // in the topic's order
	}
	type made struct {
		set     uint64
		control string
	}
	var found []made
	deaf := make(map[string]bool)
	layer := []partial{{node: *n}}
	for size := 1; len(layer) > 0 && (t.few == 0 || size <= t.few); size++ {
		var next []partial
		for _, p := range layer {
			for k := p.next; k < len(t.order); k++ {
				i := t.order[k]
				if !x.may(n, i) || t.few == 2 && p.set != 0 && x.messages[bits.TrailingZeros64(p.set)].Seat == x.messages[i].Seat {
					continue
				}
				set := p.set | 1<<i
				after, effects := x.give(p.node, vote.Received{Ballot: x.ballots[i]}, -1)
				if after.bad == impossible {
					continue
				}
				control, heard := after.state.Key(x.namings[0])
				if string(control) == n.control && after.signed == n.signed && after.decided == n.decided && after.bad == "" {
					if key := string(heard); key != p.heard && !deaf[key] {
						deaf[key] = true
						after.heard = key
						next = append(next, partial{after, set, k + 1})
					}
					continue
				}
				m := made{set, string(control)}
				if slices.ContainsFunc(found, func(f made) bool { return f.control == m.control && f.set&^m.set == 0 && f.set != m.set }) {
					continue
				}
				found = append(found, m)
				x.edge(n, after, edge{needs: set})
				if !x.Cut || n.cut {
					continue
				}
				for left := 1; left < len(effects); left++ {
					half, _ := x.give(p.node, vote.Received{Ballot: x.ballots[i]}, left)
					half.cut = true
					x.edge(n, x.boot(half, n.state.Self), edge{cut: true, needs: set, what: fmt.Sprintf("the power fails after %d of %d effects", left, len(effects))})
				}
			}
		}
		layer = next
	}
}

// successors are the nodes that a seat comes to when it does the next thing that others notice, while
// so much may arrive; cut: the power may fail.
func (x *explorer) successors(id uint32, pool uint64, cut bool) []uint32 {
	k := step{id, pool &^ x.nodes[id].signed}
	if cut {
		k.pool |= 1 << 63
	}
	if all, ok := x.wanted[k]; ok {
		return all
	}
	all := x.walk(id, pool, cut)
	if !x.Each && len(all) > 1 {
		all = x.least(all, pool)
	}
	x.wanted[k] = all
	return all
}

func (x *explorer) walk(id uint32, pool uint64, cut bool) (all []uint32) {
	seen := map[uint32]bool{id: true}
	for todo := []uint32{id}; len(todo) > 0; {
		n := x.nodes[todo[len(todo)-1]]
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !n.opened {
			x.open(at)
		}
		for _, e := range n.edges {
			if e.needs&^pool != 0 || e.cut && !cut || seen[e.to] {
				continue
			}
			seen[e.to] = true
			if e.seen {
				all = append(all, e.to)
			} else {
				todo = append(todo, e.to)
			}
		}
	}
	return all
}

// least leaves out the nodes to which another one leads without anybody noticing it.
func (x *explorer) least(all []uint32, pool uint64) (left []uint32) {
	out := make(map[uint32]bool)
	for _, id := range all {
		if out[id] {
			continue
		}
		seen := map[uint32]bool{id: true}
		for todo := []uint32{id}; len(todo) > 0; {
			at := todo[len(todo)-1]
			n := x.nodes[at]
			todo = todo[:len(todo)-1]
			if !n.opened {
				x.open(at)
			}
			for _, e := range n.edges {
				if !e.seen && e.needs&^pool == 0 && !seen[e.to] {
					seen[e.to] = true
					out[e.to] = true
					todo = append(todo, e.to)
				}
			}
		}
	}
	for _, id := range all {
		if !out[id] {
			left = append(left, id)
		}
	}
	return left
}
