package gossip

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	orders "kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// TestWithdrawn: what an operator has ordered whose key is revoked counts on no node that knows that,
// and takes no other order's place there, though nodes that do not know it pass it on, and are not
// blamed for that. Those who know it reach each other by such nodes alone.
func TestWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 10)
		state.Operators = nil
		keys, ids := make(map[string]*ecdsa.PrivateKey), make(map[string]document.Hash)
		for _, name := range []string{"ada", "bob"} {
			keys[name] = ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
			ids[name], _ = ledgertest.Must[signed.Key](t)(signed.OperatorKey(&keys[name].PublicKey)).Operator()
			state.Operators = append(state.Operators, ledger.Operator{Name: name, Role: fleet.RoleAdmin, Key: ids[name]})
		}
		n := newNetwork(t, state, func(int) Ledger { return still{state} })
		n.apart = func(a, b int) bool { return a <= 5 && b <= 5 }
		know := make([]atomic.Bool, len(n.nodes))
		for i, one := range n.nodes {
			one.config = func(c *Config) {
				c.Kinds = slices.Concat(notice.Kinds(), orders.Kinds())
				c.Revoked = func(key document.Hash) bool { return know[i].Load() && key == ids["bob"] }
			}
		}
		about := n.nodes[6]
		isolate := func(by string, number uint64) signed.Envelope {
			return ledgertest.Must[signed.Envelope](t)(orders.Seal(n.fleet, keys[by], number, orders.Isolation{Seat: about.number, Key: about.key, Isolated: by == "bob"}))
		}
		have := func(number uint64, from, to int) func() bool {
			return func() bool {
				for _, one := range n.nodes[from:to] {
					if e, ok := one.engine.Object(orders.IsolationKind, about.key); ok != (number > 0) || ok && e.Sequence != number {
						return false
					}
				}
				return true
			}
		}
		n.run(func() {
			for _, one := range n.nodes {
				one.sayAll()
			}
			n.within(2*time.Minute, "all know all", func() bool { return n.agree(30) })
			if err := n.nodes[0].engine.Publish(isolate("bob", notice.MaxNumber)); err != nil {
				t.Error(err)
			}
			n.within(5*time.Second, "bob's order on all", have(notice.MaxNumber, 0, 10))
			if err := n.nodes[0].engine.Publish(isolate("ada", 1)); !errors.Is(err, notice.ErrOlder) {
				t.Errorf("nobody knows that bob is revoked: %v", err)
			}
			revoke := func(from, to int) {
				for i := from; i < to; i++ {
					know[i].Store(true)
					n.nodes[i].engine.Advanced()
				}
			}
			revoke(0, 5)
			n.within(5*time.Second, "bob's order is gone where he is revoked", have(0, 0, 5))
			if err := n.nodes[1].engine.Publish(isolate("bob", notice.MaxNumber)); err == nil || !strings.Contains(err.Error(), "by a key that was revoked") {
				t.Errorf("bob orders on: %v", err)
			}
			if err := n.nodes[0].engine.Publish(isolate("ada", 1)); err != nil {
				t.Error(err)
			}
			took := n.within(10*time.Second, "ada's on those who know", have(1, 0, 5))
			t.Logf("an order is on those who know after %s", took)
			n.nodes[3].end()
			n.nodes[3].start()
			n.nodes[3].sayAll()
			n.within(2*time.Minute, "ada's on one that comes later", have(1, 0, 5))
			time.Sleep(2 * time.Hour)
			for _, one := range n.nodes {
				one.bytes.Store(0)
			}
			time.Sleep(2 * time.Hour)
			sum := int64(0)
			for _, one := range n.nodes {
				sum += one.bytes.Load()
			}
			if each := int(sum) / len(n.nodes); each > 100_000 {
				t.Errorf("%s of each node in two hours in which nobody says anything", kB(each))
			} else {
				t.Logf("%s of each node in two quiet hours", kB(each))
			}
			if !have(1, 0, 5)() || !have(notice.MaxNumber, 5, 10)() {
				t.Error("half of the nodes know that bob is revoked, and not each of them keeps to what it knows")
			}
			revoke(5, 10)
			n.within(5*time.Second, "ada's on all", have(1, 0, 10))
			for _, one := range n.nodes {
				if away := one.away(); len(away) > 0 {
					t.Errorf("%s keeps honest ones away: %v", one.name, away)
				}
			}
		})
	})
}

