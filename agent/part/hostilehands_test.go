package part

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	rpc "connectrpc.com/connect"
	"go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/enrol"
	gatewaywire "kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/gossip/wire"
	"kogge.example/agent/papers"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// hostile is the member of seat 3 that does what a test wants: it has the seat's keys, and runs
// nothing that an honest node does.
type hostile struct {
	*stage
	part        *Part // its identity alone
	key         ed25519.PrivateKey
	certificate tls.Certificate
	word        signed.Envelope // for its TLS key
	etcd        *clientv3.Client
	old         map[int]signed.Envelope // statuses of honest seats

	mu       sync.Mutex // guards what follows
	sessions map[int]gossip.Session
	sends    map[shelf.ID][]byte // when it is asked
	entry    ledger.Entry        // that it sends when it is asked for one
	papers   [][]byte
	guest    gossip.Session // n4's, at its gateway
	at       gossip.Session // at the gateway of n1
	asked    uint64
	comers   *enrol.Member // that answers who comes; nil: nobody does
}

// listen opens the port of its API, as that of an honest node.
func (h *hostile) listen(ctx context.Context) *serve.Server {
	h.key, h.certificate = ledgertest.Private("n3"), h.part.node.Certificate()
	h.sessions, h.sends, h.old = make(map[int]gossip.Session), make(map[shelf.ID][]byte), make(map[int]signed.Envelope)
	own, err := document.ParseHash(h.part.node.Key())
	must(h.t, err)
	h.word = h.seal(notice.TLSKeyKind, 1, notice.TLSKey{Version: 1, Seat: 3, Key: own}.Encode())
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: h.part.node, ClockSure: h.now.sure, Known: h.part.Known, Protocols: map[string]func(*tls.Conn){
			gatewaywire.Protocol: func(conn *tls.Conn) {
				if s, err := h.transport(gatewaywire.Protocol, h.certificate, h.word).Take(conn, letGo(conn)); err == nil {
					h.serveGuest(s)
				}
			},
			enrol.Protocol: func(conn *tls.Conn) {
				h.mu.Lock()
				m := h.comers
				h.mu.Unlock()
				if m != nil {
					m.Serve(ctx, conn, letGo(conn))
				}
			},
		},
	})
	must(h.t, err)
	return server
}

// transport is TLS as nodes speak it, for who shows a certificate and a word.
func (h *hostile) transport(protocol string, certificate tls.Certificate, word signed.Envelope) *gossip.TLS {
	return &gossip.TLS{
		Speaks: protocol, Certificate: func() tls.Certificate { return certificate }, Word: func() (signed.Envelope, error) { return word, nil },
		Admit: func(raw []byte, key document.Hash) (roster.Seat, error) {
			e, err := signed.Open(raw)
			if err != nil {
				return roster.Seat{}, err
			}
			return notice.Bound(e, h.Log.State(), key)
		},
		Addresses: func(seat roster.Seat) []netip.AddrPort { return []netip.AddrPort{h.where[seat.Number]} },
	}
}

// enter keeps what the honest nodes say now, for later, and opens its ways to all.
func (h *hostile) enter() {
	for _, seat := range honest {
		h.old[seat] = object(h.nodes[0].session.Load(), notice.StatusKind, seat)
		must(h.t, h.sessionWith(seat))
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + h.stage.etcd.Socket(3)}, Logger: zap.NewNop()})
	must(h.t, err)
	h.etcd = c
	h.t.Cleanup(func() { c.Close() })
	must(h.t, h.goesTo(1))
}

// does does something, and waits until it has arrived. What the honest nodes have is what they had,
// meanwhile and then; it is returned.
func (h *hostile) does(a act, known string) (now string) {
	h.t.Helper()
	before := h.counts(a.seen, a.on)
	if err := a.do(h); err != nil {
		h.t.Errorf("it %s: %v", a.what, err)
	}
	arrived := func() bool {
		for seat, n := range h.counts(a.seen, a.on) {
			if n <= before[seat] {
				return false
			}
		}
		return true
	}
	within(h.t, fmt.Sprintf("it %s: that arrives", a.what), func() bool {
		all := arrived()
		now = h.known()
		return all || now != known
	})
	if now != known {
		h.t.Errorf("it %s, and the honest nodes do not have (-) but (+):\n%s", a.what, difference(known, now))
	}
	return now
}

// counter is a figure of an honest node.
type counter func(*session) uint64

