package gossip

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// What a session costs on the wire beside its frames, in bytes: measured by TestCost over TLS
// and TCP on loopback, with IPv4 and TCP's timestamps.
const (
	segment      = 1388 // payload of a packet
	packet       = 52   // its headers, and those of an acknowledgement
	record       = 22   // of TLS, for 16 KiB
	handshake    = 6500 // from the first packet to the end, with certificates of a CA
	keepalive    = 2 * packet
	keepaliveOne = keepAliveIdle
)

// wired is what bytes of frames cost, sent together, with the packets that acknowledge them.
func wired(payload int) int {
	segments := (payload + segment - 1) / segment
	return payload + record*((payload+16<<10-1)/(16<<10)) + packet*(segments+(segments+1)/2)
}

// network is a fleet in memory, on virtual time.
type network struct {
	t       testing.TB
	fleet   document.Hash
	state   ledger.State
	nodes   []*node
	byKey   map[signed.Key]*node
	latency time.Duration
	running sync.WaitGroup
	stop    context.CancelFunc // of the puppets, if there are any

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	loss   float64                       // of a turn's frames, and a tenth of it of the session
	apart  func(a, b int) bool           // who does not reach whom
	known  map[document.Hash]error       // signatures that were checked
	bends  map[int]func([]byte) [][]byte // what a node does to frames that it sends
}

// node is one of them.
type node struct {
	net     *network
	number  int // of its seat
	name    string
	private ed25519.PrivateKey
	key     signed.Key
	ledger  Ledger
	engine  *Engine
	stop    context.CancelFunc
	ended   chan struct{}
	inbox   chan *memory
	numbers uint64
	bytes   atomic.Int64 // on the wire
	news    atomic.Int64
	config  func(*Config)
	behind  bool // a router that lets nobody in
}

// still is a ledger at rest.
type still struct{ state ledger.State }

func (l still) State() ledger.State { return l.state }
func (l still) Record(height int64) (record document.Hash, err error) {
	if height > 0 {
		record = document.HashOf(fmt.Appendf(nil, "record %d", height))
	}
	return record, nil
}
func (l still) Entry(int64) (ledger.Entry, error) { return ledger.Entry{}, ledger.ErrHeight }
func (l still) Take(int64, ledger.Entry) error    { return ledger.ErrHeight }
func (l still) Second() (int64, ledger.Entry)     { return 0, ledger.Entry{} }

// large is the state of a founded fleet of any size: every seat votes up to a hundred of them,
// and ten share a domain. Its id is always the same, by which nodes choose their peers.
func large(t testing.TB, count int) ledger.State {
	raw := ledgertest.Must[[]byte](t)(os.ReadFile("../../update/fleet/testdata/v1/genesis.json"))
	s := ledger.State{Genesis: ledgertest.Must[*fleet.Genesis](t)(fleet.ParseGenesis(raw)), Height: 1, Record: document.HashOf([]byte("record 1"))}
	for i := 1; i <= count; i++ {
		key := ledgertest.Must[signed.Key](t)(signed.KeyOf(private(i).Public().(ed25519.PublicKey)))
		s.Roster.Seats = append(s.Roster.Seats, roster.Seat{Number: i, Name: fmt.Sprintf("n%d", i), Key: key, Vote: i <= 100, Domain: fmt.Sprintf("d%d", i%max(4, count/10))})
	}
	return s
}

func private(i int) ed25519.PrivateKey { return ledgertest.Private(fmt.Sprintf("n%d", i)) }

// newNetwork is a fleet that is not started. Each node has the ledger that open gives.
func newNetwork(t testing.TB, state ledger.State, open func(i int) Ledger) *network {
	n := &network{
		t: t, fleet: state.Fleet(), state: state, byKey: make(map[signed.Key]*node), latency: 20 * time.Millisecond,
		random: rand.New(rand.NewPCG(1, 2)), apart: func(a, b int) bool { return false }, known: make(map[document.Hash]error),
		bends: make(map[int]func([]byte) [][]byte),
	}
	for i, seat := range state.Roster.Seats {
		one := &node{net: n, number: seat.Number, name: seat.Name, private: private(seat.Number), key: seat.Key, ledger: open(i), inbox: make(chan *memory)}
		n.nodes = append(n.nodes, one)
		n.byKey[one.key] = one
	}
	return n
}

