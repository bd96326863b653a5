package keeper

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
	"kogge.example/update/golden"
)

// TestBesideTable prints which containers run beside the one that they replace, and
// when a new one is up to it.
func TestBesideTable(t *testing.T) {
	var b strings.Builder
	checked := workload.Health{Test: []string{"/check"}}
	for _, c := range []struct {
		name  string
		c     workload.Container
		check workload.Health
	}{
		{"no health check", workload.Container{}, workload.Health{}},
		{"a health check", workload.Container{}, checked},
		{"a volume", workload.Container{Volumes: []workload.Volume{{Name: "data"}}}, checked},
		{"a volume to read", workload.Container{Volumes: []workload.Volume{{Name: "data", ReadOnly: true}}}, checked},
		{"a folder of the node", workload.Container{Rights: workload.Rights{Binds: []workload.Bind{{Path: "/srv"}}}}, checked},
		{"a device", workload.Container{Rights: workload.Rights{Devices: []workload.Device{{Path: "/dev/ttyS0"}}}}, checked},
		{"the node's network", workload.Container{Rights: workload.Rights{Host: []rights.Namespace{rights.HostNetwork}}}, checked},
		{"stop-first", workload.Container{Order: workload.StopFirst}, checked},
		{"start-first, no health check", workload.Container{Order: workload.StartFirst}, workload.Health{}},
		{"start-first, a volume", workload.Container{Order: workload.StartFirst, Volumes: []workload.Volume{{Name: "data"}}}, checked},
	} {
		fmt.Fprintf(&b, "%-30s %v\n", c.name, c.c.Beside(c.check))
	}
	b.WriteString("\n")
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, tested := range []bool{true, false} {
		for _, h := range []workload.HealthState{workload.Unchecked, workload.HealthStarting, workload.Healthy, workload.Unhealthy} {
			for _, age := range []time.Duration{0, drain - 1, drain} {
				if tested == (h == workload.Unchecked) {
					continue
				}
				fmt.Fprintf(&b, "check %-5v %-9s after %-12s %s\n", tested, h, age, fitness(tested, h, now.Add(-age), now))
			}
		}
	}
	golden.Compare(t, "relief.txt", strings.ReplaceAll(b.String(), " \n", "\n"))
}

// version is a web server as version n has it.
func version(n int) workload.Container {
	c := quickly(web(workload.Always))
	c.Env = []string{fmt.Sprintf("VERSION=%d", n)}
	return c
}

// leads says where the published port leads.
func (n *fakeNetwork) leads() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.ports) != 1 {
		return fmt.Sprint(n.ports)
	}
	return n.ports[0].To.Addr().String()
}

// apply tells the Keeper what is wanted now. With anew it ends that one and starts
// another, as an agent does that was restarted meanwhile.
func (b *bench) apply(t *testing.T, anew bool, wanted ...workload.Container) *bench {
	t.Helper()
	if anew {
		b.end()
		return runOn(t, b.engine, b.network, wanted...)
	}
	if err := b.keeper.Want(wanted, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// eitherWay runs a test twice: with a Keeper that goes on, and with one after the other.
func eitherWay(t *testing.T, test func(t *testing.T, anew bool)) {
	for name, anew := range map[string]bool{"told": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, anew)
		})
	}
}

