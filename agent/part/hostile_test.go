package part

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	gateway "kogge.example/agent/gateway/wire"
	gossip "kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// This file is the list of what a hostile member does to its fleet. It holds what a real one does:
// the key of seat 3, a TLS key, the key of the node CA, and one of etcd's three members. The fleet
// is in hostilefleet_test.go, and how the member does it in hostilehands_test.go and hostilesigns_test.go.

// act is one thing that it does. Each is seen to arrive: by what the honest nodes count, or by the
// answer that it gets.
type act struct {
	what string
	do   func(h *hostile) error // the error: it was let do it, or could not do it
	seen counter                // that goes up; nil: do has seen the answer
	on   []int                  // the seats that count
}

// members are the honest seats that run etcd, and honest all honest ones.
var members, honest = []int{1, 2}, []int{1, 2, 4}

// beyond is a number above all that honest nodes use.
const beyond = uint64(1) << 40

// actsInEtcd are what it does by its own member of etcd, which takes any key from it.
var actsInEtcd = []act{
	{"writes a record in the name of n1, with its own signature", func(h *hostile) error {
		return h.write(place(h, 1, notice.NodeKind), h.inTheNameOf(1, notice.NodeKind, beyond, h.record("n1")))
	}, ignored("with a wrong signature"), members},
	{"writes a status in the name of n4, with its own signature", func(h *hostile) error {
		return h.write(place(h, 4, notice.StatusKind), h.inTheNameOf(4, notice.StatusKind, beyond, h.status("lost")))
	}, ignored("with a wrong signature"), members},
	{"puts its own record where n1's lies", func(h *hostile) error {
		return h.write(place(h, 1, notice.NodeKind), h.seal(notice.NodeKind, beyond, h.record("n1")).Bytes())
	}, ignored(gateway.NotOwn.String()), members},
	{"puts an old status of n1 back, which n1 has signed", func(h *hostile) error {
		return h.write(place(h, 1, notice.StatusKind), h.old[1].Bytes())
	}, ignored("older"), members},
	{"signs a status for another fleet", func(h *hostile) error {
		e, err := signed.Seal(notice.StatusKind, document.HashOf(nil), h.key, beyond, h.status("fine"))
		return errors.Join(err, h.write(place(h, 3, notice.StatusKind), e.Bytes()))
	}, ignored("of another fleet"), members},
	{"writes the record of a node that has no seat", func(h *hostile) error {
		e, err := signed.Seal(notice.NodeKind, h.id(), ledgertest.Private("eve"), 1, h.record("eve"))
		p, _ := board.Of(e)
		return errors.Join(err, h.write(p.Key(), e.Bytes()))
	}, ignored("nowhere"), members},
	{"writes a record of 200 kB", func(h *hostile) error {
		return h.write(place(h, 2, notice.NodeKind), make([]byte, 200<<10))
	}, ignored(gateway.TooLarge.String()), members},
	{"writes a status of 60 kB of its own", func(h *hostile) error {
		return h.write(place(h, 3, notice.StatusKind), h.seal(notice.StatusKind, beyond, make([]byte, 60<<10)).Bytes())
	}, ignored("too large"), members},
	{"writes what is no envelope", func(h *hostile) error {
		return h.write(place(h, 2, notice.StatusKind), []byte("\x1b[2J"))
	}, ignored(gateway.NotOwn.String()), members},
	{"writes another record 1, whose roster has it alone", func(h *hostile) error {
		return h.writeEntry(1, h.foundedAnew())
	}, ignored("another record"), members},
	{"writes what is no entry where record 2 lies", func(h *hostile) error {
		return h.write(board.Entry(2).Key(), []byte("{}"))
	}, ignored("no entry"), members},
	{"deletes all that lies there", func(h *hostile) error {
		return h.erase(board.Root)
	}, recalled, members},
	{"writes keys of its own, and has etcd forget its history", func(h *hostile) error {
		for _, key := range []string{board.Root, board.Root + "roster", board.Root + "secrets/x", board.Root + "nodes/x/record", "/other"} {
			if err := h.write(key, []byte("roster")); err != nil {
				return err
			}
		}
		if err := h.compact(); err != nil {
			return err
		}
		return h.write(place(h, 2, notice.StatusKind), nil) // by which is seen that all go on
	}, ignored(gateway.NotOwn.String()), members},
	{"writes the status of n2 again, without a lease", (*hostile).unleases, func(s *session) uint64 { return s.board.gateway.Stats().Told }, members},
	{"ends the leases of all", (*hostile).endLeases, recalled, []int{1}},
	{"writes a record 4 that it alone has signed", func(h *hostile) error {
		return h.writeEntry(4, h.undecided())
	}, ignored("a record that is not proved"), members},
	{"writes a record of a height that nobody has reached", func(h *hostile) error {
		return h.writeEntry(9_999_999_999, h.undecided())
	}, ignored("nowhere"), members},
}

