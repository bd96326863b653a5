package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/etcd/etcdtest"
	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway"
	"kogge.example/agent/gateway/client"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/pinned"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(partEnv); file != "" {
		if err := runPart(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	etcdtest.Main(m)
}

// silence is that of the gateways of the tests.
const silence = 6 * time.Second

// world is a fleet whose nodes reach etcd through gateways, by TLS 1.3 on loopback.
type world struct {
	t     *testing.T
	fleet *ledgertest.Fleet
	etcd  *etcdtest.Fleet
	nodes []*node // by seat, from 1

	mu    sync.Mutex // guards where
	where map[int]netip.AddrPort
}

// node is one of them: its shelf, ledger and client, and if it is a member its gateway.
type node struct {
	world   *world
	seat    roster.Seat
	ledger  *pinned.Ledger
	gateway *gateway.Gateway
	client  *client.Client
	tls     *gossip.TLS
	number  uint64

	mu     sync.Mutex // guards what follows
	shelf  *shelf.Shelf
	height int64 // of the ledger that it follows
	told   []wire.Item

	stopClient, stopGateway func()
}

// newWorld is a fleet of so many seats and records, the first three of which are members; all
// nodes have the first record, and run.
func newWorld(t *testing.T, seats, records int) *world {
	t.Helper()
	w := &world{t: t, fleet: ledgertest.Founded(t, seats, records), where: make(map[int]netip.AddrPort)}
	members := 1
	if seats >= 3 {
		members = 3
	}
	w.etcd = etcdtest.New(t, members)
	for _, seat := range w.fleet.Log.State().Roster.Seats {
		n := w.node(seat)
		w.nodes = append(w.nodes, n)
		if seat.Number <= members {
			n.serve()
		}
	}
	for _, n := range w.nodes {
		n.run()
	}
	return w
}

func (w *world) node(seat roster.Seat) *node { return w.nodeAt(seat, 1) }

// nodeAt is a node that has so many records.
func (w *world) nodeAt(seat roster.Seat, records int) *node {
	t := w.t
	n := &node{world: w, seat: seat, ledger: pinned.Open(filepath.Join(t.TempDir(), "ledger"), w.fleet.Genesis), number: 10}
	for i, e := range w.fleet.Entries[:records] {
		if err := n.ledger.Take(int64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	state := n.ledger.State()
	n.shelf = shelf.New(state.Fleet(), notice.Kinds())
	n.tls = w.transport(seat)
	n.client = client.New(client.Config{
		Self: seat.Key, Ledger: n.ledger, Judge: n.judge, Logf: t.Logf,
		Dial: func(ctx context.Context, seat roster.Seat) (client.Session, error) { return n.tls.Dial(ctx, seat) },
		Told: func(_ board.Topic, i wire.Item) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, i)
		},
		Grown: func() {
			if n.gateway != nil {
				n.gateway.Advanced()
			}
		},
	})
	return n
}

// transport is TLS with a key of its own, which the seat's word certifies.
func (w *world) transport(seat roster.Seat) *gossip.TLS {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	state := w.fleet.Log.State()
	word, err := signed.Seal(notice.TLSKeyKind, state.Fleet(), ledgertest.Private(seat.Name), 1, notice.TLSKey{Version: 1, Seat: seat.Number, Key: document.HashOf(spki)}.Encode())
	if err != nil {
		w.t.Fatal(err)
	}
	return &gossip.TLS{
		Speaks:      wire.Protocol,
		Certificate: func() tls.Certificate { return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key} },
		Word:        func() (signed.Envelope, error) { return word, nil },
		Admit: func(raw []byte, key document.Hash) (roster.Seat, error) {
			e, err := signed.Open(raw)
			if err != nil {
				return roster.Seat{}, err
			}
			return notice.Bound(e, state, key)
		},
		Addresses: func(seat roster.Seat) []netip.AddrPort {
			w.mu.Lock()
			defer w.mu.Unlock()
			if a, ok := w.where[seat.Number]; ok {
				return []netip.AddrPort{a}
			}
			return nil
		},
	}
}

func (n *node) judge(raw []byte) (shelf.Verdict, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if state := n.ledger.State(); state.Height != n.height {
		n.shelf.Follow(state.Roster)
		n.height = state.Height
	}
	return n.shelf.Put(raw), nil
}

// judge is a node's shelf as its gateway has it.
type judge struct{ *node }

func (j judge) Put(raw []byte) (shelf.Verdict, error) { return j.judge(raw) }

func (j judge) Object(kind string, by signed.Key) (signed.Envelope, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.shelf.Get(kind, by)
}

