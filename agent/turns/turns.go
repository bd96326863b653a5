// Package turns lets one at a time do something to what has a name.
//
// In come names; out goes whose turn it is. It starts nothing, and keeps nothing of a name
// that nobody is busy with.
package turns

import (
	"context"
	"sync"
)

// Turns are those of any number of names. The zero one is ready.
type Turns struct {
	mu   sync.Mutex // guards busy
	busy map[string]chan struct{}
}

// Take returns when it is the caller's turn with name, which lasts until done, or with the
// error of ctx.
func (t *Turns) Take(ctx context.Context, name string) (done func(), err error) {
	for ctx.Err() == nil {
		other, done := t.try(name)
		if done != nil {
			return done, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
		}
	}
	return nil, ctx.Err()
}

// try takes the turn, or returns what is closed when the one who has it is done.
func (t *Turns) try(name string) (other chan struct{}, done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.busy[name]; other != nil {
		return other, nil
	}
	own := make(chan struct{})
	if t.busy == nil {
		t.busy = make(map[string]chan struct{})
	}
	t.busy[name] = own
	return nil, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, name)
		close(own)
	}
}
