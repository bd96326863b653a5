package supervise

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"kogge.example/init/cgroup"
	"kogge.example/init/control"
	"kogge.example/init/shutdown"
)

// limit is generous: the machine that runs the tests may be busy.
const limit = time.Minute

// TestMain makes the test binary three programs: the tests, the launcher that
// PID 1 would be, and every service of the tests, by its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "launch" {
		fmt.Fprintln(os.Stderr, Launch(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) > 2 && os.Args[1] == "service" {
		serviceMain(os.Args[2], os.Args[3:])
		os.Exit(0)
	}
	if os.Getenv(subreaper) != "" {
		must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		children.any = true
	}
	os.Exit(m.Run())
}

// serviceMain is a service; its name says how it behaves.
func serviceMain(name string, args []string) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	notify := func(state string) {
		if sent, err := daemon.SdNotify(false, state); err != nil || !sent {
			fmt.Println("notify:", sent, err)
			os.Exit(9)
		}
	}
	switch name {
	case "good":
		fmt.Println("good: begins")
		<-term
		fmt.Println("good: ends")
	case "ready": // argument: a status
		notify("READY=1\nSTATUS=" + strings.Join(args, " "))
		<-term
	case "exits":
		fmt.Println("exits: at once")
		os.Exit(3)
	case "once": // exits the first time, argument: a file that remembers
		if f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			os.Exit(4)
		}
		<-term
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		notify("READY=1")
		select {}
	case "orphan": // leaves a grandchild behind, argument: a file for its pid
		pid, err := syscall.ForkExec(os.Args[0], []string{os.Args[0], "service", "stubborn"},
			&syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
		if err != nil {
			panic(err)
		}
		must(os.WriteFile(args[0], fmt.Append(nil, pid), 0o600))
		<-term
	case "flood":
		line := append(bytes.Repeat([]byte{'x'}, 127), '\n')
		block := bytes.Repeat(line, 512)
		for sent := 0; sent < 256<<20; sent += len(block) {
			os.Stdout.Write(block)
		}
		fmt.Println("flood: over")
		notify("READY=1")
		<-term
	case "pings": // pings a while, then hangs
		usec, err := daemon.SdWatchdogEnabled(false)
		if err != nil || usec == 0 {
			fmt.Println("pings: no watchdog", usec, err)
			os.Exit(9)
		}
		notify(daemon.SdNotifyReady)
		for range 4 {
			time.Sleep(usec / 4)
			notify(daemon.SdNotifyWatchdog)
		}
		<-term
	case "trigger":
		notify("READY=1")
		notify("WATCHDOG=trigger")
		<-term
	case "listens": // answers one line per connection with its own number
		ls, err := activation.ListenersWithNames()
		if err != nil || len(ls["web"]) != 1 {
			fmt.Println("listens:", ls, err, os.Environ())
			os.Exit(9)
		}
		notify("READY=1")
		go func() { <-term; os.Exit(0) }()
		for {
			c, err := ls["web"][0].Accept()
			if err != nil {
				panic(err)
			}
			fmt.Fprintln(c, os.Getpid())
			c.Close()
		}
	case "garbage":
		notify(strings.Repeat("READY=1\n", 4096)) // too long
		notify("=\x00\xff=\n\n\nREADY\nREADY=2\nMAINPID=99999999999\nSTATUS=\x1b[2J\xff\x07")
		<-term
	case "status": // writes its own /proc/self/status to the log
		b, err := os.ReadFile("/proc/self/status")
		must(err)
		os.Stdout.Write(b)
		var lim unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
		fmt.Println("NoFile:", lim.Max)
		notify("READY=1")
		<-term
	case "handover": // starts its successor, says so, and goes
		pid, err := syscall.ForkExec(os.Args[0], []string{os.Args[0], "service", "good"},
			&syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}})
		must(err)
		notify(fmt.Sprintf("MAINPID=%d\nREADY=1", pid))
	default:
		panic("no such service: " + name)
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// service is a Service that runs this test binary.
func service(name string, args ...string) Service {
	self, err := os.Executable()
	must(err)
	return Service{Name: name, Path: self, Args: append([]string{"service", name}, args...)}
}

// as gives a service another name than its behaviour.
func as(name string, s Service) Service { s.Name = name; return s }

// node is a running supervisor.
type node struct {
	t      *testing.T
	dir    string
	client *control.Client
	cancel context.CancelFunc
	over   chan struct{}
	how    shutdown.How
	err    error
	budget *shutdown.Budget

	mu    sync.Mutex // guards lines
	lines []string
}

// run starts a supervisor that ends with the test.
func run(t *testing.T, change func(*Config), services ...Service) *node {
	t.Helper()
	self, err := os.Executable()
	must(err)
	// Not t.TempDir: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "kogge")
	must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{t: t, dir: dir, over: make(chan struct{}), budget: &shutdown.Budget{}}
	cfg := Config{
		Services: services, Dir: dir, Self: self, InputDir: filepath.Join(dir, "input"),
		Budget: n.budget,
		Say: func(line string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.lines = append(n.lines, line)
		},
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.over)
		n.how, n.err = Run(ctx, cfg)
	}()
	t.Cleanup(n.end)
	n.until("control socket", func() bool {
		n.client, err = control.Dial(ctx, filepath.Join(dir, "init.sock"))
		return err == nil
	})
	return n
}

// end stops the supervisor and waits for it.
func (n *node) end() {
	n.cancel()
	select {
	case <-n.over:
	case <-time.After(limit):
		panic("the supervisor does not end")
	}
}

// until waits for a condition.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-n.over:
			n.t.Fatalf("%s: supervisor ended: %v %v", what, n.how, n.err)
		default:
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: not within %v\nlines: %s\nstatus: %+v", what, limit, strings.Join(n.said(), "\n"), n.status())
		}
	}
}

func (n *node) said() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.lines)
}

func (n *node) heard(part string) bool {
	return slices.ContainsFunc(n.said(), func(line string) bool { return strings.Contains(line, part) })
}

func (n *node) status() *control.Status {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	status, err := n.client.Status(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	return status
}

// one is the status of one service.
func (n *node) one(name string) control.Service {
	n.t.Helper()
	for _, s := range n.status().Services {
		if s.Name == name {
			return s
		}
	}
	n.t.Fatalf("no service %s", name)
	return control.Service{}
}

// reaches waits until a service is in a state.
func (n *node) reaches(name string, state State) control.Service {
	n.t.Helper()
	var s control.Service
	n.until(name+" "+string(state), func() bool { s = n.one(name); return s.State == string(state) })
	return s
}

// log is what a service wrote.
func (n *node) log(name string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var b strings.Builder
	if err := n.client.Logs(ctx, name, 0, false, func(line string) { b.WriteString(line + "\n") }); err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

// gone says whether a process is no more, or only waits to be reaped.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// hierarchy is a cgroup v2 folder of this test's own, none where this machine
// lets us make none: those tests say what they need.
func hierarchy(t *testing.T) cgroup.Tree {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(err)
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(f[1], "kogge-test")
		if err != nil {
			continue
		}
		tree := cgroup.Tree(dir)
		t.Cleanup(func() {
			_ = tree.Kill("")
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := tree.Wait(ctx, ""); err != nil {
				t.Error(err)
			}
			removeGroups(dir)
		})
		must(tree.Make(cgroup.System))
		return tree
	}
	return ""
}

// removeGroups removes a cgroup and those below it.
func removeGroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}
