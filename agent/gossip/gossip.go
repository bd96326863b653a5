// Package gossip carries what seats sign from node to node, with etcd or without: no member can
// keep it back. It always runs.
//
//	publish ─▶ shelf ─▶ tell: "I have 17 of that seat" ─▶ want ─▶ object ─▶ the peer's shelf ─▶ …
//	                └─▶ digest, now and then: what did you miss? ─▶ sums ─▶ list ─┘
//	ledger ─▶ head: "I am at height 9" ─▶ wantEntry ─▶ entry, or an offer and its pieces ─▶ ledger
//
// In come signed objects from this node and from any carrier, sessions with peers whose seat is
// proved, and the ledger of the node; out go the same objects to the peers that lack them, and
// the ledger's next entries to the ledger, which verifies them. A node keeps three sessions of
// its own, to voters of different domains, and takes part in those that others open: so one
// behind NAT is no worse than others.
//
// A peer is a seat, and may be hostile: it is believed nothing that is not signed, what it can
// use up is bounded, and if it sends what no honest node sends it is sent away, each time for
// longer. What an object means, and what follows from it, is for whoever reads it.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/bucket"
	"kogge.example/agent/gossip/choice"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// Config is what an engine stands on.
type Config struct {
	Self   signed.Key // of this node's seat
	Ledger Ledger
	Kinds  []notice.Kind // that are carried
	// Papers are carried besides. nil: none are.
	Papers Papers
	// Transport reaches the peers. The engine calls Accept in one goroutine and Dial in a few.
	Transport Transport
	// News hears each object that is news to this node, also its own. It returns at once, and
	// asks the engine nothing. nil: nobody listens.
	News func(signed.Envelope)
	// Grown hears that the ledger has taken an entry that a peer had. It returns at once, and
	// asks the engine nothing. nil: nobody listens.
	Grown func()
	// Refuse says why there are to be no sessions with a seat now, as with one that is isolated.
	// It returns at once. nil: there may be.
	Refuse func(roster.Seat) error
	// Revoked says whether a TLS key, or an operator's, was withdrawn on this node, of which
	// [Engine.Advanced] tells. nil: none was.
	Revoked func(key document.Hash) bool
	// Inbound is how many sessions others may open, at most. Default: 256.
	Inbound int
	// HourlyBytes is how much of what peers ask for is sent in an hour, to all of them, at most.
	// To each of them it is a quarter, and from each of them. Default: 64 MiB, and 16 KiB for each seat.
	HourlyBytes int
	// Verify checks signatures. Default: [signed.Envelope.Verify].
	Verify func(signed.Envelope) error
	// Logf hears what people may want to know. Default: log.Printf.
	Logf func(format string, args ...any)

	random uint64 // by which peers are chosen. Default: another one in each run
}

// Ledger is the node's ledger. agent/pinned's fits.
type Ledger interface {
	State() ledger.State
	// Record is the hash of the record of a height; at height 0 it is zero. It does not wait for
	// the disk.
	Record(height int64) (document.Hash, error)
	Entry(height int64) (ledger.Entry, error)
	// Take verifies an entry and keeps it.
	Take(height int64, e ledger.Entry) error
	// Second is the entry with which a second history begins, once both are known and the
	// ledger takes no more. Its height is 0 where there is none. It does not wait for the disk.
	Second() (height int64, e ledger.Entry)
}

