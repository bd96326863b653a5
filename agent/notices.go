package main

import (
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

	"kogge.example/agent/door"
	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway"
	"kogge.example/agent/gateway/client"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/records"
	"kogge.example/init/control"
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

	mu    sync.Mutex // guards came
	came  map[shelf.ID]int32
	begun time.Time
}

// newNotices stands on the engine of the node's gossip: what both carry lies on one shelf.
func newNotices(p *part, engine *gossip.Engine, taken *pinned.Ledger, self signed.Key, peers *gossip.TLS, grown func()) *notices {
	n := &notices{Engine: engine, taken: taken, self: self, run: p.run, came: make(map[shelf.ID]int32), begun: time.Now()}
	n.tls = &gossip.TLS{Speaks: wire.Protocol, Certificate: peers.Certificate, Word: peers.Word, Admit: peers.Admit, Addresses: peers.Addresses, Find: peers.Find}
	book := p.book()
	n.gateway = gateway.New(gateway.Config{Shelf: engine, Ledger: taken, Grown: grown, Refuse: func(key signed.Key) error {
		if one, is := book.Standing().Isolates(key); is {
			return fmt.Errorf("%w: %s", order.ErrIsolated, one)
		}
		return nil
	}})
	n.client = client.New(client.Config{
		Self: self, Ledger: taken, Judge: engine.Put, Grown: grown,
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
}

// serve takes the session of a node.
func (n *notices) serve(ctx context.Context, conn *tls.Conn) {
	s, err := n.tls.Take(conn, func() { door.LetGo(conn.NetConn()) })
	if err != nil {
		return // who is refused is told by the end of it; strangers would fill the log
	}
	_ = n.gateway.Serve(ctx, s)
}

// etcdLook is how often the node looks whether its etcd runs.
const etcdLook = 2 * time.Second

// runGateway has the gateway run while this node's etcd does.
func (n *notices) runGateway(ctx context.Context) {
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	var members []int
	room := roomFor{base: debug.SetMemoryLimit(-1)}
	for ; ctx.Err() == nil; pause(ctx, etcdLook) {
		e := n.etcd()
		if now := slices.Sorted(slices.Values(e.Members)); !slices.Equal(now, members) {
			members = now
			n.gateway.Members(members)
		}
		room.sessions(n.gateway.Stats().Sessions)
		switch runs := e.Running && slices.Contains(e.Members, e.Seat); {
		case runs && stop == nil:
			s, err := store.Open(etcd.ClientSocket(filepath.Join(n.run, "etcd")))
			if err != nil {
				log.Printf("agent: %v", err)
				continue
			}
			end := alongside(ctx, func(ctx context.Context) { n.gateway.Run(ctx, s) })
			stop = func() {
				end()
				_ = s.Close()
			}
		case !runs && stop != nil:
			stop()
			stop = nil
		}
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
		return control.Etcd{} // it does not serve yet
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
