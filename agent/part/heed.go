package part

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"slices"
	"time"

	"kogge.example/agent/gossip"
	"kogge.example/agent/orders"
	"kogge.example/agent/serve/care"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// This file is what the node does about orders that operators give about seats of its fleet.

// book is the orders that the node has, on STATE outside of the slots.
func (p *Part) book() *orders.Book {
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

// isolated says that there is to be nothing to do with a seat key.
func isolated(book *orders.Book, key signed.Key) error {
	if one, is := book.Standing().Isolates(key); is {
		return fmt.Errorf("%w: %s", order.ErrIsolated, one)
	}
	return nil
}

// refuse says why there are to be no sessions with a seat. It returns at once: it fits
// gossip.Config's Refuse.
func refuse(book *orders.Book) func(roster.Seat) error {
	return func(seat roster.Seat) error {
		if err := isolated(book, seat.Key); err != nil {
			return fmt.Errorf("%s: %w", seat.Name, err)
		}
		return nil
	}
}

// withdrawn says why a session is to end that stands on a TLS key which is turned away on this node.
func (p *Part) withdrawn(session any) error {
	if by, ok := session.(interface{ TLSKey() document.Hash }); ok && p.turnsAway(by.TLSKey().String()) {
		return fmt.Errorf("TLS key %s: %w", by.TLSKey().Short(), fleet.ErrRevoked)
	}
	return nil
}

// heed keeps the orders that have come, and has the node do what they come to now: it turns away
// those who are isolated.
func (s *session) heed() {
	book, state := s.part.book(), s.part.trusted(s.taken)
	for _, k := range order.Kinds() {
		for _, object := range s.engine.Objects(k.Name) {
			if news, err := book.Keep(state, object); news && err != nil {
				log.Printf("agent: %v", err)
			}
		}
	}
	if mended, _ := book.Mend(time.Now()); mended {
		log.Printf("agent: the disk keeps all orders about seats again")
	}
	now := book.Look(state, s.talk.clock.now()) // an absence ends once that has passed for sure
	if all := orders.Events(s.standing, now); len(all) > 0 {
		for _, e := range all {
			log.Printf("agent: node %s is %s (by %s: %s)", e.Object, e.What, cmp.Or(e.By, "nobody"), e.Text)
		}
		s.talk.happened(all...)
		s.advanced()
		s.ways.cut(refuse(book))
	}
	s.standing = now
	s.heedTold(state.Roster)
	s.part.outcasts.Store(orders.OutcastsOf(now, state.Roster, s.tlsKey))
}

// tlsKey is the TLS key that a seat calls its own, by its own word.
func (s *session) tlsKey(seat signed.Key) (document.Hash, bool) {
	word, err := s.word(seat)
	if err != nil {
		return document.Hash{}, false
	}
	k, err := notice.OpenTLSKey(word)
	return k.Key, err == nil
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
// [order.ErrOrder] or [notice.ErrOlder] where it does not count, and [care.ErrUnkept] where it does
// and is passed on, but would not outlive the agent here.
func (t *Talk) give(object signed.Envelope) error {
	now := t.session.Load()
	if now == nil {
		return errNoSeat
	}
	s := t.part.trusted(now.taken)
	if err := order.Check(s, object); err != nil {
		return err
	}
	if err := now.engine.Publish(object); err != nil {
		return err
	}
	defer t.news.give()
	same := func(one signed.Envelope) bool { return bytes.Equal(one.Message(), object.Message()) }
	if !slices.ContainsFunc(now.engine.Objects(object.Kind), same) { // of two with one number it is the other
		return fmt.Errorf("order %d of key %s: %w", object.Sequence, object.By.ID().Short(), notice.ErrOlder)
	}
	if _, err := t.part.book().Keep(s, object); err != nil {
		return fmt.Errorf("%w: %w", care.ErrUnkept, err)
	}
	return nil
}

// given are the orders that the node has.
func (t *Talk) given() []signed.Envelope { return t.part.book().All() }
