package part

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway"
	"kogge.example/agent/gateway/client"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/records"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// notices is the node's part in the fleet's notice board, which etcd is: a session with the
// gateway of a seat that runs etcd, and, where the node runs it, a gateway.
type notices struct {
	*gossip.Engine
	client  *client.Client
	gateway *gateway.Gateway
	tls     *gossip.TLS
	taken   *pinned.Ledger
	self    signed.Key
	run     string // the folder that does not outlive a boot

	mu    sync.Mutex // guards came and keys
	came  map[shelf.ID]int32
	keys  map[signed.Key]document.Hash // TLS keys that seats call their own
	begun time.Time
}

// newNotices stands on the engine of the node's gossip: what both carry lies on one shelf.
func newNotices(s *session) *notices {
	n := &notices{Engine: s.engine, taken: s.taken, self: s.seat.Key, run: s.part.run, came: make(map[shelf.ID]int32), keys: make(map[signed.Key]document.Hash), begun: time.Now()}
	n.tls = &gossip.TLS{
		Speaks: wire.Protocol, Certificate: s.peers.Certificate, Word: s.peers.Word, Admit: s.peers.Admit, Addresses: s.peers.Addresses, Find: s.peers.Find,
	}
	book := s.part.book()
	n.gateway = gateway.New(gateway.Config{Shelf: s.engine, Ledger: s.taken, Grown: s.talk.Look, Refuse: func(one gateway.Session) error {
		return cmp.Or(isolated(book, one.Peer()), s.part.withdrawn(one), n.outdated(one.Peer(), one))
	}})
	n.client = client.New(client.Config{
		Self: s.seat.Key, Ledger: s.taken, Judge: s.engine.Put, Grown: s.talk.Look,
		Refuse: func(seat roster.Seat, one client.Session) error {
			return cmp.Or(refuse(book)(seat), s.part.withdrawn(one), n.outdated(seat.Key, one))
		},
		Dial: func(ctx context.Context, seat roster.Seat) (client.Session, error) { return n.tls.Dial(ctx, seat) },
	})
	return n
}

// Publish takes an object of this node, and passes it on by both ways. It is what a
// speaker.Carrier does.
func (n *notices) Publish(object signed.Envelope) error {
	err := n.Engine.Publish(object)
	if err == nil {
		n.client.Say(object)
	}
	return err
}

// heard notes when an object of a seat came that is news.
func (n *notices) heard(object signed.Envelope) {
	if order.Is(object.Kind) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came[shelf.IDOf(object.Kind, object.By)] = int32(time.Since(n.begun) / time.Second)
	if object.Kind == notice.TLSKeyKind {
		if word, err := notice.OpenTLSKey(object); err == nil {
			n.keys[object.By] = word.Key
			n.client.Advanced()
		}
	}
}

// outdated says why a session is to end that stands on a TLS key which its seat does not call its own any
// more: as that of gossip ends.
func (n *notices) outdated(seat signed.Key, session any) error {
	by, ok := session.(interface{ TLSKey() document.Hash })
	if !ok {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now, said := n.keys[seat]; said && now != by.TLSKey() {
		return fmt.Errorf("TLS key %s: %w: the seat has another one by now", by.TLSKey().Short(), notice.ErrTLSKey)
	}
	return nil
}

// serve takes the session of a node.
func (n *notices) serve(ctx context.Context, conn *tls.Conn) {
	s, err := n.tls.Take(conn, letGo(conn))
	if err != nil {
		return // who is refused is told by the end of it; strangers would fill the log
	}
	_ = n.gateway.Serve(ctx, s)
}

// etcdLook is how often the node looks whether its etcd runs.
const etcdLook = 2 * time.Second

// runGateway has the gateway run while this node's etcd does.
func (n *notices) runGateway(ctx context.Context) {
	tick := time.NewTicker(etcdLook)
	defer tick.Stop()
	var end func() // nil: it does not run
	defer func() {
		if end != nil {
			end()
		}
	}()
	var members []int
	room := roomFor{base: debug.SetMemoryLimit(-1)}
	for ctx.Err() == nil {
		e := n.etcd()
		if now := slices.Sorted(slices.Values(e.Members)); !slices.Equal(now, members) {
			members = now
			n.gateway.Members(members)
		}
		room.sessions(n.gateway.Stats().Sessions)
		switch runs := serves(e, end != nil); {
		case runs && end == nil:
			end = n.startGateway(ctx)
		case !runs && end != nil:
			end()
			end = nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// serves says whether the gateway is to run, by what the service etcd says. It begins once there is a
// leader: others have nothing of one that was never led. Later it waits for the next leader.
func serves(e control.Etcd, already bool) bool {
	return e.Running && slices.Contains(e.Members, e.Seat) && (already || e.Leader != 0)
}

// startGateway has the gateway run until the function that it returns is called; nil: it cannot.
func (n *notices) startGateway(ctx context.Context) (end func()) {
	s, err := store.Open(etcd.ClientSocket(filepath.Join(n.run, "etcd")))
	if err != nil {
		log.Printf("agent: %v", err)
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { n.gateway.Run(ctx, s) })
	return func() {
		stop()
		running.Wait()
		_ = s.Close()
	}
}

// roomFor gives the collector more room while other nodes have sessions here: it would work without
// end for what cannot be freed.
type roomFor struct{ base, now int64 }

// perSession is what one costs, in bytes, and some garbage.
const perSession = 64 << 10

func (r *roomFor) sessions(count int) {
	if r.base == math.MaxInt64 {
		return // it has all
	}
	if want := r.base + int64(count)*perSession; want-max(r.now, r.base) >= 8<<20 || max(r.now, r.base)-want >= 8<<20 {
		r.now = want
		debug.SetMemoryLimit(want)
	}
}

// etcd is what the service etcd says; nothing where this seat does not run it.
func (n *notices) etcd() control.Etcd {
	seat, ok := n.taken.State().Roster.ByKey(n.self)
	if !ok || !seat.Member && !seat.Spare {
		return control.Etcd{}
	}
	if _, err := os.Stat(etcd.ClientSocket(filepath.Join(n.run, "etcd"))); err != nil {
		return control.Etcd{} // it answers nobody yet
	}
	e, err := control.ReadEtcd(n.run)
	if err != nil {
		return control.Etcd{}
	}
	return e
}

// board is what this node knows of the others by their own words, and by a gateway's of their
// leases.
func (n *notices) board() records.Board {
	now := time.Now()
	known := n.client.Known()
	b := records.Board{Gateway: known.Gateway, Problem: known.Problem, Heard: since(now, known.Heard), Listed: since(now, known.Listed)}
	if known.Gateway != 0 && known.Live["nodes"] {
		b.Listed = 0
	}
	n.client.Ask("nodes") // a large fleet's is listed for who asks
	for _, kind := range []string{notice.NodeKind, notice.StatusKind} {
		for _, object := range n.Objects(kind) {
			one := records.Notice{Envelope: object.Bytes(), Age: n.age(object, now)}
			one.Leased, one.Known = n.client.Leased(object.By)
			b.Notices = append(b.Notices, one)
		}
	}
	return b
}

// since is how long ago something was; never is before that.
func since(now, at time.Time) time.Duration {
	if at.IsZero() {
		return records.Never
	}
	return now.Sub(at)
}

func (n *notices) age(object signed.Envelope, now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	came, ok := n.came[shelf.IDOf(object.Kind, object.By)]
	if !ok {
		return records.Never
	}
	return now.Sub(n.begun) - time.Duration(came)*time.Second
}
