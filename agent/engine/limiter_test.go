package engine

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestSlowStarts: containers in which nothing comes to start keep no other one from it, and
// in each of them it is still one at a time.
func TestSlowStarts(t *testing.T) {
	l := newLimiter()
	l.turn = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all []func()
	for _, instance := range []string{"slow", "slower", "slowest", "other"} {
		done, err := l.take(ctx, instance)
		if err != nil {
			t.Fatalf("%s: %v", instance, err)
		}
		all = append(all, done)
	}
	ended, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, err := l.take(ended, "slow"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second start in one container: %v", err)
	}
	for _, done := range all {
		done()
	}
	if len(l.all) != 0 {
		t.Errorf("%d turns are left", len(l.all))
	}
	// Within its turn a start has one of the node's.
	l.turn = time.Hour
	for _, instance := range []string{"one", "two"} {
		done, err := l.take(ctx, instance)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
	}
	ended, end = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, err := l.take(ended, "three"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third start at a time: %v", err)
	}
}
