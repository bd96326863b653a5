// Package gateway lies, on a node that runs etcd, between etcd and all other nodes: they reach
// etcd through it alone, each as what its seat is.
//
//	node ─session─▶ put ─▶ is it the seat's own, signed, news? ─▶ a few together ─▶ etcd
//	etcd ─one watch─▶ index ─▶ one queue for each topic ─▶ all sessions that follow it
//	                     └─▶ is what the node has put still there? ─▶ recall
//
// In come sessions with seats that have proved who they are, and what etcd says; out go writes
// under the seat's own keys, and the same bytes to many. A node's status lies there as long as
// its session says that it lives: one lease of the gateway's stands for all of them, and what a
// seat says again under a higher number is not written, so that ten thousand nodes that do
// nothing cost etcd nothing. Whoever holds a member can write any
// key: what is not signed by the seat whose key it is, is counted, and passed on to nobody; and what
// lies where nobody has a place is taken away after a while.
//
// A node may be slow or hostile, and costs no more for that: its place in a queue is a number,
// and if it is overtaken it is told to ask anew; what it asks for is counted, by its seat.
package gateway

import (
	"context"
	"errors"
	"log"
	"maps"
	"sync"
	"time"

	"kogge.example/agent/bucket"
	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// Config is what a gateway stands on.
type Config struct {
	// Shelf judges what comes, from nodes and from etcd. It is asked by many goroutines.
	Shelf Shelf
	// Ledger is this node's: it says which keys have seats.
	Ledger Ledger
	// Refuse says why a session is not to be served now, as one with a seat that is isolated. It
	// returns at once. nil: all are.
	Refuse func(Session) error
	// Grown hears that the ledger has taken an entry that lay in etcd. It returns at once. nil:
	// nobody listens.
	Grown func()
	// Logf hears what people may want to know. Default: log.Printf.
	Logf func(format string, args ...any)
	// Silence is how long a node may say nothing. Default [Silence].
	Silence time.Duration
	// Most is how many sessions there may be. Default: as many as a roster has seats.
	Most int

	deaf, listLimit time.Duration // those of the constants; tests have shorter ones
}

// Shelf is what the node knows of seats by their own words. A gossip.Engine fits.
type Shelf interface {
	// Put says what becomes of an object, and keeps it if it counts.
	Put(raw []byte) (shelf.Verdict, error)
	// Object is the newest object of a kind by a seat; false: none came.
	Object(kind string, by signed.Key) (signed.Envelope, bool)
}

// Ledger is the node's ledger. agent/pinned's fits.
type Ledger interface {
	State() ledger.State
	Entry(height int64) (ledger.Entry, error)
	Take(height int64, e ledger.Entry) error
	// Proved says why an entry does not prove the record of a height that was taken.
	Proved(height int64, e ledger.Entry) error
	// Problem says why the ledger stands still; nil: it does not.
	Problem() error
}

// Session is a way to a node and back, for frames in order. One of agent/gossip's TLS fits.
type Session interface {
	// Peer is the key of the seat that the node has proved to hold.
	Peer() signed.Key
	// Send sends frames together, or fails within a time of its own, for good.
	Send(frames [][]byte) error
	// Receive waits for the next frame. The caller owns it.
	Receive() ([]byte, error)
	// Close ends the session, and what waits in it. It may be called again.
	Close() error
}

// Times of a gateway.
const (
	// Silence is how long a node may say nothing until its status goes: its session has ended
	// by then, and it has had the time to find another gateway.
	Silence = time.Minute
	// deaf is how long a gateway that etcd tells nothing keeps its nodes: then others may know
	// more.
	deaf = 15 * time.Second
	// maxStrange is of how many entries at a time the ledger is asked that it does not have; one more
	// a minute.
	maxStrange = 64
	// goodbye is how long nodes are told that the gateway closes.
	goodbye = time.Second
)

// Gateway serves sessions while it runs. Its methods may be called from any goroutine.
type Gateway struct {
	config Config

	mu      sync.Mutex // guards what follows
	store   *store.Store
	jobs    chan *job
	ctx     context.Context  // of this run
	whole   bool             // the index is what etcd has
	lostAt  time.Time        // since when it is not
	index   map[string]lying // by key
	seen    map[string]bool  // since all is told anew; nil: nothing is
	back    bool             // what is told anew is of another etcd
	newest  int64            // revision
	queues  map[board.Topic]*queue
	clients map[signed.Key]*client
	byID    map[document.Hash]*client
	guests  map[signed.Key]*guest
	left    map[document.Hash]time.Time // nodes whose sessions have ended: until when they may come back
	lease   int64
	members []int
	listed  map[signed.Key]bool    // keys that have seats
	seats   map[document.Hash]bool // their fingerprints
	height  int64                  // of the ledger that lists them
	judged  judging                // when what lies in etcd was judged last
	begun   judging                // when it was begun to be told anew
	gone    map[string]int64       // revisions at which keys went while some are read; nil: none are
	strange bucket.Bucket          // entries that the ledger does not have
	mended  map[string]time.Time   // entries of the ledger that were written anew
	stats   Stats

	wake   chan struct{} // for the ledger
	leased chan struct{} // for the lease
	reads  chan struct{} // places of those who read pages of lists
	lists  chan struct{} // and of those who are told one
	wait   sync.WaitGroup
}

// New is a gateway that refuses all until [Gateway.Run].
func New(c Config) *Gateway {
	if c.Logf == nil {
		c.Logf = log.Printf
	}
	if c.Silence == 0 {
		c.Silence = Silence
	}
	if c.Most == 0 {
		c.Most = roster.MaxSeats
	}
	c.deaf, c.listLimit = deaf, listLimit
	g := &Gateway{
		config: c, index: make(map[string]lying), queues: make(map[board.Topic]*queue), clients: make(map[signed.Key]*client),
		byID: make(map[document.Hash]*client), guests: make(map[signed.Key]*guest), left: make(map[document.Hash]time.Time),
		mended: make(map[string]time.Time), wake: make(chan struct{}, 1), leased: make(chan struct{}, 1), reads: make(chan struct{}, maxReads), lists: make(chan struct{}, maxLists),
	}
	g.strange = bucket.Bucket{Rate: 1. / 60, Most: maxStrange}
	g.stats.Refused, g.stats.Ignored, g.stats.Dropped = make(map[string]uint64), make(map[string]uint64), make(map[string]uint64)
	for _, t := range board.Topics() {
		g.queues[t] = &queue{}
	}
	return g
}

// Stats are figures of a gateway.
type Stats struct {
	Whole    bool // etcd tells what changes
	Sessions int
	Keys     int
	Revision int64
	Puts     uint64 // objects that nodes have put and that were taken
	Written  uint64 // writes to etcd, each of some of them
	Told     uint64 // items that were queued for those who follow
	Slow     uint64 // nodes that were told to ask anew
	Recalled uint64 // nodes that were told to put their objects again
	Lost     uint64 // times that the watch was lost
	Removed  uint64 // keys that were nobody's
	// Refused are objects of nodes, Ignored what lay in etcd, and Dropped sessions, by reason.
	Refused, Ignored, Dropped map[string]uint64
}

// Stats are the gateway's figures.
func (g *Gateway) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Whole, s.Sessions, s.Keys, s.Revision = g.whole, len(g.clients), len(g.index), g.newest
	s.Refused, s.Ignored, s.Dropped = maps.Clone(s.Refused), maps.Clone(s.Ignored), maps.Clone(s.Dropped)
	return s
}

