package supervise

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"kogge.example/init/cgroup"
	"kogge.example/init/control"
	"kogge.example/init/shutdown"
)

// TestOrder starts in order of readiness and stops the other way round.
func TestOrder(t *testing.T) {
	first := service("ready", "fine today")
	first.Notify = true
	second := service("good")
	second.After = []string{"ready"}
	n := run(t, nil, second, first)
	n.reaches("good", Running)
	if got := n.one("ready"); got.Text != "fine today" || got.State != string(Running) || got.PID == 0 {
		t.Errorf("ready: %+v", got)
	}
	if err := n.client.Poweroff(context.Background()); err != nil {
		t.Fatal(err)
	}
	<-n.over
	if n.how != shutdown.Poweroff || n.err != nil {
		t.Errorf("Run = %v, %v, want poweroff", n.how, n.err)
	}
	var order []string
	for _, line := range n.said() {
		for _, name := range []string{"ready", "good"} {
			for _, state := range []State{Running, Stopped} {
				if strings.HasPrefix(line, "service "+name+": "+string(state)) {
					order = append(order, name+" "+string(state))
				}
			}
		}
	}
	if got, want := strings.Join(order, ", "), "ready running, good running, good stopped, ready stopped"; got != want {
		t.Errorf("order: %s\nwant:  %s", got, want)
	}
}

// TestExits has one service that exits for ever and one that exits once.
func TestExits(t *testing.T) {
	t.Parallel()
	n := run(t, nil, service("exits"), service("once", filepath.Join(t.TempDir(), "was")))
	s := n.reaches("exits", Backoff)
	if s.LastExit != "exit status 3" || s.Exits == 0 {
		t.Errorf("exits: %+v", s)
	}
	n.until("second life", func() bool { s := n.one("once"); return s.State == string(Running) && s.Starts == 2 })
	if got := n.log("exits"); !strings.Contains(got, "exits: at once") || !strings.Contains(got, "kogge: exit status 3") {
		t.Errorf("log of exits: %q", got)
	}
}

// TestNotThere is a program that cannot be started; its dependent starts at last.
func TestNotThere(t *testing.T) {
	t.Parallel()
	gone := Service{Name: "gone", Path: "/no/such/program"}
	dependent := service("good")
	dependent.After = []string{"gone"}
	n := run(t, nil, gone, dependent)
	n.until("gone to fail", func() bool { return n.one("gone").State == string(Failed) })
	n.reaches("good", Running)
	if got := n.one("gone"); got.LastExit != "start: no such file or directory" || !got.Failing || got.Starts != 0 {
		t.Errorf("gone: %+v", got)
	}
}

// TestStubborn is a service that SIGTERM does not impress.
func TestStubborn(t *testing.T) {
	t.Parallel()
	s := service("stubborn")
	s.Notify, s.StopTimeout = true, 50*time.Millisecond
	n := run(t, nil, s)
	before := n.reaches("stubborn", Running)
	if err := n.client.Restart(context.Background(), "stubborn"); err != nil {
		t.Fatal(err)
	}
	n.until("another process", func() bool {
		s := n.one("stubborn")
		return s.State == string(Running) && s.PID != before.PID
	})
	if got := n.one("stubborn"); got.Exits != 0 || got.LastExit != "killed by SIGKILL" {
		t.Errorf("after restart: %+v", got)
	}
}

// TestOrphan leaves no grandchild behind, in a cgroup or without.
func TestOrphan(t *testing.T) {
	for _, name := range []string{"cgroup", "process group"} {
		t.Run(name, func(t *testing.T) {
			tree := hierarchy(t)
			if name != "cgroup" {
				tree = ""
			} else if tree.None() {
				t.Log("no cgroup v2 folder that we may write to: run as root with cgroup v2 mounted to test this half")
				return
			}
			file := filepath.Join(t.TempDir(), "pid")
			n := run(t, func(c *Config) { c.Cgroups = tree }, service("orphan", file))
			var orphan int
			n.until("grandchild", func() bool {
				b, _ := os.ReadFile(file)
				orphan, _ = strconv.Atoi(string(b))
				return orphan != 0
			})
			if gone(orphan) {
				t.Fatal("grandchild is not there")
			}
			n.end()
			for end := time.Now().Add(limit); !gone(orphan); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("grandchild outlived its service")
				}
			}
		})
	}
}