// serve has a node have a gateway.
func (n *node) serve() {
	t := n.world.t
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(n.world.etcd.Socket(n.seat.Number))
	if err != nil {
		t.Fatal(err)
	}
	n.gateway = gateway.New(gateway.Config{
		Shelf: judge{n}, Ledger: n.ledger, Silence: silence, Logf: t.Logf,
	})
	n.gateway.Members([]int{1, 2, 3})
	n.world.mu.Lock()
	n.world.where[n.seat.Number] = listener.Addr().(*net.TCPAddr).AddrPort()
	n.world.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.gateway.Run(ctx, s) })
	running.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { n.take(ctx, raw) })
		}
	})
	n.stopGateway = sync.OnceFunc(func() {
		stop()
		listener.Close()
		running.Wait()
		s.Close()
	})
	t.Cleanup(n.stopGateway)
}

func (n *node) take(ctx context.Context, raw net.Conn) {
	conn := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, NextProtos: []string{wire.Protocol}, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { c := n.tls.Certificate(); return &c, nil },
	})
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if conn.HandshakeContext(limited) != nil {
		raw.Close()
		return
	}
	if s, err := n.tls.Take(conn, func() {}); err == nil {
		_ = n.gateway.Serve(ctx, s)
	}
}

// run runs a node's client, which says a record and a status.
func (n *node) run() {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.client.Run(ctx) })
	n.stopClient = sync.OnceFunc(func() { stop(); running.Wait() })
	n.world.t.Cleanup(n.stopClient)
	n.say(notice.NodeKind, recordOf(n.seat.Name, "board"))
	n.say(notice.StatusKind, statusOf("fine"))
}

// say has a node say something under its next number.
func (n *node) say(kind string, body []byte) signed.Envelope {
	n.world.t.Helper()
	n.number++
	e := n.seal(kind, n.number, body)
	if v, _ := n.judge(e.Bytes()); !v.News() {
		n.world.t.Errorf("%s says %s: %s", n.seat.Name, kind, v)
	}
	n.client.Say(e)
	return e
}

func (n *node) seal(kind string, number uint64, body []byte) signed.Envelope {
	e, err := signed.Seal(kind, n.world.fleet.Log.State().Fleet(), ledgertest.Private(n.seat.Name), number, body)
	if err != nil {
		n.world.t.Fatal(err)
	}
	return e
}

func recordOf(name, board string) []byte {
	return notice.Node{Version: 1, Name: name, Arch: "amd64", Board: board, Kernel: "6.12", Capacity: notice.Capacity{CPUs: 1, Memory: 1, Disk: 1}}.Encode()
}

func statusOf(what string) []byte {
	return notice.Status{Version: 1, Wrong: []notice.Fault{{What: "test", Why: what}}}.Encode()
}

// has says what a node knows that another one has said last.
func (n *node) has(kind string, of *node) (signed.Envelope, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shelf.Get(kind, of.seat.Key)
}

// all waits until something holds for all nodes.
func (w *world) all(what string, holds func(*node) bool) {
	w.t.Helper()
	left := w.nodes
	w.etcd.Until(what, func() bool {
		for len(left) > 0 && holds(left[0]) {
			left = left[1:]
		}
		return len(left) == 0
	})
}

// whole waits until all nodes know what all have said last, and that all hold leases.
func (w *world) whole() {
	w.t.Helper()
	w.all("all know all", func(n *node) bool {
		for _, of := range w.nodes {
			for _, kind := range []string{notice.NodeKind, notice.StatusKind} {
				mine, _ := n.has(kind, of)
				theirs, _ := of.has(kind, of)
				if !bytes.Equal(mine.Body, theirs.Body) { // what is said again under another number is told to nobody
					return false
				}
			}
			if leased, known := n.client.Leased(of.seat.Key); !leased || !known {
				return false
			}
		}
		return true
	})
}

// etcdHas waits until etcd has, in the place of each node's objects, what it has said last.
func (w *world) etcdHas(of ...*node) {
	w.t.Helper()
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	for _, n := range of {
		for _, kind := range []string{notice.NodeKind, notice.StatusKind} {
			own, _ := n.has(kind, n)
			place, _ := board.Of(own)
			w.etcd.Until(fmt.Sprintf("etcd has the %s of %s", kind, n.seat.Name), func() bool {
				i, err := s.Get(w.t.Context(), place.Key())
				e, bad := signed.Open(i.Value)
				return err == nil && bad == nil && bytes.Equal(e.Body, own.Body) && e.By == own.By && (i.Lease != 0) == place.Leased()
			})
		}
	}
}

// writes are how often the gateways have written to etcd, and what nodes have put.
func (w *world) writes() (written, puts uint64) {
	for _, m := range w.nodes[:3] {
		s := m.gateway.Stats()
		written, puts = written+s.Written, puts+s.Puts
	}
	return written, puts
}
