package gossip

import (
	"crypto/ecdsa"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	orders "kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

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
