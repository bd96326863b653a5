package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Sighting is what one node said when it was asked how it is, as a part of its fleet.
type Sighting struct {
	Node   string
	Err    error                 // why it did not answer; nil: it did
	Status *apiv1.StatusResponse // what it says of its machine; not nil if it answered
	Part   Applicant             // what it says of itself in the fleet, signed by its seat's key
	Doubt  error                 // why it says nothing of that, or it is not to be believed
	Etcd   *apiv1.EtcdResponse   // how its etcd is; nil: its release has none, or nobody asked
	Orders []signed.Envelope     // about seats, that it has; which of them count is not looked at
}

// seeLimit is how long one node is waited for when all are asked how they are: a person waits
// for the slowest.
const seeLimit = 5 * time.Second

// see asks nodes how they are, a few at a time. It returns what each said, in the order of the
// names.
func see(ctx context.Context, k *keyring.Keyring, names []string, tell func(Notice)) ([]Sighting, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	all := make([]Sighting, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, seeLimit)
		defer cancel()
		s := Sighting{Node: names[i]}
		n, known := nodes[s.Node]
		if !known {
			s.Err = keyring.ErrNoNode
			all[i] = s
			return
		}
		r := Remote{Keys: k, Name: s.Node, Address: n.Address, Tell: tell}
		s.Err = r.Call(limited, func(ctx context.Context, c *api.Client) error {
			answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
			if err != nil {
				return err
			}
			s.Status = answer.Msg
			if s.Part, s.Doubt = applicant(ctx, k, c, r); s.Doubt == nil {
				s.Doubt = s.Part.sound()
			}
			etcd, err := c.Etcd(ctx, connect.NewRequest(&apiv1.EtcdRequest{}))
			if err == nil {
				s.Etcd = etcd.Msg
			} else if connect.CodeOf(err) != connect.CodeUnimplemented {
				return err
			}
			s.Orders, err = seeOrders(ctx, c)
			return err
		})
		all[i] = s
	})
	return all, nil
}

// Survey asks all nodes how they are that have a seat or that this computer knows, and first
// takes the records of the ledger into the fleet's folder that one of them has more. The state is
// without the operators whom this folder knows as revoked. The error is of this computer's files,
// or wraps [ErrFork].
func Survey(ctx context.Context, k *keyring.Keyring, tell func(Notice)) (ledger.State, []Sighting, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return ledger.State{}, nil, err
	}
	for {
		l, _, err := Ledger(k)
		if err != nil {
			return ledger.State{}, nil, err
		}
		names := slices.Collect(maps.Keys(nodes))
		for _, seat := range l.State().Roster.Seats {
			names = append(names, seat.Name)
		}
		slices.Sort(names)
		seen, err := see(ctx, k, slices.Compact(names), tell)
		if err != nil {
			return ledger.State{}, nil, err
		}
		var ahead []string
		for _, s := range seen {
			if s.Part.Height > l.State().Height {
				ahead = append(ahead, s.Node)
			}
		}
		if len(ahead) > 0 {
			if _, err := Gather(ctx, k, ahead, tell); err != nil {
				return ledger.State{}, nil, err
			}
			if grown, _, err := Ledger(k); err == nil && grown.State().Height > l.State().Height {
				continue
			}
		}
		revoked, err := k.RevokedKeys()
		return l.State().Without(func(key string) bool { return slices.Contains(revoked, key) }), seen, err
	}
}

// Standing is how a node stands in its fleet.
type Standing string

// The standings, from the best to the worst.
const (
	StandingGood   Standing = "good"
	StandingTrial  Standing = "trial"  // it runs a release that has not proven itself
	StandingBehind Standing = "behind" // it lacks records of the ledger
	standingAway   Standing = "away"   // it does not answer, and is not to
	StandingSick   Standing = "sick"   // something of it does not work
	standingOut    Standing = "isolated"
	StandingDoubt  Standing = "doubt"  // what it says of itself does not count
	StandingSilent Standing = "silent" // it does not answer this computer
)

