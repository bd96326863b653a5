package gateway

import (
	"context"
	"slices"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
)

// gone is a node that did not come back, and what of it is to go from etcd.
type gone struct {
	id     document.Hash
	writes []store.Write
}

// bury takes the statuses away of nodes that did not come back. One lease stands for all nodes, and is
// kept: so what is not taken away now would lie there for ever, and it is tried until it is done.
func (g *Gateway) bury(ctx context.Context) {
	tick := time.NewTicker(max(g.config.Silence/6, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		over := g.overdue(time.Now())
		for some := range slices.Chunk(over, maxBatch/len(leasedKinds)) {
			if !g.buryAll(ctx, some) {
				break // there is no quorum, or no etcd: later
			}
		}
	}
}

// buryAll takes away what some nodes have there: together, or each for itself where one of them has come
// back elsewhere. It returns false where etcd takes nothing.
func (g *Gateway) buryAll(ctx context.Context, some []gone) bool {
	var all []store.Write
	for _, one := range some {
		all = append(all, one.writes...)
	}
	_, done, err := g.store.Write(ctx, all)
	switch {
	case err != nil:
		return false
	case done:
		g.mu.Lock()
		for _, one := range some {
			if g.byID[one.id] == nil {
				delete(g.left, one.id)
			}
		}
		g.mu.Unlock()
	case len(some) > 1:
		for _, one := range some {
			if !g.buryAll(ctx, []gone{one}) {
				return false
			}
		}
	}
	return true // where something else lies there, the watch will say so
}

// overdue are nodes that did not come back, with what lies there by this gateway's lease. Who has
// nothing there is forgotten; while nobody knows what does, nobody is.
func (g *Gateway) overdue(now time.Time) (all []gone) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.whole || g.lease == 0 {
		return nil
	}
	for id, until := range g.left {
		if g.byID[id] != nil || now.Before(until) {
			continue
		}
		one := gone{id: id}
		for _, kind := range leasedKinds {
			key := board.Place{Topic: board.Nodes, Node: id, Kind: kind}.Key()
			if l, ok := g.index[key]; ok && l.lease == g.lease {
				one.writes = append(one.writes, store.Write{Key: key, Was: l.revision, Delete: true})
			}
		}
		if len(one.writes) == 0 {
			delete(g.left, id)
			continue
		}
		all = append(all, one)
	}
	return all
}
