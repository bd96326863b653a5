package gateway

import (
	"context"
	"errors"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/ledger"
)

const (
	// recent is how many of the newest entries of the ledger are kept in etcd: whoever lacks
	// more of them has them from other nodes.
	recent = 256
	// mendEvery is how often an entry is written anew that somebody writes over.
	mendEvery = 30 * time.Second
)

// keepLedger sees to it that the entries which this node has taken lie in etcd.
func (g *Gateway) keepLedger(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		}
		g.mu.Lock()
		whole := g.whole
		g.mu.Unlock()
		if !whole {
			continue // it is woken once it is
		}
		height := g.config.Ledger.State().Height
		for h := max(1, height-recent+1); h <= height && ctx.Err() == nil; h++ {
			if again := g.keepEntry(ctx, h); again > 0 {
				time.AfterFunc(again, g.Advanced)
			}
		}
	}
}

// keepEntry sees to one entry. If that failed it returns when to try again.
func (g *Gateway) keepEntry(ctx context.Context, height int64) (again time.Duration) {
	key := board.Entry(height).Key()
	g.mu.Lock()
	l, ok := g.index[key]
	last := g.mended[key]
	g.mu.Unlock()
	if ok && l.genuine {
		return 0
	}
	if ok && time.Since(last) < mendEvery {
		return mendEvery
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

func isBack(err error) bool { return errors.Is(err, store.ErrBack) }
