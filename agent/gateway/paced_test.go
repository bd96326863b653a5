package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/update/fleet/board"
)

// TestPaced wakes what keeps the ledger a hundred times a second, as whoever writes to etcd can: it runs
// once a second, and one timer runs it again.
func TestPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		wake := make(chan struct{}, 1)
		var runs []time.Time
		next := mendEvery
		go paced(ctx, wake, func() time.Duration {
			runs = append(runs, time.Now())
			return next
		})
		for range 3000 {
			select {
			case wake <- struct{}{}:
			default:
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(runs); n < 29 || n > 31 {
			t.Errorf("%d runs in 30 s", n)
		}
		time.Sleep(keepEvery)
		synctest.Wait()
		n, last := len(runs), runs[len(runs)-1]
		next = 0
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(runs) != n+1 || runs[n].Sub(last) != mendEvery {
			t.Errorf("%d more runs in the hour after: %v after %v", len(runs)-n, runs[n:], last)
		}
		wake <- struct{}{}
		synctest.Wait()
		if len(runs) != n+2 {
			t.Error("it is woken, and does not run")
		}
		stop()
	})
}

// TestMendLeft has an entry be looked at again once its time is over, not a whole time after each look.
func TestMendLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := board.Entry(1).Key()
		g := &Gateway{index: map[string]lying{key: {revision: 7}}, mended: map[string]time.Time{key: time.Now()}}
		for _, after := range []time.Duration{0, time.Second, 20 * time.Second, mendEvery - time.Second} {
			time.Sleep(after - time.Since(g.mended[key]))
			if got, want := g.keepEntry(t.Context(), 1), mendEvery-after; got != want {
				t.Errorf("%s after the last time it comes again after %s: want %s", after, got, want)
			}
		}
	})
}
