package part

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/enrol"
	"kogge.example/agent/etcd/etcdtest"
	"kogge.example/agent/events"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// small is a fleet in this process: nodes behind the ports of their APIs, which talk to each other
// by TLS, and an admin ada.
type small struct {
	t       *testing.T
	fleet   *ledgertest.Fleet
	ada     tls.Certificate
	state   ledger.State
	nodes   []*member // by seat, from 0
	running sync.WaitGroup

	mu    sync.Mutex // guards what follows
	where map[int]netip.AddrPort
	apart bool // nobody reaches anybody
	// astray is where every node says that it is besides; the zero one: nowhere.
	astray netip.AddrPort
}

// member is one of its nodes.
type member struct {
	*Talk
	in     *small
	number int
	events events.Ring
	stop   context.CancelFunc
	ended  chan struct{}
}

// newSmall founds a fleet of so many nodes and starts them.
func newSmall(t *testing.T, count int) *small {
	key, err := fleet.NewKey()
	must(t, err)
	f := ledgertest.Begun(t, count)
	s := &small{t: t, fleet: f, where: make(map[int]netip.AddrPort)}
	s.ada = tls.Certificate{Certificate: [][]byte{f.SignAt(t, fleet.KindOperator, "ada", fleet.RoleAdmin, &key.PublicKey, time.Now())}, PrivateKey: key}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	v := f.Founding(t)
	first := v.Founding.Operators[0]
	first.Name = "zoe"
	v.Founding.Operators = []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: document.HashOf(spki)}, first}
	f.Take(t, f.Decided(t, v, 2))
	s.state = f.Log.State()
	for number := 1; number <= count; number++ {
		p := adopted(t, f)
		identitytest.Sit(t, p.state, number)
		taken, err := p.Ledger()
		must(t, err)
		must(t, taken.Take(1, f.Entries[0]))
		s.nodes = append(s.nodes, s.start(number, p))
	}
	t.Cleanup(func() {
		for _, n := range s.nodes {
			n.stop()
		}
		s.running.Wait()
	})
	return s
}

// start has the node of a seat serve and talk, with what is on its STATE.
func (s *small) start(number int, p *Part) *member {
	s.t.Helper()
	run := s.t.TempDir()
	p = New(p.node, p.state, run, func() {})
	must(s.t, control.Boot{Slot: "A", Version: "1.0", Board: "qemu-x86_64", RootHash: document.HashOf(nil).String()}.Write(run))
	m := machine.Machine{Run: run, State: p.state, Control: filepath.Join(run, "none.sock")}
	n := &member{in: s, number: number, ended: make(chan struct{})}
	n.Talk = NewTalk(p, m, n.events.Add)
	n.reach = func(_ *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
		s.mu.Lock()
		defer s.mu.Unlock()
		if at, ok := s.where[seat.Number]; ok && !s.apart {
			if s.astray.IsValid() {
				return []netip.AddrPort{s.astray, at}
			}
			return []netip.AddrPort{at}
		}
		return nil
	}
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: p.node, ClockSure: func() bool { return false }, Machine: m, Known: p.Known, Events: &n.events,
		Records: n.Records(), Care: n.Care(nil), Protocols: n.Protocols(),
	})
	must(s.t, err)
	s.mu.Lock()
	s.where[number] = netip.MustParseAddrPort(server.Address().String())
	s.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	s.running.Go(func() {
		defer close(n.ended)
		var both sync.WaitGroup
		both.Go(func() { _ = server.Serve(ctx) })
		both.Go(func() { n.Run(ctx, server.Port()) })
		both.Wait()
	})
	return n
}

// client is an operator's way to a node, or with the certificate of a node that node's.
func (n *member) client(certificate tls.Certificate) *api.Client {
	n.in.mu.Lock()
	at := n.in.where[n.number]
	n.in.mu.Unlock()
	c := api.Dial(at.String(), "n1", n.in.fleet.Genesis, certificate) // all of them are called so
	n.in.t.Cleanup(c.Close)
	return c
}

