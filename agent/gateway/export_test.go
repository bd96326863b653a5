package gateway

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/signed"
)

// Forgive lets a seat in again that was sent away.
func (g *Gateway) Forgive(key signed.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.guests, key)
}

// Flood has something change in a topic, each time it is called, without etcd.
func (g *Gateway) Flood(topic board.Topic, size int) func(n int) {
	value := bytes.Repeat([]byte("x"), size)
	return func(n int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.tell(map[board.Topic][]wire.Item{topic: {{Key: fmt.Sprintf("/kogge/v1/nodes/%d/record", n), Revision: int64(n), Value: value}}})
	}
}

// Queued is what is kept of a topic.
func (g *Gateway) Queued(topic board.Topic) (frames, bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queues[topic].frames), g.queues[topic].bytes
}

// Overtaken says whether what a node wants next is not kept any more.
func (g *Gateway) Overtaken(key signed.Key) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.clients[key]
	return c != nil && c.follows[board.Nodes] < g.queues[board.Nodes].first
}

// Isolate has a seat be refused.
func (g *Gateway) Isolate(key signed.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config.Refuse = func(s Session) error {
		if s.Peer() == key {
			return errRefused
		}
		return nil
	}
}

// Deaf has a gateway keep its nodes for another time while etcd tells it nothing.
func Deaf(g *Gateway, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config.deaf = d
}

// Genuine is how many keys count.
func (g *Gateway) Genuine() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.index {
		if l.genuine {
			n++
		}
	}
	return n
}

// Left is how many nodes may come back, or have something in etcd that is to go.
func (g *Gateway) Left() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.left)
}

// Overdue says whether the time is over of a node that may come back, with some to spare.
func (g *Gateway) Overdue() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, until := range g.left {
		if time.Since(until) > g.config.Silence {
			return true
		}
	}
	return len(g.left) == 0
}

// Patience has nodes of a gateway be silent for so long, and lists take so long at most.
func Patience(g *Gateway, silence, list time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config.Silence, g.config.listLimit = silence, list
}

// FillLists takes all places of those who are told lists.
func FillLists(g *Gateway) {
	for len(g.lists) < cap(g.lists) {
		g.lists <- struct{}{}
	}
}

// Lists is how many places are taken of those who read lists, and of those who are told one.
func (g *Gateway) Lists() (reading, told int) { return len(g.reads), len(g.lists) }

// Tidy looks through all keys once, as if what lies there had for long.
func (g *Gateway) Tidy(ctx context.Context) {
	var t tidying
	now := time.Now()
	g.tidySome(ctx, &t, now)
	now = now.Add(tidyAfter)
	for g.tidySome(ctx, &t, now); t.after != "" && ctx.Err() == nil; {
		g.tidySome(ctx, &t, now)
	}
}
