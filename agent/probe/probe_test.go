package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestJudge plays rounds of checks, two seconds apart.
func TestJudge(t *testing.T) {
	well, sick := Result{Check: "containerd"}, Result{Check: "tcp db:5432", Why: "connection refused", Workload: true}
	down := Result{Check: "network", Why: "no link is up"}
	sicker := []Result{well, {Check: "STATE", Why: "is in memory"}, sick, down, {Check: "http http://a/", Why: "status 500", Workload: true}}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	for _, story := range []struct {
		name   string
		limit  time.Duration
		rounds [][]Result
	}{
		{"all well", 4 * time.Second, [][]Result{{well}, {well}, {well}}},
		{"well late", 2 * time.Second, [][]Result{sicker, {well, sick}, {well}, {well}}},
		{"a break", 4 * time.Second, [][]Result{{well}, {well}, {sick}, {well}, {well}, {well}}},
		{"at once", 0, [][]Result{{well}}},
		{"no checks at all", time.Second, [][]Result{nil, nil}},
		{"never a workload", 4 * time.Second, [][]Result{{well, sick}, {well, sick}, {well, sick}, {well, sick}}},
		{"workloads late", 4 * time.Second, [][]Result{{well, sick}, {well, sick}, {well, sick}, {well}, {well}, {well}}},
		{"workloads that come and go", 4 * time.Second, [][]Result{{well, sick}, {well}, {well, sick}, {well}, {well, sick}}},
		{"a break of the node", 4 * time.Second, [][]Result{{well, sick}, {well, sick}, {down, sick}, {well, sick}, {well, sick}, {well, sick}}},
		{"workloads break after the node", 4 * time.Second, [][]Result{{well}, {well}, {well, sick}, {down, sick}, {down}}},
	} {
		fmt.Fprintf(&b, "%s, for %s:\n", story.name, story.limit)
		j := Judge{For: story.limit}
		for i, r := range story.rounds {
			var v Verdict
			var why string
			j, v, why = j.Step(r, start.Add(time.Duration(2*i)*time.Second))
			fmt.Fprintf(&b, "   %2d s: %-8s %s\n", 2*i, v, why)
		}
	}
	golden.Compare(t, "judge.txt", b.String())
}

// fakeEngine is a containerd whose answers a test chooses.
type fakeEngine struct {
	serving error
	exec    error
}

func (e fakeEngine) Serving(context.Context) error { return e.serving }

func (e fakeEngine) Run(_ context.Context, _ string, command []string) (int, error) {
	if e.exec == nil && command[0] == "false" {
		return 1, nil
	}
	return 0, e.exec
}