// TestWithdrawnRestoring: that an etcd has begun anew by the owner's leave is passed on, also to nodes
// that come later, when the key of who gave the order was revoked.
func TestWithdrawnRestoring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 10)
		state.Genesis = ledgertest.Founded(t, 2, 1).Genesis
		key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		bob, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&key.PublicKey)).Operator()
		state.Operators = []ledger.Operator{{Name: "bob", Role: fleet.RoleAdmin, Key: bob}}
		n := newNetwork(t, state, func(int) Ledger { return still{state} })
		var revoked atomic.Bool
		for _, one := range n.nodes {
			one.config = func(c *Config) {
				c.Kinds = slices.Concat(notice.Kinds(), orders.Kinds())
				c.Revoked = func(key document.Hash) bool { return revoked.Load() && key == bob }
			}
		}
		about := n.nodes[0]
		restoring := func(generation int64, owners int) signed.Envelope {
			l := ledger.Restore{Version: 1, Node: about.key, Generation: generation, Height: 1}
			for i := 1; i <= owners; i++ {
				l.Owners = append(l.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), l.Bytes(n.fleet)))
			}
			return ledgertest.Must[signed.Envelope](t)(orders.Seal(n.fleet, key, uint64(generation)+1, orders.Restoring{Seat: about.number, Key: about.key, Leave: l.Encode()}))
		}
		have := func(number uint64) func() bool {
			return func() bool {
				for _, one := range n.nodes {
					if e, ok := one.engine.Object(orders.RestoringKind, about.key); !ok || e.Sequence != number {
						return false
					}
				}
				return true
			}
		}
		n.run(func() {
			if err := about.engine.Publish(restoring(7, 2)); err != nil {
				t.Error(err)
			}
			n.within(time.Minute, "bob's order on all", have(8))
			revoked.Store(true)
			for _, one := range n.nodes {
				one.engine.Advanced()
			}
			time.Sleep(time.Hour)
			if !have(8)() {
				t.Error("it is gone with bob's key")
			}
			if err := n.nodes[3].engine.Publish(restoring(8, 1)); err == nil {
				t.Error("one of two owner keys is enough")
			}
			if err := n.nodes[3].engine.Publish(restoring(8, 2)); err != nil {
				t.Error(err)
			}
			n.within(10*time.Minute, "the next one on all", have(9))
		})
	})
}

// TestOrders brings an operator's order about a seat to all nodes, pushed, and to one that comes
// later, by its digest. A later order takes its place everywhere, whoever has missed it.
func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		id, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&key.PublicKey)).Operator()
		state := large(t, 50)
		state.Operators = []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: id}}
		n := newNetwork(t, state, func(int) Ledger { return still{state} })
		for _, one := range n.nodes {
			one.config = func(c *Config) { c.Kinds = slices.Concat(notice.Kinds(), orders.Kinds()) }
		}
		about := n.nodes[6]
		isolate := func(number uint64, on bool) signed.Envelope {
			return ledgertest.Must[signed.Envelope](t)(orders.Seal(n.fleet, key, number, orders.Isolation{Seat: about.number, Key: about.key, Isolated: on}))
		}
		have := func(number uint64) func() bool {
			return func() bool {
				for _, one := range n.alive() {
					if e, ok := one.engine.Object(orders.IsolationKind, about.key); !ok || e.Sequence != number {
						return false
					}
				}
				return true
			}
		}
		n.run(func() {
			for _, one := range n.nodes {
				one.sayAll()
			}
			n.within(2*time.Minute, "all know all", func() bool { return n.agree(150) })
			late := n.nodes[9]
			late.end()
			time.Sleep(time.Hour)
			if err := n.nodes[0].engine.Publish(isolate(1, true)); err != nil {
				t.Error(err)
			}
			took := n.within(5*time.Second, "an order to all", have(1))
			t.Logf("an order is on 49 nodes after %s", took)
			late.start()
			late.sayAll()
			n.within(2*time.Minute, "an order to one that comes later", have(1))
			if err := late.engine.Publish(isolate(2, false)); err != nil {
				t.Error(err)
			}
			n.within(5*time.Second, "the next one", have(2))
			if err := n.nodes[3].engine.Publish(isolate(1, true)); err == nil {
				t.Error("an older one is taken")
			}
			for _, one := range n.nodes {
				if away := one.away(); len(away) > 0 {
					t.Errorf("%s keeps honest ones away: %v", one.name, away)
				}
			}
		})
	})
}