// Health is how a fleet is, as far as one computer sees.
type Health struct {
	Votes, Quorum, Liars int
	// Answering is how many of the votes answer and count.
	Answering int
	Nodes     []NodeHealth // those with a seat by number, then the others by name
	Etcd      EtcdHealth
	Orders    order.Standing // about seats
	Problems  []Problem      // the gravest first
}

// EtcdHealth is how the fleet's etcd is: as most of the members say that answer and count.
type EtcdHealth struct {
	Leader            int // seat; 0: nobody leads, or nobody says so
	Members, Learners []int
}

// NodeHealth is how one node of a fleet is.
type NodeHealth struct {
	Node     string
	Seat     roster.Seat // the zero one: it has none
	Standing Standing
	Release  string // "" where it did not answer
	Slot     string
	Board    string
	Height   int64         // of its ledger
	Up       time.Duration // since it booted; 0: not known
	Order    string        // what operators have ordered about its seat; "": nothing
	// Admitted is how it came into the fleet, in the words of package admission; "": nobody asked.
	Admitted string
	// What others know of it, if one of them was asked: whether it has a lease ("": not known), and
	// how long ago its status came to the one that was asked (negative: not known).
	Lease string
	Said  time.Duration
}

// Answers says whether the node answers this computer.
func (n NodeHealth) Answers() bool {
	return n.Standing != StandingSilent && n.Standing != standingAway
}

// Counts says whether the node answers this computer, and what it says may be asked for.
func (n NodeHealth) Counts() bool {
	return n.Answers() && n.Standing != StandingDoubt && n.Standing != standingOut
}

// Problem is something that is wrong in a fleet, and what can be done about it. Its words may
// hold what a node said.
type Problem struct {
	Node string // "": it is of the whole fleet
	What string
	Do   string
}

// Spare is how many more votes may fail; negative: so many lack for a decision.
func (h Health) Spare() int { return h.Answering - h.Quorum }

// Whole says whether nothing is wrong.
func (h Health) Whole() bool { return len(h.Problems) == 0 }

// Judge says how a fleet is, by its ledger and by what nodes said. Those that have no seat are
// a part of it, too. A seat whose node is not among the sightings counts as silent. That a node is
// silent which is away on purpose is nothing wrong. Votes that are isolated do not count as ones
// that answer: nobody asks them.
func Judge(s ledger.State, seen []Sighting, now time.Time) Health {
	h := Health{Votes: s.Roster.Votes(), Quorum: s.Roster.Quorum(), Liars: s.Roster.Liars(), Orders: order.Decide(s, ordersOf(seen), now)}
	if s.Height == 0 {
		h.Votes, h.Quorum, h.Liars = 0, 0, 0
	}
	said := make(map[string]Sighting)
	for _, one := range seen {
		said[one.Node] = one
	}
	var graver [5][]Problem // by rank
	add := func(rank int, p ...Problem) { graver[rank] = append(graver[rank], p...) }
	holders, away := make(map[signed.Key]string), 0
	note := func(node string, seat roster.Seat) {
		one, asked := said[node]
		if !asked {
			one = Sighting{Node: node, Err: keyring.ErrNoNode}
		}
		if key := one.Part.Key; key != "" && one.Doubt == nil {
			if other, twice := holders[key]; twice {
				one.Doubt = fmt.Errorf("its key is node %s's, too: one of their disks is a copy of the other's", other)
			}
			holders[key] = node
		}
		n, wrong := judge(one, seat, s.Height)
		n, wrong = obeyed(n, wrong, h.Orders)
		h.Nodes = append(h.Nodes, n)
		if seat.Vote && rankOf(n.Standing) != 1 && rankOf(n.Standing) != 2 && n.Standing != standingAway {
			h.Answering++
		}
		if seat.Vote && n.Standing == standingAway {
			away++
		}
		add(rankOf(n.Standing), wrong...)
		if one.Etcd.GetLacksCa() && n.Standing != StandingDoubt {
			add(4, Problem{node, "it does not hold the node CA's key: it lets no node in, and renews none", "kogge fleet found --all-adopted gives it, on the computer that has that key"})
		}
	}
	for _, seat := range s.Roster.Seats {
		note(seat.Name, seat)
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if _, seated := s.Roster.ByName(name); !seated {
			note(name, roster.Seat{})
		}
	}
	var wrong []Problem
	if h.Etcd, wrong = judgeEtcd(s, h.Nodes, said); s.Height > 0 {
		add(0, wrong...)
	}
	add(1, tooMany(h.Orders)...)
	switch spare := h.Spare(); {
	case s.Height == 0:
		add(0, Problem{What: "the fleet is not founded: its nodes decide nothing together", Do: "kogge help fleets tells how it is founded"})
	case spare < 0:
		add(0, Problem{What: fmt.Sprintf("%d of %d votes answer, and %d decide: the fleet decides nothing. Its nodes go on as they are", h.Answering, h.Votes, h.Quorum),
			Do: fmt.Sprintf("bring %d more of the nodes back that are named here", -spare)})
	case spare == 0 && h.Votes > h.Quorum+away:
		add(0, Problem{What: fmt.Sprintf("%d of %d votes answer, and as many decide: if one more fails, the fleet decides nothing", h.Answering, h.Votes),
			Do: "bring the nodes back that are named here"})
	}
	h.Problems = slices.Concat(graver[:]...)
	return h
}