func ignored(why string) counter {
	return func(s *session) uint64 { return s.board.gateway.Stats().Ignored[why] }
}

func recalled(s *session) uint64 { return s.board.gateway.Stats().Recalled }

func toldByGateway(what string) counter {
	return func(s *session) uint64 { return s.board.client.Known().Verdicts[what] }
}

func verdict(what string) counter {
	return func(s *session) uint64 { return s.engine.Stats().Verdicts[what] }
}

func dropped(why string) counter {
	return func(s *session) uint64 { return s.engine.Stats().Dropped[why] }
}

func paperRefused(why string) counter {
	return func(s *session) uint64 { return s.part.papers().Refused()[why] }
}

func enrolmentRefused(why string) counter {
	return func(s *session) uint64 { return s.member.Refused()[why] }
}

func putRefused(why gatewaywire.Why) counter {
	return func(s *session) uint64 { return s.board.gateway.Stats().Refused[why.String()] }
}

func entryRefused(why gatewaywire.Why) counter { return putRefused(why) }

func gatewayDropped(why string) counter {
	return func(s *session) uint64 { return s.board.gateway.Stats().Dropped[why] }
}

// What it does in etcd.

func (h *hostile) write(key string, value []byte) error {
	_, err := h.etcd.Put(h.t.Context(), key, string(value))
	return err
}

func (h *hostile) writeEntry(height int64, e ledger.Entry) error {
	return h.write(board.Entry(height).Key(), ledger.FormatEntry(height, e))
}

func (h *hostile) erase(prefix string) error {
	_, err := h.etcd.Delete(h.t.Context(), prefix, clientv3.WithPrefix())
	return err
}

func (h *hostile) compact() error {
	now, err := h.etcd.Get(h.t.Context(), "\x00", clientv3.WithCountOnly())
	if err == nil {
		_, err = h.etcd.Compact(h.t.Context(), now.Header.Revision)
	}
	return err
}

// unleases writes over a status with the same bytes and no lease, as if its node were gone, once the
// honest nodes have put back what it has deleted. The node's gateway puts it right.
func (h *hostile) unleases() error {
	leased := func() bool {
		var out strings.Builder
		h.lies(&out)
		return strings.Count(out.String(), "what it says true, leased true") == 3
	}
	within(h.t, "all statuses are leased", leased)
	err := h.write(place(h, 2, notice.StatusKind), object(h.nodes[1].session.Load(), notice.StatusKind, 2).Bytes())
	within(h.t, "all statuses are leased again", leased)
	return err
}

func (h *hostile) endLeases() error {
	all, err := h.etcd.Leases(h.t.Context())
	if err != nil {
		return err
	}
	for _, l := range all.Leases {
		if _, err := h.etcd.Revoke(h.t.Context(), l.ID); err != nil {
			return err
		}
	}
	return nil
}

// What it does by gossip.

// sessionWith opens a session, in which it answers what it is asked as it is told to.
func (h *hostile) sessionWith(number int) error {
	seat, _ := h.Log.State().Roster.Seat(number)
	s, err := h.transport("", h.certificate, h.word).Dial(h.t.Context(), seat)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.sessions[number] = s
	h.mu.Unlock()
	h.t.Cleanup(func() { s.Close() })
	go func() {
		for {
			raw, err := s.Receive()
			if err != nil {
				return
			}
			if f, err := wire.Decode(raw); err == nil {
				h.answer(s, f)
			}
		}
	}()
	return nil
}

func (h *hostile) answer(s gossip.Session, f wire.Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	say := func(f wire.Frame) { _ = s.Send([][]byte{wire.Encode(f)}) }
	switch f := f.(type) {
	case wire.Digest:
		say(wire.Same{})
	case wire.Want:
		for _, w := range f {
			if raw, ok := h.sends[w.ID]; ok {
				say(wire.Objects{raw})
			} else {
				say(wire.Denied{w.ID})
			}
		}
	case wire.WantEntry:
		say(wire.Entry{Height: f.Height, Parts: [wire.Parts][]byte{h.entry.Record, h.entry.Value, h.entry.Certificate}})
	case wire.WantPapers:
		if len(h.papers) > 0 {
			say(wire.Papers(h.papers))
		}
	}
}

func (h *hostile) say(f wire.Frame, to ...int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, seat := range to {
		if err := h.sessions[seat].Send([][]byte{wire.Encode(f)}); err != nil {
			return fmt.Errorf("n%d: %w", seat, err)
		}
	}
	return nil
}

