package operate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
)

// TestMeasured: a disk that was busy is measured again, and so is one that is being measured for
// somebody else; one that is slow is found so after three times, and what fails is not repeated.
func TestMeasured(t *testing.T) {
	busy := connect.NewError(connect.CodeAborted, errors.New("it is being measured"))
	down := connect.NewError(connect.CodeUnavailable, errors.New("no route"))
	type answer struct {
		unfit string
		err   error
	}
	const took = 200 * time.Millisecond
	for _, c := range []struct {
		name    string
		answers []answer
		unfit   string
		err     error
		said    int
		lasts   time.Duration
	}{
		{"a good one", []answer{{}}, "", nil, 0, took},
		{"a busy host", []answer{{unfit: "slow"}, {}}, "", nil, 1, 12 * took},
		{"a slow one", []answer{{unfit: "slow"}, {unfit: "slow"}, {unfit: "slow, 3 s"}, {}}, "slow, 3 s (measured 3 times)", nil, 2, 23 * took},
		{"one for two operators", []answer{{err: busy}, {err: busy}, {err: busy}, {err: busy}, {}}, "", nil, 4, 5*took + 4*probePause},
		{"none that answers", []answer{{err: down}, {}}, "", down, 0, took},
		{"one that is never free", []answer{{err: busy}}, "", context.DeadlineExceeded, 18, 90 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			asked, said, began := 0, 0, time.Now()
			unfit, err := measured(ctx, func() (string, error) {
				time.Sleep(took)
				a := c.answers[min(asked, len(c.answers)-1)]
				asked++
				return a.unfit, a.err
			}, func(string) { said++ })
			if unfit != c.unfit || !errors.Is(err, c.err) || said != c.said || time.Since(began) != c.lasts {
				t.Errorf("%s: %q, %v, said %d, after %s", c.name, unfit, err, said, time.Since(began))
			}
		})
	}
}