// part has nobody reach anybody, or everybody.
func (s *small) part(apart bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apart = apart
}

// wait waits until something holds.
func (s *small) wait(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within five minutes", what)
		}
	}
}

// with are the nodes of seats.
func (s *small) with(seats ...int) (all []*member) {
	for _, number := range seats {
		all = append(all, s.nodes[number-1])
	}
	return all
}

// all says whether something holds of each of the nodes.
func all(nodes []*member, holds func(*member) bool) func() bool {
	return func() bool { return !slices.ContainsFunc(nodes, func(n *member) bool { return !holds(n) }) }
}

// talks asks the node's engine something, if the node talks.
func (n *member) talks(about func(*gossip.Engine) bool) bool {
	now := n.session.Load()
	return now != nil && about(now.engine)
}

// sessions says how many sessions the node has; -1: it does not talk.
func (n *member) sessions() (count int) {
	if !n.talks(func(e *gossip.Engine) bool { count = e.Stats().Sessions; return true }) {
		return -1
	}
	return count
}

func (s *small) order(number uint64, o order.Order) signed.Envelope {
	s.t.Helper()
	e, err := order.Seal(s.state.Fleet(), s.ada.PrivateKey.(*ecdsa.PrivateKey), number, o)
	must(s.t, err)
	return e
}

func (s *small) isolation(seat int, on bool) order.Order {
	return order.Isolation{Seat: seat, Key: keyOf(s.t, seat), Isolated: on, Why: "its key was stolen"}
}

// bring brings an order to a node.
func (n *member) bring(e signed.Envelope) error {
	_, err := n.client(n.in.ada).Order(n.in.t.Context(), rpc.NewRequest(&apiv1.OrderRequest{Envelope: e.Bytes()}))
	return err
}

func isolates(seat int) func(*member) bool {
	return func(n *member) bool {
		_, is := n.part.book().Standing().Isolates(keyOf(n.in.t, seat))
		return is
	}
}

