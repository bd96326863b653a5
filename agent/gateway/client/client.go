// Package client is a node's way to its fleet's notice board: a session with the gateway of one
// of the seats that run etcd, for as long as there is one.
//
//	find a gateway ─▶ put what the node says ─▶ follow topics ─▶ …  ─▶ the gateway goes, moves, is silent
//	      ▲                                                                  │
//	      └──────────────── after a while by chance: others look, too ◀──────┘
//
// In come what the node wants to say, and frames of a gateway; out go objects to the node's
// shelf and entries to its ledger, which verify them: a gateway is believed nothing. It can keep
// things back, which gossip makes good, and it can say who holds a lease: that is shown with
// its age, and nothing follows from it. What a node knew stays when etcd is gone.
package client

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// Config is what a client stands on.
type Config struct {
	Self   signed.Key // of this node's seat
	Ledger Ledger
	// Dial opens a session with a seat's gateway. It returns when ctx ends.
	Dial func(ctx context.Context, seat roster.Seat) (Session, error)
	// Refuse says why there is to be no session with a seat now, as with one that is isolated, or
	// why the one that there is has to end; before there is one it is nil. It returns at once. nil:
	// there may be one with all.
	Refuse func(roster.Seat, Session) error
	// Judge says what becomes of an object of a seat, and keeps it if it counts.
	Judge func(raw []byte) (shelf.Verdict, error)
	// Grown hears that the ledger has taken an entry. It returns at once. nil: nobody listens.
	Grown func()
	// Told hears each item that the gateway tells, before it is judged. It returns at once. nil:
	// nobody listens.
	Told func(board.Topic, wire.Item)
	// Logf hears what people may want to know. Default: log.Printf.
	Logf func(format string, args ...any)
}

// Ledger is the node's ledger. agent/pinned's fits.
type Ledger interface {
	State() ledger.State
	Take(height int64, e ledger.Entry) error
}

// Session is a way to a gateway and back, for frames in order. One of agent/gossip's TLS fits.
type Session interface {
	Send(frames [][]byte) error
	Receive() ([]byte, error)
	Close() error
}

// Times of a client.
const (
	// findLimit is how long one gateway may take to welcome the node.
	findLimit = 10 * time.Second
	// least and most are between two looks for a gateway while none answers.
	least, most = time.Second, 2 * time.Minute
	// homeward is how often a node that is with another gateway than the one it prefers looks
	// whether that one is back.
	homeward = 5 * time.Minute
	// shunned is how long a gateway is not asked that has told lies.
	shunned = 10 * time.Minute
	// maxLies is how many of them it may tell in a session: objects that no honest gateway passes on.
	maxLies = 64
	// shortest and longest are what a gateway may want of a node's silence: it is told more often.
	shortest, longest = 5 * time.Second, 5 * time.Minute
	// patience is how long a gateway may do nothing of what it is asked, and listLimit how long it
	// may take for a list.
	patience, listLimit = time.Minute, 30 * time.Minute
	// hiccup is how long others are asked before a gateway that has ended a session, and useless if it
	// had done nothing in it before: twice as long each time, until a session has lasted for long.
	hiccup, useless, lasting = 2 * time.Second, 30 * time.Second, 10 * time.Minute
	// steady is how long a topic is followed until it counts that it is.
	steady = time.Minute
	// asked is how long a topic is followed that was asked for.
	asked = 10 * time.Minute
	// few is up to how many seats a node follows what all of them say.
	few = 256
)

// Client keeps the session. Its methods may be called from any goroutine.
type Client struct {
	config Config
	wake   chan struct{}

	mu      sync.Mutex // guards what follows
	says    map[string]signed.Envelope
	running []int // seats that have gateways, as was said last
	wanted  map[board.Topic]time.Time
	known   Known
	present map[document.Hash]presence
	shun    map[int]time.Time // gateways that are not asked before
	last    map[int]time.Time // gateways that are asked last until then
	ends    map[int]int       // of sessions with them, that they have ended in a row
}

// presence is what was said last of a node's lease.
type presence struct {
	leased   bool
	revision int64
}