// Run has the gateway serve what a store has, until ctx ends. Then its sessions are told to go
// elsewhere, and are closed.
func (g *Gateway) Run(ctx context.Context, s *store.Store) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g.mu.Lock()
	g.store, g.jobs, g.ctx = s, make(chan *job), ctx
	g.back, g.lostAt = true, time.Now()
	g.mu.Unlock()
	for _, task := range []func(context.Context){
		func(ctx context.Context) { s.Follow(ctx, board.Root, follower{g}) }, g.write, g.keep, g.sweep, g.bury, g.keepLedger, g.tidy,
	} {
		g.wait.Go(func() { task(ctx) })
	}
	<-ctx.Done()
	all := g.sayMove()
	closeAll := func() {
		for _, c := range all {
			_ = c.session.Close()
		}
	}
	late := time.AfterFunc(goodbye, closeAll)
	g.wait.Wait()
	late.Stop()
	closeAll()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.store, g.whole, g.lease = nil, false, 0
}

// sayMove tells all nodes to go elsewhere.
func (g *Gateway) sayMove() (all []*client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.clients {
		c.move = true
		g.pump(c)
		all = append(all, c)
	}
	return all
}

// Members notes which seats have gateways, and tells the nodes.
func (g *Gateway) Members(seats []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = seats
	for _, c := range g.clients {
		c.members = true
		g.pump(c)
	}
}