// judgeEtcd says how the fleet's etcd is, by what nodes say that count. A fleet goes on without
// it: records and ballots travel from node to node.
func judgeEtcd(s ledger.State, nodes []NodeHealth, said map[string]Sighting) (EtcdHealth, []Problem) {
	var h EtcdHealth
	var wrong []Problem
	leaders, knows := make(map[int]int), 0
	var lost []NodeHealth // their etcd knows of no leader
	for _, n := range nodes {
		e := said[n.Node].Etcd
		if e == nil || n.Standing == StandingDoubt || n.Standing == StandingSilent || !n.Seat.Member && !n.Seat.Spare {
			continue
		}
		knows++
		if e.Problem != "" {
			wrong = append(wrong, Problem{n.Node, "its etcd: " + e.Problem, "kogge node logs etcd --node " + n.Node + " says more"})
		}
		if !e.Running {
			continue
		}
		if e.Leader == 0 {
			if n.Standing != standingOut {
				lost = append(lost, n)
			}
			continue
		}
		if leaders[int(e.Leader)]++; leaders[int(e.Leader)] > leaders[h.Leader] {
			h = EtcdHealth{Leader: int(e.Leader), Members: numbers(e.Members), Learners: numbers(e.Learners)}
		}
		if len(e.Full) > 0 && h.Leader == n.Seat.Number {
			wrong = append(wrong, Problem{"", fmt.Sprintf("etcd takes no writes: it is full on %s", names(s, numbers(e.Full))), "it makes room by itself within minutes; if not, kogge node logs etcd --node " + n.Node + " says why"})
		}
	}
	for _, n := range lost {
		if h.Leader != 0 && h.Leader != n.Seat.Number { // who was elected just now may not have said so
			wrong = append(wrong, Problem{n.Node, "its etcd does not reach the one that leads", "kogge node logs etcd --node " + n.Node + " says more"})
		}
	}
	switch wanted := membersOf(s); {
	case knows == 0:
	case h.Leader == 0:
		wrong = append(wrong, Problem{"", "etcd has no leader: what nodes say of themselves travels more slowly", withoutLeader(s, nodes, said)})
	case len(h.Members) < len(wanted):
		wrong = append(wrong, Problem{"", fmt.Sprintf("etcd has %d of %d members: %s", len(h.Members), len(wanted), names(s, h.Members)), withoutAll(s)})
	}
	return h, wrong
}

// withoutAll is what to do about an etcd with a leader and too few members.
func withoutAll(s ledger.State) string {
	if slices.ContainsFunc(s.Roster.Seats, func(seat roster.Seat) bool { return seat.Spare }) {
		return "a node that is silent for the grace period is replaced by a spare; or bring the others back"
	}
	return "bring the others back: the fleet has no spare that could take a place"
}