// Known is what a client knows, and how it stands.
type Known struct {
	// Gateway is the seat with whose gateway the node has a session; 0: it has none.
	Gateway int
	Problem string // why there is none
	// Heard is when a gateway said something last; Live says which topics are known as a whole
	// since then. The zero time: never.
	Heard time.Time
	Live  map[board.Topic]bool
	// Listed is when all statuses were known last; the zero time: never.
	Listed   time.Time
	Sessions uint64
	// Verdicts are what became of objects and entries, in words.
	Verdicts map[string]uint64
}

// New is a client that does nothing until [Client.Run].
func New(c Config) *Client {
	if c.Logf == nil {
		c.Logf = log.Printf
	}
	return &Client{
		config: c, wake: make(chan struct{}, 1), says: make(map[string]signed.Envelope), wanted: make(map[board.Topic]time.Time),
		known: Known{Live: make(map[board.Topic]bool), Verdicts: make(map[string]uint64)}, present: make(map[document.Hash]presence), shun: make(map[int]time.Time),
		last: make(map[int]time.Time), ends: make(map[int]int),
	}
}

// Say has the gateway put an object of this seat, and every later one it comes to. A newer one
// of the same kind takes its place. What has no place on the board is let be.
func (c *Client) Say(object signed.Envelope) {
	if _, ok := board.Of(object); !ok || object.By != c.config.Self {
		return
	}
	c.mu.Lock()
	if before, ok := c.says[object.Kind]; !ok || before.Sequence < object.Sequence {
		c.says[object.Kind] = object
	}
	c.mu.Unlock()
	c.look()
}

// Advanced says that the ledger has grown, or that what Refuse answers has changed.
func (c *Client) Advanced() { c.look() }

// look has the session look at what is to be done.
func (c *Client) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Ask has a topic be followed for a while, if it is not always.
func (c *Client) Ask(topic board.Topic) {
	c.mu.Lock()
	c.wanted[topic] = time.Now().Add(asked)
	c.mu.Unlock()
	c.look()
}

// topics are those that are followed now.
func (c *Client) topics(now time.Time) (all []board.Topic) {
	small := len(c.config.Ledger.State().Roster.Seats) <= few
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range board.Topics() {
		if t == board.Ledger || small || now.Before(c.wanted[t]) {
			all = append(all, t)
		}
	}
	return all
}

// Known is what the client knows.
func (c *Client) Known() Known {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known
	k.Live, k.Verdicts = maps.Clone(k.Live), maps.Clone(k.Verdicts)
	return k
}

// Leased says whether a seat held a lease when a gateway said so last; known is false where
// none did.
func (c *Client) Leased(key signed.Key) (leased, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, known := c.present[key.ID()]
	return p.leased, known || !c.known.Listed.IsZero()
}

