// Package membership says who runs etcd next: which data folder a node starts with, and whom
// the leader's node adds, promotes or removes.
//
// In come the seats that the roster flags, etcd's own list, and how long each node has been
// silent, which [Sight] measures; out comes one [Step]. Whoever takes it looks again before the
// next: nothing is remembered here. The package starts nothing, reads no clock and knows no etcd.
package membership

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Action is what is to be done.
type Action string

// The actions. The first ones are of a node about itself ([Begin]), the last ones of the
// leader's node about all of them ([Next]).
const (
	Wait    Action = "wait"    // for what Why says
	New     Action = "new"     // start etcd as one of its founders
	Start   Action = "start"   // start etcd on the data that is here
	Join    Action = "join"    // start etcd without data, as a learner that is listed
	Aside   Action = "aside"   // keep the data folder aside, and ask again
	Renew   Action = "renew"   // begin etcd anew, from this node's newest snapshot
	Refuse  Action = "refuse"  // wait for a person
	Remove  Action = "remove"  // take a seat out of etcd's list
	Add     Action = "add"     // put a seat on it, as a learner
	Promote Action = "promote" // make a learner a voter
	Yield   Action = "yield"   // let another voter lead
	Rest    Action = "at rest" // all is as it is to be
)

// Step is what is to be done now.
type Step struct {
	Do   Action
	Seat int    // whom it is about; 0: this node
	Why  string // for people
	// Vain says that a seat is taken out whose node answers and does not run etcd: see [Peer].
	Vain bool
}

func step(do Action, seat int, format string, args ...any) Step {
	return Step{Do: do, Seat: seat, Why: fmt.Sprintf(format, args...)}
}

func (s Step) String() string {
	if s.Seat == 0 {
		return fmt.Sprintf("%s: %s", s.Do, s.Why)
	}
	return fmt.Sprintf("%s %d: %s", s.Do, s.Seat, s.Why)
}

// Seat is a seat that the roster lets run etcd.
type Seat struct {
	Number int    `json:"number"`
	Name   string `json:"name"`            // the node's
	Spare  bool   `json:"spare,omitempty"` // only in the place of a member
	Domain string `json:"domain"`          // what fails together with it
}

// Member is a line of etcd's list.
type Member struct {
	ID      uint64 `json:"id"`
	Seat    int    `json:"seat"`
	Learner bool   `json:"learner,omitempty"`
	Started bool   `json:"started,omitempty"` // it has run, and has written so
}

// Peer is how a seat's node stands, as the leader's node sees it.
type Peer struct {
	Silent time.Duration // for how long it has not answered; 0: it does
	Idle   time.Duration // for how long its etcd has not run, if it answers or not; 0: it does
	Learns time.Duration // for how long it has been a learner
	// Vain is how long ago it was taken out because it came to nothing; 0: it was not.
	Vain    time.Duration
	Away    bool   // on purpose: no reason to replace it
	Lost    bool   // it says that it has lost what etcd's list says it has
	Corrupt bool   // etcd says that its data is not that of the others, and takes no write
	InSync  bool   // a learner that has nearly all that the leader has
	Unfit   string // why it cannot run etcd; "": it can
}

// Cluster is what the leader's node knows.
type Cluster struct {
	Self    int // this node's seat
	Leader  int // the leader's; 0: there is none
	Seats   []Seat
	Members []Member
	Peers   map[int]Peer // by seat; of this node only whether it is corrupt
	// Grace is how long a member may be silent until a spare takes its place.
	Grace time.Duration
	// Settled is how long the voters have been those that they are.
	Settled time.Duration
}

const (
	// MaxLearners is how many learners etcd has to take at a time: two, so that one voter
	// becomes three without resting at two.
	MaxLearners = 2
	// settle is for how long, at least, etcd may refuse what it takes later.
	settle = 10 * time.Second
	// patience is how long a learner may be silent. It holds up others, and has nothing to
	// lose.
	patience = 15 * time.Second
	// A learner that answers has to have started after startFor, and to have what the leader has
	// after learnFor, which is a database of the largest size over a slow line. Else another one
	// gets its place, and it is not tried again before tryAgain.
	startFor = time.Minute
	learnFor = 10 * time.Minute
	tryAgain = 30 * time.Minute
)

