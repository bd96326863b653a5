package nameserver

import (
	"context"
	"slices"
	"sync"
)

// turns are the forwards under way, of each container the oldest first. Its zero value has none.
type turns struct {
	mu    sync.Mutex
	of    map[string][]*turn // never empty
	count int
}

type turn struct{ end context.CancelFunc }

// take gives a container a turn: the context lasts until give is called, or the turn is
// taken away. Where all are in use it comes from whoever has most, if that leaves him no fewer
// than the new one has; his oldest one has waited longest for an answer.
func (t *turns) take(ctx context.Context, who string) (turned context.Context, give func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.of[who]) >= maxOfOne {
		return nil, nil, false
	}
	if t.count >= maxForwards {
		most := who
		for other, has := range t.of {
			if len(has) > len(t.of[most]) || len(has) == len(t.of[most]) && other < most {
				most = other
			}
		}
		if len(t.of[most])-1 < len(t.of[who])+1 {
			return nil, nil, false
		}
		oldest := t.of[most][0]
		oldest.end()
		t.drop(most, oldest)
	}
	turned, cancel := context.WithCancel(ctx)
	one := &turn{end: cancel}
	if t.of == nil {
		t.of = make(map[string][]*turn)
	}
	t.of[who] = append(t.of[who], one)
	t.count++
	return turned, func() {
		cancel()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.drop(who, one)
	}, true
}

// drop forgets a turn, if that was not done before. Whoever calls it has the lock.
func (t *turns) drop(who string, one *turn) {
	i := slices.Index(t.of[who], one)
	if i < 0 {
		return
	}
	t.count--
	if t.of[who] = slices.Delete(t.of[who], i, i+1); len(t.of[who]) == 0 {
		delete(t.of, who)
	}
}
