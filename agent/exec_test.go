package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	rpc "connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/engine"
	"kogge.example/agent/namespace"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// TestExec runs commands inside real containers, from a client of the API to a process
// and back: what they get, what they give, and that nothing is left of them, whoever
// goes first.
func TestExec(t *testing.T) {
	bin := os.Getenv(binEnv)
	if bin == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root: makes containers")
		}
		if testing.Short() {
			t.Skip("builds agent, shim and runc: left out by -short")
		}
		bin = programs(t)
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID, binEnv+"="+bin) {
		return
	}
	n := newNode(t, bin)
	n.imageOf(t, filepath.Join(n.folder, "state", "preload"), "prober", "prober")
	n.config(t, `
  services:
    web:
      image: example.invalid/prober:1
      entrypoint: [/app, hang]
      environment: {COLOUR: green, RELEASE: "1.0"}
      working_dir: /proc
      cap_drop: [CHOWN]
      restart: always
      stop_grace_period: 0s
    job:
      image: example.invalid/prober:1
      entrypoint: [/app, whoami]
      restart: "no"
    hungry:
      image: example.invalid/prober:1
      entrypoint: [/app, eat]
      mem_limit: 32m
      restart: "no"
`)
	ring := n.invite(t)
	n.start(t, "containerd")
	n.start(t, "agent")
	until(t, "web to run and job to end", func() bool { return len(hanging(t)) == 1 })
	n.wait(t, "STATUS=", "job ended")
	e := &execs{node: n, fleet: ring}
	e.ada = e.adopt(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *execs)
	}{
		{"exit codes", execCodes},
		{"errors", execErrors},
		{"input", execInput},
		{"rights", execRights},
		{"settings", execSettings},
		{"terminal", execTerminal},
		{"signal", execSignal},
		{"child", execChild},
		{"slow reader", execSlowReader},
		{"busy", execBusy},
		{"too many", execTooMany},
		{"out of turn", execOutOfTurn},
		{"caller gone", execCallerGone},
		{"caller gone early", execCallerGoneEarly},
		{"revoked", execRevoked},
		{"command line", execCommandLine},
		{"command line with a terminal", execCommandLineTerminal},
		{"events", execEvents},
		{"container restarted", execRestarted},
		{"containerd killed", execContainerdKilled},
		{"agent killed", execAgentKilled},
		{"agent stopped", execAgentStopped},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, e)
			until(t, "nothing to be left", func() bool { return len(commands(t)) == 0 && len(e.folders(t)) == 0 })
		})
	}
	e.ada.Close()
	n.stop(t, "agent")
	n.stop(t, "containerd")
}

// execs is a node with an operator.
type execs struct {
	node  *node
	fleet *keyring.Keyring
	ada   *api.Client
}

// apiAddress is where the agent answers in the namespace of the test.
var apiAddress = fmt.Sprintf("127.0.0.1:%d", api.Port)

// invite makes a fleet and gives the node its join.yaml.
func (n *node) invite(t *testing.T) *keyring.Keyring {
	t.Helper()
	f, err := keyring.Create("hanse", "ada", time.Now())
	must(t, err)
	must(t, f.Save(filepath.Join(n.folder, "hanse"), ""))
	token, err := f.NewToken(keyring.Terms{}, time.Now())
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(n.folder, "state", "kogge"), 0o700))
	must(t, os.WriteFile(filepath.Join(n.folder, "state", "kogge", "join.yaml"), fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}), 0o600))
	return f
}

// adopt makes the node one of the fleet and returns its founder's client.
func (e *execs) adopt(t *testing.T) *api.Client {
	t.Helper()
	until(t, "the node to be adopted", func() bool {
		err := api.Adopt(t.Context(), apiAddress, api.Adoption{
			Genesis: e.fleet.Genesis, Certificate: e.fleet.Certificate(),
			Sign: func(request, nonce, mac []byte, _ string) ([]byte, error) {
				return e.fleet.AdoptNode(request, nonce, mac, "n1", "", time.Now())
			},
		})
		if err != nil && rpc.CodeOf(err) != rpc.CodeUnavailable {
			t.Fatal(err)
		}
		return err == nil
	})
	return api.Dial(apiAddress, "n1", e.fleet.Genesis, e.fleet.Certificate())
}