// TestIsolate isolates a seat by an order that one node is given: all others end their sessions
// with it, turn its calls away and do not let its etcd in, also after one of them was started anew
// with nobody in reach. What it has signed goes on being passed on. Then it is taken back.
func TestIsolate(t *testing.T) {
	s := newSmall(t, 4)
	others, outcast := s.with(1, 2, 4), s.nodes[2]
	s.wait("all talk", all(s.nodes, func(n *member) bool {
		return n.sessions() > 0 && n.talks(func(e *gossip.Engine) bool { return len(e.Objects(notice.TLSKeyKind)) == 4 })
	}))
	through := api.Dial("n3:7443", "n1", s.fleet.Genesis, s.ada)
	through.Go(s.nodes[0].client(s.ada).Relay("n3"))
	defer through.Close()
	_, err := through.Orders(t.Context(), rpc.NewRequest(&apiv1.OrdersRequest{}))
	must(t, err)
	began := time.Now()
	must(t, s.nodes[0].bring(s.order(1, s.isolation(3, true))))
	s.wait("all isolate it", all(others, isolates(3)))
	t.Logf("isolated on all nodes after %s", time.Since(began).Round(time.Millisecond))
	s.wait("it has no sessions", func() bool { return outcast.sessions() == 0 })
	for _, n := range others {
		s.wait("its calls are turned away", func() bool {
			_, err := n.client(outcast.part.node.Certificate()).Status(t.Context(), rpc.NewRequest(&apiv1.StatusRequest{}))
			return api.ReasonOf(err) == apiv1.Reason_REASON_ISOLATED
		})
		s.wait("its etcd is not let in", func() bool {
			seats, err := control.ReadSeats(n.part.run)
			return err == nil && len(seats.Seats) == 3 && seats.Seats[2].TLSKey == "" && seats.Seats[0].TLSKey != ""
		})
	}
	s.wait("the way to it through another one has ended", func() bool {
		_, err := through.Orders(t.Context(), rpc.NewRequest(&apiv1.OrdersRequest{}))
		return err != nil
	})
	if _, err := s.nodes[0].reachNode(t.Context(), "n3"); !errors.Is(err, order.ErrIsolated) {
		t.Errorf("a way to it: %v", err)
	}
	for _, n := range others {
		outcast.knocks(n)
	}
	// What it signs counts, whoever brings it.
	ballot, err := signed.Seal(notice.StatusKind, s.state.Fleet(), ledgertest.Private("n3"), 1<<40, notice.Status{Version: 1, Deeds: notice.Deeds{Size: 7, Root: document.HashOf(nil)}}.Encode())
	must(t, err)
	must(t, s.nodes[0].session.Load().engine.Publish(ballot))
	s.wait("what it has signed is passed on", all(others, func(n *member) bool {
		return n.talks(func(e *gossip.Engine) bool {
			object, ok := e.Object(notice.StatusKind, keyOf(t, 3))
			return ok && object.Sequence == 1<<40
		})
	}))
	// A second one is too many for four seats, without the owner.
	must(t, s.nodes[1].bring(s.order(2, s.isolation(4, true))))
	s.wait("a second one does not count", all(others, func(n *member) bool { return len(n.part.book().Standing().Beyond) == 1 }))
	if isolates(4)(s.nodes[0]) {
		t.Error("two of four seats are isolated")
	}
	// A node that starts anew, and reaches nobody, knows it from STATE.
	last := s.nodes[1]
	last.stop()
	<-last.ended
	s.part(true)
	s.nodes[1] = s.start(2, last.part)
	s.wait("it is isolated after a start", all(s.with(2), func(n *member) bool { return n.session.Load() != nil && isolates(3)(n) }))
	s.part(false)
	// And back.
	others = s.with(1, 2, 4)
	must(t, s.nodes[0].bring(s.order(3, s.isolation(4, false))))
	s.wait("nothing waits", all(others, func(n *member) bool { return len(n.part.book().Standing().Beyond) == 0 }))
	must(t, s.nodes[0].bring(s.order(4, s.isolation(3, false))))
	s.wait("all have to do with it again", all(s.with(1, 4), func(n *member) bool { return !isolates(3)(n) }))
	s.wait("it has sessions again", func() bool { return outcast.sessions() > 0 })
	s.wait("a new start hears of it, too", all(others, func(n *member) bool { return !isolates(3)(n) }))
	s.wait("it is told as it came", func() bool {
		told, _, _ := s.nodes[0].events.After(0)
		var text strings.Builder
		for _, e := range told {
			if e.Kind == events.Node {
				fmt.Fprintf(&text, "%s %s (%s)\n", e.Object, e.What, e.By)
			}
		}
		return strings.HasPrefix(text.String(), "n3 isolated (ada)\nn4 to be isolated, which does not count (ada)\nn3 not isolated any more ()\n")
	})
}

// knocks has an isolated node come to another one by each protocol that nodes speak with each other:
// it is turned away.
func (n *member) knocks(at *member) {
	n.in.t.Helper()
	own := n.session.Load()
	seat, _ := n.in.state.Roster.Seat(at.number)
	ways := map[string]func(gossip.Session) error{
		gossip.Protocol: func(s gossip.Session) error {
			for {
				if _, err := s.Receive(); err != nil {
					return err // it is cut off, whatever it has been told before
				}
			}
		},
		wire.Protocol: func(s gossip.Session) error {
			raw, err := s.Receive()
			if err != nil {
				return err
			}
			f, err := wire.Decode(raw)
			if r, ok := f.(wire.Refuse); ok && r.Why == wire.Unlisted {
				return errors.New("it is refused")
			}
			return err
		},
	}
	for protocol := range at.Protocols() {
		way, known := ways[protocol]
		if protocol == enrol.Protocol {
			visitor := &enrol.Node{
				Genesis: n.in.fleet.Genesis, Certificate: n.part.node.Certificate(), Key: own.seat.Key, Seal: own.seat.Seal, Ledger: own.taken, Revoked: n.part.node.Revoked,
			}
			if _, err := visitor.Visit(n.in.t.Context(), own.peers.Addresses(seat)[0], true); !errors.Is(err, enrol.ErrRefused) || !strings.Contains(err.Error(), order.ErrIsolated.Error()) {
				n.in.t.Errorf("n%d is visited by an isolated node: %v", at.number, err)
			}
			continue
		}
		if !known {
			n.in.t.Errorf("nobody has tried %s as an isolated node", protocol)
			continue
		}
		peer := &gossip.TLS{
			Speaks: protocol, Certificate: own.peers.Certificate, Word: own.ownWord, Admit: own.engine.Admit, Addresses: own.peers.Addresses,
		}
		s, err := peer.Dial(n.in.t.Context(), seat)
		if err == nil {
			err = way(s)
			s.Close()
		}
		if err == nil {
			n.in.t.Errorf("n%d takes %s of an isolated node", at.number, protocol)
		}
	}
}