// Times of the engine.
const (
	// The digests of a session: so often while something is open, and ever more seldom up to
	// the longest time when nothing is.
	openDigest, quietDigest = 30 * time.Second, 15 * time.Minute
	// soon is how long news wait for more of them, and quietly how long a seat's word does that
	// it said before: nobody waits for it.
	soon, quietly = 50 * time.Millisecond, 5 * time.Minute
	// answerLimit is how long a peer may take to send an object, entryLimit an entry or a piece
	// of one, digestLimit to answer a digest. After patience another one is asked for the
	// object, too. What comes later is taken until lateLimit. restLimit is for how long a peer
	// is asked for nothing that had something and did not send it.
	answerLimit, entryLimit, digestLimit = 10 * time.Second, 10 * time.Second, 30 * time.Second
	patience, lateLimit, restLimit       = 500 * time.Millisecond, 5 * time.Minute, 15 * time.Second
	// silence is how long a peer that opened a session may say nothing: it sends a digest in
	// half of the time.
	silence = 2*quietDigest + digestLimit
	// breath is what lies between two looks at what is due, at least.
	breath = 5 * time.Millisecond
	// rotation is after how many digests a node turns to other peers.
	rotation = 4
	// dialLimit is how long it may take to reach a peer, and settled how long a session lasts of
	// which it is said that the peer was reached.
	dialLimit, settled = 20 * time.Second, 10 * time.Minute
	// perSeat is the time between two objects of a place that are news, in the long run, and
	// burst how many may come at once: whoever signs more than that is heard of less often.
	perSeat, burst = notice.Pace, notice.Burst
)

// Engine carries the objects of one node. Its methods may be called from any goroutine, while
// [Engine.Run] runs.
type Engine struct {
	config Config
	calls  chan func() // what the goroutine of Run does, which owns all that follows
	over   chan struct{}
	// What the goroutine of the ledger does: entries to take, and what peers ask for.
	takes, reads chan func()

	shelf     *shelf.Shelf
	state     ledger.State
	operators int // that count: none whose key was withdrawn
	open      bool
	sessions  map[signed.Key]*session
	peers     map[signed.Key]*peer
	dialling  map[signed.Key]bool
	wants     map[shelf.ID]*wish
	origins   map[shelf.ID]*bucket.Bucket
	entries   entries

	voters, rest []roster.Seat // to whom sessions are opened, by preference
	turn         int
	rotateAt     time.Time
	newsAt       time.Time     // when news are told; zero: there are none
	served       bucket.Bucket // bytes for all peers
	queued       int64         // bytes that wait to be sent to all peers, after the last turn
	timer        *time.Timer
	due          time.Time // of the timer
	stepped      time.Time // the last time
	stats        Stats
	running      sync.WaitGroup
}

// New is an engine that does nothing until [Engine.Run].
func New(c Config) *Engine {
	if c.Inbound == 0 {
		c.Inbound = 256
	}
	if c.Logf == nil {
		c.Logf = log.Printf
	}
	if c.random == 0 {
		c.random = rand.Uint64()
	}
	e := &Engine{
		config: c, calls: make(chan func()), over: make(chan struct{}), takes: make(chan func(), 2), reads: make(chan func(), 64),
		state: c.Ledger.State(), sessions: make(map[signed.Key]*session),
		peers: make(map[signed.Key]*peer), dialling: make(map[signed.Key]bool), wants: make(map[shelf.ID]*wish), origins: make(map[shelf.ID]*bucket.Bucket),
	}
	e.shelf = shelf.New(e.state.Fleet(), c.Kinds)
	e.shelf.May = func(k notice.Kind, object signed.Envelope) bool { return k.May(e.trusted(), object) }
	e.shelf.Early = func(k notice.Kind, object signed.Envelope) bool { return k.Early(e.trusted(), object) }
	e.shelf.Withdrawn = e.withdrawn
	if c.Verify != nil {
		e.shelf.Verify = c.Verify
	}
	e.stats.Dropped = make(map[string]uint64)
	e.follow()
	return e
}

// Run carries until ctx ends. Then its sessions are closed and its goroutines are gone.
func (e *Engine) Run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		close(e.over)
		for _, s := range e.sessions {
			e.drop(s, reasonEnded)
		}
		e.running.Wait()
	}()
	e.running.Go(func() { e.accept(ctx) })
	e.running.Go(func() { e.library(ctx) })
	e.timer = time.NewTimer(0)
	defer e.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-e.calls:
			f()
		case <-e.timer.C:
			e.due = time.Time{}
			e.step(ctx, time.Now())
		}
		e.flush()
	}
}