// Next is what the leader's node does about the list. Where the list has an even number of
// voters, it does not rest: with two, either is one too many to lose.
func Next(c Cluster) Step {
	switch {
	case c.Leader == 0:
		return step(Wait, 0, "etcd has no leader")
	case c.Leader != c.Self:
		return step(Wait, 0, "seat %d leads, and decides", c.Leader)
	}
	voters, learners := c.split()
	target := c.target()
	switch {
	case target == 0:
		return step(Rest, 0, "the roster has no members")
	case c.healthy(voters, 0) < quorum(len(voters)):
		return step(Wait, 0, "%d of %d voters answer", c.healthy(voters, 0), len(voters))
	}
	for _, find := range []func([]Member, []Member, int) (Step, bool){c.handOver, c.dropLearner, c.dropDead, c.shrink, c.grow, c.exchange} {
		if s, ok := find(voters, learners, target); ok {
			return s
		}
	}
	return c.rest(voters, target)
}

// rest is the step where nothing is to be done.
func (c Cluster) rest(voters []Member, target int) Step {
	for _, v := range voters {
		if p := c.Peers[v.Seat]; v.Seat != c.Self && !c.answers(v.Seat) {
			how := "it is silent"
			if p.Silent == 0 {
				how = "its etcd does not run"
			}
			switch {
			case p.Away:
				return step(Wait, v.Seat, "it is away")
			case !c.dead(v.Seat):
				return step(Wait, v.Seat, "%s, and it is replaced after %s", how, c.Grace)
			}
			return step(Wait, v.Seat, "it is lost, and there is no spare that can take its place")
		}
	}
	if len(voters) < target {
		return step(Wait, 0, "%d of %d members: for more, %d further nodes have to come", len(voters), target, 2-(len(voters)+1)%2)
	}
	return step(Rest, 0, "%d of %d members", len(voters), target)
}

// handOver has another voter lead if this node's data is not that of the others: it is to be taken
// out.
func (c Cluster) handOver(voters, _ []Member, _ int) (Step, bool) {
	if !c.Peers[c.Self].Corrupt {
		return Step{}, false
	}
	return c.yield(voters, "this node's data is not that of the others")
}

// yield has the first voter lead that can.
func (c Cluster) yield(voters []Member, why string) (Step, bool) {
	for _, next := range voters {
		if next.Seat != c.Self && c.wanted(next.Seat) && c.answers(next.Seat) {
			return step(Yield, next.Seat, "%s", why), true
		}
	}
	return Step{}, false
}

// dropLearner takes a learner out that is not needed, not wanted, or does not come to be a voter.
func (c Cluster) dropLearner(voters, learners []Member, target int) (Step, bool) {
	exchange := slices.ContainsFunc(voters, func(v Member) bool { return !c.wanted(v.Seat) })
	for _, l := range learners {
		p := c.Peers[l.Seat]
		switch {
		case !c.wanted(l.Seat):
			return step(Remove, l.Seat, "the roster does not have it run etcd"), true
		case len(voters) >= target && !exchange:
			return step(Remove, l.Seat, "it is not needed"), true
		case p.Lost && l.Started:
			return step(Remove, l.Seat, "it has lost its data"), true
		case p.Corrupt:
			return step(Remove, l.Seat, "its data is not that of the others"), true
		case p.Silent >= patience:
			return step(Remove, l.Seat, "it was silent for %s while it learned", patience), true
		case p.Silent == 0 && p.Unfit != "":
			return step(Remove, l.Seat, "it cannot start: %s", p.Unfit), true
		case !l.Started && p.Learns >= startFor:
			return Step{Remove, l.Seat, fmt.Sprintf("it has not started for %s", startFor), true}, true
		case !p.InSync && p.Learns >= learnFor:
			return Step{Remove, l.Seat, fmt.Sprintf("after %s it does not have what the leader has", learnFor), true}, true
		}
	}
	return Step{}, false
}