// TestEarly: who passes on an order of a record that this node has not got yet is not blamed for that, and not
// asked for it again until the ledger is further. Who has made it up is.
func TestEarly(t *testing.T) {
	state := large(t, 40)
	state.Genesis = ledgertest.Founded(t, 2, 1).Genesis
	signer := func() (*ecdsa.PrivateKey, document.Hash) {
		key := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
		id, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&key.PublicKey)).Operator()
		return key, id
	}
	bob, bobs := signer()
	eve, _ := signer() // whom the record of height 2 may list
	state.Operators = []ledger.Operator{{Name: "bob", Role: fleet.RoleAdmin, Key: bobs}}
	restoring := func(about roster.Seat, height int64, signs string) signed.Envelope {
		l := ledger.Restore{Version: 1, Node: about.Key, Generation: 7, Height: height}
		for i := 1; i <= 2; i++ {
			l.Owners = append(l.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("%s %d", signs, i)), l.Bytes(state.Fleet())))
		}
		return ledgertest.Must[signed.Envelope](t)(orders.Seal(state.Fleet(), bob, 8, orders.Restoring{Seat: about.Number, Key: about.Key, Leave: l.Encode()}))
	}
	isolate := func(about roster.Seat, number uint64) signed.Envelope {
		return ledgertest.Must[signed.Envelope](t)(orders.Seal(state.Fleet(), eve, number, orders.Isolation{Seat: about.Number, Key: about.Key, Isolated: true}))
	}
	about := state.Roster.Seats[5]
	many := func(seats int) (all []signed.Envelope) {
		for _, seat := range state.Roster.Seats[1 : 1+seats] {
			all = append(all, isolate(seat, 1))
		}
		return all
	}
	for what, c := range map[string]struct {
		head     int64 // of the peer
		objects  []signed.Envelope
		told     uint64 // the number that it has told, of each
		demerits int
	}{
		"a leave of height 2":                   {1, []signed.Envelope{restoring(about, 2, "owner")}, 8, 0},
		"one that the owner has not given":      {2, []signed.Envelope{restoring(about, 2, "n")}, 8, 0},
		"the same of who is no further":         {1, []signed.Envelope{restoring(about, 2, "n")}, 8, 1},
		"another number than was told":          {2, []signed.Envelope{restoring(about, 2, "owner")}, 9, 1},
		"by an operator who may be listed":      {2, []signed.Envelope{isolate(about, 1)}, 1, 0},
		"the same of who is no further, by eve": {1, []signed.Envelope{isolate(about, 1)}, 1, 1},
		"one after the other about one seat":    {2, []signed.Envelope{isolate(about, 1), isolate(about, 2), isolate(about, 3)}, 1, 2},
		"about many seats":                      {2, many(maxEarly + 3), 1, 3},
	} {
		e := New(Config{Self: state.Roster.Seats[0].Key, Ledger: still{state}, Kinds: slices.Concat(notice.Kinds(), orders.Kinds()), Logf: t.Logf})
		peer := state.Roster.Seats[9]
		s := &session{key: peer.Key, seat: peer, ledger: wire.Head{Height: c.head}, asked: make(map[shelf.ID]asking), waiting: make(map[shelf.ID]bool), refused: make(map[shelf.ID]wire.Told)}
		for _, object := range c.objects {
			id := e.shelf.Place(object)
			s.asked[id] = asking{number: c.told}
			e.hearObjects(s, wire.Objects{object.Bytes()})
			if _, held := e.shelf.Item(id); held {
				t.Errorf("%s: it is taken", what)
			}
		}
		if got := e.peer(s.key).demerits; got != c.demerits {
			t.Errorf("%s: %d demerits", what, got)
		}
		if len(c.objects) > 1 || c.demerits > 0 {
			continue
		}
		id := e.shelf.Place(c.objects[0])
		told := wire.ToldOf(e.shelf.ItemOf(id, wire.Objects{c.objects[0].Bytes()}))
		if e.hearTold(s, wire.Tell{told}); len(e.wants) > 0 {
			t.Errorf("%s: it is asked for it again", what)
		}
	}
}