// withoutLeader is what to do about an etcd without a leader: it lacks those who are on the list of
// one that runs it, and do not. Where none runs it, they are those who are to.
func withoutLeader(s ledger.State, nodes []NodeHealth, said map[string]Sighting) string {
	var listed []int
	running := make(map[int]bool)
	for _, n := range nodes {
		if e := said[n.Node].Etcd; e != nil && e.Running && n.Answers() && n.Standing != StandingDoubt && n.Seat.Number != 0 {
			listed = append(listed, numbers(e.Members)...)
			running[n.Seat.Number] = true
		}
	}
	if len(listed) == 0 {
		listed = membersOf(s)
	}
	slices.Sort(listed)
	listed = slices.Compact(listed)
	down := slices.DeleteFunc(slices.Clone(listed), func(seat int) bool { return running[seat] })
	if len(down) == 0 {
		return fmt.Sprintf("all that run it answer this computer: if they have none in a minute, kogge node logs etcd --node %s says what it waits for", names(s, listed[:1]))
	}
	return fmt.Sprintf("bring back %s; if too many are lost for good, kogge help members-lost", names(s, down))
}

// membersOf are the seats that are to run etcd.
func membersOf(s ledger.State) (seats []int) {
	for _, seat := range s.Roster.Seats {
		if seat.Member {
			seats = append(seats, seat.Number)
		}
	}
	return seats
}

func numbers(all []int32) (seats []int) {
	for _, n := range all {
		seats = append(seats, int(n))
	}
	return seats
}

// names are the nodes of seats, for people.
func names(s ledger.State, seats []int) string {
	var all []string
	for _, n := range seats {
		if seat, ok := s.Roster.Seat(n); ok {
			all = append(all, seat.Name)
		} else {
			all = append(all, fmt.Sprintf("seat %d", n))
		}
	}
	return strings.Join(all, ", ")
}

// rankOf is how grave it is that a node stands like this: 1 is the gravest, and 0 is of the
// whole fleet.
func rankOf(s Standing) int {
	return map[Standing]int{StandingDoubt: 1, StandingSilent: 2, standingOut: 2, StandingSick: 3, StandingBehind: 4, StandingTrial: 4}[s]
}

// obeyed is how a node is, and what is wrong with it, in the light of what operators have ordered
// about its seat.
func obeyed(n NodeHealth, wrong []Problem, all order.Standing) (NodeHealth, []Problem) {
	if n.Seat.Key == "" {
		return n, wrong
	}
	if a, is := all.Absence(n.Seat.Key); is {
		n.Order = a.String()
		if n.Standing == StandingSilent && a.State == order.Away {
			n.Standing, wrong = standingAway, nil
		}
	}
	if i, is := all.Isolates(n.Seat.Key); is {
		n.Order, n.Standing = i.String(), standingOut
		wrong = append(wrong, Problem{n.Node, "it is " + i.String(), "kogge fleet rejoin " + n.Node + ", once it can be trusted again"})
	}
	return n, wrong
}

// tooMany says which seats are to be isolated, and are not.
func tooMany(all order.Standing) (wrong []Problem) {
	for _, i := range all.Beyond {
		wrong = append(wrong, Problem{i.Seat.Name, "it is to be " + i.String() + ". That does not count: " + i.Doubt,
			"kogge fleet isolate " + i.Seat.Name + " --sheet FILE, by which the owner permits it, or kogge fleet rejoin for another one"})
	}
	return wrong
}