// healthy is a node on which all is well.
func healthy(t *testing.T) *Node {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.WriteFile(filepath.Join(dir, control.NetworkFile), []byte(`{"interfaces":[{"name":"eth0","carrier":true}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	status := workload.Status{Settled: true, Units: []workload.UnitStatus{
		{ID: "web", State: workload.Running},
		{ID: "db", State: workload.Running, Health: workload.HealthStatus{State: workload.Healthy}},
		{ID: "job", State: workload.Ended},
	}}
	return &Node{
		Config: nodeconfig.Config{}.Assessment(), API: l.Addr().String(), State: "/", Run: dir, Memory: filepath.Join(dir, "update", "before.json"), Release: "1.1", began: time.Now(),
		Engine:     func() (Engine, error) { return fakeEngine{}, nil },
		Containers: func() (workload.Status, error) { return status, nil },
	}
}

// wrong are the checks that fail.
func wrong(n *Node) string {
	var all []string
	for _, r := range n.check(context.Background()) {
		if r.Why != "" {
			all = append(all, r.Check+": "+r.Why)
		}
	}
	return strings.Join(all, "; ")
}

// TestChecks breaks one thing after the other on a node that is well.
func TestChecks(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/sick":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}
	}))
	defer web.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	check := func(c nodeconfig.Check) func(*Node) { return func(n *Node) { n.Config.Checks = []nodeconfig.Check{c} } }
	units := func(change func(*workload.Status)) func(*Node) {
		return func(n *Node) {
			status, _ := n.Containers()
			change(&status)
			n.Containers = func() (workload.Status, error) { return status, nil }
			n.before.Containers = []string{"db", "gone", "web"}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Node)
		want   string // its beginning; "": all is well
	}{
		{"nothing", func(*Node) {}, ""},
		{"STATE in memory", func(n *Node) { n.State = "/dev/shm" }, "STATE: is in memory, not on the disk"},
		{"STATE is gone", func(n *Node) { n.State = "/nowhere" }, "STATE: /nowhere: no such file"},
		{"no API", func(n *Node) { n.API = nobody }, "API: dial tcp"},
		{"containerd is away", func(n *Node) {
			n.Engine = func() (Engine, error) { return fakeEngine{serving: errors.New("not serving")}, nil }
		}, "containerd: not serving"},
		{"no engine", func(n *Node) { n.Engine = func() (Engine, error) { return nil, errors.New("is not there yet") } }, "containerd: is not there yet"},
		{"workloads refused", func(n *Node) {
			n.Containers = func() (workload.Status, error) { return workload.Status{}, errors.New("workloads refused: x") }
		}, "containers: workloads refused: x"},
		{"trouble", units(func(s *workload.Status) { s.Trouble = "no bridge" }), "containers: no bridge"},
		{"all as before", units(func(*workload.Status) {}), ""},
		{"one is sick", units(func(s *workload.Status) {
			s.Units = []workload.UnitStatus{{ID: "db", State: workload.Running, Health: workload.HealthStatus{State: workload.Unhealthy}}}
		}), "containers: db was well at the last good boot, and is unhealthy"},
		{"one is not healthy yet", units(func(s *workload.Status) {
			s.Units = []workload.UnitStatus{{ID: "db", State: workload.Running, Health: workload.HealthStatus{State: workload.HealthStarting}}}
		}), "containers: db was well at the last good boot, and is not healthy yet"},
		{"one does not start", units(func(s *workload.Status) {
			s.Units = []workload.UnitStatus{{ID: "web", State: workload.Backoff, Reason: "exit 1"}}
		}), "containers: web was well at the last good boot, and is backoff (exit 1)"},
		{"a new one does not start", units(func(s *workload.Status) {
			s.Units = append(s.Units, workload.UnitStatus{ID: "new", State: workload.Backoff})
		}), ""},
		{"not settled", units(func(s *workload.Status) { s.Settled = false }), "containers: not all have started yet"},
		{"not settled for long", func(n *Node) {
			units(func(s *workload.Status) { s.Settled = false })(n)
			n.began = time.Now().Add(-settleLimit)
		}, ""},
		{"ignored", func(n *Node) {
			units(func(s *workload.Status) { s.Units[0].State = workload.Backoff })(n)
			n.Config.Containers = nodeconfig.Ignore
		}, ""},
		{"no link", func(n *Node) { n.before.Link, n.Run = true, "/nowhere" }, "network: no link is up, and one was at the last good boot"},
		{"no link, as before", func(n *Node) { n.Run = "/nowhere" }, ""},
		{"http", check(nodeconfig.Check{HTTP: web.URL + "/"}), ""},
		{"http moved", check(nodeconfig.Check{HTTP: web.URL + "/moved"}), ""},
		{"http endless", check(nodeconfig.Check{HTTP: web.URL + "/endless"}), ""},
		{"http sick", check(nodeconfig.Check{HTTP: web.URL + "/sick?token=secret"}), "http " + web.URL + "/sick: status 503"},
		{"http nobody", check(nodeconfig.Check{HTTP: "http://" + nobody + "/?token=secret"}), "http http://" + nobody + "/: dial tcp"},
		{"tcp", check(nodeconfig.Check{TCP: web.Listener.Addr().String()}), ""},
		{"tcp nobody", check(nodeconfig.Check{TCP: nobody}), "tcp " + nobody + ": dial tcp"},
		{"command in none", check(nodeconfig.Check{Container: "x", Command: []string{"true", "secret"}}), "command true in x: no such container"},
		{"command in one that ended", check(nodeconfig.Check{Container: "job", Command: []string{"true"}}), "command true in job: the container is ended"},
		{"command that is not there", func(n *Node) {
			n.Engine = func() (Engine, error) { return fakeEngine{exec: errors.New("no such program")}, nil }
			check(nodeconfig.Check{Container: "web", Command: []string{"true"}})(n)
		}, "command true in web: no such program"},
		{"command that ends well", check(nodeconfig.Check{Container: "web", Command: []string{"true"}}), ""},
		{"command that fails", check(nodeconfig.Check{Container: "web", Command: []string{"false"}}), "command false in web: ended with 1"},
	} {
		n := healthy(t)
		c.change(n)
		got := wrong(n)
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" || strings.Contains(got, "secret") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestWhoseChecks says which checks are about the node itself. Only those may lead a proven
// slot to another one.
func TestWhoseChecks(t *testing.T) {
	n := healthy(t)
	n.before.Link = true
	n.Config.Checks = []nodeconfig.Check{{HTTP: "http://127.0.0.1:1/"}, {TCP: "127.0.0.1:1"}, {Container: "web", Command: []string{"true"}}}
	whose := map[bool][]string{}
	for _, r := range n.check(t.Context()) {
		whose[r.Workload] = append(whose[r.Workload], r.Check)
	}
	want := map[bool][]string{
		false: {"STATE", "API", "containerd", "network"},
		true:  {"containers", "http http://127.0.0.1:1/", "tcp 127.0.0.1:1", "command true in web"},
	}
	if !reflect.DeepEqual(whose, want) {
		t.Errorf("%v", whose)
	}
}

// TestSick is a node whose containers never become well: PID 1 hears first that it is not
// good, and then that this is nothing but its workloads.
func TestSick(t *testing.T) {
	n := healthy(t)
	n.Config.For = time.Nanosecond
	n.Containers = func() (workload.Status, error) {
		return workload.Status{}, errors.New("workloads refused: x")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told []string
	Run(ctx, n, func(_ context.Context, v Verdict, why string) error {
		if told = append(told, string(v)+" "+why); v == Sick {
			cancel()
		}
		return nil
	})
	if want := []string{"pending containers: workloads refused: x", "sick containers: workloads refused: x"}; !reflect.DeepEqual(told, want) {
		t.Errorf("told %q", told)
	}
}

// TestRun is a node that becomes well: PID 1 hears why it is not, then that it is, even
// though it cannot be reached at first. The next boot is judged by this one.
func TestRun(t *testing.T) {
	n := healthy(t)
	n.Config.For = time.Nanosecond
	calls := 0
	n.Engine = func() (Engine, error) {
		if calls++; calls < 2 {
			return nil, errors.New("is not there yet")
		}
		return fakeEngine{}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var told []string
	Run(ctx, n, func(_ context.Context, v Verdict, why string) error {
		told = append(told, strings.TrimSpace(string(v)+" "+why))
		if len(told) == 2 {
			return errors.New("PID 1 does not answer")
		}
		return nil
	})
	want := []string{"pending containerd: is not there yet", "pending all is well, and has to stay so for 1ns", "good"}
	if !reflect.DeepEqual(told, want) {
		t.Errorf("told %q", told)
	}
	b, err := LoadBefore(n.Memory)
	if err != nil || !reflect.DeepEqual(b, Before{Version: 1, Release: "1.1", Containers: []string{"db", "web"}, Link: true}) {
		t.Errorf("%+v, %v", b, err)
	}
	text, err := os.ReadFile(n.Memory)
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "before-1.json", string(text))
}

// TestRunEnds: a node that is never well is asked until its agent stops.
func TestRunEnds(t *testing.T) {
	n := healthy(t)
	n.State = "/dev/shm"
	ctx, cancel := context.WithCancel(t.Context())
	Run(ctx, n, func(_ context.Context, v Verdict, why string) error {
		if v != Pending {
			t.Errorf("%s %s", v, why)
		}
		cancel()
		return nil
	})
}

// TestPeers sends a release on trial back for want of peers, so often as its trial has
// tries, and no more.
func TestPeers(t *testing.T) {
	n := healthy(t)
	peer := n.API
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	boot := func(release string, trial bool, peers ...string) (*Node, string) {
		next := *n
		next.Release, next.Trial, next.Config.Peers = release, trial, peers
		os.Remove(next.counted()) // a boot forgets it
		next.blamed = false
		next.recall()
		first := wrong(&next)
		if again := wrong(&next); again != first {
			t.Errorf("second round: %q after %q", again, first)
		}
		next.blamed = false
		next.recall() // the agent has died and is there again
		if again := wrong(&next); again != first {
			t.Errorf("another agent: %q after %q", again, first)
		}
		return &next, first
	}
	const sent = "peers: none can be reached, and one could before"
	if _, got := boot("1.1", true, nobody); got != "" {
		t.Errorf("never in reach, and yet %q", got)
	}
	good, got := boot("1.0", false, nobody, peer)
	if got != "" {
		t.Fatal(got)
	}
	if err := good.remember(); err != nil {
		t.Fatal(err)
	}
	if _, got := boot("1.0", false, nobody); got != "" {
		t.Errorf("a proven slot: %q", got)
	}
	for range sendBack {
		if _, got := boot("1.1", true, nobody); got != sent {
			t.Errorf("on trial: %q", got)
		}
	}
	if _, got := boot("1.1", true, nobody); got != "" {
		t.Errorf("a second trial of the same release: %q", got)
	}
	other, got := boot("1.2", true, nobody)
	if got != sent {
		t.Errorf("another release: %q", got)
	}
	other.Config.Peers = []string{peer} // it comes back within the boot
	if got := wrong(other); got != "" {
		t.Errorf("in reach again: %q", got)
	}
	if err := other.remember(); err != nil {
		t.Fatal(err)
	}
	b, err := LoadBefore(n.Memory)
	if err != nil || !b.Peers || !reflect.DeepEqual(b.SentBack, map[string]int{"1.1": sendBack}) {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestRemember notes what is well when a release is armed, and keeps the rest.
func TestRemember(t *testing.T) {
	n := healthy(t)
	if err := (Before{Release: "1.0", Link: true, Peers: true, Containers: []string{"old"}}).save(n.Memory); err != nil {
		t.Fatal(err)
	}
	status, _ := n.Containers()
	if err := Remember(n.Memory, status); err != nil {
		t.Fatal(err)
	}
	b, err := LoadBefore(n.Memory)
	if want := (Before{Version: 1, Release: "1.0", Link: true, Peers: true, Containers: []string{"db", "web"}}); err != nil || !reflect.DeepEqual(b, want) {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestBeforeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                         "unexpected end",
		`{"version":2}`:            "version 2: this release reads version 1",
		`{"version":1,"colour":1}`: "unknown field",
	} {
		if _, err := ParseBefore([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	n := healthy(t)
	if err := os.MkdirAll(filepath.Dir(n.Memory), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Memory, make([]byte, maxMemory+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadBefore(n.Memory); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge file: %v", err)
	}
	n.recall()
	if got := wrong(n); got != "" {
		t.Errorf("a damaged memory costs the boot: %q", got)
	}
}

func FuzzBefore(f *testing.F) {
	f.Add([]byte(`{"version":1,"release":"1.0","containers":["a"],"link":true,"peers":false,"sent_back":{"1":2}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseBefore(text)
		if err != nil {
			return
		}
		if _, err := json.Marshal(b); err != nil {
			t.Error(err)
		}
	})
}

// TestReadOnly: a STATE that takes no writes any more is no good one.
func TestReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	if !namespace.Run(t, unix.CLONE_NEWNS) {
		return
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	for _, args := range [][]string{{"mke2fs", "-q", "-F", "-t", "ext4", image, "16M"}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	n := healthy(t)
	n.State = dir
	if got := wrong(n); got != "" {
		t.Errorf("before: %q", got)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if got := wrong(n); !strings.HasPrefix(got, "STATE: it has become read-only") {
		t.Errorf("read-only: %q", got)
	}
}
