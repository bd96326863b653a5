package gateway

import (
	"context"
	"errors"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// job is an object of a node that is to be written.
type job struct {
	client *client
	place  board.Place
	key    string
	raw    []byte
	object signed.Envelope
	is     lying // but for the revision
	done   chan wire.Why
}

// What is written at once.
const (
	maxBatch      = 64 // keys
	maxBatchBytes = 128 << 10
	maxTries      = 4 // of a write that others are faster with
)

// whyOf is how a verdict is called on the wire.
func whyOf(v shelf.Verdict) wire.Why {
	switch v {
	case shelf.Taken, shelf.Renewed, shelf.Contested, shelf.Behind, shelf.Known:
		return wire.None
	case shelf.Older:
		return wire.Older
	case shelf.TooLarge:
		return wire.TooLarge
	case shelf.Foreign, shelf.BadSignature:
		return wire.Forged
	case shelf.Unlisted, shelf.Early:
		return wire.Unlisted
	case shelf.UnknownKind:
		return wire.NotOwn
	}
	return wire.Malformed
}

// putOf judges an object that a node puts, and has it written. If it is refused for now, wait is
// for how long.
func (g *Gateway) putOf(c *client, raw []byte) (why wire.Why, wait time.Duration) {
	e, err := signed.Parse(raw)
	if err != nil {
		return wire.Malformed, 0
	}
	place, ok := board.Of(e)
	if !ok || e.By != c.key {
		return wire.NotOwn, 0
	}
	g.mu.Lock()
	wait = c.guest.puts.One(time.Now())
	g.mu.Unlock()
	if wait > 0 { // before it is passed on to anybody
		return wire.Busy, wait
	}
	v, err := g.config.Shelf.Put(raw)
	if err != nil {
		return wire.Busy, busyWait
	}
	if why := whyOf(v); why != wire.None {
		return why, 0
	}
	j := &job{client: c, place: place, key: place.Key(), raw: raw, object: e, done: make(chan wire.Why, 1)}
	j.is = lying{says: sumOf(e.Body), number: e.Sequence, genuine: true}
	g.mu.Lock()
	jobs, ctx, whole := g.jobs, g.ctx, g.whole
	g.mu.Unlock()
	if !whole {
		return wire.NoEtcd, noEtcdWait
	}
	select {
	case jobs <- j:
	case <-ctx.Done():
		return wire.NoEtcd, noEtcdWait
	}
	select {
	case why = <-j.done:
	case <-ctx.Done():
		return wire.NoEtcd, noEtcdWait
	}
	switch why {
	case wire.Busy:
		wait = busyWait
	case wire.NoEtcd:
		wait = noEtcdWait
	}
	return why, wait
}

// newer is what lies in the place of an object, in a frame; none where it does not count.
func (g *Gateway) newer(raw []byte) [][]byte {
	e, err := signed.Parse(raw)
	place, ok := board.Of(e)
	g.mu.Lock()
	s, ctx := g.store, g.ctx
	g.mu.Unlock()
	if err != nil || !ok || s == nil {
		return nil
	}
	item, err := s.Get(ctx, place.Key())
	if err != nil {
		return nil
	}
	return framesOf(place.Topic, g.genuine([]store.Item{item}))
}

// write writes what nodes put, a few together: so that a slow card syncs once for many.
func (g *Gateway) write(ctx context.Context) {
	var next *job
	for {
		if next == nil {
			select {
			case <-ctx.Done():
				return
			case next = <-g.jobs:
			}
		}
		batch, keys, size := []*job{next}, map[string]bool{next.key: true}, len(next.raw)
		next = nil
	collect:
		for len(batch) < maxBatch && size < maxBatchBytes {
			select {
			case j := <-g.jobs:
				if keys[j.key] {
					next = j
					break collect
				}
				keys[j.key] = true
				batch, size = append(batch, j), size+len(j.raw)
			default:
				break collect
			}
		}
		g.writeAll(ctx, batch)
	}
}

// writeAll writes some objects of different keys together, or each for itself where somebody
// else was faster with one of them.
func (g *Gateway) writeAll(ctx context.Context, batch []*job) {
	for try := range maxTries {
		var left []*job
		for _, j := range batch {
			if why, over := g.need(j); over {
				g.finish(j, why)
			} else {
				left = append(left, j)
			}
		}
		if len(left) == 0 {
			return
		}
		batch = left
		revision, done, err := g.store.Write(ctx, g.writes(batch))
		switch {
		case err != nil:
			if errors.Is(err, store.ErrGone) {
				g.forgetLease()
			}
			for _, j := range batch {
				g.finish(j, wire.Busy)
			}
			return
		case done:
			g.wrote(batch, revision)
			return
		case try == 0 && len(batch) > 1:
			for _, j := range batch {
				g.writeAll(ctx, []*job{j})
			}
			return
		}
		for _, j := range batch {
			if item, err := g.store.Get(ctx, j.key); err == nil {
				g.catchUp(item)
			}
		}
	}
	for _, j := range batch {
		g.finish(j, wire.Busy)
	}
}

// need says whether an object is to be written; over: it is not, and why.
func (g *Gateway) need(j *job) (why wire.Why, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.index[j.key]
	switch {
	case !g.whole:
		return wire.NoEtcd, true
	case g.lease == 0 && j.place.Leased():
		return wire.Busy, true
	case ok && l.genuine && l.number > j.object.Sequence:
		return wire.Older, true
	case ok && l.genuine && l.says == j.is.says && (!j.place.Leased() || l.lease == g.lease):
		return wire.None, true // nobody is told of it, so it is not worth a write
	}
	return wire.None, false
}

// writes are the writes of some objects, to where is what the index says.
func (g *Gateway) writes(batch []*job) (all []store.Write) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, j := range batch {
		w := store.Write{Key: j.key, Value: j.raw, Was: g.index[j.key].revision}
		if j.place.Leased() {
			w.Lease = g.lease
		}
		j.is.lease = w.Lease
		all = append(all, w)
	}
	return all
}

// wrote takes note of what was written, before etcd says so.
func (g *Gateway) wrote(batch []*job, revision int64) {
	g.mu.Lock()
	g.stats.Written++
	changed := make(map[board.Topic][]wire.Item)
	for _, j := range batch {
		j.client.put[j.key] = j.is // or the node would be recalled for its own
		item := store.Item{Key: j.key, Value: j.raw, Revision: revision, Lease: j.is.lease}
		l := j.is
		l.revision = revision
		if g.note(j.place, item, l) {
			changed[j.place.Topic] = append(changed[j.place.Topic], itemOf(item))
		}
	}
	g.tell(changed)
	g.mu.Unlock()
	for _, j := range batch {
		j.done <- wire.None
	}
}

// finish answers a job.
func (g *Gateway) finish(j *job, why wire.Why) {
	if why == wire.None {
		g.mu.Lock()
		j.client.put[j.key] = j.is
		g.mu.Unlock()
	}
	j.done <- why
}

// catchUp takes note of what lies under a key before the watch says so.
func (g *Gateway) catchUp(item store.Item) {
	if item.Revision == 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.index, item.Key) // the watch has told of it, or will: nobody waits for that
		return
	}
	f := follower{g}
	f.Told([]store.Item{item})
}

// forgetLease has another lease be made.
func (g *Gateway) forgetLease() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lease = 0
	select {
	case g.leased <- struct{}{}:
	default:
	}
}