// operator makes another one, with his key.
func (e *execs) operator(t *testing.T, name string, role fleet.Role) (*api.Client, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	request, err := fleet.NewRequest(key)
	must(t, err)
	der, err := e.fleet.SignOperator(request, name, role, time.Now())
	must(t, err)
	_, spki, err := fleet.RequestKey(request)
	must(t, err)
	c := api.Dial(apiAddress, "n1", e.fleet.Genesis, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	t.Cleanup(c.Close)
	return c, fleet.KeyID(spki)
}

// called is a command that runs.
type called struct {
	api.Session
	out, err locked
	sizes    chan *apiv1.TerminalSize
	signals  chan string
	done     chan struct{}
	end      *apiv1.ExecEnd
	failed   error
	cancel   context.CancelFunc
}

// run starts prober's command args in web; edit may change what is asked for.
func (e *execs) run(t *testing.T, c *api.Client, edit func(*called), args ...string) *called {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	r := &called{sizes: make(chan *apiv1.TerminalSize), signals: make(chan string), done: make(chan struct{}), cancel: cancel}
	r.Session = api.Session{
		Start:  &apiv1.ExecStart{Container: "web", Command: append([]string{"/app", "command"}, args...)},
		Stdout: &r.out, Stderr: &r.err, Sizes: r.sizes, Signals: r.signals,
	}
	if edit != nil {
		edit(r)
	}
	go func() {
		defer close(r.done)
		defer cancel()
		r.end, r.failed = c.ExecSession(ctx, r.Session)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// says waits until the command has written text.
func (r *called) says(t *testing.T, text string) {
	t.Helper()
	until(t, fmt.Sprintf("%q", text), func() bool {
		select {
		case <-r.done:
			return true
		default:
			return strings.Contains(r.out.String(), text)
		}
	})
	if out := r.out.String(); !strings.Contains(out, text) {
		t.Fatalf("it ended with %v, %v and said %q, %q", r.end, r.failed, out, r.err.String())
	}
}

// ends waits for the end and wants this exit code.
func (r *called) ends(t *testing.T, code int32) {
	t.Helper()
	<-r.done
	if r.failed != nil || r.end.Code != code {
		t.Fatalf("ended with %v, %v and said %q, %q: want exit code %d", r.end, r.failed, r.out.String(), r.err.String(), code)
	}
}

// fails waits for an error with these words.
func (r *called) fails(t *testing.T, words ...string) {
	t.Helper()
	<-r.done
	if r.failed == nil {
		t.Fatalf("ended with %v, want %q", r.end, words)
	}
	for _, w := range words {
		if !strings.Contains(r.failed.Error(), w) {
			t.Errorf("failed with %v, want %q in it", r.failed, w)
		}
	}
}

// commands are the processes that were run by an operator, and their children.
func commands(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, name := range []string{"/app", "/proc/self/exe"} {
		for _, pid := range processes(t, name) {
			if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "\x00command\x00") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// folders are what the agent keeps of commands that run.
func (e *execs) folders(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(e.node.folder, "run", "workload", "*", "exec", "*"))
	must(t, err)
	return all
}

func execCodes(t *testing.T, e *execs) {
	for _, code := range []int32{0, 1, 7, 255} {
		e.run(t, e.ada, nil, "exit", fmt.Sprint(code)).ends(t, code)
	}
	r := e.run(t, e.ada, nil, "both")
	r.ends(t, 0)
	if out, errs := r.out.String(), r.err.String(); out != "to standard output\n" || errs != "to standard error\n" {
		t.Errorf("said %q and %q", out, errs)
	}
}

func execErrors(t *testing.T, e *execs) {
	of := func(change func(*apiv1.ExecStart)) *called {
		return e.run(t, e.ada, func(r *called) { change(r.Start) }, "exit", "0")
	}
	for reason, r := range map[string]*called{
		`executable file not found`: of(func(s *apiv1.ExecStart) { s.Command = []string{"nonsense"} }),
		`no such file or directory`: of(func(s *apiv1.ExecStart) { s.Command = []string{"/nonsense"} }),
	} {
		r.ends(t, 127)
		if !strings.Contains(r.end.Reason, reason) || strings.Contains(r.end.Reason, "OCI") {
			t.Errorf("reason %q, want %q", r.end.Reason, reason)
		}
	}
	for reason, r := range map[string]*called{
		"is a directory": of(func(s *apiv1.ExecStart) { s.Command = []string{"/etc"} }),
		"/none":          of(func(s *apiv1.ExecStart) { s.WorkingDir = "/none" }),
	} {
		r.ends(t, 126)
		if !strings.Contains(r.end.Reason, reason) || strings.Contains(r.end.Reason, "OCI") {
			t.Errorf("reason %q, want %q", r.end.Reason, reason)
		}
	}
	of(func(s *apiv1.ExecStart) { s.Container = "nonsense" }).fails(t, "there is no container nonsense here")
	of(func(s *apiv1.ExecStart) { s.Container = "../web" }).fails(t, "not the name of a container")
	of(func(s *apiv1.ExecStart) { s.Container = "job" }).fails(t, "container job does not run: ended, exit code 0")
	of(func(s *apiv1.ExecStart) { s.User = "nobody" }).fails(t, `user "nobody"`)
	of(func(s *apiv1.ExecStart) { s.User = "1:2:3" }).fails(t, `user "1:2:3"`)
	reader, _ := e.operator(t, "rita", fleet.RoleReader)
	e.run(t, reader, nil, "exit", "0").fails(t, "rita has the role reader: this needs operator")
}

func execInput(t *testing.T, e *execs) {
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // far more than may wait
	began := time.Now()
	r := e.run(t, e.ada, func(r *called) { r.Start.Stdin, r.Stdin = true, bytes.NewReader(sent) }, "cat")
	r.ends(t, 0)
	if got := r.out.String(); got != string(sent) {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(sent))
	}
	t.Logf("%d bytes there and back in %s", len(sent), time.Since(began).Round(time.Millisecond))
	e.run(t, e.ada, nil, "cat").ends(t, 0) // without an input there is its end
	// What a command does not read is in nobody's way.
	e.run(t, e.ada, func(r *called) { r.Start.Stdin, r.Stdin = true, bytes.NewReader(sent) }, "exit", "4").ends(t, 4)
	in, out := io.Pipe()
	slow := e.run(t, e.ada, func(r *called) { r.Start.Stdin, r.Stdin = true, in }, "cat")
	for _, line := range []string{"one\n", "two\n"} {
		_, err := io.WriteString(out, line)
		must(t, err)
		slow.says(t, line)
	}
	out.Close()
	slow.ends(t, 0)
}

// execRights compares a command with the container's own process.
func execRights(t *testing.T, e *execs) {
	r := e.run(t, e.ada, nil, "self")
	r.ends(t, 0)
	own := hanging(t)
	if len(own) != 1 {
		t.Fatalf("processes of web: %v", own)
	}
	proc := fmt.Sprintf("/proc/%d/", own[0])
	status, err := os.ReadFile(proc + "status")
	must(t, err)
	for line := range strings.Lines(string(status)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters":
			if !strings.Contains(r.out.String(), line) {
				t.Errorf("the command has another %s than %q", name, line)
			}
		}
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t00000000a80405fa\n"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("the command lacks %q:\n%s", want, r.out.String())
		}
	}
	for _, name := range []string{"pid", "ipc", "uts", "mnt", "net", "cgroup", "user"} {
		link, err := os.Readlink(proc + "ns/" + name)
		must(t, err)
		if !strings.Contains(r.out.String(), "namespace "+link+" ") {
			t.Errorf("the command is in another namespace than %s", link)
		}
	}
	profile, err := os.ReadFile(proc + "attr/current")
	if !strings.Contains(r.out.String(), fmt.Sprintf("profile %q", profile)) {
		t.Errorf("the command has another profile than %q, %v:\n%s", profile, err, r.out.String())
	}
	root := e.run(t, e.ada, func(r *called) { r.Start.User = "0" }, "self")
	root.ends(t, 0)
	if want := "CapBnd:\t00000000a80405fa\n"; !strings.Contains(root.out.String(), want) {
		t.Errorf("root has more than the container:\n%s", root.out.String())
	}
	in := e.run(t, e.ada, nil, "interrupted")
	in.says(t, "ready")
	defer in.cancel()
	pids := commands(t)
	if len(pids) != 1 {
		t.Fatalf("commands %v run", pids)
	}
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pids[0]))
	must(t, err)
	if !strings.Contains(string(cgroup), e.node.cgroup+"/web\n") {
		t.Errorf("cgroup of the command: %s", cgroup)
	}
}