// dropDead takes a voter out that is lost, if there is one to take its place: etcd adds no
// learner while a voter is silent. A corrupt one goes in any case: it stops all writes.
func (c Cluster) dropDead(voters, learners []Member, target int) (Step, bool) {
	for _, v := range voters {
		if !c.dead(v.Seat) || !c.safe(voters, v.Seat) {
			continue
		}
		p := c.Peers[v.Seat]
		idle := !p.Corrupt && !p.Lost && p.Silent < c.Grace // to add it again would change nothing
		after := slices.DeleteFunc(slices.Clone(voters), func(m Member) bool { return m.Seat == v.Seat })
		instead := slices.DeleteFunc(c.candidates(after, learners), func(n int) bool { return idle && n == v.Seat })
		ready := slices.ContainsFunc(learners, func(l Member) bool { return c.answers(l.Seat) })
		if !p.Corrupt && len(after)%2 == 0 && len(voters) <= target && !ready && len(instead) == 0 {
			continue
		}
		why := fmt.Sprintf("it has been silent for %s", c.Grace)
		switch {
		case p.Corrupt:
			why = "its data is not that of the others"
		case p.Lost:
			why = "it has lost its data"
		case idle:
			why = fmt.Sprintf("its etcd has not run for %s", c.Grace)
		}
		return Step{Remove, v.Seat, why, idle}, true
	}
	return Step{}, false
}

// shrink takes voters out that are too many.
func (c Cluster) shrink(voters, _ []Member, target int) (Step, bool) {
	if len(voters) <= target {
		return Step{}, false
	}
	return c.leave(voters, fmt.Sprintf("%d voters, and the roster has %d members", len(voters), target))
}

// leave takes out the voter that matters least; this node only makes another one lead.
func (c Cluster) leave(voters []Member, why string) (Step, bool) {
	rank := func(m Member) int {
		switch {
		case c.dead(m.Seat):
			return 0
		case !c.wanted(m.Seat):
			return 1
		case m.Seat == c.Self:
			return 4 // another leader would only have to be found
		case c.seat(m.Seat).Spare:
			return 2
		}
		return 3
	}
	away := func(m Member) int {
		if c.Peers[m.Seat].Away {
			return 1
		}
		return 0
	}
	all := slices.SortedFunc(slices.Values(voters), func(a, b Member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(away(a), away(b)), cmp.Compare(b.Seat, a.Seat))
	})
	for _, v := range all {
		if !c.safe(voters, v.Seat) {
			continue
		}
		if v.Seat != c.Self {
			return step(Remove, v.Seat, "%s", why), true
		}
		if s, ok := c.yield(voters, "this node is to leave: "+why); ok {
			return s, true
		}
	}
	return Step{}, false
}

// grow adds learners and promotes them: two in a row if the voters are an odd number. Voters
// of an even number for whom nobody comes in time become one less.
func (c Cluster) grow(voters, learners []Member, target int) (Step, bool) {
	if len(voters) >= target {
		return Step{}, false
	}
	together := 2 - (len(voters)+1)%2
	ready := slices.DeleteFunc(slices.Clone(learners), func(l Member) bool {
		return !c.answers(l.Seat) || !c.Peers[l.Seat].InSync || c.Peers[l.Seat].Unfit != ""
	})
	if len(ready) >= together {
		return step(Promote, ready[0].Seat, "it has what the leader has"), true
	}
	if c.silentVoter(voters) == 0 && len(learners) < min(together, MaxLearners) {
		if who := c.candidates(voters, learners); len(who) > 0 {
			return step(Add, who[0], "%d of %d members", len(voters), target), true
		}
	}
	late := max(c.Grace, settle)
	if together == 1 && (c.Settled >= 4*late || c.Settled >= late && len(learners) == 0) {
		return c.leave(voters, fmt.Sprintf("of %d voters no more than %d may be lost, and no further node comes", len(voters), (len(voters)-1)/2))
	}
	if len(learners) >= together {
		return step(Wait, learners[0].Seat, "it learns"), true
	}
	return Step{}, false
}