// TestKilledGroup starts again and again in a cgroup that was killed before,
// with something living in it and without.
func TestKilledGroup(t *testing.T) {
	tree := hierarchy(t)
	file := filepath.Join(t.TempDir(), "pid")
	n := run(t, func(c *Config) { c.Cgroups = tree }, service("orphan", file), service("exits"))
	for i := range 5 {
		must(os.Remove(n.written(file)))
		if err := n.client.Restart(context.Background(), "orphan"); err != nil {
			t.Fatal(err)
		}
		n.written(file)
		s := n.one("orphan")
		if s.State != string(Running) || s.Exits != 0 || s.Starts != i+2 {
			t.Errorf("restart %d: %+v", i, s)
		}
		if group, err := cgroup.Of(s.PID); !tree.None() && (err != nil || !strings.HasSuffix(group, "/system/orphan")) {
			t.Errorf("restart %d: lives in %s, %v", i, group, err)
		}
		b, err := os.ReadFile(file)
		must(err)
		pid, err := strconv.Atoi(string(b))
		must(err)
		if group, err := cgroup.Of(pid); !tree.None() && (err != nil || !strings.HasSuffix(group, "/system/orphan")) {
			t.Errorf("restart %d: its child lives in %s, %v", i, group, err)
		}
	}
	n.until("third start", func() bool { return n.one("exits").Starts >= 3 })
	if s := n.one("exits"); s.LastExit != "exit status 3" {
		t.Errorf("exits: %+v", s)
	}
	for _, d := range n.status().Degraded {
		if d.What != "cgroups" || !tree.None() {
			t.Errorf("degraded: %+v", d)
		}
	}
}

// written waits until a file has content.
func (n *node) written(file string) string {
	n.t.Helper()
	n.until(file, func() bool { b, _ := os.ReadFile(file); return len(b) > 0 })
	return file
}

// TestNeverReady waits no longer than the service was granted.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	s := service("good")
	s.Notify, s.StartTimeout = true, 50*time.Millisecond
	n := run(t, nil, s)
	n.until("line", func() bool { return n.heard("service good: stopping: not ready within 50ms") })
	n.until("next try", func() bool { return n.one("good").Starts > 1 })
	if got := n.one("good"); got.Exits == 0 {
		t.Errorf("good: %+v", got)
	}
}

// TestServiceWatchdog aborts a service that pinged and then hangs, or says so.
func TestServiceWatchdog(t *testing.T) {
	t.Parallel()
	pings, trigger := service("pings"), service("trigger")
	pings.Notify, pings.WatchdogTimeout = true, 400*time.Millisecond
	trigger.Notify = true
	n := run(t, nil, pings, trigger)
	for _, name := range []string{"pings", "trigger"} {
		n.until(name, func() bool { return n.heard("service " + name + ": stopping: no sign of life, aborted") })
		n.until(name+" again", func() bool { return n.one(name).Starts > 1 })
		if got := n.log(name); !strings.Contains(got, "SIGABRT") {
			t.Errorf("%s printed no goroutines: %q", name, got)
		}
	}
}

// TestFlood reads 256 MiB of log; memory stays, and so does the supervisor's answer.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := service("flood")
	s.Notify = true
	n := run(t, nil, s, service("good"))
	most := uint64(0)
	n.until("end of the flood", func() bool {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
		return n.one("flood").State == string(Running)
	})
	if most > 64<<20 {
		t.Errorf("the heap grew to %d MiB", most>>20)
	}
	if got := n.log("flood"); len(got) > 256<<10 || len(got) < 200<<10 || !strings.Contains(got, "flood: over") {
		t.Errorf("log has %d bytes, its end is %q", len(got), got[max(0, len(got)-200):])
	}
}

