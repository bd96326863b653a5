// Package hearsay is what one node of a fleet knows of the others: their own signed words, and who
// has a lease by the word of a node that runs etcd. By it an operator sees nodes that his computer
// does not reach.
//
// In come answers of nodes and the ledger's state; out goes a [Board]. No node is believed about
// another but for the leases, from which nothing follows. How nodes are called is the caller's.
package hearsay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// Board is what one node of a fleet knows of the others: what their seats have signed, and,
// by the word of a node that runs etcd, who has a lease there.
type Board struct {
	From    string // the node that was asked; "": none answered
	Gateway int    // seat through which it reaches etcd; 0: it does not
	Problem string // why not; a node's words
	// Heard is how long ago etcd said something to it, and Listed that it knew all leases;
	// negative: never.
	Heard, Listed time.Duration
	Words         map[signed.Key]Word // by the keys of seats
	Refused       int                 // objects that count for nothing
}

// Word is what a seat has said last.
type Word struct {
	Record *notice.Node   // what it is; nil: it has not said
	Status *notice.Status // how it is; nil: it has not said
	Age    time.Duration  // of the status, since it came to the node that was asked; negative: not known
	Lease  Lease
}

// Lease says whether a seat has a lease: whether its node has said to etcd, not long ago, that it
// lives.
type Lease string

// What is known of a lease.
const (
	LeaseHeld    Lease = "held"
	LeaseNone    Lease = "none"
	LeaseUnknown Lease = "unknown"
)

// Call makes calls to a node by its name.
type Call func(ctx context.Context, node string, do func(context.Context, apiv1connect.FleetServiceClient) error) error

// Ear is who listens. It remembers what it has verified, so that to listen again costs little. The zero
// one has heard nothing. It is used from one goroutine.
type Ear struct {
	verified map[document.Hash]signed.Envelope // by the hash of the bytes
}

// most is how many nodes are asked: where etcd is down, all of them know no more than these.
const most = 5

// ask are the nodes that are asked, in that order: first those that run etcd, or may.
func ask(s ledger.State, nodes []string) []string {
	class := func(name string) int {
		switch seat, _ := s.Roster.ByName(name); {
		case seat.Member:
			return 0
		case seat.Spare:
			return 1
		}
		return 2
	}
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b string) int { return cmp.Compare(class(a), class(b)) })
	return nodes[:min(len(nodes), most)]
}

// Read asks some of the nodes, one after the other, what they know of the others, until one answers
// that reaches etcd; else it is what the one said that did last. Each object counts only if the
// seat that the ledger lists has signed it.
func (e *Ear) Read(ctx context.Context, s ledger.State, nodes []string, call Call) (Board, error) {
	best := Board{Heard: -1, Listed: -1}
	for _, name := range ask(s, nodes) {
		var b Board
		err := call(ctx, name, func(ctx context.Context, c apiv1connect.FleetServiceClient) (err error) {
			b, err = e.read(ctx, c, s)
			return err
		})
		if err != nil { // its release has no notices, or it has gone: others may answer
			continue
		}
		if b.From = name; b.Gateway != 0 {
			return b, nil
		}
		if best.From == "" || b.Listed >= 0 && (best.Listed < 0 || b.Listed < best.Listed) {
			best = b
		}
	}
	return best, ctx.Err()
}

func (e *Ear) read(ctx context.Context, c apiv1connect.FleetServiceClient, s ledger.State) (Board, error) {
	stream, err := c.Notices(ctx, connect.NewRequest(&apiv1.NoticesRequest{}))
	if err != nil {
		return Board{}, err
	}
	defer stream.Close()
	b := Board{Words: make(map[signed.Key]Word)}
	for first := true; stream.Receive(); first = false {
		m := stream.Msg()
		if first {
			b.Gateway, b.Problem, b.Heard, b.Listed = int(m.Gateway), m.Problem, ago(m.HeardMillis), ago(m.ListedMillis)
		}
		for _, n := range m.Notices {
			if !b.take(n, s, e.open) {
				b.Refused++
			}
		}
		if b.Refused > len(s.Roster.Seats)+100 {
			return Board{}, errors.New("the node says what counts for nothing, without end")
		}
	}
	if err := stream.Err(); err != nil {
		return Board{}, err
	}
	return b, nil
}

// open is an envelope that is verified, by a key that the fleet's state lists.
func (e *Ear) open(raw []byte, s ledger.State) (signed.Envelope, error) {
	sum := document.HashOf(raw)
	if known, ok := e.verified[sum]; ok {
		return known, nil
	}
	one, err := signed.Parse(raw)
	if err != nil {
		return signed.Envelope{}, err
	}
	if _, listed := s.Roster.ByKey(one.By); !listed || one.Fleet != s.Fleet() {
		return signed.Envelope{}, errForeign
	}
	if err := one.Verify(); err != nil {
		return signed.Envelope{}, err
	}
	if e.verified == nil || len(e.verified) > 8*len(s.Roster.Seats) { // of words that are old by now
		e.verified = make(map[document.Hash]signed.Envelope)
	}
	e.verified[sum] = one
	return one, nil
}