// exchange brings in a voter in the place of one that the roster does not have any more.
func (c Cluster) exchange(voters, learners []Member, target int) (Step, bool) {
	i := slices.IndexFunc(voters, func(v Member) bool { return !c.wanted(v.Seat) })
	if i < 0 || len(voters) != target {
		return Step{}, false
	}
	why := fmt.Sprintf("for seat %d, which the roster does not have run etcd", voters[i].Seat)
	if at := slices.IndexFunc(learners, func(l Member) bool { return c.answers(l.Seat) && c.Peers[l.Seat].InSync }); at >= 0 {
		return step(Promote, learners[at].Seat, "%s", why), true
	}
	if len(learners) > 0 {
		return step(Wait, learners[0].Seat, "it learns, %s", why), true
	}
	who := c.candidates(voters, learners)
	if len(who) == 0 {
		return step(Wait, 0, "no node answers to come %s", why), true
	}
	if silent := c.silentVoter(voters); silent != 0 {
		if silent == voters[i].Seat && c.safe(voters, silent) {
			return step(Remove, silent, "it is silent, and the roster does not have it run etcd"), true
		}
		return Step{}, false
	}
	return step(Add, who[0], "%s", why), true
}

// silentVoter is a voter that does not answer; 0: all do. etcd adds nobody then.
func (c Cluster) silentVoter(voters []Member) int {
	for _, v := range voters {
		if !c.answers(v.Seat) {
			return v.Seat
		}
	}
	return 0
}

// candidates are the seats that may come, the best one first: members before spares, and
// where nothing fails together with a voter before where something does. Who came to nothing not
// long ago is none.
func (c Cluster) candidates(voters, learners []Member) (seats []int) {
	listed := func(seat int) bool {
		return slices.ContainsFunc(slices.Concat(voters, learners), func(m Member) bool { return m.Seat == seat })
	}
	shared := func(s Seat) int {
		n := 0
		for _, v := range voters {
			if c.seat(v.Seat).Domain == s.Domain {
				n++
			}
		}
		return n
	}
	var all []Seat
	for _, s := range c.Seats {
		p, known := c.Peers[s.Number]
		vain := p.Vain > 0 && p.Vain < tryAgain
		if known && !listed(s.Number) && s.Number != c.Self && p.Silent == 0 && !p.Away && p.Unfit == "" && !vain {
			all = append(all, s)
		}
	}
	spare := func(s Seat) int {
		if s.Spare {
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(a, b Seat) int {
		return cmp.Or(cmp.Compare(spare(a), spare(b)), cmp.Compare(shared(a), shared(b)), cmp.Compare(a.Number, b.Number))
	})
	for _, s := range all {
		seats = append(seats, s.Number)
	}
	return seats
}

func (c Cluster) split() (voters, learners []Member) {
	for _, m := range c.Members {
		if m.Learner {
			learners = append(learners, m)
		} else {
			voters = append(voters, m)
		}
	}
	return voters, learners
}

// target is how many voters the roster wants.
func (c Cluster) target() (n int) {
	for _, s := range c.Seats {
		if !s.Spare {
			n++
		}
	}
	return n
}

func (c Cluster) seat(number int) Seat {
	for _, s := range c.Seats {
		if s.Number == number {
			return s
		}
	}
	return Seat{}
}

func (c Cluster) wanted(number int) bool { return number != 0 && c.seat(number).Number == number }

// answers says whether a seat's node answers, runs etcd, and has its data.
func (c Cluster) answers(number int) bool {
	p, known := c.Peers[number]
	if number == c.Self {
		return !p.Corrupt
	}
	return known && p.Silent == 0 && p.Idle == 0 && !p.Lost && !p.Corrupt
}

// dead says whether a seat is lost for good, as far as etcd is concerned.
func (c Cluster) dead(number int) bool {
	p, known := c.Peers[number]
	return number != c.Self && known && (p.Corrupt || !p.Away && (p.Lost || max(p.Silent, p.Idle) >= c.Grace))
}

// healthy counts the voters that answer, without one.
func (c Cluster) healthy(voters []Member, without int) (n int) {
	for _, v := range voters {
		if v.Seat != without && c.answers(v.Seat) {
			n++
		}
	}
	return n
}

// safe says whether a quorum of those who are left answers once a voter is out.
func (c Cluster) safe(voters []Member, without int) bool {
	return len(voters) > 1 && c.healthy(voters, without) >= quorum(len(voters)-1)
}

func quorum(n int) int { return n/2 + 1 }