// judge says how one node is. highest is the height of the fleet's ledger.
func judge(one Sighting, seat roster.Seat, highest int64) (NodeHealth, []Problem) {
	n := NodeHealth{Node: one.Node, Seat: seat, Standing: StandingGood}
	is := func(standing Standing, do, format string, args ...any) (NodeHealth, []Problem) {
		n.Standing = standing
		return n, []Problem{{Node: one.Node, What: fmt.Sprintf(format, args...), Do: do}}
	}
	more := "kogge node status " + one.Node + " says more"
	switch {
	case errors.Is(one.Err, keyring.ErrNoNode):
		return is(StandingSilent, "kogge node find lists who is in reach, and kogge node adopt ADDRESS remembers it here", "this computer does not know its address")
	case errors.Is(one.Err, ErrNotTheSeat), errors.Is(one.Err, api.ErrOtherKey):
		return is(StandingDoubt, resetHint, "%s", said(one.Err))
	case one.Err != nil:
		return is(StandingSilent, "is it on, and in reach of this computer? "+more+" once it answers", "it does not answer: %s", said(one.Err))
	}
	n.Release, n.Slot, n.Board, n.Height = one.Status.GetBoot().GetVersion(), one.Status.GetBoot().GetSlot(), one.Status.GetBoot().GetBoard(), one.Part.Height
	n.Up = time.Duration(min(max(0, one.Status.GetUptimeSeconds()), math.MaxInt32)) * time.Second
	switch older := connect.CodeOf(one.Doubt) == connect.CodeUnimplemented; {
	case one.Doubt != nil && older && highest > 0:
		return is(StandingDoubt, "kogge node update "+one.Node+" brings it a newer one", "its release, %s, knows no ledger", cmp.Or(n.Release, "?"))
	case errors.Is(one.Doubt, ErrUnsound):
		return is(StandingDoubt, "kogge fleet found --all-adopted gives it the records again that it cannot read; of two histories kogge help fleets tells", "%s", said(one.Doubt))
	case one.Doubt != nil && !older:
		return is(StandingDoubt, "kogge ledger verify --node "+one.Node+" says more", "it says nothing that counts of its part in the fleet: %s", said(one.Doubt))
	case seat.Key != "" && one.Part.Key != seat.Key:
		return is(StandingDoubt, resetHint,
			"it shows the key %s, and its seat's is %s", one.Part.Key.ID().Short(), seat.Key.ID().Short())
	case seat.Key != "" && one.Part.Journal != seat.Journal:
		return is(StandingDoubt, "its vote journal was lost: it needs a new seat", "it has the journal %s, and its seat's is %s", one.Part.Journal, seat.Journal)
	}
	var sick []string
	for _, d := range one.Status.GetDegraded() {
		sick = append(sick, d.GetWhat()+": "+d.GetWhy())
	}
	if b := one.Status.GetBoot(); b.GetAssessment() == "bad" {
		sick = append(sick, "its boot is bad: "+b.GetWhy())
	}
	switch {
	case len(sick) > 0:
		return is(StandingSick, more, "%s", strings.Join(sick, "; "))
	case n.Height > highest:
		return is(StandingDoubt, "kogge ledger verify --node "+one.Node+" says more", "it has %d records of the ledger, and shows no proof of those behind record %d", n.Height, highest)
	case n.Height < highest:
		return is(StandingBehind, "kogge fleet found --all-adopted gives the records out again", "it has %d of %d records of the ledger", n.Height, highest)
	case one.Status.GetBoot().GetTrial() && one.Status.GetBoot().GetAssessment() != "good":
		return is(StandingTrial, more, "it tries release %s", cmp.Or(n.Release, "?"))
	}
	return n, nil
}

const resetHint = "if its STATE was lost or reset, it needs a new seat, and kogge node adopt ADDRESS takes it as it is; if not, somebody else answers in its name"

// said is what an error says, without the name of its code.
func said(err error) string {
	var c *connect.Error
	if errors.As(err, &c) {
		return c.Message()
	}
	return err.Error()
}

// maxOrders is how many orders of one node are looked at: more than there are seats, twice.
const maxOrders = 2 * roster.MaxSeats

// seeOrders asks a node for the orders that it has; none, if its release knows of none.
func seeOrders(ctx context.Context, c *api.Client) (all []signed.Envelope, err error) {
	answer, err := c.Orders(ctx, connect.NewRequest(&apiv1.OrdersRequest{}))
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, raw := range answer.Msg.Envelopes[:min(len(answer.Msg.Envelopes), maxOrders)] {
		if e, err := signed.Parse(raw); err == nil { // what counts is seen later
			all = append(all, e)
		}
	}
	return all, nil
}

// ordersOf are all orders that nodes have told of.
func ordersOf(seen []Sighting) (all []signed.Envelope) {
	for _, one := range seen {
		all = append(all, one.Orders...)
	}
	return order.Distinct(all)
}
