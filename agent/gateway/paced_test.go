package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
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
