package turns

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestTake: one at a time with each name, each in the end, and none waits for another name.
func TestTake(t *testing.T) {
	var turns Turns
	var all sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)} // each is changed in its turn alone
	for range 50 {
		for name, count := range counts {
			all.Go(func() {
				done, err := turns.Take(t.Context(), name)
				if err != nil {
					t.Error(err)
					return
				}
				defer done()
				*count++
			})
		}
	}
	all.Wait()
	if *counts["a"] != 50 || *counts["b"] != 50 || len(turns.busy) != 0 {
		t.Errorf("%d and %d turns, and %v is left", *counts["a"], *counts["b"], turns.busy)
	}
	done, err := turns.Take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := turns.Take(t.Context(), "b"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	ended, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := turns.Take(ended, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a turn that another one has: %v", err)
	}
	done()
	if _, err := turns.Take(ended, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a turn after the end: %v", err)
	}
}