// TestSockets keeps a socket open while its service restarts.
func TestSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "kogge")
	must(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "web")
	s := service("listens")
	s.Notify = true
	s.Sockets = []Socket{{Name: "web", Network: "unix", Address: path}}
	n := run(t, nil, s)
	dial := func() string {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		must(c.SetDeadline(time.Now().Add(limit)))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	before := n.reaches("listens", Running)
	if got := dial(); got != strconv.Itoa(before.PID) {
		t.Errorf("answered by %s, want %d", got, before.PID)
	}
	must(syscall.Kill(before.PID, syscall.SIGKILL))
	if got := dial(); got == strconv.Itoa(before.PID) { // waits for the new one, is not refused
		t.Errorf("answered by the dead process %s", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info, err)
	}
}

// TestSocketLater has a socket whose folder comes late.
func TestSocketLater(t *testing.T) {
	dir, err := os.MkdirTemp("", "kogge")
	must(err)
	defer os.RemoveAll(dir)
	s := service("listens")
	s.Notify = true
	s.Sockets = []Socket{{Name: "web", Network: "unix", Address: filepath.Join(dir, "later", "web")}}
	n := run(t, nil, s)
	n.until("complaint", func() bool { return len(n.status().Degraded) == 2 && n.one("listens").Exits > 0 })
	must(os.Mkdir(filepath.Join(dir, "later"), 0o755))
	n.reaches("listens", Running)
	if got := n.status().Degraded; len(got) != 1 || got[0].What != "cgroups" {
		t.Errorf("degraded: %+v", got)
	}
}

// TestSlowListener has a console that takes the first line and never the next.
func TestSlowListener(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	n := run(t, func(c *Config) { c.Say = func(string) { <-hang }; c.Changed = func(control.Status) { <-hang } }, service("good"))
	n.reaches("good", Running)
	if err := n.client.Reboot(context.Background()); err != nil {
		t.Fatal(err)
	}
	<-n.over // does not wait for them for ever
}

// TestGarbage sends the notify socket what a broken service would, and what a
// stranger does.
func TestGarbage(t *testing.T) {
	s := service("garbage")
	s.Notify = true
	n := run(t, nil, s)
	n.until("status", func() bool { return n.one("garbage").Text != "" })
	if got := n.one("garbage"); got.Text != "?[2J??" || got.State != string(Starting) {
		t.Errorf("garbage: %+v", got)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(n.dir, "notify"))
	if _, err := daemon.SdNotify(false, "READY=1\nSTATUS=stranger"); err != nil {
		t.Fatal(err)
	}
	n.one("garbage") // any answer comes after the notice was read, or nearly
	if got := n.one("garbage"); got.State != string(Starting) || got.Text == "stranger" {
		t.Errorf("a stranger spoke for garbage: %+v", got)
	}
}

// TestControl treats the control socket badly.
func TestControl(t *testing.T) {
	n := run(t, nil, service("good"))
	n.reaches("good", Running)
	path := filepath.Join(n.dir, "init.sock")
	ask := func(line string) string {
		c, err := net.Dial("unix", path)
		must(err)
		defer c.Close()
		must(c.SetDeadline(time.Now().Add(limit)))
		_, _ = c.Write([]byte(line))
		answer, _ := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(answer)
	}
	for line, want := range map[string]string{
		"{}\n":                                  `{"error":"unknown op \"\""}`,
		"{\"op\":\"assessment\"}\n":             `{"error":"unknown op \"assessment\""}`,
		"{\"op\":\"restart\"}\n":                `{"error":"op \"restart\" takes a service and no further keys"}`,
		`{"op":"restart","service":"x"}` + "\n": `{"error":"no service \"x\"","no_service":true}`,
		`{"op":"logs","service":"x"}` + "\n":    `{"error":"no service \"x\"","no_service":true}`,
		strings.Repeat("x", 10000):              `{"error":"request is longer than 4096 bytes"}`,
	} {
		if got := ask(line); got != want {
			t.Errorf("%.60q: %s\nwant %s", line, got, want)
		}
	}
	var idle []net.Conn
	for range 2 * maxClients {
		c, err := net.Dial("unix", path)
		must(err)
		idle = append(idle, c)
	}
	for _, c := range idle {
		defer c.Close()
	}
	must(idle[len(idle)-1].SetDeadline(time.Now().Add(limit)))
	if got, _ := bufio.NewReader(idle[len(idle)-1]).ReadString('\n'); !strings.Contains(got, "too many clients") {
		t.Errorf("client %d heard %q", len(idle), got)
	}
	n.status() // who was there first is still served
}