// actsByGossip are what it says in sessions with all honest nodes, for which a peer that errs would
// not be sent away.
var actsByGossip = []act{
	{"tells of a newer status, and sends an old one", func(h *hostile) error {
		for _, seat := range honest {
			h.tells(shelf.IDOf(notice.StatusKind, h.keyOf(seat)), h.old[seat].Bytes(), honest...)
		}
		return nil
	}, verdict("older"), honest},
	{"orders with its TLS key that n1 is isolated", func(h *hostile) error {
		return h.orders(h.tlsKey(), order.Isolation{Seat: 1, Key: h.keyOf(1), Isolated: true})
	}, verdict("of no seat"), honest},
	{"orders with its TLS key that n2 is drained", func(h *hostile) error {
		return h.orders(h.tlsKey(), order.Absence{Seat: 2, Key: h.keyOf(2), State: order.Drained})
	}, verdict("of no seat"), honest},
	{"signs an order as a seat", func(h *hostile) error {
		e, err := order.Seal(h.id(), h.admin, 1, order.Isolation{Seat: 4, Key: h.keyOf(4), Isolated: true})
		h.tells(shelf.IDOf(order.IsolationKind, h.keyOf(4)), h.seal(order.IsolationKind, beyond, e.Body).Bytes(), honest...)
		return err
	}, verdict("of no seat"), honest},
	{"gives an old order of an admin again", func(h *hostile) error {
		h.tells(shelf.IDOf(order.AbsenceKind, h.keyOf(4)), h.orderly[0].Bytes(), honest...)
		return nil
	}, verdict("older"), honest},
	{"sends a status of 60 kB of its own", func(h *hostile) error {
		h.tells(shelf.IDOf(notice.StatusKind, h.keyOf(3)), h.seal(notice.StatusKind, beyond, make([]byte, 60<<10)).Bytes(), honest...)
		return nil
	}, verdict("too large"), honest},
	{"sends a status that is none", func(h *hostile) error {
		h.tells(shelf.IDOf(notice.StatusKind, h.keyOf(3)), h.seal(notice.StatusKind, beyond, []byte(`{"version":1,"height":-1}`)).Bytes(), honest...)
		return nil
	}, verdict("with a wrong body"), honest},
	{"tells of five hundred seats that nobody has", func(h *hostile) error {
		var all gossip.Tell
		for i := range gossip.MaxItems {
			all = append(all, gossip.Told{ID: shelf.ID{byte(i), byte(i >> 8), 1}, Number: 1})
		}
		return h.say(all, honest...)
	}, func(s *session) uint64 { return s.engine.Stats().Unlisted }, honest},
	{"accepts a node, and ends a token, with its TLS key", func(h *hostile) error {
		return h.givesPapers(h.accepts("n9"), h.endsToken())
	}, paperRefused("not signed by an operator"), honest},
	{"says that a node has used a token that nobody gave out", func(h *hostile) error {
		return h.givesPapers(h.usesOwnToken("n8"))
	}, paperRefused("not signed by an operator"), honest},
}

// actsForWhichItIsSentAway are said to one node each: after that it has no session there.
var actsForWhichItIsSentAway = []act{
	{"sends a status in the name of n2, with its own signature", func(h *hostile) error {
		h.tells(shelf.IDOf(notice.StatusKind, h.keyOf(2)), h.inTheNameOf(2, notice.StatusKind, beyond, h.status("lost")), 1)
		return nil
	}, dropped("lie"), []int{1}},
	{"says that it has record 4, and sends one that it alone has signed", func(h *hostile) error {
		return h.offers(4, h.undecided(), 2)
	}, dropped("entry"), []int{2}},
	{"sends an order of an admin with another number in it", func(h *hostile) error {
		raw := []byte(strings.Replace(string(h.orderly[1].Bytes()), `"seat": 4`, `"seat": 1`, 1))
		h.tells(shelf.IDOf(order.AbsenceKind, h.keyOf(4)), raw, 4)
		return nil
	}, dropped("lie"), []int{4}},
	{"comes back at once", func(h *hostile) error { return h.sessionWith(4) }, dropped("kept away"), []int{4}},
}

