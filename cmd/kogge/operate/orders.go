package operate

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Command is an order about a seat that is being given: what it is about, and what it would come
// to beside those that nodes have.
type Command struct {
	State  ledger.State
	Seat   roster.Seat
	Number uint64

	sealed signed.Envelope // once it is
	keys   *keyring.Keyring
	others []signed.Envelope // that nodes have
	nodes  []string          // who have a seat
}

// Why an order is not given.
var (
	ErrNoSeat = errors.New("the node has no seat in the fleet's ledger")
	// ErrBeyond is of an isolation that would take no effect without the owner.
	ErrBeyond = errors.New("operators alone may not isolate so many")
)

// Prepare asks all nodes which orders they have, so that a new one of a kind about a node follows
// on them. The error wraps [ErrNoSeat] where nothing can be ordered about the node.
func Prepare(ctx context.Context, k *keyring.Keyring, kind, node string, tell func(Notice)) (*Command, error) {
	s, seen, err := Survey(ctx, k, tell)
	if err != nil {
		return nil, err
	}
	seat, ok := s.Roster.ByName(node)
	if !ok {
		return nil, fmt.Errorf("node %s: %w", node, ErrNoSeat)
	}
	c := &Command{State: s, Seat: seat, keys: k, others: ordersOf(seen)}
	c.Number = order.Number(s, c.others, kind) + 1
	for _, seat := range s.Roster.Seats {
		c.nodes = append(c.nodes, seat.Name)
	}
	return c, nil
}

// Fleet is the fleet's id, as owners sign it.
func (c *Command) Fleet() document.Hash { return c.State.Fleet() }

// Seal signs the order. The error wraps [ErrBeyond] where it would isolate a seat, and does not
// count beside those that are given.
func (c *Command) Seal(o order.Order, now time.Time) error {
	key, ok := c.keys.Certificate().PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("the operator's key is none that signs orders")
	}
	e, err := order.Seal(c.Fleet(), key, c.Number, o)
	if err == nil {
		err = order.Check(c.State, e)
	}
	if err != nil {
		return err
	}
	c.sealed = e
	standing := order.Decide(c.State, append(slices.Clone(c.others), e), now)
	for _, one := range standing.Beyond {
		if one.Seat.Key == c.Seat.Key {
			return fmt.Errorf("node %s: %w: %s", one.Seat.Name, ErrBeyond, one.Doubt)
		}
	}
	return nil
}

// Give brings the sealed order to all nodes that have a seat, the one that it is about included, and
// returns how each took it, in the order of their seats. One of them is enough: they pass it on.
func (c *Command) Give(ctx context.Context, tell func(Notice)) ([]Told, error) {
	nodes, err := Nodes(c.keys)
	if err != nil {
		return nil, err
	}
	all := make([]Told, len(c.nodes))
	each(len(c.nodes), func(i int) {
		limited, cancel := context.WithTimeout(ctx, seeLimit)
		defer cancel()
		all[i].Node = c.nodes[i]
		n, known := nodes[c.nodes[i]]
		if !known {
			all[i].Err = keyring.ErrNoNode
			return
		}
		all[i].Err = Remote{Keys: c.keys, Name: c.nodes[i], Address: n.Address, Tell: tell}.Call(limited, func(ctx context.Context, a *api.Client) error {
			_, err := a.Order(ctx, connect.NewRequest(&apiv1.OrderRequest{Envelope: c.sealed.Bytes()}))
			return err
		})
	})
	return all, nil
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

// ordersOf are all orders that nodes have told of, each once.
func ordersOf(seen []Sighting) (all []signed.Envelope) {
	known := make(map[document.Hash]bool)
	for _, one := range seen {
		for _, e := range one.Orders {
			if id := document.HashOf(e.Message()); !known[id] {
				known[id] = true
				all = append(all, e)
			}
		}
	}
	return all
}