// do has the goroutine of Run do something, and waits until it has; false: it has ended.
func (e *Engine) do(f func()) bool {
	done := make(chan struct{})
	if !e.post(func() { defer close(done); f() }) {
		return false
	}
	<-done
	return true
}

// post is do without the wait.
func (e *Engine) post(f func()) bool {
	select {
	case e.calls <- f:
		return true
	case <-e.over:
		return false
	}
}

// at has step run at a time, if nothing has it run before; never without a pause.
func (e *Engine) at(t time.Time) {
	t = later(t, e.stepped.Add(breath))
	if e.timer != nil && (e.due.IsZero() || t.Before(e.due)) {
		e.due = t
		e.timer.Reset(time.Until(t))
	}
}

// step does all that is due, and says when it has to run again.
func (e *Engine) step(ctx context.Context, now time.Time) {
	e.stepped = now
	next := now.Add(quietDigest)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if !e.newsAt.IsZero() && !now.Before(e.newsAt) {
		e.newsAt = time.Time{}
		for _, s := range e.sessions {
			if len(s.news) > 0 {
				e.tell(s)
			}
		}
	}
	sooner(e.newsAt)
	for _, s := range e.sessions {
		sooner(e.tend(s, now))
	}
	sooner(e.tendWants(now))
	sooner(e.tendEntries(now))
	sooner(e.tendPeers(ctx, now))
	e.at(next)
}

// ErrEnded is of an engine that does not run.
var ErrEnded = errors.New("gossip has ended")

// Publish takes an object of this node, or of another carrier, and passes it on. The error
// wraps [notice.ErrOlder], or says why the object is refused.
func (e *Engine) Publish(object signed.Envelope) error {
	var v shelf.Verdict
	if !e.do(func() {
		e.catchUp()
		if v = e.shelf.Give(object.Bytes()); v.News() {
			e.took(object, v, nil)
		}
	}) {
		return ErrEnded
	}
	switch {
	case v.News(), v == shelf.Known:
		return nil
	case v == shelf.Older:
		return fmt.Errorf("object %s of key %s, number %d: %w", object.Kind, object.By.ID().Short(), object.Sequence, notice.ErrOlder)
	}
	return fmt.Errorf("object %s of key %s: it is %s", object.Kind, object.By.ID().Short(), v)
}

// Put takes an object that another carrier has brought, says what became of it, and passes on
// what is news.
func (e *Engine) Put(raw []byte) (v shelf.Verdict, err error) {
	if !e.do(func() {
		e.catchUp()
		if v = e.shelf.Put(raw); v.News() {
			if object, err := signed.Parse(raw); err == nil {
				e.took(object, v, nil)
			}
		}
	}) {
		return v, ErrEnded
	}
	return v, nil
}

// Open says whether something is open: a vote, a rollout, a ledger that does not grow. Then
// digests are exchanged often.
func (e *Engine) Open(open bool) {
	e.post(func() {
		if e.open == open {
			return
		}
		e.open = open
		for _, s := range e.sessions {
			s.hurry(time.Now())
		}
		e.at(time.Now())
	})
}

// catchUp takes the ledger's state if that has grown and nobody has said so yet: whoever brings the first
// word of a new seat is not told that nobody has it.
func (e *Engine) catchUp() {
	if e.config.Ledger.State().Height != e.state.Height {
		e.follow()
	}
}

// Advanced says that the ledger has grown by other means, or that what Refuse answers has
// changed.
func (e *Engine) Advanced() { e.post(e.follow) }

// Object is the newest object of a kind by a seat, or about it; false: none came.
func (e *Engine) Object(kind string, seat signed.Key) (object signed.Envelope, ok bool) {
	e.do(func() { object, ok = e.shelf.Get(kind, seat) })
	return object, ok
}

// Objects are all objects of a kind.
func (e *Engine) Objects(kind string) (all []signed.Envelope) {
	e.do(func() { all = slices.Collect(e.shelf.All(kind)) })
	return all
}

