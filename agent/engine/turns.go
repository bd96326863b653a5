package engine

import (
	"context"
	"sync"
)

// starts is how many health checks and commands may be starting at a time: each start is
// one of runc, and together they would take a small node's processor for seconds, after
// each boot.
const starts = 2

// turns are who may start something in an instance, one at a time in each: two starts
// that fail together would take each other's reason out of runc's log.
type turns struct {
	all chan struct{}

	mu sync.Mutex // guards of
	of map[string]*turn
}

// turn is that of one instance; it is there while somebody wants it.
type turn struct {
	taken  chan struct{}
	wanted int
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, starts), of: make(map[string]*turn)}
}

// take returns when it is the caller's turn in an instance, until done.
func (t *turns) take(ctx context.Context, instance string) (done func(), err error) {
	t.mu.Lock()
	own := t.of[instance]
	if own == nil {
		own = &turn{taken: make(chan struct{}, 1)}
		t.of[instance] = own
	}
	own.wanted++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.wanted--; own.wanted == 0 {
			delete(t.of, instance)
		}
	}
	select {
	case own.taken <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		<-own.taken
		leave()
		return nil, ctx.Err()
	}
	return func() {
		<-t.all
		<-own.taken
		leave()
	}, nil
}