var errForeign = errors.New("it is of no seat of the fleet")

// take takes an object if it counts.
func (b *Board) take(n *apiv1.Notice, s ledger.State, open func([]byte, ledger.State) (signed.Envelope, error)) bool {
	e, err := open(n.Envelope, s)
	if err != nil {
		return false
	}
	if _, listed := s.Roster.ByKey(e.By); !listed {
		return false
	}
	w, known := b.Words[e.By]
	if !known {
		w.Age = -1
	}
	switch e.Kind {
	case notice.NodeKind:
		record, err := notice.OpenNode(e)
		if err != nil {
			return false
		}
		w.Record = &record
	case notice.StatusKind:
		status, err := notice.OpenStatus(e)
		if err != nil {
			return false
		}
		w.Status, w.Age = &status, ago(n.AgeMillis)
	default:
		return false
	}
	w.Lease = map[apiv1.Lease]Lease{apiv1.Lease_LEASE_HELD: LeaseHeld, apiv1.Lease_LEASE_NONE: LeaseNone}[n.Lease]
	if w.Lease == "" {
		w.Lease = LeaseUnknown
	}
	b.Words[e.By] = w
	return true
}

// ago is a time as the contract has it.
func ago(millis int64) time.Duration {
	const longest = 1 << 50 // milliseconds, so that it fits
	if millis < 0 || millis > longest/1000 {
		return -1
	}
	return time.Duration(millis) * time.Millisecond
}

// homely is how long after a boot a node has found its fleet, if nothing is in the way.
const homely = 5 * time.Minute

// Pin adds to what a computer sees of a fleet what one of its nodes knows of the others: of a node
// that does not answer the computer, what it said last to its fleet, and whether the fleet still
// hears of it; and which node answers the computer and does not reach its fleet.
func (b Board) Pin(h *operate.Health) {
	silent := make(map[string]string) // what is heard of those
	var cut []operate.Problem
	for i := range h.Nodes {
		n := &h.Nodes[i]
		w, ok := b.Words[n.Seat.Key]
		if !ok {
			n.Lease, n.Said = string(LeaseUnknown), -1
			continue
		}
		n.Lease, n.Said = string(w.Lease), w.Age
		if n.Standing != operate.StandingSilent {
			if w.Lease == LeaseNone && b.Now() && n.Up >= homely && n.Node != b.From && counts(n.Standing) {
				cut = append(cut, operate.Problem{Node: n.Node, What: fmt.Sprintf("%s hears nothing of it: it answers this computer, and does not reach its fleet", b.From),
					Do: "kogge node status " + n.Node + " shows its links, and kogge node logs agent --node " + n.Node + " whom it calls"})
			}
			continue
		}
		silent[n.Node] = b.heardOf(w)
		if w.Record != nil {
			for _, slot := range w.Record.Slots {
				if slot.Running {
					n.Release, n.Slot = slot.Release, slot.Name
				}
			}
		}
		if w.Status != nil {
			n.Height = w.Status.Height
		}
	}
	for i, p := range h.Problems {
		h.Problems[i].What += silent[p.Node]
	}
	h.Problems = append(h.Problems, cut...)
}

// counts says whether the fleet is to hear of a node that stands so.
func counts(s operate.Standing) bool {
	return s == operate.StandingGood || s == operate.StandingTrial || s == operate.StandingBehind || s == operate.StandingSick
}

// Now says whether the node that was asked knows the leases as they are, and not as they were.
func (b Board) Now() bool { return b.Gateway != 0 && b.Listed == 0 }

// heardOf is what the fleet hears of a node that does not answer. A node that dies keeps its lease for a
// while.
func (b Board) heardOf(w Word) string {
	switch {
	case w.Lease == LeaseUnknown || w.Lease == "":
		return ""
	case w.Lease == LeaseHeld && b.Now():
		return fmt.Sprintf("; its lease has not run out: the fleet has heard of it within the last two minutes, as %s sees it", b.From)
	case w.Lease == LeaseHeld && b.Listed >= 0:
		return fmt.Sprintf("; when %s knew of all leases last, %s ago, its lease was kept", b.From, b.Listed.Truncate(time.Second))
	case w.Lease == LeaseHeld:
		return fmt.Sprintf("; when %s heard of it last, its lease was kept", b.From)
	case b.Now():
		return fmt.Sprintf("; %s hears nothing of it either", b.From)
	case b.Listed >= 0:
		return fmt.Sprintf("; when %s knew of all leases last, %s ago, it had none", b.From, b.Listed.Truncate(time.Second))
	}
	return fmt.Sprintf("; when %s heard of it last, it had no lease", b.From)
}

// Leases is how many seats have leases, of how many of which that is known.
func (b Board) Leases() (held, known int) {
	for _, w := range b.Words {
		switch w.Lease {
		case LeaseHeld:
			held++
			known++
		case LeaseNone:
			known++
		}
	}
	return held, known
}
