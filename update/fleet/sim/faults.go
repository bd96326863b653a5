package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
)

// Drawn is the plan of a seed for a fleet of n.
func Drawn(n int, seed uint64) Plan {
	rnd := rand.New(rand.NewPCG(seed, 1<<32|uint64(n)))
	coin := func(p float64) bool { return rnd.Float64() < p }
	p := Plan{
		Seed: seed, N: n, Lie: Lies[rnd.IntN(len(Lies))], Loss: 0.3 * rnd.Float64(), Parting: coin(0.5), Storm: coin(0.3), Aimed: coin(0.2), Black: coin(0.2),
		Fickle: coin(0.3), Brief: coin(0.3), Seats: coin(0.4), Newest: coin(0.5), Link: time.Duration(1+rnd.IntN(150)) * time.Millisecond,
		Wild: time.Duration(30+rnd.IntN(60)) * time.Second, Items: 1 + rnd.IntN(4),
	}
	if coin(0.8) {
		p.Cuts = 0.02 * rnd.Float64()
	}
	if f := roster.RuleFor(n); f == roster.TwoThirds {
		p.Liars = (n - 1) / 3
	}
	if n > 100 {
		p.Newest = false
		p.Cuts, p.Seats, p.Items, p.Wild = p.Cuts/20, false, 1, 20*time.Second
	}
	if n >= 3 && n <= 10 && coin(0.06) {
		p.Liars, p.Seats, p.Brief = 0, false, false
		p.Destroyed = n - roster.RuleFor(n).Quorum(n) + rnd.IntN(2)
	}
	p.End = p.Wild + 30*time.Minute
	return p
}

// Against is the plan of a seed with so many liars in a hundred, all of one lie.
func Against(n int, seed uint64, lie Lie, percent int) Plan {
	p := Drawn(n, seed)
	p.Destroyed = 0
	p.Lie, p.Liars, p.Hostile, p.Seats, p.Fickle = lie, (n*percent+99)/100, true, false, false
	p.Parting, p.Items, p.Loss = true, 4, p.Loss/3
	p.End = p.Wild + 3*time.Minute
	return p
}

// schedule says what happens when.
func (w *world) schedule() {
	for range w.Items {
		w.after(w.some(w.Wild*3/4), nil, func() bool { w.propose("operator"); return false })
	}
	if w.chance(0.3) {
		w.after(w.some(w.Wild/2), nil, func() bool { w.propose("minority"); return false })
	}
	if w.Parting {
		w.after(w.some(10*time.Second), nil, w.parts)
	}
	if w.Black {
		w.after(w.some(w.Wild*3/4), nil, w.black)
	}
	if w.Seats {
		w.story = []string{"seat", "replace", "unseat", "owners", "policy", "rule"}
		w.rnd.Shuffle(len(w.story), func(i, j int) { w.story[i], w.story[j] = w.story[j], w.story[i] })
		w.story = w.story[:1+w.rnd.IntN(4)]
		if w.N == 1 { // from one to four, and back
			w.story = []string{"seat", "seat", "seat", "owners", "unseat", "unseat", "unseat", "rule"}
		}
		w.after(w.some(5*time.Second), nil, w.tell)
	}
	if w.Destroyed > 0 {
		w.after(w.some(w.Wild/2), nil, w.destroy)
	}
	w.after(w.some(w.Wild*3/4), nil, w.rollback)
	for _, m := range w.machines {
		if m.lie == Clone {
			w.after(w.some(w.Wild*3/4), nil, func() bool { w.copied(m); return false })
		}
	}
	w.after(w.Wild, nil, w.whole)
	w.after(w.Wild+5*time.Second, nil, func() bool { w.last = w.propose("operator"); return false })
	w.after(time.Second, nil, w.over)
}

// parts has the network part, in other groups than before, until it is whole.
func (w *world) parts() bool {
	if !w.wild() {
		return false
	}
	groups := 1 + w.rnd.IntN(3)
	if w.Hostile {
		groups = 2
	}
	for i := range w.part {
		if w.part[i] = w.rnd.IntN(groups); w.Hostile {
			w.part[i] = w.machines[i].side
		}
	}
	if groups > 1 {
		w.res.Faults.Parts++
		w.tracef("the network parts: %v", w.part)
	}
	w.after(time.Second+w.some(20*time.Second), nil, w.parts)
	return false
}

// black has the power fail everywhere.
func (w *world) black() bool {
	w.tracef("all lose power")
	for _, m := range w.machines {
		if m.up {
			m.off()
		}
	}
	return false
}

// aim says whether the carriers may bring a ballot from one machine to another: where the plan says so, a
// precommit reaches one machine, which is cut off after it.
func (w *world) aim(from, to *machine, o *object) bool {
	if !w.Aimed || !w.wild() || o.ballot == nil || w.chance(0.1) {
		return true
	}
	favoured := w.machines[int(o.ballot.Height*7+int64(o.ballot.Round/3))%len(w.machines)]
	if from == favoured && o.ballot.Round > 0 || o.ballot.Kind == ballot.Precommit && to != favoured {
		w.res.Faults.Lost++
		return false
	}
	return true
}

// tell goes on with the story of the plan's seats: one change after the other.
func (w *world) tell() bool {
	if len(w.story) == 0 {
		return false
	}
	w.after(2*time.Second, nil, w.tell)
	p := w.newest()
	if w.turn != nil && !p.has(w.turn) && p.valid(w.turn) == nil && (!w.Brief || w.now < w.turn.at+brief+time.Minute) {
		return false // it is not decided yet, and may be
	}
	kind := w.story[0]
	w.story = w.story[1:]
	w.turn = w.propose(kind)
	return false
}

