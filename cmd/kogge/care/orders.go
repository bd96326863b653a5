// Package care is what an operator does for a fleet as a whole: orders about its seats, copies of
// its etcd and ledger, and etcd's beginning anew.
//
// In come an operator's keyring, and what nodes say; out go orders and leaves that are signed, calls
// of the API, and files. What may be ordered is update/fleet/order's to say, and who may sign the
// keyring's. The package prints nothing and asks nobody.
package care

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
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

	sealed     signed.Envelope // once it is
	generation int64           // of the newest etcd that a node has told of, or that was ordered
	keys       *keyring.Keyring
	others     []signed.Envelope // that nodes have
	nodes      []string          // who have a seat
}

// Why an order is not given.
var (
	ErrNoSeat = errors.New("the node has no seat in the fleet's ledger")
	// ErrBeyond is of an isolation that would take no effect without the owner.
	ErrBeyond = errors.New("operators alone may not isolate so many")
	// ErrNewer is of an order in whose place nodes follow another one.
	ErrNewer = errors.New("nodes follow another order about it")
	// ErrUnkept is of a node that follows an order, and whose disk does not keep it.
	ErrUnkept = errors.New("it follows the order until its agent starts anew")
)

// Prepare asks all nodes which orders they have, so that a new one of a kind about a node follows
// on them. The error wraps [ErrNoSeat] where nothing can be ordered about the node.
func Prepare(ctx context.Context, k *keyring.Keyring, kind, node string, tell func(operate.Notice)) (*Command, error) {
	s, seen, err := operate.Survey(ctx, k, tell)
	if err != nil {
		return nil, err
	}
	seat, ok := s.Roster.ByName(node)
	if !ok {
		return nil, fmt.Errorf("node %s: %w", node, ErrNoSeat)
	}
	c := &Command{State: s, Seat: seat, keys: k, others: ordersOf(seen)}
	for _, one := range seen {
		c.generation = max(c.generation, int64(one.Etcd.GetGeneration()))
	}
	c.generation = max(c.generation, int64(order.Decide(s, c.others, time.Now()).Generation)) // who has begun it may be off
	c.Number = order.Number(s, c.others, kind) + 1
	for _, seat := range s.Roster.Seats {
		c.nodes = append(c.nodes, seat.Name)
	}
	return c, nil
}

// Fleet is the fleet's id, as owners sign it.
func (c *Command) Fleet() document.Hash { return c.State.Fleet() }

// Seal signs the order. The error is [Command.Counts]'.
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
	return c.Counts(now)
}

// Counts says why the sealed order takes no effect beside those that are given, as far as nodes have
// told: at first when they were asked which they have, and after [Command.Give] when they had been
// given this one. The error wraps [ErrBeyond] or [ErrNewer].
func (c *Command) Counts(now time.Time) error {
	if by, is := order.Displaced(c.State, c.others, c.sealed); is {
		who := "somebody"
		if key, ok := by.By.Operator(); ok {
			if o, listed := c.State.Operator(key); listed {
				who = o.Name
			}
		}
		return fmt.Errorf("node %s: %w: by %s, number %d, and this one has %d", c.Seat.Name, ErrNewer, who, by.Sequence, c.sealed.Sequence)
	}
	standing := order.Decide(c.State, append(slices.Clone(c.others), c.sealed), now)
	for _, one := range standing.Beyond {
		if one.Seat.Key == c.Seat.Key {
			return fmt.Errorf("node %s: %w: %s", one.Seat.Name, ErrBeyond, one.Doubt)
		}
	}
	return nil
}

// Give brings the sealed order to all nodes that have a seat, the one that it is about included, and
// returns how each took it, in the order of their seats. One of them is enough: they pass it on.
// Those that answer are asked, too, which orders they have now: a node that says that it knows a newer
// one has to show it ([Command.Counts]). The error of one that follows the order and does not keep it
// wraps [ErrUnkept].
func (c *Command) Give(ctx context.Context, tell func(operate.Notice)) ([]operate.Told, error) {
	nodes, err := operate.Nodes(c.keys)
	if err != nil {
		return nil, err
	}
	all, has := make([]operate.Told, len(c.nodes)), make([][]signed.Envelope, len(c.nodes))
	atOnce(len(c.nodes), func(i int) {
		limited, cancel := context.WithTimeout(ctx, giveLimit)
		defer cancel()
		all[i].Node = c.nodes[i]
		n, known := nodes[c.nodes[i]]
		if !known {
			all[i].Err = keyring.ErrNoNode
			return
		}
		all[i].Err = operate.Remote{Keys: c.keys, Name: c.nodes[i], Address: n.Address, Tell: tell}.Call(limited, func(ctx context.Context, a *api.Client) error {
			_, err := a.Order(ctx, connect.NewRequest(&apiv1.OrderRequest{Envelope: c.sealed.Bytes()}))
			switch code := connect.CodeOf(err); {
			case err == nil, code == connect.CodeAborted:
			case code == connect.CodeDataLoss:
				err = fmt.Errorf("%w: %w", ErrUnkept, err)
			default:
				return err
			}
			has[i] = ordersAt(ctx, a)
			return err
		})
	})
	c.others = order.Distinct(append(c.others, slices.Concat(has...)...))
	return all, nil
}

// ordersAt are the orders that a node has now; none, if it does not say. What counts is seen later.
func ordersAt(ctx context.Context, a *api.Client) (all []signed.Envelope) {
	answer, err := a.Orders(ctx, connect.NewRequest(&apiv1.OrdersRequest{}))
	if err != nil {
		return nil
	}
	for _, raw := range answer.Msg.Envelopes[:min(len(answer.Msg.Envelopes), 2*roster.MaxSeats)] {
		if e, err := signed.Parse(raw); err == nil {
			all = append(all, e)
		}
	}
	return all
}

// giveLimit is how long one node is waited for: a person waits for the slowest.
const giveLimit = 5 * time.Second

// atOnce does something for every number below n, a few at a time.
func atOnce(n int, do func(i int)) {
	limit := make(chan struct{}, 16)
	var done sync.WaitGroup
	for i := range n {
		limit <- struct{}{}
		done.Go(func() {
			defer func() { <-limit }()
			do(i)
		})
	}
	done.Wait()
}

// ordersOf are all orders that nodes have told of.
func ordersOf(seen []operate.Sighting) (all []signed.Envelope) {
	for _, one := range seen {
		all = append(all, one.Orders...)
	}
	return order.Distinct(all)
}