// start starts a node with nothing on its shelf.
func (n *node) start() {
	c := Config{
		Self: n.key, Ledger: n.ledger, Kinds: notice.Kinds(), Transport: n, Verify: n.net.verify, Logf: func(string, ...any) {},
		News: func(signed.Envelope) { n.news.Add(1) },
	}
	if n.config != nil {
		n.config(&c)
	}
	n.engine = New(c)
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.ended = stop, make(chan struct{})
	ended, engine := n.ended, n.engine
	go func() {
		defer close(ended)
		engine.Run(ctx)
	}()
}

func (n *node) end() {
	n.stop()
	<-n.ended
	n.engine = nil
}

// verify checks each signature once: a thousand nodes would check it a thousand times.
func (n *network) verify(e signed.Envelope) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	hash := document.HashOf(e.Bytes())
	err, ok := n.known[hash]
	if !ok {
		err = e.Verify()
		n.known[hash] = err
	}
	return err
}

// seal signs an object of a kind.
func (n *node) seal(kind string, body []byte) signed.Envelope {
	n.numbers++
	e, err := signed.Seal(kind, n.net.fleet, n.private, n.numbers, body)
	if err != nil {
		n.net.t.Error(n.name, err)
	}
	return e
}

// say publishes one.
func (n *node) say(kind string, body []byte) signed.Envelope {
	e := n.seal(kind, body)
	if err := n.engine.Publish(e); err != nil {
		n.net.t.Error(n.name, err)
	}
	return e
}

func (n *node) sayStatus(deeds int64) signed.Envelope {
	return n.say(notice.StatusKind, n.status(deeds))
}

func (n *node) status(deeds int64) []byte {
	s := notice.Status{Version: 1, Height: n.net.state.Height, Head: n.net.state.Record}
	if deeds > 0 {
		s.Deeds = notice.Deeds{Size: deeds, Root: document.HashOf([]byte(fmt.Sprint(n.number, deeds)))}
	}
	return s.Encode()
}

// sayAll publishes all that a node says when it starts.
func (n *node) sayAll() {
	n.say(notice.TLSKeyKind, notice.TLSKey{Version: 1, Seat: n.number, Key: document.HashOf([]byte(n.name))}.Encode())
	n.say(notice.NodeKind, notice.Node{
		Version: 1, Name: n.name, Arch: "arm64", Board: "qemu-arm64", Model: "QEMU Virtual Machine", Kernel: "6.12.118+deb13-cloud-arm64",
		Addresses: []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:7443", n.number/250, 1+n.number%250))},
		Slots:     []notice.Slot{{Name: "A", Release: "1.0", Root: document.HashOf(nil), Running: true, Boot: "good"}, {Name: "B"}},
		Capacity:  notice.Capacity{CPUs: 4, Memory: 1 << 30, Disk: 8 << 30},
	}.Encode())
	n.sayStatus(0)
}

// run starts all nodes, has test do something with them, and ends them.
func (n *network) run(test func()) {
	for _, one := range n.nodes {
		one.start()
	}
	test()
	for _, one := range n.nodes {
		if one.engine != nil {
			one.end()
		}
	}
	if n.stop != nil {
		n.stop()
	}
	n.running.Wait()
}

// alive are the nodes that run.
func (n *network) alive() (all []*node) {
	for _, one := range n.nodes {
		if one.engine != nil {
			all = append(all, one)
		}
	}
	return all
}