// actsAsGateway are what it tells n4, which goes to its gateway first.
var actsAsGateway = []act{
	{"says that nothing lies in etcd, and that what n4 puts is written", (*hostile).serveNothing, nil, nil},
	{"tells of a status in the name of n1, with its own signature", func(h *hostile) error {
		return h.shows(place(h, 1, notice.StatusKind), h.inTheNameOf(1, notice.StatusKind, beyond, h.status("lost")))
	}, toldByGateway("with a wrong signature"), []int{4}},
	{"shows an old status of n2", func(h *hostile) error {
		return h.shows(place(h, 2, notice.StatusKind), h.old[2].Bytes())
	}, toldByGateway("older"), []int{4}},
	{"shows its own record where n1's should be", func(h *hostile) error {
		return h.shows(place(h, 1, notice.NodeKind), h.seal(notice.NodeKind, beyond, h.record("n1")).Bytes())
	}, toldByGateway("misplaced"), []int{4}},
	{"shows a status of another fleet", func(h *hostile) error {
		e, err := signed.Seal(notice.StatusKind, document.HashOf(nil), h.key, beyond, h.status("fine"))
		return errors.Join(err, h.shows(place(h, 3, notice.StatusKind), e.Bytes()))
	}, toldByGateway("of another fleet"), []int{4}},
	{"shows another record 1", func(h *hostile) error {
		return h.showsEntry(1, h.foundedAnew())
	}, toldByGateway("entry not proved"), []int{4}},
	{"shows a record 4 that it alone has signed", func(h *hostile) error {
		return h.showsEntry(4, h.undecided())
	}, toldByGateway("entry not proved"), []int{4}},
	{"shows what lies nowhere", func(h *hostile) error {
		return h.shows(board.Root+"secrets/x", nil)
	}, toldByGateway("nowhere"), []int{4}},
	{"says that all others are gone, and that it alone has a gateway", func(h *hostile) error {
		var all []gateway.Item
		for _, seat := range honest {
			all = append(all, gateway.Item{Key: place(h, seat, notice.StatusKind), Revision: 1 << 60, State: gateway.Gone})
		}
		all = append(all, gateway.Item{Key: board.Root + "x"}) // by which is seen that it came
		return h.serve(gateway.Members{Seats: []int{3}}, gateway.Items{Topic: board.Nodes, Items: all})
	}, toldByGateway("nowhere"), []int{4}},
	{"goes on with lies until nobody listens", func(h *hostile) error {
		raw := h.inTheNameOf(1, notice.StatusKind, beyond, h.status("lost"))
		for range 80 {
			if h.shows(place(h, 1, notice.StatusKind), raw) != nil {
				break
			}
		}
		within(h.t, "n4 goes to another gateway", func() bool {
			k := h.nodes[3].session.Load().board.client.Known()
			return k.Gateway != 0 && k.Gateway != 3
		})
		return nil
	}, nil, nil},
}

// actsAtGateway are what it puts at the gateway of n1.
var actsAtGateway = []act{
	{"puts a record in the name of n1", func(h *hostile) error {
		return h.puts(h.inTheNameOf(1, notice.NodeKind, beyond, h.record("n1")), gateway.NotOwn)
	}, putRefused(gateway.NotOwn), []int{1}},
	{"puts an old status of n2", func(h *hostile) error {
		return h.puts(h.old[2].Bytes(), gateway.NotOwn)
	}, putRefused(gateway.NotOwn), []int{1}},
	{"puts a status of its own that has no signature", func(h *hostile) error {
		raw := slices.Clone(h.seal(notice.StatusKind, beyond, h.status("fine")).Bytes())
		clear(raw[len(raw)-64:])
		return h.puts(raw, gateway.Forged)
	}, putRefused(gateway.Forged), []int{1}},
	{"puts a status of 60 kB", func(h *hostile) error {
		return h.puts(h.seal(notice.StatusKind, beyond, make([]byte, 60<<10)).Bytes(), gateway.TooLarge)
	}, putRefused(gateway.TooLarge), []int{1}},
	{"puts an order", func(h *hostile) error { return h.puts(h.orderly[0].Bytes(), gateway.NotOwn) }, putRefused(gateway.NotOwn), []int{1}},
	{"asks without end", func(h *hostile) error {
		for i := range 300 {
			if h.ask(gateway.Alive{}) != nil || i == 299 {
				break
			}
		}
		return nil
	}, gatewayDropped("flood"), []int{1}},
}