// tells says that it has a newer object in a place, and sends some bytes when it is asked for it.
func (h *hostile) tells(id shelf.ID, raw []byte, to ...int) {
	h.mu.Lock()
	h.sends[id] = raw
	h.mu.Unlock()
	must(h.t, h.say(wire.Tell{{ID: id, Number: notice.MaxNumber}}, to...))
}

// orders signs an order with a key that is no operator's, and tells of it.
func (h *hostile) orders(key *ecdsa.PrivateKey, o order.Order) error {
	e, err := order.Seal(h.id(), key, beyond, o)
	if err != nil {
		return err
	}
	id := shelf.IDOf(order.AbsenceKind, h.keyOf(2))
	if one, is := o.(order.Isolation); is {
		id = shelf.IDOf(order.IsolationKind, one.Key)
	}
	h.tells(id, e.Bytes(), honest...)
	return nil
}

func (h *hostile) offers(height int64, e ledger.Entry, to ...int) error {
	h.mu.Lock()
	h.entry = e
	h.mu.Unlock()
	return h.say(wire.Head{Height: height, Record: document.HashOf(e.Record)}, to...)
}

func (h *hostile) givesPapers(all ...[]byte) error {
	h.mu.Lock()
	h.papers = all
	h.mu.Unlock()
	return h.say(wire.PaperSum{Sum: document.HashOf(bytes.Join(all, nil))}, honest...)
}

// What it does at gateways, and as one.