// within waits until something holds, at most for a time, and says how long that took.
func (n *network) within(limit time.Duration, what string, holds func() bool) time.Duration {
	n.t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			n.t.Errorf("%s: not within %s", what, limit)
			n.show()
			break
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

// show says what the first nodes are at.
func (n *network) show() {
	for i, one := range n.alive() {
		if i < 10 {
			var with []string
			one.engine.do(func() {
				for _, s := range one.engine.sessions {
					with = append(with, s.seat.Name)
				}
			})
			n.t.Logf("%s: sessions with %v, %+v", one.name, with, one.engine.Stats())
		}
	}
}

// agree says whether all nodes that run know the same, of so many seats.
func (n *network) agree(objects int) bool {
	all := n.alive()
	first := all[0].engine.Stats()
	for _, one := range all {
		if s := one.engine.Stats(); s.Root != first.Root || s.Objects != objects || s.Height != first.Height {
			return false
		}
	}
	return true
}

// have says whether all nodes that run have an object, or a newer one.
func (n *network) have(e signed.Envelope) bool {
	for _, one := range n.alive() {
		if got, ok := one.engine.Object(e.Kind, e.By); !ok || got.Sequence < e.Sequence {
			return false
		}
	}
	return true
}

// memory is one end of a session in memory.
type memory struct {
	from, to *node
	dialled  bool
	in, out  chan batch
	end      chan struct{}
	once     *sync.Once
	left     [][]byte
	last     *atomic.Int64 // when something was sent on it, by either end
}

// batch are frames that arrive together.
type batch struct {
	frames [][]byte
	at     time.Time
}

var errDown = errors.New("nobody is there")

// Dial reaches a node that runs.
func (n *node) Dial(ctx context.Context, seat roster.Seat) (Session, error) {
	to := n.net.byKey[seat.Key]
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(3 * n.net.latency):
	}
	n.net.mu.Lock()
	apart := n.net.apart(n.number, to.number)
	n.net.mu.Unlock()
	if apart || to.behind {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a, b := pipe(n, to)
	select {
	case to.inbox <- b:
		n.bytes.Add(handshake)
		to.bytes.Add(handshake)
		return a, nil
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return nil, errDown
}

// Accept takes who has dialled.
func (n *node) Accept(ctx context.Context) (Session, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case s := <-n.inbox:
		return s, nil
	}
}

func pipe(from, to *node) (a, b *memory) {
	there, back, end, once := make(chan batch, 64), make(chan batch, 64), make(chan struct{}), new(sync.Once)
	last := new(atomic.Int64)
	last.Store(time.Now().UnixNano())
	a = &memory{from: from, to: to, dialled: true, in: back, out: there, end: end, once: once, last: last}
	b = &memory{from: to, to: from, in: there, out: back, end: end, once: once, last: last}
	return a, b
}

func (m *memory) Peer() signed.Key { return m.to.key }

func (m *memory) Close() error {
	m.once.Do(func() { close(m.end) })
	return nil
}

// spend counts bytes for both ends.
func (m *memory) spend(n int) {
	m.from.bytes.Add(int64(n))
	m.to.bytes.Add(int64(n))
}

func (m *memory) Send(frames [][]byte) error {
	net := m.from.net
	net.mu.Lock()
	lost, broken := net.random.Float64() < net.loss, net.random.Float64() < net.loss/10
	apart, bend := net.apart(m.from.number, m.to.number), net.bends[m.from.number]
	net.mu.Unlock()
	if bend != nil {
		var bent [][]byte
		for _, f := range frames {
			bent = append(bent, bend(f)...)
		}
		frames = bent
	}
	size := 0
	for _, f := range frames {
		size += len(f) + len(binary.AppendUvarint(nil, uint64(len(f))))
	}
	now := time.Now()
	idle := now.Sub(time.Unix(0, m.last.Swap(now.UnixNano())))
	m.spend(wired(size) + keepalive*int(idle/keepaliveOne))
	if broken {
		m.Close()
		return io.ErrClosedPipe
	}
	if lost || apart || len(frames) == 0 {
		return nil
	}
	select {
	case m.out <- batch{frames, time.Now().Add(net.latency)}:
		return nil
	case <-m.end:
		return io.ErrClosedPipe
	case <-time.After(writeLimit):
		m.Close()
		return errors.New("the peer does not read")
	}
}

func (m *memory) Receive() ([]byte, error) {
	for len(m.left) == 0 {
		select {
		case b := <-m.in:
			if wait := time.Until(b.at); wait > 0 {
				select {
				case <-time.After(wait):
				case <-m.end:
					return nil, io.ErrClosedPipe
				}
			}
			m.left = b.frames
		case <-m.end:
			return nil, io.ErrClosedPipe
		}
	}
	f := m.left[0]
	m.left = m.left[1:]
	return f, nil
}
