package engine

import (
	"context"
	"sync"
	"time"
)

// starts is how many health checks and commands may be starting at a time: each start is
// one of runc, and together they would take a small node's processor for seconds, after
// each boot.
const starts = 2

// turn is how long a start counts among those: one takes a moment, and a container that has
// hardly any processor, or holds up what is started in it, is not to hold up others.
const turn = 2 * time.Second

// limiter lets one caller at a time start something in an instance: two starts that fail
// together would take each other's reason out of runc's log.
type limiter struct {
	all  chan struct{}
	turn time.Duration

	mu sync.Mutex // guards of
	of map[string]*instanceLimit
}

// instanceLimit is the turn in one instance; it is there while somebody wants it.
type instanceLimit struct {
	taken  chan struct{}
	wanted int
}

func newLimiter() *limiter {
	return &limiter{all: make(chan struct{}, starts), turn: turn, of: make(map[string]*instanceLimit)}
}

// take returns when it is the caller's turn in an instance, until done.
func (t *limiter) take(ctx context.Context, instance string) (done func(), err error) {
	t.mu.Lock()
	own := t.of[instance]
	if own == nil {
		own = &instanceLimit{taken: make(chan struct{}, 1)}
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
	free := sync.OnceFunc(func() { <-t.all })
	over := time.AfterFunc(t.turn, free)
	return func() {
		over.Stop()
		free()
		<-own.taken
		leave()
	}, nil
}
