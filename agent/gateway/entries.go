package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

const (
	// recent is how many of the newest entries of the ledger are kept in etcd: whoever lacks
	// more of them has them from other nodes.
	recent = 256
	// mendEvery is how often an entry is written anew that somebody writes over.
	mendEvery = 30 * time.Second
	// keepEvery is how often all of them are looked at: whoever can write to etcd wakes it as often as
	// he likes.
	keepEvery = time.Second
)

// keepLedger sees to it that the entries which this node has taken lie in etcd.
func (g *Gateway) keepLedger(ctx context.Context) {
	paced(ctx, g.wake, func() (next time.Duration) {
		g.mu.Lock()
		whole := g.whole
		g.mu.Unlock()
		if !whole {
			return 0 // it is woken once it is
		}
		if !g.judgeAgain(ctx) {
			next = busyWait
		}
		height := g.config.Ledger.State().Height
		for h := max(1, height-recent+1); h <= height && ctx.Err() == nil; h++ {
			if again := g.keepEntry(ctx, h); again > 0 && (next == 0 || again < next) {
				next = again
			}
		}
		return next
	})
}

// paced runs something until ctx ends: once it is woken, and as soon as the last run has asked for it
// (0: not at all), but not before [keepEvery] is over.
func paced(ctx context.Context, wake <-chan struct{}, run func() (next time.Duration)) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
		if next := run(); next > 0 {
			timer.Reset(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepEvery):
		}
	}
}

// keepEntry sees to one entry. If that failed, or has to wait, it returns for how long.
func (g *Gateway) keepEntry(ctx context.Context, height int64) (again time.Duration) {
	key := board.Entry(height).Key()
	g.mu.Lock()
	l, ok := g.index[key]
	last := g.mended[key]
	g.mu.Unlock()
	if ok && l.genuine {
		g.mu.Lock()
		delete(g.mended, key)
		g.mu.Unlock()
		return 0
	}
	if left := mendEvery - time.Since(last); ok && left > 0 {
		return left // one timer stands for all, and strangers wake it
	}
	e, err := g.config.Ledger.Entry(height)
	raw := ledger.FormatEntry(height, e)
	if err != nil || len(raw) > wire.MaxValue {
		return 0
	}
	if ok { // what is found there may count by now: this node's ledger was behind
		item, err := g.store.Get(ctx, key)
		if err == nil && item.Revision == l.revision {
			if fresh := g.read(item); fresh.genuine {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.index[key] = fresh
				return 0
			}
		}
		g.mu.Lock()
		g.mended[key] = time.Now()
		g.mu.Unlock()
	}
	_, done, err := g.store.Write(ctx, []store.Write{{Key: key, Value: raw, Was: l.revision}})
	if err != nil || !done {
		return busyWait // the watch may not have said yet what lies there
	}
	return 0
}

// judging is by what something was judged: the ledger's height, and who had seats.
type judging struct {
	height int64
	seats  map[document.Hash]bool
}

// judging is by what the gateway judges now. The caller holds mu.
func (g *Gateway) judging() judging { return judging{g.height, g.seats} }

// judgeAgain judges what did not count, once the ledger has grown: a seat that was listed since may have
// said it, or a record was not proved yet. Nobody writes it again for that. It returns false where that
// was not done.
func (g *Gateway) judgeAgain(ctx context.Context) bool {
	g.follow()
	g.mu.Lock()
	now, before, from := g.judging(), g.judged, g.store
	if !g.whole || now.height == before.height {
		g.mu.Unlock()
		return true // once it is whole, all is told
	}
	var keys []string
	for key, l := range g.index {
		if !l.genuine {
			keys = append(keys, key)
		}
	}
	for id := range now.seats {
		if !before.seats[id] {
			for _, kind := range board.Kinds() {
				keys = append(keys, board.Place{Topic: board.Nodes, Node: id, Kind: kind}.Key())
			}
		}
	}
	g.gone = make(map[string]int64)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.gone = nil
	}()
	slices.Sort(keys) // records in their order
	for _, key := range keys {
		item, err := from.Get(ctx, key)
		if err != nil {
			return false
		}
		if item.Revision > 0 {
			g.toldAgain([]store.Item{item})
		}
	}
	err := from.List(ctx, board.Ledger.Prefix(), board.Entry(before.height+recent).Key(), func(items []store.Item) error {
		if g.toldAgain(items); len(g.placed(items)) == 0 {
			return errFar
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFar) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.judged = now
	return true
}

var errFar = errors.New("records that may not be there for long")

// toldAgain takes note of what was read by itself, but for what has gone since.
func (g *Gateway) toldAgain(items []store.Item) {
	g.mu.Lock()
	items = slices.DeleteFunc(items, func(i store.Item) bool { return g.gone[i.Key] >= i.Revision })
	g.mu.Unlock()
	follower{g}.Told(items)
}

func isBack(err error) bool { return errors.Is(err, store.ErrBack) }