func execSettings(t *testing.T, e *execs) {
	r := e.run(t, e.ada, nil, "self")
	r.ends(t, 0)
	for _, want := range []string{"folder /proc\n", "COLOUR=green", "RELEASE=1.0", "HOSTNAME=web"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("the command lacks the container's %q:\n%s", want, r.out.String())
		}
	}
	r = e.run(t, e.ada, func(r *called) {
		r.Start.Env, r.Start.User, r.Start.WorkingDir = []string{"COLOUR=red", "EMPTY="}, "1000:2000", "/dev"
	}, "self")
	r.ends(t, 0)
	for _, want := range []string{"folder /dev\n", "COLOUR=red", "EMPTY= ", "RELEASE=1.0", "Uid:\t1000\t1000\t1000\t1000\n", "Gid:\t2000\t2000\t2000\t2000\n", "CapEff:\t0000000000000000\n"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("the command lacks %q:\n%s", want, r.out.String())
		}
	}
}

func execTerminal(t *testing.T, e *execs) {
	in, out := io.Pipe()
	r := e.run(t, e.ada, func(r *called) {
		r.Start.Terminal, r.Start.Stdin, r.Stdin = &apiv1.TerminalSize{Width: 100, Height: 30}, true, in
	}, "size")
	r.says(t, "100 x 30\r\n")
	r.sizes <- &apiv1.TerminalSize{Width: 41, Height: 7}
	r.says(t, "41 x 7\r\n")
	_, err := io.WriteString(out, "q\n")
	must(t, err)
	r.ends(t, 0)
	if !strings.Contains(r.out.String(), "q\r\n") {
		t.Errorf("no echo: %q", r.out.String())
	}
	// Ctrl-C is a character, which the terminal makes a signal of.
	in, out = io.Pipe()
	r = e.run(t, e.ada, func(r *called) { r.Start.Terminal, r.Start.Stdin, r.Stdin = &apiv1.TerminalSize{}, true, in }, "interrupted")
	r.says(t, "ready")
	_, err = out.Write([]byte{3})
	must(t, err)
	r.ends(t, 3)
	// Without an input of its own a command has a terminal all the same.
	r = e.run(t, e.ada, func(r *called) { r.Start.Terminal = &apiv1.TerminalSize{Width: 80, Height: 25} }, "both")
	r.ends(t, 0)
	if want := "to standard output\r\nto standard error\r\n"; r.out.String() != want {
		t.Errorf("said %q, want %q", r.out.String(), want)
	}
	r = e.run(t, e.ada, func(r *called) { r.Start.Terminal = &apiv1.TerminalSize{} }, "self")
	r.ends(t, 0)
	if !strings.Contains(r.out.String(), "TERM=xterm") {
		t.Errorf("no TERM: %q", r.out.String())
	}
}