// actsWithTheCA are what it does as one who can sign certificates of nodes.
var actsWithTheCA = []act{
	{"signs the key of an operator of the fleet's ledger by name", func(h *hostile) error {
		return refusedWith(h.calls(h.mints("cleo"), 1), rpc.CodePermissionDenied)
	}, nil, nil},
	{"signs a certificate of the kind of operators", func(h *hostile) error {
		return refusedWith(h.calls(h.mintsOperator("cleo"), 2), rpc.CodeUnauthenticated)
	}, nil, nil},
	{"brings an order with its own certificate", func(h *hostile) error {
		o, err := order.Seal(h.id(), h.tlsKey(), beyond, order.Isolation{Seat: 1, Key: h.keyOf(1), Isolated: true})
		if err != nil {
			return err
		}
		_, err = h.dial(h.certificate, 1).Order(context.Background(), rpc.NewRequest(&apiv1.OrderRequest{Envelope: o.Bytes()}))
		return refusedWith(err, rpc.CodePermissionDenied)
	}, nil, nil},
	{"lets a node in without a token", func(h *hostile) error {
		return h.visits(h.mints("n8"), ledgertest.Private("eve"), 2)
	}, enrolmentRefused("stranger"), []int{2}},
	{"lets a node in under the name of n4", func(h *hostile) error {
		return h.visits(h.mints("n4"), ledgertest.Private("eve"), 1)
	}, enrolmentRefused("stranger"), []int{1}},
	{"gives out a token", func(h *hostile) error { return h.comesByOwnToken(2) }, enrolmentRefused("not signed by an operator"), []int{2}},
	{"shows a node that comes another ledger", (*hostile).showsComerAnotherLedger, nil, nil},
	{"says the word of n1 for its own TLS key", func(h *hostile) error { return h.saysWordOf(1, 2) }, nil, nil},
}

// actsOfAnOutcast are what it does once it is isolated.
var actsOfAnOutcast = []act{
	{"isolated: opens a session of gossip", func(h *hostile) error { return h.sessionWith(2) }, dropped("refused"), []int{2}},
	{"isolated: goes to a gateway", func(h *hostile) error { return h.goesTo(2) }, entryRefused(gateway.Unlisted), []int{2}},
	{"isolated: calls the API", func(h *hostile) error {
		err := h.calls(h.certificate, 4)
		if api.ReasonOf(err) != apiv1.Reason_REASON_ISOLATED {
			return fmt.Errorf("it hears %w", err)
		}
		return nil
	}, nil, nil},
	{"isolated: has its certificate renewed", func(h *hostile) error { return h.visits(h.certificate, h.key, 1) }, enrolmentRefused("isolated"), []int{1}},
	{"isolated: has another TLS key signed", func(h *hostile) error { return h.visits(h.mints("n3"), h.key, 2) }, enrolmentRefused("isolated"), []int{2}},
}

// TestHostileMember has a fleet live through a story twice: with a third member like the others, and
// with a hostile one, of which nothing remains. What the honest nodes have in the end is the same,
// record by record and object by object, and so is what lies in etcd.
func TestHostileMember(t *testing.T) {
	story, without := newStory(t), make(chan string, 1)
	t.Run("without it", func(t *testing.T) {
		t.Parallel()
		defer close(without)
		s := story.begin(t, nil)
		s.meet()
		s.beginnings()
		s.end()
		without <- s.settled()
	})
	t.Run("with it", func(t *testing.T) {
		t.Parallel()
		h := &hostile{}
		s := story.begin(t, h)
		s.meet()
		h.enter()
		s.beginnings()
		known := s.known()
		for _, group := range [][]act{actsAsGateway, actsInEtcd, actsByGossip, actsForWhichItIsSentAway, actsAtGateway, actsWithTheCA} {
			for _, a := range group {
				known = h.does(a, known)
			}
		}
		s.end()
		known = s.known()
		for _, a := range actsOfAnOutcast {
			known = h.does(a, known)
		}
		want, began := <-without, time.Now()
		for got := s.all(); got != want; got = s.all() {
			if time.Since(began) > 5*time.Minute {
				t.Fatalf("the run with it differs from the run without (-) by:\n%s", difference(want, got))
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// refusedWith wants an error of that kind.
func refusedWith(err error, code rpc.Code) error {
	switch {
	case err == nil:
		return errors.New("it is let do it")
	case rpc.CodeOf(err) != code:
		return err
	}
	return nil
}

// difference is the lines that two texts do not have in common.
func difference(a, b string) string {
	var out strings.Builder
	only := func(sign, a, b string) {
		has := strings.Split(b, "\n")
		for line := range strings.Lines(a) {
			if !slices.Contains(has, strings.TrimSuffix(line, "\n")) {
				fmt.Fprintf(&out, "%s %s", sign, line)
			}
		}
	}
	only("-", a, b)
	only("+", b, a)
	return out.String()
}