// TestNewTLSKey has seats say that they have other TLS keys: sessions with gateways that stand on the old
// ones end, at both ends.
func TestNewTLSKey(t *testing.T) {
	s, members := newSmall(t, 4), etcdtest.New(t, 3)
	for _, n := range s.with(1, 2, 3) {
		must(t, os.Symlink(filepath.Dir(members.Socket(n.number)), filepath.Join(n.part.run, "etcd")))
		must(t, control.Etcd{Seat: n.number, Running: true, Leader: 1, Members: []int{1, 2, 3}}.Write(n.part.run))
	}
	last := s.nodes[3]
	gateway := func() int {
		if now := last.session.Load(); now != nil {
			return now.board.client.Known().Gateway
		}
		return 0
	}
	// says has a seat say to some that it has another key.
	says := func(seat int, to ...*member) {
		word, err := signed.Seal(notice.TLSKeyKind, s.state.Fleet(), ledgertest.Private(fmt.Sprintf("n%d", seat)), 1<<40,
			notice.TLSKey{Version: 1, Seat: seat, Key: document.HashOf([]byte("another"))}.Encode())
		must(t, err)
		for _, n := range to {
			must(t, n.session.Load().engine.Publish(word))
		}
	}
	s.wait("n4 has a gateway", func() bool { return gateway() != 0 })
	first := gateway()
	says(first, last)
	s.wait("it has another one", func() bool { g := gateway(); return g != 0 && g != first })
	says(4, s.with(1, 2, 3)...)
	s.wait("it has none", func() bool { return gateway() == 0 })
}

// TestIsolateGateway isolates the member of etcd whose gateway another node has: that one goes to
// another gateway, and nobody visits the outcast, also not where it answers at another one's address.
func TestIsolateGateway(t *testing.T) {
	s, members := newSmall(t, 4), etcdtest.New(t, 3)
	for _, n := range s.with(1, 2, 3) {
		must(t, os.Symlink(filepath.Dir(members.Socket(n.number)), filepath.Join(n.part.run, "etcd")))
		must(t, control.Etcd{Seat: n.number, Running: true, Leader: 1, Members: []int{1, 2, 3}}.Write(n.part.run))
	}
	gateway := func(n *member) int {
		now := n.session.Load()
		if now == nil {
			return 0
		}
		return now.board.client.Known().Gateway
	}
	s.wait("all have a gateway", all(s.nodes, func(n *member) bool { return gateway(n) != 0 }))
	last := s.nodes[3]
	outcast := gateway(last)
	must(t, last.bring(s.order(1, s.isolation(outcast, true))))
	s.wait("it goes to another one", func() bool { g := gateway(last); return g != 0 && g != outcast })
	for _, n := range s.with(1, 2, 3, 4) {
		if n.number == outcast {
			continue
		}
		s.wait("it is isolated", func() bool { return isolates(outcast)(n) && gateway(n) != outcast })
		one := n.session.Load()
		if slices.ContainsFunc(n.contacts(one.taken, keyOf(t, n.number)), func(a netip.AddrPort) bool { return a == s.where[outcast] }) {
			t.Errorf("n%d would visit it", n.number)
		}
		visitor := &enrol.Node{
			Genesis: s.fleet.Genesis, Certificate: n.part.node.Certificate(), Key: one.seat.Key, Seal: one.seat.Seal, Ledger: one.taken,
			Revoked: n.part.node.Revoked, Refuse: n.Comer(nil).Refuse,
		}
		if _, err := visitor.Visit(t.Context(), s.where[outcast], false); !errors.Is(err, order.ErrIsolated) {
			t.Errorf("n%d visits it: %v", n.number, err)
		}
	}
}