// Run keeps a session until ctx ends.
func (c *Client) Run(ctx context.Context) {
	wait := least
	for first := true; ctx.Err() == nil; first = false {
		seats := len(c.config.Ledger.State().Roster.Seats)
		if !first {
			pause(ctx, part(Spread(seats)))
		}
		seat, s, welcome, err := c.find(ctx, 0, false)
		if err != nil {
			c.mu.Lock()
			c.known.Problem = err.Error()
			c.mu.Unlock()
			pause(ctx, part(wait))
			wait = min(2*wait, most)
			continue
		}
		well := true
		for s != nil { // from one gateway to a better one without a gap
			seat, s, welcome, well = c.stay(ctx, seat, s, welcome)
		}
		if well {
			wait = least
			continue
		}
		pause(ctx, part(wait)) // it may be the only one that answers
		wait = min(2*wait, most)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// errNobody is of a fleet of which no seat may run etcd.
var errNobody = errors.New("no seat of the fleet runs etcd")

// find opens a session with the first gateway that takes the node. From a seat's gateway, only those that
// the node prefers to it are asked, or all others, and none that has ended a session lately.
func (c *Client) find(ctx context.Context, from int, others bool) (int, Session, wire.Welcome, error) {
	order, err := c.order()
	if i := slices.IndexFunc(order, func(s roster.Seat) bool { return s.Number == from }); i >= 0 && others {
		order = slices.Delete(order, i, i+1)
	} else if i >= 0 {
		order = order[:i]
	}
	order, shunned := c.ask(order, from == 0)
	if len(order) == 0 && shunned != "" {
		err = fmt.Errorf("%s is not asked again yet", shunned)
	}
	for _, seat := range order {
		if ctx.Err() != nil {
			break
		}
		s, welcome, e := c.greet(ctx, seat)
		if e == nil {
			return seat.Number, s, welcome, nil
		}
		err = fmt.Errorf("gateway of %s: %w", seat.Name, e)
	}
	return 0, nil, wire.Welcome{}, err
}

// ask takes those out of an order that are not asked now, and names one of them. Those that are asked
// last come last, if they are to come: the one that may come back first is the first of them.
func (c *Client) ask(order []roster.Seat, all bool) (some []roster.Seat, shunned string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var last []roster.Seat
	for _, seat := range order {
		switch {
		case now.Before(c.shun[seat.Number]):
			shunned = seat.Name
		case now.Before(c.last[seat.Number]):
			last = append(last, seat)
		default:
			some = append(some, seat)
		}
	}
	slices.SortStableFunc(last, func(a, b roster.Seat) int { return c.last[a.Number].Compare(c.last[b.Number]) })
	if all {
		some = append(some, last...)
	}
	return some, shunned
}

// order is in which order gateways are asked. The error says why none is, if there is none.
func (c *Client) order() (all []roster.Seat, none error) {
	c.mu.Lock()
	running := c.running
	c.mu.Unlock()
	none = errNobody
	for _, seat := range Choose(c.config.Ledger.State().Roster, c.config.Self, running) {
		if err := c.refuse(seat, nil); err != nil {
			none = err
			continue
		}
		all = append(all, seat)
	}
	if len(all) > 0 {
		none = errNobody // until one of them has said something
	}
	return all, none
}

func (c *Client) refuse(seat roster.Seat, s Session) error {
	if c.config.Refuse == nil {
		return nil
	}
	return c.config.Refuse(seat, s)
}

// may says why there may be no session with a seat's gateway, by what is known now.
func (c *Client) may(number int, s Session) error {
	seat, ok := c.config.Ledger.State().Roster.Seat(number)
	if !ok || !seat.Member && !seat.Spare {
		return errUnlisted
	}
	return c.refuse(seat, s)
}

// errUnlisted is of a seat whose gateway is none any more.
var errUnlisted = errors.New("the roster does not have it run etcd any more")

// greet opens a session with a gateway, and waits for its first word.
func (c *Client) greet(ctx context.Context, seat roster.Seat) (Session, wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	s, err := c.config.Dial(ctx, seat)
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	raw, err := s.Receive()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	var f wire.Frame
	if err == nil {
		f, err = wire.Decode(raw)
	}
	if err == nil {
		switch f := f.(type) {
		case wire.Welcome:
			f.Silence = min(max(f.Silence, shortest), longest)
			return s, f, nil
		case wire.Refuse:
			err = fmt.Errorf("it refuses: %s", f.Why)
			c.avoid(seat.Number, f.Wait)
		default:
			err = wire.ErrFrame
		}
	}
	_ = s.Close()
	return nil, wire.Welcome{}, err
}

// avoid has a gateway not be asked for a while.
func (c *Client) avoid(seat int, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	extend(c.shun, seat, min(d, shunned))
}

// extend has a seat stand in a map for a while, and takes out of it whose time is over.
func extend(all map[int]time.Time, seat int, d time.Duration) {
	now := time.Now()
	maps.DeleteFunc(all, func(_ int, until time.Time) bool { return now.After(until) })
	if until := now.Add(d); until.After(all[seat]) {
		all[seat] = until
	}
}

// ended notes that a session has ended against the node's will, whosever fault it was: so long as
// there are others, they are asked first. The caller holds mu.
func (c *Client) ended(seat int, lasted time.Duration, useful bool) {
	pause := useless
	if useful {
		pause = hiccup
		if lasted >= lasting {
			delete(c.ends, seat)
		}
	}
	extend(c.last, seat, min(pause<<min(c.ends[seat], 10), shunned))
	c.ends[seat]++
}

// runs notes which seats have gateways.
func (c *Client) runs(seats []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = slices.Clone(seats)
}

// count counts what became of an object.
func (c *Client) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.Verdicts[what]++
}
