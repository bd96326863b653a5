package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
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

// ReadBoard asks nodes, one after the other, what they know of the others, until one answers that
// reaches etcd; else it is what the last one said. Each object counts only if the seat that the
// ledger lists has signed it.
func ReadBoard(ctx context.Context, k *keyring.Keyring, s ledger.State, names []string, tell func(Notice)) (Board, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return Board{}, err
	}
	best := Board{Heard: -1, Listed: -1}
	for _, name := range names {
		n, known := nodes[name]
		if !known {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, callLimit)
		r := Remote{Keys: k, Name: name, Address: n.Address, Tell: tell}
		var b Board
		err := r.Call(limited, func(ctx context.Context, c *api.Client) (err error) {
			b, err = readBoard(ctx, c, s)
			return err
		})
		cancel()
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

func readBoard(ctx context.Context, c *api.Client, s ledger.State) (Board, error) {
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
			if !b.take(n, s) {
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

// take takes an object if it counts.
func (b *Board) take(n *apiv1.Notice, s ledger.State) bool {
	e, err := signed.Open(n.Envelope)
	if err != nil || e.Fleet != s.Fleet() {
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

// Pin adds to what this computer sees of a fleet what one of its nodes knows of the others: of a
// node that does not answer this computer, what it said last to its fleet, and whether the fleet
// still hears of it.
func (h *Health) Pin(b Board) {
	h.Board = &b
	for i, n := range h.Nodes {
		w, ok := b.Words[n.Seat.Key]
		if !ok || n.Seat.Key == "" {
			h.Nodes[i].Lease, h.Nodes[i].Said = LeaseUnknown, -1
			continue
		}
		h.Nodes[i].Lease, h.Nodes[i].Said = w.Lease, w.Age
		if n.Standing != StandingSilent {
			continue
		}
		if w.Record != nil {
			for _, slot := range w.Record.Slots {
				if slot.Running {
					h.Nodes[i].Release, h.Nodes[i].Slot = slot.Release, slot.Name
				}
			}
		}
		if w.Status != nil {
			h.Nodes[i].Height = w.Status.Height
		}
	}
	for i, p := range h.Problems {
		for _, n := range h.Nodes {
			if p.Node == n.Node && n.Standing == StandingSilent {
				h.Problems[i].What += heardOf(n, b)
			}
		}
	}
}

// heardOf is what the fleet knows of a node that does not answer this computer.
func heardOf(n NodeHealth, b Board) string {
	switch n.Lease {
	case LeaseHeld:
		if b.Gateway == 0 {
			return fmt.Sprintf("; when %s heard of it last, its lease was kept", b.From)
		}
		return fmt.Sprintf("; %s hears of it, so the fleet reaches it and this computer does not", b.From)
	case LeaseNone:
		return fmt.Sprintf("; %s hears nothing of it either", b.From)
	}
	return ""
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