// Limit is how many bytes an envelope of a kind may have now.
func (e *Engine) Limit(kind string) (limit int) {
	e.do(func() { limit = e.shelf.Limit(kind) })
	return limit
}

// Stats are figures of an engine.
type Stats struct {
	Sessions, Inbound  int
	Objects            int
	Root               shelf.Sum // two engines that know the same have the same
	Height             int64
	Sent, Received     uint64            // bytes of frames
	Verdicts           map[string]uint64 // on envelopes, in words
	Refused            uint64            // envelopes
	Contested          int               // seats that have said two things at once
	Dropped            map[string]uint64 // sessions, by reason
	Away               int               // seats that are kept away
	TooOften, Unlisted uint64            // items told that were not asked for: of a seat that signs too much, of no seat
}

// Stats are the engine's figures.
func (e *Engine) Stats() (s Stats) {
	e.do(func() {
		s = e.stats
		s.Sessions, s.Objects, s.Root, s.Height = len(e.sessions), e.shelf.Len(), e.shelf.Root(), e.state.Height
		s.Verdicts, s.Refused, s.Contested = e.shelf.Counts(), e.shelf.Refused(), len(e.shelf.Pairs())
		s.Dropped = maps.Clone(e.stats.Dropped)
		for _, one := range e.sessions {
			if !one.dialled {
				s.Inbound++
			}
		}
		now := time.Now()
		for _, p := range e.peers {
			if now.Before(p.away) {
				s.Away++
			}
		}
	})
	return s
}

// Pairs are the last two objects under one number of each seat that has signed such.
func (e *Engine) Pairs() (pairs map[signed.Key]shelf.Pair) {
	e.do(func() { pairs = maps.Clone(e.shelf.Pairs()) })
	return pairs
}

// follow takes the ledger's state: who is listed, and how far it is.
func (e *Engine) follow() {
	before := e.state
	e.state = e.config.Ledger.State()
	if f := e.entries.next; f != nil && !f.taking && f.height <= e.state.Height {
		e.entries.next = nil // it came by other means
	}
	first, operators := len(e.voters) == 0 && len(e.rest) == 0, len(e.trusted().Operators)
	if first || before.Height != e.state.Height || e.operators != operators {
		e.operators = operators
		for _, s := range e.sessions {
			clear(s.refused)
		}
		_, rose := e.shelf.Follow(e.state.Roster)
		for _, object := range rose {
			e.took(object, shelf.Taken, nil)
		}
		e.voters, e.rest = choice.Order(e.state.Roster, e.state.Fleet(), e.config.Self, e.config.random)
		for id := range e.wants {
			if !e.shelf.Lacks(shelf.Item{ID: id, Number: notice.MaxNumber}) {
				delete(e.wants, id)
			}
		}
		for id := range e.origins {
			if _, ok := e.shelf.Item(id); !ok {
				delete(e.origins, id)
			}
		}
		for key := range e.peers {
			if !e.shelf.Lists(key) {
				delete(e.peers, key)
			}
		}
		hourly := e.hourly()
		e.served.Rate, e.served.Most = float64(hourly)/3600, float64(hourly)/4
	}
	for key, s := range e.sessions {
		seat, listed := e.state.Roster.ByKey(key)
		if !listed {
			e.drop(s, "no seat")
		} else if e.refused(seat) || e.outdated(s.conn) {
			e.drop(s, "refused")
		}
		s.seat = seat
	}
	found := e.entries.second == nil && e.findSecond()
	if before.Height != e.state.Height || found {
		for _, s := range e.sessions {
			e.sayHead(s)
		}
	}
	e.at(time.Now())
}

func (e *Engine) hourly() int {
	if e.config.HourlyBytes > 0 {
		return e.config.HourlyBytes
	}
	return 64<<20 + 16<<10*len(e.state.Roster.Seats)
}

func (e *Engine) refused(seat roster.Seat) bool {
	return e.config.Refuse != nil && e.config.Refuse(seat) != nil
}

// spread is a time between half of d and d, by chance.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
