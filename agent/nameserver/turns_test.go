package nameserver

import (
	"context"
	"fmt"
	"testing"
)

// TestTurns: one container has so many turns; where all are in use those who have most give
// theirs up, the oldest first, until all have as many.
func TestTurns(t *testing.T) {
	var all turns
	take := func(who string) (context.Context, func(), bool) { return all.take(t.Context(), who) }
	var first context.Context
	var give func()
	for i := range maxForwards {
		ctx, g, ok := take(fmt.Sprint("evil", i/maxOfOne))
		if !ok {
			t.Fatalf("turn %d is refused", i)
		}
		if i == 0 {
			first, give = ctx, g
		}
	}
	if _, _, ok := take("evil0"); ok {
		t.Error("one container has more turns than it may")
	}
	if first.Err() != nil {
		t.Error("a turn ended though nobody asked for it")
	}
	for i := range maxForwards / 5 {
		if _, _, ok := take("shop"); !ok {
			t.Fatalf("turn %d of another one is refused", i)
		}
	}
	if first.Err() == nil {
		t.Error("the oldest turn goes on")
	}
	for who, has := range all.of {
		if len(has) < maxForwards/5 || len(has) > maxForwards/5+1 {
			t.Errorf("%s has %d turns", who, len(has))
		}
	}
	give() // it was taken away
	if all.count != maxForwards {
		t.Errorf("%d turns are in use", all.count)
	}
	for range maxForwards {
		if _, _, ok := take("shop"); !ok {
			break
		}
	}
	if n := len(all.of["shop"]); n > maxForwards/5+1 {
		t.Errorf("one who asks on has %d turns", n)
	}
}

// TestTurnsOver: a turn that is given back is free again.
func TestTurnsOver(t *testing.T) {
	var all turns
	for range 3 * maxOfOne {
		ctx, give, ok := all.take(t.Context(), "web")
		if !ok {
			t.Fatal("refused")
		}
		give()
		give()
		if ctx.Err() == nil || all.count != 0 || len(all.of) != 0 {
			t.Fatalf("%d turns, %v", all.count, ctx.Err())
		}
	}
}
