package main

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"time"

	"kogge.example/agent/gossip"
	"kogge.example/agent/orders"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// This file is what the node does about orders that operators give about seats of its fleet.

// book is the orders that the node has, on STATE outside of the slots.
func (p *part) book() *orders.Book {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.orders == nil {
		p.orders = orders.Open(filepath.Join(p.state, "kogge", "orders"))
		if err := p.orders.Problem(); err != nil {
			log.Printf("agent: %v", err)
		}
	}
	return p.orders
}

// refuse says why there are to be no sessions with a seat. It returns at once: it fits
// gossip.Config's Refuse.
func refuse(book *orders.Book) func(roster.Seat) error {
	return func(seat roster.Seat) error {
		if one, is := book.Standing().Isolates(seat.Key); is {
			return fmt.Errorf("%s: %w: %s", seat.Name, order.ErrIsolated, one)
		}
		return nil
	}
}

// heed keeps the orders that have come, and says what they come to now. changed hears that they
// come to something else than they did.
func (t *talk) heed(engine *gossip.Engine, s ledger.State, last order.Standing, changed func(now order.Standing)) order.Standing {
	book := t.part.book()
	for _, k := range order.Kinds() {
		for _, object := range engine.Objects(k.Name) {
			if _, err := book.Keep(s, object); err != nil {
				log.Printf("agent: %v", err) // it holds until the agent ends
			}
		}
	}
	now := book.Look(s, time.Now())
	if all := orders.Events(last, now); len(all) > 0 {
		for _, e := range all {
			log.Printf("agent: node %s is %s (by %s: %s)", e.Object, e.What, cmp.Or(e.By, "nobody"), e.Text)
		}
		t.happened(all...)
		changed(now)
	}
	return now
}

// publish gives the orders that are kept to others, who may have forgotten them. Those that do
// not count any more are nobody's news.
func publish(engine *gossip.Engine, book *orders.Book) {
	for _, object := range book.All() {
		_ = engine.Publish(object)
	}
}

// errNoSeat is the answer of a node that takes no part in its fleet.
var errNoSeat = errors.New("this node has no seat in a founded fleet")

// give takes an order that an operator has brought, keeps it and passes it on. The error wraps
// [order.ErrOrder] or [notice.ErrOlder] where that is not the node's fault.
func (t *talk) give(object signed.Envelope) error {
	now := t.session.Load()
	if now == nil {
		return errNoSeat
	}
	s := now.taken.State()
	if err := order.Check(s, object); err != nil {
		return err
	}
	if err := now.engine.Publish(object); err != nil {
		return err
	}
	if _, err := t.part.book().Keep(s, object); err != nil {
		return err
	}
	t.wake()
	return nil
}

// given are the orders that the node has.
func (t *talk) given() []signed.Envelope { return t.part.book().All() }

// wake has talk look at what others say.
func (t *talk) wake() {
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// tlsKeyOf is the TLS key that a seat calls its own, by its own word.
func tlsKeyOf(engine *gossip.Engine) func(signed.Key) (document.Hash, bool) {
	return func(seat signed.Key) (document.Hash, bool) {
		if object, ok := engine.Object(notice.TLSKeyKind, seat); ok {
			if k, err := notice.OpenTLSKey(object); err == nil {
				return k.Key, true
			}
		}
		return document.Hash{}, false
	}
}

// exclude has the node turn away those who are isolated now.
func (t *talk) exclude(engine *gossip.Engine, now order.Standing) {
	t.part.outcasts.Store(orders.OutcastsOf(now, tlsKeyOf(engine)))
}