// names are the instances that are there.
func (f *fakeEngine) names() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for name := range f.there {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestStartFirst: the old instance has the port until the new one is healthy, and time
// to end what it has begun.
func TestStartFirst(t *testing.T) { eitherWay(t, testStartFirst) }

func testStartFirst(t *testing.T, anew bool) {
	f := newFake()
	b := run(t, f, version(1))
	b.until(t, "the first one", func(s workload.Status) bool { return s.Units[0].Health.State == workload.Healthy })
	f.sicken("web_2", true)
	b = b.apply(t, anew, version(2))
	b.until(t, "the second one", func(s workload.Status) bool {
		u := s.Units[0]
		return u.State == workload.Running && u.OldServes && u.Instance == "web" && u.Health.State == workload.HealthStarting
	})
	if at := b.network.leads(); at != "10.88.0.2" || f.names() != "web web_2" {
		t.Errorf("the port leads to %s, there are %s", at, f.names())
	}
	f.sicken("web_2", false)
	began := time.Now()
	b.until(t, "it to take over", func(s workload.Status) bool { return !s.Units[0].OldServes && s.Units[0].Instance == "web_2" })
	if at := b.network.leads(); at != "10.88.0.3" || f.names() != "web web_2" {
		t.Errorf("the port leads to %s, there are %s", at, f.names())
	}
	b.until(t, "the old one to go", func(workload.Status) bool { return f.names() == "web_2" })
	if took := time.Since(began); took < drain {
		t.Errorf("the old one had %s", took)
	}
	// And back: names and addresses are free again.
	b = b.apply(t, anew, version(3))
	b.until(t, "the third one", func(s workload.Status) bool { return s.Units[0].Instance == "web" && b.network.leads() == "10.88.0.2" })
}

// TestNewFails: one that fails, whatever the way, leaves the old one where it is.
func TestNewFails(t *testing.T) { eitherWay(t, testNewFails) }

func testNewFails(t *testing.T, anew bool) {
	f := newFake()
	b := run(t, f, version(1))
	b.until(t, "the first one", unitStates("web running"))
	still := func(what string) {
		t.Helper()
		if at := b.network.leads(); at != "10.88.0.2" {
			t.Errorf("%s: the port leads to %s", what, at)
		}
	}
	next := version(2)
	next.Image = "missing"
	f.missing["missing"] = true
	b = b.apply(t, anew, next)
	b.until(t, "the image to be missed", func(s workload.Status) bool {
		return unitStates("web backoff")(s) && strings.HasSuffix(s.Units[0].Reason, "; the old one keeps running") && f.did("start web_2") == 0
	})
	still("no image")

	f.sicken("web_2", true)
	next = version(3)
	next.Health.StartPeriod = 0
	b = b.apply(t, anew, next)
	b.until(t, "it to be unhealthy", func(s workload.Status) bool {
		return unitStates("web backoff")(s) && strings.HasPrefix(s.Units[0].Reason, `unhealthy: "it hurts"; the old one keeps running`)
	})
	still("unhealthy")
	b.until(t, "it to be taken away", func(workload.Status) bool { return f.names() == "web" })
	b.until(t, "it to be tried again", func(workload.Status) bool { return f.did("start web_2") == 2 })

	f.sicken("web_2", false)
	f.sicken("web", true) // by now nobody asks it
	b.until(t, "it to be better", func(s workload.Status) bool { return s.Units[0].Instance == "web_2" })

	// The old one fails, and the new one has not come up.
	f.sicken("web", true)
	b.until(t, "the old one to go", func(workload.Status) bool { return f.names() == "web_2" })
	b = b.apply(t, anew, version(4))
	b.until(t, "both", func(s workload.Status) bool { return f.names() == "web web_2" && s.Units[0].OldServes })
	f.exit(t, "web_2", 1)
	b.until(t, "the new one to have the port", func(s workload.Status) bool {
		return !s.Units[0].OldServes && f.names() == "web" && b.network.leads() == "10.88.0.2"
	})
}

// TestStopFirst: what cannot run beside the old one waits for its end; a pull that takes
// long, or fails, is not waited for without it.
func TestStopFirst(t *testing.T) { eitherWay(t, testStopFirst) }

func testStopFirst(t *testing.T, anew bool) {
	f := newFake()
	first := web(workload.Always)
	b := run(t, f, first)
	b.until(t, "the first one", unitStates("web running"))
	next := web(workload.Always)
	next.Image = "later"
	f.missing["later"] = true
	b = b.apply(t, anew, next)
	b.until(t, "the image to be missed", unitStates("web backoff"))
	if at := b.network.leads(); at != "10.88.0.2" {
		t.Errorf("the port leads to %s", at)
	}
	f.mu.Lock()
	f.missing["later"] = false
	f.mu.Unlock()
	b.until(t, "the second one", func(s workload.Status) bool { return unitStates("web running")(s) && !s.Units[0].OldServes })
	var order []string
	for _, line := range f.log {
		if strings.HasPrefix(line, "remove web") || strings.HasPrefix(line, "start web_2") {
			order = append(order, strings.Fields(line)[0])
		}
	}
	if got := strings.Join(order, " "); got != "remove start" {
		t.Errorf("order: %s", got)
	}
}

// TestImageVolume: a volume that the image declares is one that two instances do not share,
// whatever the file says of none.
func TestImageVolume(t *testing.T) { eitherWay(t, testImageVolume) }

func testImageVolume(t *testing.T, anew bool) {
	f := newFake()
	f.volumes = map[string][]workload.Volume{version(1).Image: {{Name: "web-data", Target: "/data"}}}
	b := run(t, f, version(1))
	b.until(t, "the first one", func(s workload.Status) bool { return s.Units[0].Health.State == workload.Healthy })
	b = b.apply(t, anew, version(2))
	b.until(t, "the second one", func(s workload.Status) bool {
		return f.names() == "web_2" && s.Units[0].Health.State == workload.Healthy
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := slices.IndexFunc(f.log, func(line string) bool { return strings.HasPrefix(line, "remove web") })
	came := slices.IndexFunc(f.log, func(line string) bool { return strings.HasPrefix(line, "start web_2") })
	if gone < 0 || came < gone {
		t.Errorf("the new one came before the old one had gone: %q", f.log)
	}
}

// TestImageIDs: ids of an image are mapped where that goes, and need the node's word where it
// does not.
func TestImageIDs(t *testing.T) {
	t.Parallel()
	f := newFake()
	many := make([]uint32, workload.MaxBeyond+1)
	for i := range many {
		many[i] = workload.IDs + uint32(i)
	}
	f.ids = map[string][]uint32{"few": {100_000, 70_000}, "many": many}
	few, lot := web(workload.Always), web(workload.Always)
	few.ID, few.Image, few.Ports = "few", "few", nil
	lot.ID, lot.Image, lot.Ports = "many", "many", nil
	b := run(t, f, few, lot)
	b.until(t, "one to run and the other to be refused", func(s workload.Status) bool {
		return unitStates("few running", "many backoff")(s) && strings.Contains(s.Units[1].Reason, "it has more user and group IDs above 65535 than a node can map: 300, and fewer where they are far apart: not allowed by the node's node.yaml, which would need under \"allow:\" the line - {container: many, host: [user]}")
	})
	b.network.mu.Lock()
	defer b.network.mu.Unlock()
	if len(b.network.more) != 1 || b.network.more[0] != "70000:1,100000:1" {
		t.Errorf("attached with %q", b.network.more)
	}
}

// TestKilledWhileReplacing: an agent that starts in the middle ends it right.
func TestKilledWhileReplacing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	found := func(name, addr string, c workload.Container, age time.Duration) *fakeContainer {
		at := []workload.Address{{Network: "default", Addr: netip.MustParseAddr(addr)}}
		return &fakeContainer{exit: make(chan int, 1), Found: workload.Found{
			Record: *workload.RecordOf(c, workload.Instance{Name: name, At: at}), Spec: c.Hash(),
			Image: "sha256:hello", Task: workload.Alive, Started: now.Add(-age),
		}}
	}
	for name, tc := range map[string]struct {
		there  func(f *fakeEngine)
		serves string // at first
		stays  string
	}{
		"before the new one was healthy": {func(f *fakeEngine) {
			f.there["web"] = found("web", "10.88.0.2", version(1), time.Hour)
			f.there["web_2"] = found("web_2", "10.88.0.3", version(2), time.Second)
		}, "web", "web_2"},
		"while the old one drained": {func(f *fakeEngine) {
			f.there["web"] = found("web", "10.88.0.2", version(1), time.Hour)
			f.there["web"].Relieved = true
			f.there["web_2"] = found("web_2", "10.88.0.3", version(2), time.Second)
		}, "web_2", "web_2"},
		"and the file was changed back": {func(f *fakeEngine) {
			f.there["web"] = found("web", "10.88.0.2", version(2), time.Hour)
			f.there["web_2"] = found("web_2", "10.88.0.3", version(1), time.Second)
		}, "web", "web"},
		"and the file was changed again": {func(f *fakeEngine) {
			f.there["web"] = found("web", "10.88.0.2", version(0), time.Hour)
			f.there["web_2"] = found("web_2", "10.88.0.3", version(1), time.Second)
		}, "web", "web_2"},
		"before the new one was started": {func(f *fakeEngine) {
			f.there["web"] = found("web", "10.88.0.2", version(1), time.Hour)
			f.there["web_2"] = found("web_2", "10.88.0.3", version(2), time.Second)
			f.there["web_2"].Task = workload.Absent
		}, "web", "web_2"},
		"and the old one is of a network that is gone": {func(f *fakeEngine) {
			f.there["web"] = found("web", "10.99.0.2", version(1), time.Hour)
		}, "web_2 or web", "web"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			tc.there(f)
			b := run(t, f, version(2))
			b.until(t, "one to stay", func(s workload.Status) bool {
				u := s.Units[0]
				return u.State == workload.Running && !u.OldServes && u.Instance == tc.stays && f.names() == tc.stays
			})
			serves := b.first.Units[0].Instance
			if !strings.Contains(tc.serves, serves) {
				t.Errorf("at first %s served, want %s", serves, tc.serves)
			}
			b.network.mu.Lock()
			defer b.network.mu.Unlock()
			if len(b.network.attached) != 1 || !b.network.attached[tc.stays] {
				t.Errorf("attached: %v", b.network.attached)
			}
		})
	}
}

// TestStopBoth: an operator who stops a container stops both of its instances.
func TestStopBoth(t *testing.T) { eitherWay(t, testStopBoth) }

func testStopBoth(t *testing.T, anew bool) {
	f := newFake()
	b := run(t, f, version(1))
	b.until(t, "the first one", unitStates("web running"))
	f.sicken("web_2", true)
	b = b.apply(t, anew, version(2))
	b.until(t, "both", func(s workload.Status) bool { return unitStates("web running")(s) && s.Units[0].OldServes })
	b.ask(t, "web", workload.WantStopped)
	b.until(t, "none", func(s workload.Status) bool {
		return unitStates("web stopped")(s) && f.names() == "" && !s.Units[0].OldServes
	})
	b.ask(t, "web", workload.WantStarted)
	f.sicken("web_2", false)
	b.until(t, "one", func(s workload.Status) bool {
		return s.Units[0].Health.State == workload.Healthy && f.names() == "web_2"
	})
}

// TestLocks: of many who work on the same instances one at a time does, and nothing is
// kept of an instance on which nobody works.
func TestLocks(t *testing.T) {
	var l locks
	var all sync.WaitGroup
	count := map[string]*int{"web": new(int), "db": new(int)}
	for i := range 200 {
		name := []string{"web", "db"}[i%2]
		all.Go(func() {
			defer l.queue(name)()()
			*count[name]++ // the race detector sees who does not wait
		})
	}
	all.Wait()
	if *count["web"] != 100 || *count["db"] != 100 || len(l.last) != 0 {
		t.Errorf("%d and %d of 100 each, %d are kept", *count["web"], *count["db"], len(l.last))
	}
}