// TestAbsent: what operators say of nodes that are absent on purpose comes to the etcd of all.
func TestAbsent(t *testing.T) {
	s := newSmall(t, 3)
	s.wait("all talk", all(s.nodes, func(n *member) bool { return n.sessions() > 0 }))
	absent := func(seat int, state order.State) order.Order {
		return order.Absence{Seat: seat, Key: keyOf(t, seat), State: state}
	}
	must(t, s.nodes[0].bring(s.order(11, absent(2, order.Away))))
	must(t, s.nodes[1].bring(s.order(12, absent(3, order.Drained))))
	must(t, s.nodes[2].bring(s.order(13, absent(1, order.Cordoned))))
	seats := func(want ...control.Seat) func(*member) bool {
		return func(n *member) bool {
			is, err := control.ReadSeats(n.part.run)
			if err != nil || len(is.Seats) != len(want) {
				return false
			}
			for i, s := range is.Seats {
				if s.Away != want[i].Away || s.Yields != want[i].Yields {
					return false
				}
			}
			return true
		}
	}
	s.wait("the service etcd hears of it", all(s.nodes, seats(control.Seat{}, control.Seat{Away: true, Yields: true}, control.Seat{Yields: true})))
	if err := s.nodes[0].bring(s.order(1, absent(2, order.Present))); rpc.CodeOf(err) != rpc.CodeAborted {
		t.Errorf("an older order: %v", err)
	}
	must(t, s.nodes[0].bring(s.order(14, absent(2, order.Present))))
	// Of two orders with one number the other one counts for whoever brings it last.
	one, two := s.order(15, absent(1, order.Cordoned)), s.order(15, order.Absence{Seat: 1, Key: keyOf(t, 1), State: order.Cordoned, Why: "disk"})
	a, b := document.HashOf(one.Message()), document.HashOf(two.Message())
	if bytes.Compare(a[:], b[:]) > 0 {
		one, two = two, one
	}
	must(t, s.nodes[0].bring(one))
	if err := s.nodes[0].bring(two); rpc.CodeOf(err) != rpc.CodeAborted {
		t.Errorf("the order that does not count: %v", err)
	}
	must(t, s.nodes[0].bring(one))
	s.wait("it is back", all(s.nodes, seats(control.Seat{}, control.Seat{}, control.Seat{Yields: true})))
	// None of these nodes knows the time: for them nothing is over that has not passed for sure.
	must(t, s.nodes[0].bring(s.order(16, order.Absence{Seat: 2, Key: keyOf(t, 2), State: order.Away, Until: time.Now().Add(-time.Hour).UTC().Truncate(time.Second)})))
	s.wait("it is away for who does not know the time", all(s.nodes, seats(control.Seat{}, control.Seat{Away: true, Yields: true}, control.Seat{Yields: true})))
	must(t, s.nodes[0].bring(s.order(17, absent(2, order.Present))))
	s.wait("it is back again", all(s.nodes, seats(control.Seat{}, control.Seat{}, control.Seat{Yields: true})))
	answer, err := s.nodes[2].client(s.ada).Orders(t.Context(), rpc.NewRequest(&apiv1.OrdersRequest{}))
	must(t, err)
	var objects []signed.Envelope
	for _, raw := range answer.Msg.Envelopes {
		e, err := signed.Parse(raw)
		must(t, err)
		objects = append(objects, e)
	}
	if st := order.Decide(s.state, objects, time.Now()); len(st.Absent) != 2 || order.Number(s.state, objects, order.AbsenceKind) != 17 {
		t.Errorf("%+v", st)
	}
	// What nobody may order is refused in words.
	eve, err := fleet.NewKey()
	must(t, err)
	forged, err := order.Seal(s.state.Fleet(), eve, 9, s.isolation(2, true))
	must(t, err)
	for what, e := range map[string]signed.Envelope{"a stranger's": forged, "about no seat": s.order(19, s.isolation(7, true))} {
		if err := s.nodes[0].bring(e); rpc.CodeOf(err) != rpc.CodePermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestUnkept: a node whose disk takes no order follows it, passes it on, and says so.
func TestUnkept(t *testing.T) {
	s := newSmall(t, 4)
	s.wait("all talk", all(s.nodes, func(n *member) bool { return n.sessions() > 0 }))
	folder := filepath.Join(s.nodes[0].part.state, "kogge", "orders")
	must(t, os.WriteFile(folder, nil, 0o600))
	for range 2 { // whoever asks again hears it again
		if err := s.nodes[0].bring(s.order(1, s.isolation(3, true))); rpc.CodeOf(err) != rpc.CodeDataLoss {
			t.Errorf("an order that the disk does not take: %v", err)
		}
	}
	s.wait("all isolate it", all(s.with(1, 2, 4), isolates(3)))
	says := func(n *member) string {
		f, err := control.ReadFleet(n.part.run)
		must(t, err)
		return f.Problem
	}
	s.wait("the node says so", func() bool { return strings.Contains(says(s.nodes[0]), "does not keep") })
	if problem := says(s.nodes[1]); problem != "" {
		t.Errorf("another node: %s", problem)
	}
	must(t, os.Remove(folder))
	must(t, s.nodes[0].bring(s.order(2, s.isolation(3, false))))
	s.wait("it is well again", func() bool { return says(s.nodes[0]) == "" })
}

// TestRelay calls a node through another one: as the caller himself, with the node's own
// certificate, and through nobody who is no node of the ledger.
func TestRelay(t *testing.T) {
	s := newSmall(t, 3)
	s.wait("all talk", all(s.nodes, func(n *member) bool { return n.sessions() > 0 }))
	s.mu.Lock()
	s.astray = s.where[1] // behind other routers, machines have one address
	s.mu.Unlock()
	by := s.nodes[0].client(s.ada)
	c := api.Dial("n3:7443", "n1", s.fleet.Genesis, s.ada)
	c.Go(by.Relay("n3"))
	defer c.Close()
	for range 3 { // over one way
		_, err := c.Orders(t.Context(), rpc.NewRequest(&apiv1.OrdersRequest{}))
		must(t, err)
	}
	if key := fleet.KeyID(c.Shown().RawSubjectPublicKeyInfo); key != s.nodes[2].part.node.Key() {
		t.Errorf("key %s answers, and n3's is %s", fleet.Short(key), fleet.Short(s.nodes[2].part.node.Key()))
	}
	for name, want := range map[string]rpc.Code{"n9": rpc.CodeNotFound} {
		if _, err := by.Relay(name)(t.Context()); rpc.CodeOf(err) != want {
			t.Errorf("to %s: %v", name, err)
		}
	}
	// Who is no caller of that node is none through another one either.
	stranger := api.Dial("n3:7443", "n1", s.fleet.Genesis, s.nodes[1].part.node.Certificate())
	stranger.Go(by.Relay("n3"))
	defer stranger.Close()
	if _, err := stranger.Status(t.Context(), rpc.NewRequest(&apiv1.StatusRequest{})); rpc.CodeOf(err) != rpc.CodePermissionDenied {
		t.Errorf("a node's certificate: %v", err)
	}
	// What is not TLS is not carried.
	conn, err := by.Relay("n2")(t.Context())
	must(t, err)
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	if n, err := conn.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes came back", n)
	}
}
