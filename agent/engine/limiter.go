package engine

import (
	"context"
	"sync"
	"time"

	"kogge.example/agent/turns"
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
	own  turns.Turns // by instance
}

func newLimiter() *limiter {
	return &limiter{all: make(chan struct{}, starts), turn: turn}
}

// take returns when it is the caller's turn in an instance, until done.
func (t *limiter) take(ctx context.Context, instance string) (done func(), err error) {
	leave, err := t.own.Take(ctx, instance)
	if err != nil {
		return nil, err
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	free := sync.OnceFunc(func() { <-t.all })
	over := time.AfterFunc(t.turn, free)
	return func() {
		over.Stop()
		free()
		leave()
	}, nil
}
