package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// client is a node that has a session. What follows session is guarded by the gateway's mu.
type client struct {
	key     signed.Key
	id      document.Hash
	session Session

	sending sync.Mutex // held while something is sent

	guest   *guest
	heard   time.Time
	follows map[board.Topic]uint64 // number of the next frame that is wanted
	put     map[string]lying       // what it has put, by key
	pumping bool                   // somebody sends what is to be told
	listing bool
	ended   bool
	over    chan struct{} // closed when it has ended
	// What is to be told.
	again                 map[board.Topic]bool
	recall, members, move bool
}

const (
	maxReads  = 8        // pages of lists that are read at a time
	maxLists  = 128      // that are sent at a time, each of which has a page in memory
	pumpBytes = 64 << 10 // that are sent at a time
	// listLimit is how long a list may take, and listRate how many bytes a second give it more time:
	// who reads slower than that has no session.
	listLimit, listRate = 2 * time.Minute, 4 << 10
	// slowFor is how long he is told no list after that.
	slowFor = 10 * time.Minute
	// noEtcdWait is when a node need not come again before, and busyWait not put again.
	noEtcdWait, busyWait = 5 * time.Second, 2 * time.Second
)

// errRefused is of a node that may not stay.
var errRefused = errors.New("gateway: the node is refused")

// errFlood is of a node that asks for more than any honest one.
var errFlood = errors.New("gateway: the node floods the gateway")

// Serve serves a node until its session ends, ctx does, or the gateway closes.
func (g *Gateway) Serve(ctx context.Context, s Session) error {
	defer s.Close()
	c, refuse := g.enter(s)
	if c == nil {
		_ = s.Send(frames(refuse))
		return fmt.Errorf("%w: %s", errRefused, refuse.Why)
	}
	defer g.leave(c)
	defer context.AfterFunc(ctx, func() { s.Close() })()
	g.mu.Lock()
	welcome := wire.Welcome{Silence: g.config.Silence, Members: g.members}
	g.mu.Unlock()
	if err := g.send(c, frames(welcome)); err != nil {
		return err
	}
	g.mu.Lock()
	c.pumping = false // from now on it may be told more
	closing := g.closing()
	if !closing {
		g.pump(c)
	}
	g.mu.Unlock()
	if closing {
		return ctx.Err()
	}
	for {
		raw, err := s.Receive()
		if err != nil {
			return err
		}
		if err := g.hear(c, raw); err != nil {
			return err
		}
	}
}

// enter takes a node in, in the place of a session that it had before.
func (g *Gateway) enter(s Session) (*client, wire.Refuse) {
	key, now := s.Peer(), time.Now()
	g.follow()
	g.mu.Lock()
	defer g.mu.Unlock()
	refuse := func(why wire.Why, wait time.Duration) (*client, wire.Refuse) {
		g.stats.Refused[why.String()]++
		return nil, wire.Refuse{Why: why, Wait: wait}
	}
	own := g.guests[key]
	switch {
	case !g.listed[key] || g.refused(s):
		return refuse(wire.Unlisted, banned)
	case !g.whole || g.store == nil || g.lease == 0 || g.closing():
		return refuse(wire.NoEtcd, noEtcdWait)
	case own != nil && now.Before(own.away):
		return refuse(wire.Busy, own.away.Sub(now))
	case g.clients[key] == nil && len(g.clients) >= g.config.Most:
		return refuse(wire.Busy, banned)
	}
	if own == nil {
		own = newGuest()
		g.guests[key] = own
	}
	own.seen = now
	if wait := own.visits.One(now); wait > 0 { // another machine may have its key, and they take turns
		return refuse(wire.Busy, wait)
	}
	if before := g.clients[key]; before != nil {
		g.end(before, "replaced")
		_ = before.session.Close()
	}
	c := &client{
		key: key, id: key.ID(), session: s, guest: own, heard: now, pumping: true,
		over: make(chan struct{}), follows: make(map[board.Topic]uint64), put: make(map[string]lying), again: make(map[board.Topic]bool),
	}
	g.clients[key], g.byID[c.id] = c, c
	delete(g.left, c.id)
	return c, wire.Refuse{}
}

// closing says whether the gateway's run is over. The caller holds mu.
func (g *Gateway) closing() bool { return g.ctx == nil || g.ctx.Err() != nil }

// end takes a node out, and counts why. Its session is the caller's to close. The caller holds
// mu.
func (g *Gateway) end(c *client, why string) {
	if c.ended {
		return
	}
	c.ended = true
	close(c.over)
	g.stats.Dropped[why]++
	if g.clients[c.key] == c {
		delete(g.clients, c.key)
		delete(g.byID, c.id)
		g.left[c.id] = c.heard.Add(g.config.Silence)
	}
}

func (g *Gateway) leave(c *client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.guest.seen = time.Now()
	g.end(c, "ended")
}

// send sends frames. Whoever sends waits for the others: so a node that reads nothing holds
// up what is done for it, and nothing else.
func (g *Gateway) send(c *client, frames [][]byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.session.Send(frames); err != nil {
		_ = c.session.Close()
		return err
	}
	return nil
}

// hear does what a node asks. The error ends its session.
func (g *Gateway) hear(c *client, raw []byte) error {
	f, err := wire.Decode(raw)
	now := time.Now()
	g.mu.Lock()
	c.heard = now
	flood := c.guest.frames.One(now) > 0
	if flood || err != nil {
		c.guest.away = now.Add(banned)
		g.end(c, map[bool]string{true: "flood", false: "malformed"}[flood])
	}
	g.mu.Unlock()
	switch {
	case err != nil:
		return err
	case flood:
		return errFlood
	}
	switch f := f.(type) {
	case wire.Alive:
		return g.send(c, frames(wire.Alive{}))
	case wire.Put:
		return g.hearPut(c, f)
	case wire.Follow:
		return g.hearFollow(c, f)
	case wire.Leave:
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(c.follows, f.Topic)
		delete(c.again, f.Topic)
		return nil
	}
	return fmt.Errorf("%w: only gateways say it", wire.ErrFrame)
}