// TestFollow follows a log over a restart.
func TestFollow(t *testing.T) {
	t.Parallel()
	n := run(t, nil, service("good"))
	n.reaches("good", Running)
	c, err := control.Dial(context.Background(), filepath.Join(n.dir, "init.sock"))
	must(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begins, restarted := 0, false
	err = c.Logs(ctx, "good", 1, true, func(line string) {
		if strings.HasSuffix(line, " good: begins") {
			begins++
		}
		if begins == 1 && !restarted {
			restarted = true
			must(n.client.Restart(ctx, "good"))
		}
		if begins == 2 {
			cancel()
		}
	})
	if err != nil || begins != 2 {
		t.Errorf("heard %d beginnings, %v", begins, err)
	}
}

// TestOthersAnswer: requests that are not about services go to whoever knows, who may
// be slow and have services start anew.
func TestOthersAnswer(t *testing.T) {
	t.Parallel()
	restarts, slow := make(chan string), make(chan struct{})
	n := run(t, func(c *Config) {
		c.Restarts = restarts
		c.Answer = func(r control.Request) control.Response {
			if r.Op == control.OpUndo {
				<-slow
			}
			return control.Response{Config: &control.Config{State: string(r.Op)}}
		}
	}, service("good"))
	n.reaches("good", Running)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	other, err := control.Dial(ctx, filepath.Join(n.dir, "init.sock"))
	must(err)
	defer other.Close()
	undone := make(chan error, 1)
	go func() {
		_, err := other.Undo(ctx)
		undone <- err
	}()
	if c, err := n.client.Config(ctx); err != nil || c.State != "config" {
		t.Errorf("config, while another client waits: %+v, %v", c, err)
	}
	close(slow)
	must(<-undone)
	restarts <- "good"
	n.until("a second start", func() bool { return n.one("good").Starts == 2 })
	restarts <- "nobody" // is passed over
	n.reaches("good", Running)
}

// TestNobodyAnswers: without one who knows the request is refused.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	n := run(t, nil, service("good"))
	if _, err := n.client.Config(context.Background()); err == nil || !strings.Contains(err.Error(), `unknown op "config"`) {
		t.Error(err)
	}
}

// TestOnDemand: a service on demand is there for nobody until a client starts it, and again once
// one has stopped it. Those that a node always has are neither started nor stopped.
func TestOnDemand(t *testing.T) {
	rare := as("rare", service("good"))
	rare.OnDemand = true
	n := run(t, nil, service("good"), rare)
	n.reaches("good", Running)
	listed := func() bool {
		return slices.ContainsFunc(n.status().Services, func(s control.Service) bool { return s.Name == "rare" })
	}
	if listed() {
		t.Error("it is listed before anybody wanted it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := n.client.Restart(ctx, "rare"); !errors.Is(err, control.ErrNoService) {
		t.Errorf("restart of what does not run: %v", err)
	}
	for range 2 {
		must(n.client.Start(ctx, "rare"))
	}
	n.reaches("rare", Running)
	must(n.client.Restart(ctx, "rare"))
	n.until("started twice", func() bool {
		return slices.ContainsFunc(n.status().Services, func(s control.Service) bool {
			return s.Name == "rare" && s.State == string(Running) && s.Starts == 2
		})
	})
	for range 2 {
		must(n.client.Stop(ctx, "rare"))
	}
	n.until("gone", func() bool { return !listed() })
	must(n.client.Start(ctx, "rare"))
	n.reaches("rare", Running)
	for _, err := range []error{n.client.Start(ctx, "good"), n.client.Stop(ctx, "good")} {
		if err == nil || !strings.Contains(err.Error(), "always runs") {
			t.Errorf("of one that always runs: %v", err)
		}
	}
	if err := n.client.Stop(ctx, "other"); !errors.Is(err, control.ErrNoService) {
		t.Errorf("of none: %v", err)
	}
}
