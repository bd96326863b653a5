package operate

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
)

// TestMeasured: a disk that was busy is measured again, and so is one that is being measured for
// somebody else; one that is slow is found so after three times, or as often as there is time for, and what
// fails is not repeated. Nobody hears the same twice in a row.
func TestMeasured(t *testing.T) {
	busy := connect.NewError(connect.CodeAborted, errors.New("it is being measured"))
	down := connect.NewError(connect.CodeUnavailable, errors.New("no route"))
	type answer struct {
		unfit string
		err   error
		takes time.Duration // 0: took
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
		{"a slow one", []answer{{unfit: "slow"}, {unfit: "slow"}, {unfit: "slow, 3 s"}, {}}, "slow, 3 s (measured 3 times)", nil, 1, 23 * took},
		{"one for two operators", []answer{{err: busy}, {err: busy}, {err: busy}, {err: busy}, {}}, "", nil, 1, 5*took + 4*probePause},
		{"none that answers", []answer{{err: down}, {}}, "", down, 0, took},
		{"one that is never free", []answer{{err: busy}}, "", context.DeadlineExceeded, 1, 90 * time.Second},
		{"one that is busy after the first time", []answer{{unfit: "slow, 2 s"}, {err: busy}}, "slow, 2 s (measured once, and then there was no time)", nil, 2, 90 * time.Second},
		{"one that is lost after the second time", []answer{{unfit: "slow, 2 s"}, {unfit: "slow, 3 s"}, {err: down}}, "", down, 2, 23 * took},
		{"one that is very slow", []answer{{unfit: "slow, 2 s", takes: 40 * time.Second}}, "slow, 2 s (measured 2 times, and then there was no time)", nil, 1, 90 * time.Second},
		{"one whose words change", []answer{{err: busy}, {unfit: "slow"}, {err: busy}, {unfit: "slow"}, {}}, "", nil, 4, 5*took + 2*probePause + 20*took},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			asked, said, began := 0, 0, time.Now()
			unfit, err := measured(ctx, func() (string, error) {
				a := c.answers[min(asked, len(c.answers)-1)]
				asked++
				select {
				case <-time.After(cmp.Or(a.takes, took)):
				case <-ctx.Done():
					return "", connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
				}
				return a.unfit, a.err
			}, func(string) { said++ })
			if unfit != c.unfit || !errors.Is(err, c.err) || said != c.said || time.Since(began) != c.lasts {
				t.Errorf("%s: %q, %v, said %d, after %s", c.name, unfit, err, said, time.Since(began))
			}
		})
	}
}
