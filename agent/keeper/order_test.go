package keeper

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

// TestOrderTable prints for each condition and each state of the container depended
// on whether the other may start.
func TestOrderTable(t *testing.T) {
	var b strings.Builder
	for _, optional := range []bool{false, true} {
		for _, condition := range []workload.Condition{workload.WhenStarted, workload.WhenHealthy, workload.WhenCompleted} {
			fmt.Fprintf(&b, "web depends on db: %s", condition)
			if optional {
				b.WriteString(", not required")
			}
			b.WriteString("\n")
			d := workload.Dependency{ID: "db", Condition: condition, Optional: optional}
			row := func(name string, s standing, there bool) {
				v, why := judge(d, s, there)
				fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("  %-22s %-6s %s", name, v, why), " "))
			}
			row("not there", standing{}, false)
			for _, s := range states {
				switch s {
				case workload.Running:
					row("running", standing{State: s}, true)
					for _, h := range []workload.HealthState{workload.HealthStarting, workload.Healthy, workload.Unhealthy} {
						row("running, "+string(h), standing{State: s, Tested: true, Health: h}, true)
					}
				case workload.Ended:
					row("ended, exit code 0", standing{State: s, Tested: true}, true)
					row("ended, exit code 3", standing{State: s, Exit: 3, Tested: true}, true)
				case workload.Backoff:
					row(string(s), standing{State: s, Tested: true, Failed: true}, true)
				default:
					row(string(s), standing{State: s, Tested: true}, true)
				}
			}
			b.WriteString("\n")
		}
	}
	golden.Compare(t, "order.txt", b.String())
}

func after(c workload.Container, deps ...workload.Dependency) workload.Container {
	c.After = deps
	return c
}

// TestOrder: a migration, a database that has to be healthy, a web server.
func TestOrder(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.sick["db"] = true
	db := quickly(workload.Container{ID: "db", Image: "db", Restart: workload.Restart{Policy: workload.Always}})
	migrate := after(workload.Container{ID: "migrate", Image: "db"}, workload.Dependency{ID: "db", Condition: workload.WhenHealthy})
	b := run(t, f, after(web(workload.Always), workload.Dependency{ID: "db", Condition: workload.WhenStarted}, workload.Dependency{ID: "migrate", Condition: workload.WhenCompleted}), db, migrate)
	b.until(t, "the others to wait, and the node not to wait for them", func(s workload.Status) bool {
		return s.Settled && unitStates("db running", "migrate pending", "web pending")(s) &&
			strings.Contains(s.String(), "migrate pending: waits for db to be healthy (starting); web pending: waits for migrate to complete")
	})
	f.sicken("db", false)
	b.until(t, "the migration", unitStates("db running", "migrate running", "web pending"))
	f.exit(t, "migrate", 2)
	b.until(t, "its failure to show", func(s workload.Status) bool {
		return strings.Contains(s.String(), "web pending: depends on migrate, which ended with exit code 2")
	})
	if err := b.keeper.Request(t.Context(), "migrate", workload.WantRestarted); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the migration again", unitStates("db running", "migrate running", "web pending"))
	f.exit(t, "migrate", 0)
	b.until(t, "all of it", unitStates("db running", "migrate ended", "web running"))
}

// TestOrderRestart: who goes by another is restarted with it, and not before it is as
// it has to be.
func TestOrderRestart(t *testing.T) {
	t.Parallel()
	f := newFake()
	db := quickly(workload.Container{ID: "db", Image: "db", Restart: workload.Restart{Policy: workload.Always}})
	b := run(t, f, after(web(workload.Always), workload.Dependency{ID: "db", Condition: workload.WhenHealthy, Restart: true}), db,
		after(workload.Container{ID: "cron", Image: "cron"}, workload.Dependency{ID: "db", Condition: workload.WhenHealthy}))
	running := unitStates("cron running", "db running", "web running")
	b.until(t, "all to run", running)

	f.exit(t, "db", 1)
	b.until(t, "db to be back", func(s workload.Status) bool {
		return running(s) && f.did("start db") == 2 && s.Units[1].Health.State == workload.Healthy
	})
	if n := f.did("start web"); n != 1 {
		t.Errorf("web was started %d times: db was not replaced", n)
	}

	f.sicken("db", true)
	if err := b.keeper.Request(t.Context(), "db", workload.WantRestarted); err != nil {
		t.Fatal(err)
	}
	b.until(t, "the new db to be tested", func(s workload.Status) bool { return f.did("start db") == 3 && s.Units[1].Health.Output != "" })
	if n := f.did("start web"); n != 1 {
		t.Errorf("web was started %d times before db was healthy", n)
	}
	f.sicken("db", false)
	b.until(t, "web to follow", func(s workload.Status) bool { return running(s) && f.did("start web") == 2 && s.Units[2].Restarts == 1 })
	if n := f.did("start cron"); n != 1 {
		t.Errorf("cron was started %d times: it does not go by db", n)
	}
}

// TestStopOrder: at the end of the node what depends on others goes first, and nobody
// waits for somebody who does not go.
func TestStopOrder(t *testing.T) {
	t.Parallel()
	started := func(id string) workload.Dependency {
		return workload.Dependency{ID: id, Condition: workload.WhenStarted}
	}
	plain := func(id string, deps ...workload.Dependency) workload.Container {
		return after(workload.Container{ID: id, Image: id}, deps...)
	}
	for _, tc := range []struct {
		name  string
		stuck string
		want  []string
	}{
		{"all go", "", []string{"remove web", "remove app", "remove db"}},
		{"the first is stuck", "web", []string{"remove web", "remove app", "remove db"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &stuckEngine{fakeEngine: newFake(), stuck: tc.stuck}
			k := &Keeper{Engine: f, Network: &fakeNetwork{attached: map[string]bool{}}}
			running := make(chan struct{})
			k.Report = func(s workload.Status) {
				if unitStates("app running", "db running", "web running")(s) {
					close(running)
				}
			}
			end := keep(t, k, plain("web", started("app"), started("db")), plain("app", started("db")), plain("db"))
			<-running
			end()
			limited, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			k.Stop(limited)
			var got []string
			for _, line := range f.log {
				if strings.HasPrefix(line, "remove") {
					got = append(got, line)
				}
			}
			if tc.stuck != "" { // then only that everybody was told
				slices.Sort(got)
				slices.Sort(tc.want)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("stopped in this order: %q", got)
			}
		})
	}
}

// stuckEngine has a container that does not stop.
type stuckEngine struct {
	*fakeEngine
	stuck string
}

func (s *stuckEngine) Remove(ctx context.Context, id, sig string, grace time.Duration) error {
	err := s.fakeEngine.Remove(ctx, id, sig, grace)
	if id == s.stuck && err == nil && s.did("remove "+id) > 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}
