package clock

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// TestKiss: a server that asks for fewer questions, or for none, gets no more of them, and
// the others go on.
func TestKiss(t *testing.T) {
	for _, c := range []struct {
		code     string
		asked    int32  // while the other one is asked ten times; 0: every time
		problem  string // where there is no other
		single   bool
		answered bool
	}{
		{code: "RATE", asked: 1, problem: "127.0.0.1 wants fewer questions (RATE): it is asked again in 17m4s", single: true},
		{code: "DENY", asked: 1, problem: "127.0.0.1 refuses to say the time (DENY): it is asked again in 24h0m0s", single: true},
		{code: "RSTR", asked: 1, problem: "127.0.0.1 refuses to say the time (RSTR): it is asked again in 24h0m0s", single: true},
		{code: "XABC", single: true},
	} {
		for _, other := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, another one %v", c.code, other), func(t *testing.T) {
				began := time.Now()
				var kissed, good atomic.Int32
				count := func(n *atomic.Int32) func() time.Time {
					return func() time.Time { n.Add(1); return truth.Add(time.Since(began)) }
				}
				o := Options{Floor: NewFloor(time.Time{}, image), Clock: clockAt(image), first: time.Millisecond, Paths: Paths{Run: t.TempDir()}}
				o.port = ntpServer(t, "127.0.0.1", 0, "kiss "+c.code, count(&kissed))
				var cfg nodeconfig.Config
				cfg.Time.Servers = []string{"127.0.0.1"}
				if other {
					ntpServer(t, "127.0.0.2", o.port, "good", count(&good))
					cfg.Time.Servers = append(cfg.Time.Servers, "127.0.0.2")
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				ended := make(chan error)
				go func() { ended <- Run(ctx, cfg, o) }()
				status := waitStatus(t, o.Paths.Run, func(s control.Clock) bool {
					if other {
						return s.Synced && good.Load() >= 10
					}
					return s.Problem == c.problem && kissed.Load() > 0
				})
				cancel()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if n := kissed.Load(); c.asked > 0 && n != c.asked || n == 0 {
					t.Errorf("asked %d times", n)
				}
				if other && status.Single != c.single {
					t.Errorf("status %+v", status)
				}
			})
		}
	}
}

// TestManners is what becomes of a server over time: asked (a) or not (.) at each quarter
// of an hour, and what it answers.
func TestManners(t *testing.T) {
	for _, c := range []struct {
		answers []string // one for each time that it is asked; "": good
		want    string
	}{
		{[]string{""}, "aaaaaaaa"},
		{[]string{"RATE", ""}, "a.a.a.a.a.a."},
		{[]string{"RATE", "RATE", ""}, "a.a..a..a..a"},
		{[]string{"RATE", "RATE", "RATE", "RATE", "RATE", ""}, "a.a..a....a.........a.........a.........a"},
		{[]string{"INIT", "XXXX"}, "aaaa"},
		{[]string{"DENY", ""}, "a" + strings.Repeat(".", 95) + "aaaa"},
		{[]string{"RSTR"}, "a" + strings.Repeat(".", 95) + "a" + strings.Repeat(".", 95) + "a"},
	} {
		now := time.Unix(0, 0)
		var m manners
		got, n := "", 0
		for range c.want {
			if m.due(now) {
				got += "a"
				m = m.after(c.answers[min(n, len(c.answers)-1)], now)
				n++
			} else {
				got += "."
			}
			now = now.Add(15 * time.Minute)
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.answers, got, c.want)
		}
	}
}
