package keeper

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

// TestHealthTable prints the answer to every state × event pair of a health check
// that has missed twice of three, young (in its start period) and old.
func TestHealthTable(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	h := workload.Health{Test: []string{"/check"}, Interval: 30 * time.Second, StartPeriod: time.Minute, StartInterval: 2 * time.Second, Retries: 3}
	var b strings.Builder
	b.WriteString("every 30s, in the first minute every 2s, three retries\n")
	for _, age := range []time.Duration{10 * time.Second, time.Hour} {
		for _, s := range []workload.HealthState{workload.Unchecked, workload.HealthStarting, workload.Healthy, workload.Unhealthy} {
			for _, testing := range []bool{false, true} {
				if s == workload.Unchecked && testing {
					continue
				}
				fmt.Fprintf(&b, "\n%q after %s, two missed", s, age)
				if testing {
					b.WriteString(", a test under way")
				}
				b.WriteString("\n")
				for _, e := range []HealthEvent{Up, Seen, Due, Passed, Missed, Down} {
					c := Check{State: s, Failures: 2, Testing: testing, Since: now.Add(-age), Next: now}
					after, test := c.Step(h, e, now)
					if after == c && !test {
						continue
					}
					fmt.Fprintf(&b, "  %-7s → %-10q missed %d", e, after.State, after.Failures)
					if test {
						b.WriteString(", start a test")
					} else if !after.Testing && !after.Next.IsZero() {
						fmt.Fprintf(&b, ", next in %s", after.Next.Sub(now))
					}
					b.WriteString("\n")
				}
				b.WriteString("  everything else changes nothing\n")
			}
		}
	}
	golden.Compare(t, "health.txt", b.String())
}

// quickly is a health check as often as there can be one.
func quickly(c workload.Container) workload.Container {
	c.Health = &workload.Health{Test: []string{"/check"}, Interval: time.Millisecond, StartPeriod: time.Hour, StartInterval: time.Millisecond, Retries: 1}
	return c
}

// TestHealth: a container becomes healthy, and unhealthy, and nobody touches it.
func TestHealth(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.sick["web"] = true
	b := run(t, f, quickly(web(workload.Always)))
	b.until(t, "a bad test that does not count", func(s workload.Status) bool {
		return s.Settled && s.Units[0].Health.State == workload.HealthStarting && s.Units[0].Health.Output == "it hurts"
	})
	f.sicken("web", false)
	b.until(t, "web to be healthy", health("web", workload.Healthy))
	f.sicken("web", true)
	b.until(t, "web to be unhealthy", health("web", workload.Unhealthy))
	if got, want := b.keeper.Snapshot().String(), "web unhealthy; 1 of 1 containers running"; got != want {
		t.Errorf("status %q", got)
	}
	if f.did("start web") != 1 || f.did("remove web") != 0 {
		t.Errorf("web was touched:\n%s", strings.Join(f.log, "\n"))
	}
	if err := b.keeper.Request(t.Context(), "web", workload.WantStopped); err != nil {
		t.Fatal(err)
	}
	b.until(t, "no health of what does not run", func(s workload.Status) bool {
		return s.Units[0].State == workload.Stopped && s.Units[0].Health == workload.HealthStatus{}
	})
}

// TestHealthHangs: a test that takes its time is the only one, and holds up nothing.
func TestHealthHangs(t *testing.T) {
	t.Parallel()
	f := &slowEngine{fakeEngine: newFake(), asked: make(chan struct{}, 100), answer: make(chan struct{})}
	b := run(t, f.fakeEngine, web(workload.Always)) // for its network and cleanup
	b.end()
	k := &Keeper{Engine: f, Network: b.network, Tick: time.Millisecond}
	end := keep(t, k, quickly(web(workload.Always)))
	<-f.asked
	if err := k.Request(t.Context(), "web", workload.WantRestarted); err != nil {
		t.Fatal(err)
	}
	<-f.asked // the one of the new container
	end()
	if len(f.asked) > 0 {
		t.Errorf("%d tests beside one that has not ended", len(f.asked))
	}
}

// slowEngine has tests that end when ctx does.
type slowEngine struct {
	*fakeEngine
	asked, answer chan struct{}
}

func (s *slowEngine) Test(ctx context.Context, _ string, _ workload.Health) (bool, string) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return false, "given up"
}

func (f *fakeEngine) sicken(id string, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sick[id] = yes
}

// health is a condition: container id runs and its check says state.
func health(id string, state workload.HealthState) func(workload.Status) bool {
	return func(s workload.Status) bool {
		for _, u := range s.Units {
			if u.ID == id {
				return u.State == workload.Running && u.Health.State == state
			}
		}
		return false
	}
}