// serveGuest is its gateway: n4 alone is let in, and it says yes to everything, and does nothing.
func (h *hostile) serveGuest(s gossip.Session) {
	defer s.Close()
	say := func(f gatewaywire.Frame) error { return s.Send([][]byte{gatewaywire.Encode(f)}) }
	if s.Peer() != h.keyOf(4) {
		_ = say(gatewaywire.Refuse{Why: gatewaywire.NoEtcd})
		return
	}
	h.mu.Lock()
	h.guest = s
	h.mu.Unlock()
	err := say(gatewaywire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
	for err == nil {
		var raw []byte
		if raw, err = s.Receive(); err != nil {
			return
		}
		switch f, _ := gatewaywire.Decode(raw); f := f.(type) {
		case gatewaywire.Alive:
			err = say(f)
		case gatewaywire.Put:
			err = say(gatewaywire.Done{ID: f.ID})
		case gatewaywire.Follow:
			err = say(gatewaywire.Live{Topic: f.Topic})
		}
	}
}

// serveNothing waits until n4 has put what it says at its gateway, and has asked for all.
func (h *hostile) serveNothing() error {
	within(h.t, "n4 is at the gateway of n3", func() bool {
		k := h.nodes[3].session.Load().board.client.Known()
		return k.Gateway == 3 && k.Live[board.Nodes] && k.Live[board.Ledger]
	})
	return nil
}

func (h *hostile) serve(frames ...gatewaywire.Frame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var raw [][]byte
	for _, f := range frames {
		raw = append(raw, gatewaywire.Encode(f))
	}
	return h.guest.Send(raw)
}

// shows has its gateway tell what lies under a key.
func (h *hostile) shows(key string, value []byte) error {
	return h.serve(gatewaywire.Items{Topic: board.Nodes, Items: []gatewaywire.Item{{Key: key, Revision: 1 << 60, State: gatewaywire.Leased, Value: value}}})
}

func (h *hostile) showsEntry(height int64, e ledger.Entry) error {
	return h.serve(gatewaywire.Items{Topic: board.Ledger, Items: []gatewaywire.Item{{Key: board.Entry(height).Key(), Revision: 1 << 60, Value: ledger.FormatEntry(height, e)}}})
}

// goesTo opens a session with the gateway of a seat; that it is refused is told by its first word.
func (h *hostile) goesTo(number int) error {
	seat, _ := h.Log.State().Roster.Seat(number)
	s, err := h.transport(gatewaywire.Protocol, h.certificate, h.word).Dial(h.t.Context(), seat)
	if err == nil {
		h.at = s
		h.t.Cleanup(func() { s.Close() })
		_, err = s.Receive()
	}
	return err
}

func (h *hostile) ask(f gatewaywire.Frame) error { return h.at.Send([][]byte{gatewaywire.Encode(f)}) }

// puts puts something at the gateway of n1, and wants it to be refused for that reason.
func (h *hostile) puts(raw []byte, why gatewaywire.Why) error {
	h.asked++
	if err := h.ask(gatewaywire.Put{ID: h.asked, Envelope: raw}); err != nil {
		return err
	}
	for {
		answer, err := h.at.Receive()
		if err != nil {
			return err
		}
		if f, _ := gatewaywire.Decode(answer); f != nil {
			if done, ok := f.(gatewaywire.Done); ok && done.ID == h.asked {
				if done.Why != why {
					return fmt.Errorf("it is answered %q", done.Why)
				}
				return nil
			}
		}
	}
}

// What it does as one who holds the key of the node CA.

func (h *hostile) dial(certificate tls.Certificate, seat int) *api.Client {
	c := api.Dial(h.where[seat].String(), fmt.Sprintf("n%d", seat), h.Genesis, certificate)
	h.t.Cleanup(c.Close)
	return c
}

func (h *hostile) calls(certificate tls.Certificate, seat int) error {
	_, err := h.dial(certificate, seat).Status(h.t.Context(), rpc.NewRequest(&apiv1.StatusRequest{}))
	return err
}

// visits has a node come to a member as one that is in already.
func (h *hostile) visits(certificate tls.Certificate, key ed25519.PrivateKey, member int) error {
	own, err := signed.KeyOf(key.Public().(ed25519.PublicKey))
	must(h.t, err)
	one := &enrol.Node{Genesis: h.Genesis, Certificate: certificate, Key: own, Ledger: pinned.Open(h.t.TempDir(), h.Genesis), Seal: sealer(key)}
	if _, err = one.Visit(h.t.Context(), h.where[member], true); err == nil {
		return errors.New("it is let in")
	}
	return nil
}

func (h *hostile) comesByOwnToken(member int) error {
	seed, record := h.ownToken()
	n := h.comer(h.t, seed, record, "n8", member)
	if _, ok := n.Step(h.t.Context(), 5); ok || n.part.node.Adopted() {
		return errors.New("it is let in")
	}
	return nil
}

// showsComerAnotherLedger lets a node with a good token come to it, and shows a ledger that it has
// made: the node stops there, and proves no token.
func (h *hostile) showsComerAnotherLedger() error {
	other := ledger.New(h.Genesis)
	must(h.t, other.Append(h.story.Entries[0]))
	store, err := papers.Open(h.t.TempDir(), h.Log.State)
	must(h.t, err)
	h.mu.Lock()
	h.comers = &enrol.Member{
		Ledger: another{h, other}, Papers: store, Word: func() (signed.Envelope, error) { return h.word, nil }, Revoked: func(string) bool { return false }, Told: func() []string { return nil },
		Now: time.Now, CanSign: func() error { return nil }, Sign: func(name string, key *ecdsa.PublicKey) ([]byte, error) {
			h.t.Error("it is given a token")
			return nil, io.EOF
		},
	}
	h.mu.Unlock()
	seed := fleet.NewToken()
	n := h.comer(h.t, seed, h.issue(h.t, seed, func(*token.Record) {}), "n7", 3)
	e, _ := n.part.node.Enrolment()
	err = n.Come(h.t.Context(), e)
	if _, waits := n.part.node.Enrolment(); !waits || n.part.node.Adopted() || len(store.All()) > 0 {
		return fmt.Errorf("the node comes in: %w", err)
	}
	if !errors.Is(err, ledger.ErrCertificate) {
		return err
	}
	return nil
}

// another is its ledger as it shows it: as long as the true one, from record 2 on of its own.
type another struct {
	h     *hostile
	other *ledger.Log
}

func (a another) State() ledger.State { return a.h.Log.State() }

func (a another) Entry(height int64) (ledger.Entry, error) {
	if height == 1 {
		return a.h.story.Entries[0], nil
	}
	return a.h.signs(a.other, a.h.Operators(a.h.t, "eve")), nil
}

// saysWordOf comes to a node with its own TLS key, and another seat's word for another one.
func (h *hostile) saysWordOf(seat, at int) error {
	word := object(h.nodes[0].session.Load(), notice.TLSKeyKind, seat)
	to, _ := h.Log.State().Roster.Seat(at)
	for _, protocol := range []string{gossip.Protocol, gatewaywire.Protocol} {
		if s, err := h.transport(protocol, h.certificate, word).Dial(h.t.Context(), to); err == nil {
			s.Close()
			return fmt.Errorf("it is let in by %s", protocol)
		}
	}
	return nil
}