func execSignal(t *testing.T, e *execs) {
	// Its input is stuck, which is in no signal's way.
	r := e.run(t, e.ada, func(r *called) { r.Start.Stdin, r.Stdin = true, zeros{} }, "interrupted")
	r.says(t, "ready")
	r.signals <- "INT"
	r.ends(t, 3)
	r = e.run(t, e.ada, nil, "interrupted")
	r.says(t, "ready")
	r.signals <- "KILL"
	r.ends(t, 128+9)
}

func execChild(t *testing.T, e *execs) {
	before := hanging(t)
	r := e.run(t, e.ada, nil, "leave")
	r.ends(t, 0)
	until(t, "the child", func() bool { return len(leftBehind(t)) == 1 })
	for _, pid := range leftBehind(t) {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	until(t, "no child", func() bool { return len(leftBehind(t)) == 0 })
	if after := hanging(t); !slices.Equal(before, after) {
		t.Errorf("processes of web: %v, then %v", before, after)
	}
}

// leftBehind are children of commands that ended.
func leftBehind(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, pid := range processes(t, "/proc/self/exe") {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), "\x00hang\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// execBusy has commands beside each other, whose outputs are not mixed up.
func execBusy(t *testing.T, e *execs) {
	var all []*called
	for i := range 8 {
		text := strings.Repeat(fmt.Sprintln("line of", i), 5000)
		all = append(all, e.run(t, e.ada, func(r *called) { r.Start.Stdin, r.Stdin = true, strings.NewReader(text) }, "cat"))
	}
	for i, r := range all {
		r.ends(t, 0)
		if want := strings.Repeat(fmt.Sprintln("line of", i), 5000); r.out.String() != want {
			t.Errorf("%d: %d bytes, or others than its own", i, len(r.out.String()))
		}
	}
}

func execTooMany(t *testing.T, e *execs) {
	var all []*called
	for range engine.MaxExecsOfOne {
		all = append(all, e.run(t, e.ada, nil, "interrupted"))
	}
	for _, r := range all {
		r.says(t, "ready")
	}
	e.run(t, e.ada, nil, "exit", "0").fails(t, "too many commands are running: at most 16 in one container")
	for _, r := range all {
		r.signals <- "INT"
		r.ends(t, 3)
	}
	until(t, "room again", func() bool { return len(e.folders(t)) == 0 })
	e.run(t, e.ada, nil, "exit", "0").ends(t, 0)
}

// execOutOfTurn says what nobody may say.
func execOutOfTurn(t *testing.T, e *execs) {
	for want, messages := range map[string][]*apiv1.ExecRequest{
		"the first message has to say what to run": {{Part: &apiv1.ExecRequest_End{End: true}}},
		"at most 32768": {{Part: &apiv1.ExecRequest_Start{Start: &apiv1.ExecStart{Container: "web", Command: []string{"/app", "command", "cat"}, Stdin: true}}},
			{Part: &apiv1.ExecRequest_Stdin{Stdin: make([]byte, 64<<10)}}},
		"a size for a command without a terminal": {{Part: &apiv1.ExecRequest_Start{Start: &apiv1.ExecStart{Container: "web", Command: []string{"/app", "command", "cat"}, Stdin: true}}},
			{Part: &apiv1.ExecRequest_Size{Size: &apiv1.TerminalSize{}}}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		stream := e.ada.Exec(ctx)
		for _, m := range messages {
			must(t, stream.Send(m))
		}
		for {
			if _, err := stream.Receive(); err != nil {
				if !strings.Contains(err.Error(), want) || rpc.CodeOf(err) != rpc.CodeInvalidArgument {
					t.Errorf("got %v, want %q", err, want)
				}
				break
			}
		}
		cancel()
	}
}