// hearPut writes an object of the node, and answers what became of it.
func (g *Gateway) hearPut(c *client, f wire.Put) error {
	done := wire.Done{ID: f.ID}
	now := time.Now()
	done.Why, done.Wait = g.putOf(c, f.Envelope)
	g.mu.Lock()
	flood := false
	if done.Why == wire.None {
		g.stats.Puts++
	} else {
		g.stats.Refused[done.Why.String()]++
		if flood = c.guest.refusals.One(now) > 0; flood {
			c.guest.away = now.Add(banned)
			g.end(c, "flood")
		}
	}
	g.mu.Unlock()
	if flood {
		return errFlood
	}
	answer := frames(done)
	if done.Why == wire.Older { // it has forgotten what it said: it is to go on above that
		answer = append(g.newer(f.Envelope), answer...)
	}
	return g.send(c, answer)
}

// hearFollow begins to tell a node what is in a topic.
func (g *Gateway) hearFollow(c *client, f wire.Follow) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); c.listing || now.Before(c.guest.slow) || c.guest.lists.One(now) > 0 || g.closing() {
		g.unlisted(c, f.Topic)
		return nil
	}
	c.listing = true
	delete(c.again, f.Topic)
	c.follows[f.Topic] = g.queues[f.Topic].end()
	from, ctx := g.store, g.ctx
	g.wait.Go(func() { g.list(ctx, c, f, from) })
	return nil
}

// unlisted has a node ask for a topic again, later. The caller holds mu.
func (g *Gateway) unlisted(c *client, topic board.Topic) {
	g.stats.Refused["list: "+wire.Busy.String()]++
	c.again[topic] = true
	delete(c.follows, topic)
	g.pump(c)
}

// pump has somebody send what is to be told to a node. The caller holds mu.
func (g *Gateway) pump(c *client) {
	if c.pumping || c.ended || g.closing() && !c.move {
		return
	}
	c.pumping = true
	g.wait.Go(func() {
		for {
			some := g.next(c)
			if len(some) == 0 {
				return
			}
			if g.send(c, some) != nil {
				g.mu.Lock()
				c.pumping = false
				g.end(c, "cut off")
				g.mu.Unlock()
				return
			}
		}
	})
}

// next is what is to be told to a node next. With nothing, nobody sends any more.
func (g *Gateway) next(c *client) (some [][]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.ended {
		c.pumping = false
		return nil
	}
	if c.members {
		c.members = false
		some = append(some, frames(wire.Members{Seats: g.members})...)
	}
	if c.recall {
		c.recall = false
		g.stats.Recalled++
		some = append(some, frames(wire.Recall{})...)
	}
	for topic, number := range c.follows {
		more, ok := g.queues[topic].from(number, pumpBytes)
		if !ok {
			delete(c.follows, topic)
			c.again[topic] = true
			continue
		}
		if len(more) > 0 {
			c.follows[topic] = number + uint64(len(more))
			some = append(some, more...)
		}
	}
	for topic := range c.again {
		g.stats.Slow++
		some = append(some, frames(wire.Again{Topic: topic})...)
	}
	clear(c.again)
	if c.move {
		c.move = false
		some = append(some, frames(wire.Move{})...)
	}
	c.pumping = len(some) > 0
	return some
}

var errOver = errors.New("gateway: the session is over")

// wait takes one of some places, once there is one; false: the session or ctx ends before.
func (c *client) wait(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-c.over:
	case <-ctx.Done():
	}
	return false
}

// list tells a node what lies in a topic.
func (g *Gateway) list(ctx context.Context, c *client, f wire.Follow, from *store.Store) {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		c.listing = false
	}()
	g.mu.Lock()
	limit := g.config.listLimit
	g.mu.Unlock()
	// Who waits for his list for long would take the gateway for one that does nothing, and lose his lease.
	soon, cancel := context.WithTimeout(ctx, limit/6)
	defer cancel()
	if !c.wait(soon, g.lists) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.unlisted(c, f.Topic)
		return
	}
	defer func() { <-g.lists }()
	until := time.Now().Add(limit)
	late := time.AfterFunc(limit, func() {
		g.mu.Lock()
		c.guest.slow = time.Now().Add(slowFor)
		g.end(c, "slow")
		g.mu.Unlock()
		_ = c.session.Close()
	})
	defer late.Stop()
	if !c.wait(ctx, g.reads) {
		return
	}
	reads := true // it has one of the places of those who read
	err := from.List(ctx, f.Topic.Prefix(), f.After, func(items []store.Item) error {
		some := framesOf(f.Topic, g.genuine(items))
		<-g.reads // others read while this one sends
		reads = false
		for _, frame := range some {
			if err := g.send(c, [][]byte{frame}); err != nil {
				return err
			}
			until = until.Add(time.Duration(len(frame)) * time.Second / listRate)
		}
		late.Reset(time.Until(until))
		if reads = c.wait(ctx, g.reads); !reads {
			return errOver
		}
		return nil
	})
	if reads {
		<-g.reads
	}
	if err == nil {
		_ = g.send(c, frames(wire.Live{Topic: f.Topic}))
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(c.follows, f.Topic)
	c.again[f.Topic] = true
	g.pump(c)
}