// Advanced says that the node's ledger has grown, or lists others.
func (g *Gateway) Advanced() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// keep keeps the gateway's lease, and makes another one when it is gone.
func (g *Gateway) keep(ctx context.Context) {
	every := g.config.Silence / 3
	for ctx.Err() == nil {
		g.mu.Lock()
		id := g.lease
		g.mu.Unlock()
		var err error
		wait := every
		if id == 0 {
			id, err = g.store.Lease(ctx, g.config.Silence)
		} else if err = g.store.Keep(ctx, id); errors.Is(err, store.ErrGone) {
			id, wait = 0, 0 // etcd says of each status that it is gone, and nodes are recalled
		} else if err != nil {
			wait = time.Second
		}
		if err != nil && wait == every {
			id, wait = 0, time.Second
		}
		g.mu.Lock()
		g.lease = id
		g.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-g.leased:
		case <-time.After(wait):
		}
	}
}

// sweep ends sessions that are silent or whose seat is gone.
func (g *Gateway) sweep(ctx context.Context) {
	tick := time.NewTicker(max(g.config.Silence/6, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		g.follow()
		g.mu.Lock()
		lost := !g.whole && now.Sub(g.lostAt) > g.config.deaf
		var gone []*client
		for _, c := range g.clients {
			switch {
			case !g.listed[c.key] || g.refused(c.session):
				g.end(c, "unlisted")
			case now.Sub(c.heard) > g.config.Silence:
				g.end(c, "silent")
			case lost:
				c.move = true
				g.pump(c)
				continue
			default:
				continue
			}
			gone = append(gone, c)
		}
		for key, guest := range g.guests {
			if g.clients[key] == nil && now.Sub(guest.seen) > time.Hour {
				delete(g.guests, key)
			}
		}
		g.mu.Unlock()
		for _, c := range gone {
			_ = c.session.Close()
		}
	}
}

// follow takes note of which keys have seats, if the ledger has grown.
func (g *Gateway) follow() {
	state := g.config.Ledger.State()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listed != nil && g.height == state.Height {
		return
	}
	g.listed, g.seats, g.height = make(map[signed.Key]bool, len(state.Roster.Seats)), make(map[document.Hash]bool, len(state.Roster.Seats)), state.Height
	for _, seat := range state.Roster.Seats {
		g.listed[seat.Key], g.seats[seat.Key.ID()] = true, true
	}
	g.Advanced()
}

func (g *Gateway) refused(s Session) bool {
	return g.config.Refuse != nil && g.config.Refuse(s) != nil
}

// frames are some frames as they are sent.
func frames(all ...wire.Frame) (raw [][]byte) {
	for _, f := range all {
		raw = append(raw, wire.Encode(f))
	}
	return raw
}