// must says whether an item has to be decided in the end.
func (w *world) must(it *item) bool {
	if it == w.last || it == w.turn && !w.Brief {
		return w.newest().valid(it) == nil
	}
	return !w.Brief && w.newest().valid(it) == nil
}

// propose has the operator propose something of a kind; nil: there is nothing of that kind to propose.
func (w *world) propose(kind string) *item {
	p := w.newest()
	f := p.fleet()
	it := &item{number: uint64(len(w.items)) + 1, kind: kind, height: p.state.Height, at: w.now, flips: make(map[string]time.Duration), against: make(map[string]bool)}
	v, said, joins := w.valueOf(p, kind, it.number)
	if v == nil {
		return nil
	}
	e, err := proposal.Seal(p.state.Fleet(), f.Ada, it.number, proposal.Proposal{Height: p.state.Height, Value: v.Encode()})
	if err != nil {
		w.t.Fatal(err)
	}
	it.envelope, it.id, it.value, it.early, it.object = e, proposal.ID(e), *v, early(*v), nil
	for _, say := range said {
		it.said = append(it.said, say(f, it.id))
	}
	it.object = w.object(object{item: it})
	w.items = append(w.items, it)
	if joins != "" && !slices.ContainsFunc(w.machines, func(m *machine) bool { return m.name == joins }) {
		w.add(joins, Honest, w.genesis).boot()
	}
	honest := w.honest()
	switch {
	case kind == "minority":
		it.minority = true
		for _, m := range honest[:len(honest)-len(honest)/3] {
			it.against[m.name] = true
		}
	case w.Fickle && w.wild():
		for _, m := range honest {
			if w.chance(0.4) {
				it.flips[m.name] = w.now + w.some(20*time.Second)
				w.res.Faults.Flips++
			}
		}
	}
	w.tracef("proposal %d: %s", it.number, kind)
	w.operator()
	return it
}

// operator gives a machine what he has proposed and no machine that is on knows: he looks after it.
func (w *world) operator() {
	honest := w.honest()
	for _, it := range w.items {
		if len(honest) == 0 || slices.ContainsFunc(honest, func(m *machine) bool { return m.has.has(it.object.id) }) {
			continue
		}
		m := honest[w.rnd.IntN(len(honest))]
		w.after(0, m, func() { m.hear(it.object); m.broadcast(it.object) })
	}
}

// says makes an object that is said about a proposal.
type says func(f *ledgertest.Fleet, id document.Hash) []byte

// valueOf is something that can be decided now; what owners and nodes say to it; and the name of the machine
// that comes with it.
func (w *world) valueOf(p *page, kind string, number uint64) (v *ledger.Value, said []says, joins string) {
	v = &ledger.Value{Version: 1}
	r := p.state.Roster
	request := func(s roster.Seat) says {
		return func(f *ledgertest.Fleet, _ document.Hash) []byte { return f.Request(w.t, s) }
	}
	switch kind {
	case "seat":
		s := newSeat(w.t, r.Given+1, fmt.Sprintf("n%d", r.Given+1))
		v.Seat = &decision.Seat{Seats: []roster.Seat{s}}
		if r.Rule == roster.Majority && r.Votes() == 3 {
			v.Seat.Rule = roster.TwoThirds
		}
		return v, []says{request(s)}, s.Name
	case "replace":
		for _, s := range r.Seats {
			name := ledgertest.Replacing(s.Name)
			if s.Member || s.Key != publicKey(w.t, keyOf(s.Name)) || !w.chance(0.5) {
				continue
			}
			old := s.Number
			s.Number, s.Key, s.Journal = r.Given+1, publicKey(w.t, keyOf(name)), roster.ID{byte(r.Given + 1), 1}
			v.Replace = &decision.Replace{Old: old, New: s}
			return v, []says{request(s)}, name
		}
		return nil, nil, ""
	case "unseat":
		s, ok := w.dispensable(p)
		if !ok {
			return nil, nil, ""
		}
		v.Unseat = &decision.Unseat{Seats: []int{s.Number}}
	case "owners":
		was := w.generation
		w.generation = fmt.Sprintf("%d", number)
		now := w.generation
		v.Owners = &decision.Owners{Owner: ledgertest.NewOwner(w.t, "hanse", now)}
		answer := func(generation string) says {
			return func(f *ledgertest.Fleet, id document.Hash) []byte {
				return f.Answer(id, true, "hanse", generation, 1, 3)
			}
		}
		return v, []says{answer(was), answer(now)}, ""
	case "policy":
		policy := p.state.Policy
		policy.Canaries++
		v.Policy = &policy
	case "rule":
		if r.Rule == roster.Majority || r.Votes() > 3 {
			return nil, nil, ""
		}
		v.Rule = &decision.Rule{Rule: roster.Majority}
	default:
		name := fmt.Sprintf("op%d", number)
		v.Operators = &ledger.Operators{Set: []ledger.Operator{{Name: name, Role: fleet.RoleReader, Key: document.HashOf([]byte(name))}}}
	}
	return v, nil, ""
}

// dispensable is a seat without which the fleet bears the liars that stay.
func (w *world) dispensable(p *page) (roster.Seat, bool) {
	r := p.state.Roster
	liars := 0
	for _, s := range r.Seats {
		if m := w.machineOf(s.Number); m != nil && m.lie != Honest {
			liars++
		}
	}
	for _, s := range slices.Backward(r.Seats) {
		m := w.machineOf(s.Number)
		if s.Member || m == nil || r.Votes() < 2 {
			continue
		}
		left := liars
		if m.lie != Honest {
			left--
		}
		if left <= r.WithoutSeats(s.Number).Liars() {
			return s, true
		}
	}
	return roster.Seat{}, false
}
