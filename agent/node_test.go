package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
)

// binEnv names the folder with the programs for the run inside.
const binEnv = "KOGGE_NODE_TEST_BIN"

// TestNode runs the real thing: both roles, shim and runc, an image imported from
// a tar, containers with network and limits; then kills what can be killed.
func TestNode(t *testing.T) {
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
	// The PID namespace takes every process with it at the end.
	if namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS, binEnv+"="+bin) {
		testNode(t, bin)
		return
	}
	compareTables(t, bin)
}

// built is the folder of the programs that the tests of this package share.
var built string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "etcd" { // the role, which has the process to itself
		os.Exit(run(os.Args, os.Stderr))
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// programs builds the programs once.
func programs(t *testing.T) string {
	t.Helper()
	if built == "" {
		folder, err := os.MkdirTemp("", "kogge-programs-")
		must(t, err)
		must(t, os.Chmod(folder, 0o755))
		built = folder
		build(t, folder)
	}
	return built
}

// build makes the programs as an image has them.
func build(t *testing.T, bin string) {
	t.Helper()
	for _, tool := range []struct{ file, pkg string }{
		{"/usr/bin/gcc", "gcc"}, {"/usr/include/seccomp.h", "libseccomp-dev"}, {"/usr/bin/pkg-config", "pkg-config"},
	} {
		if _, err := os.Stat(tool.file); err != nil {
			t.Fatalf("runc needs it: %v: apt-get install %s", err, tool.pkg)
		}
	}
	static := []string{"-trimpath", "-ldflags=-s -w", "-tags=netgo osusergo grpcnotrace"}
	for _, p := range []struct {
		out, cgo string
		args     []string
	}{
		{"agent", "0", []string{"-trimpath", "-ldflags=-s -w", "-tags=netgo osusergo grpcnotrace no_rdt", "kogge.example/agent"}},
		{"containerd-shim-runc-v2", "0", []string{"-trimpath", "-ldflags=-s -w", "-tags=netgo osusergo grpcnotrace no_grpc", "kogge.example/agent/shim"}},
		{"example", "0", append(slices.Clone(static), "kogge.example/agent/example")},
		{"prober", "0", append(slices.Clone(static), "kogge.example/agent/prober")},
		{"kogge", "0", append(slices.Clone(static), "kogge.example/cmd/kogge")},
		{"runc", "1", []string{"-trimpath", "-tags=netgo osusergo seccomp urfave_cli_no_docs runc_nocriu",
			"-ldflags=-s -w -linkmode external -extldflags -static", "github.com/opencontainers/runc"}},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", filepath.Join(bin, p.out)}, p.args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+p.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", p.out, err, out)
		}
	}
}

// node is the part of a node that this package is.
type node struct {
	bin, folder, cgroup string
	services            map[string]*exec.Cmd
	notes               *notes
	mark                int // of the notes: when a role was last started or killed
}

// notes are what the roles say. They are taken as they come, as PID 1 takes them: the
// kernel keeps ten, and who has no room for more than a second drops his.
type notes struct {
	conn *net.UnixConn

	mu   sync.Mutex // guards said
	said []string
}

func (n *notes) listen() {
	buf := make([]byte, 64<<10)
	for {
		k, err := n.conn.Read(buf)
		if err != nil {
			return // closed
		}
		n.mu.Lock()
		n.said = append(n.said, string(buf[:k]))
		n.mu.Unlock()
	}
}

func (n *notes) since(mark int) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said[mark:]
}

// workloads is the section of node.yaml: one container that serves, one that ends,
// one whose image is missing.
const workloads = `
  services:
    web:
      image: example.invalid/web:1
      ports: ["8080:80"]
      environment: {PORT: "80", RELEASE: "1.0"}
      restart: always
      pids_limit: 50
      volumes: ["data:/data"]
    job:
      image: example.invalid/web:1
      entrypoint: /app
      environment: {PORT: none}
    wrong:
      image: example.invalid/missing:1
  volumes: {data: }
`

func testNode(t *testing.T, bin string) {
	n := newNode(t, bin)
	n.image(t)
	n.config(t, workloads)
	n.start(t, "containerd")
	n.start(t, "agent")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 1\n")
	n.wait(t, "STATUS=", "job ended: exit code 1", ": image example.invalid/missing:1: not on this node", "1 of 3 containers running")
	n.hardened(t) // web alone: job has ended
	log, err := os.ReadFile(filepath.Join(n.folder, "run", "log", "web.log"))
	if err != nil || !strings.Contains(string(log), "listening on :80") {
		t.Errorf("log of web: %q, %v", log, err)
	}

	until(t, "the shim of job to go", func() bool { return len(processes(t, filepath.Join(bin, "containerd-shim-runc-v2"))) == 1 })

	t.Log("kill -9 of both: the container goes on, and goes on after they are back")
	n.kill(t, "agent")
	n.kill(t, "containerd")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 2\n")
	n.start(t, "containerd")
	n.start(t, "agent")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 3\n")
	n.wait(t, "STATUS=", "job ended") // and was not started again: no exit is waited for
	if text, err := os.ReadFile(filepath.Join(n.folder, "run", "log", "job.log")); err != nil || strings.Count(string(text), "listening") != 1 {
		t.Errorf("job did not run once: %q, %v", text, err)
	}

	t.Log("kill -9 of containerd under a living agent")
	n.kill(t, "containerd")
	n.wait(t, "STATUS=", "containerd.sock")
	n.start(t, "containerd")
	n.wait(t, "STATUS=", "1 of 3 containers running")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 4\n")

	t.Log("the container dies: a new one comes")
	for _, pid := range processes(t, "/app") {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 1\n")

	t.Log("a container that is not wanted any more goes, with its network")
	n.kill(t, "agent")
	n.config(t, "\n  services: {}\n")
	n.start(t, "agent")
	until(t, "web to go", func() bool {
		_, err := os.Stat(filepath.Join(n.folder, "netns", "web"))
		return os.IsNotExist(err) && len(processes(t, "/app")) == 0
	})
	if _, err := os.Stat(filepath.Join(n.folder, "state", "volumes", "data")); err != nil {
		t.Errorf("the volume went with it: %v", err)
	}

	t.Log("a mistake in the settings stops nothing and is said")
	n.kill(t, "agent")
	n.config(t, "\n  services: {web: {image: a, privileged: true}}\n")
	n.start(t, "agent")
	n.kill(t, "agent")

	t.Log("containers that try everything, and that ask for everything")
	n.testIsolation(t)

	t.Log("what the shim says of runc is what runc says")
	n.testFeatures(t)

	t.Log("a late lease has the containers' network: that moves, and its containers with it")
	n.config(t, workloads)
	n.start(t, "agent")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 1\n")
	before := processes(t, "/app")
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	late, err := netlink.ParseAddr("10.88.0.88/24")
	must(t, err)
	must(t, netlink.AddrAdd(lo, late))
	until(t, "web to be another process", func() bool {
		now := processes(t, "/app")
		return len(now) == 1 && now[0] != before[0]
	})
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 1\n")
	must(t, netlink.AddrDel(lo, late))

	t.Log("a reboot: images and volumes are there, everything else is made anew")
	n.reboot(t)
	must(t, os.RemoveAll(filepath.Join(n.folder, "state", "preload"))) // it was read once
	n.start(t, "containerd")
	n.start(t, "agent")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 1\n")

	t.Log("the end of the node is the end of its containers")
	n.stop(t, "agent")
	n.answers(t, "Hello from web.\nrelease 1.0\nrequest 2\n")
	n.start(t, "agent")
	must(t, os.WriteFile(filepath.Join(n.folder, "run", "leaving"), nil, 0o644))
	n.stop(t, "agent")
	if left := processes(t, "/app"); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	n.stop(t, "containerd")
}

// reboot ends every process and forgets what lies on a tmpfs.
func (n *node) reboot(t *testing.T) {
	t.Helper()
	n.kill(t, "agent")
	n.kill(t, "containerd")
	n.end(t)
	for _, d := range []string{"run/containerd", "run/runc", "run/shim", "run/workload", "run/log", "run/binds", "netns", "userns"} {
		must(t, os.RemoveAll(filepath.Join(n.folder, d)))
	}
}

// end kills containers and shims and unmounts what was mounted for them.
func (n *node) end(t *testing.T) {
	t.Helper()
	for _, name := range []string{filepath.Join(n.bin, "containerd-shim-runc-v2"), "/app", "app", "server"} {
		for _, pid := range processes(t, name) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		until(t, name+" to end", func() bool { return len(processes(t, name)) == 0 })
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[1], n.folder) {
			_ = unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
}

func newNode(t *testing.T, bin string) *node {
	t.Helper()
	return newNodeIn(t, bin, "/tmp")
}

// newNodeIn makes a node in a folder with a short name.
func newNodeIn(t *testing.T, bin, parent string) *node {
	t.Helper()
	folder, err := os.MkdirTemp(parent, "k") // short: sockets lie in it
	must(t, err)
	must(t, os.Chmod(folder, 0o711)) // as /run is: a container's root is another user
	t.Cleanup(func() { must(t, os.RemoveAll(folder)) })
	n := &node{
		bin: bin, folder: folder, services: map[string]*exec.Cmd{},
		cgroup: "/kogge-test-" + strings.ToLower(rand.Text()[:8]),
	}
	for _, d := range []string{"state/preload", "run/etc", "netns"} {
		must(t, os.MkdirAll(filepath.Join(n.folder, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(n.folder, "run", "etc", "resolv.conf"), []byte("nameserver 192.0.2.53\n"), 0o644))
	loopbackUp(t)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(n.folder, "notify"), Net: "unixgram"})
	must(t, err)
	n.notes = &notes{conn: conn}
	go n.notes.listen()
	t.Cleanup(func() {
		conn.Close()
		for name := range n.services {
			n.kill(t, name)
		}
		n.end(t)
		n.cleanCgroups(t)
	})
	return n
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	must(t, err)
	req.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
}

// cleanCgroups removes what runc made under our parent, in every hierarchy. Shims
// that were killed leave their containers' dead to us, the first process of this
// namespace, and a cgroup is not empty before they are reaped. Everything that the
// test itself started has been waited for by now.
func (n *node) cleanCgroups(t *testing.T) {
	t.Helper()
	var left []string
	defer func() {
		for _, cgroup := range left {
			t.Logf("%s: %s", cgroup, inside(cgroup))
		}
	}()
	until(t, "cgroups to be empty", func() bool {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		left = nil
		for _, pattern := range []string{"/sys/fs/cgroup" + n.cgroup, "/sys/fs/cgroup/*" + n.cgroup} {
			parents, _ := filepath.Glob(pattern)
			for _, parent := range parents {
				inner, _ := filepath.Glob(parent + "/*/cgroup.procs")
				for _, file := range append(inner, parent+"/cgroup.procs") {
					if cgroup := filepath.Dir(file); unix.Rmdir(cgroup) == unix.EBUSY {
						left = append(left, cgroup)
					}
				}
			}
		}
		return len(left) == 0
	})
}

// inside says who keeps a cgroup busy.
func inside(cgroup string) string {
	var all []string
	pids, _ := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	for _, pid := range strings.Fields(string(pids)) {
		status, _ := os.ReadFile("/proc/" + pid + "/status")
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		stack, _ := os.ReadFile("/proc/" + pid + "/wchan")
		all = append(all, fmt.Sprintf("%q in %s, %.160q", line, stack, status))
	}
	return strings.Join(all, "; ")
}

func (n *node) config(t *testing.T, workloads string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(n.folder, "run", "node.yaml"), []byte("hostname: n07\nworkloads:"+workloads), 0o644))
}

// start starts a role and waits until it says that it is ready.
func (n *node) start(t *testing.T, role string) {
	t.Helper()
	state, run := filepath.Join(n.folder, "state"), filepath.Join(n.folder, "run")
	args := []string{role, "-bin", n.bin}
	if role == "containerd" {
		args = append(args, "-root", state+"/containerd", "-state", run+"/containerd", "-socket", run+"/containerd.sock")
	} else {
		args = append(args, "-config", run+"/node.yaml", "-state", state, "-run", run,
			"-netns", n.folder+"/netns", "-cgroup", n.cgroup, "-shims", "", "-leaving", run+"/leaving")
	}
	cmd := exec.Command(filepath.Join(n.bin, "agent"), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+n.folder+"/notify", "WATCHDOG_USEC=3000000")
	began := time.Now()
	n.mark = len(n.notes.since(0))
	must(t, cmd.Start())
	n.services[role] = cmd
	n.wait(t, "READY=1")
	t.Logf("%s: ready %s after exec", role, time.Since(began).Round(time.Millisecond))
}

func (n *node) kill(t *testing.T, role string) {
	t.Helper()
	n.mark = len(n.notes.since(0))
	must(t, n.services[role].Process.Kill())
	_ = n.services[role].Wait()
	delete(n.services, role)
}

// stop ends a role as PID 1 does.
func (n *node) stop(t *testing.T, role string) {
	t.Helper()
	must(t, n.services[role].Process.Signal(syscall.SIGTERM))
	if err := n.services[role].Wait(); err != nil {
		t.Errorf("%s after SIGTERM: %v", role, err)
	}
	delete(n.services, role)
}

// wait waits for a message that contains all texts, said since a role was last started
// or killed: a status that does not change is not said again.
func (n *node) wait(t *testing.T, texts ...string) {
	t.Helper()
	limit := time.Now().Add(2 * time.Minute)
	for {
		said := n.notes.since(n.mark)
		for _, message := range said {
			if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(message, s) }) {
				return
			}
		}
		if time.Now().After(limit) {
			t.Fatalf("waited for %q, heard %q", texts, said)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// answers waits until the published port answers, and wants this text.
func (n *node) answers(t *testing.T, want string) {
	t.Helper()
	var got string
	until(t, "an answer", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:8080/", nil)
		must(t, err)
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		got = string(body)
		return err == nil
	})
	if got != want {
		t.Fatalf("answer %q, want %q", got, want)
	}
}

// hardened looks at the container from outside.
func (n *node) hardened(t *testing.T) {
	t.Helper()
	pids := processes(t, "/app")
	if len(pids) != 1 {
		t.Fatalf("processes of web: %v", pids)
	}
	proc := fmt.Sprintf("/proc/%d/", pids[0])
	status, err := os.ReadFile(proc + "status")
	must(t, err)
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t00000000a80405fb\n", "CapEff:\t00000000a80405fb\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("status of web lacks %q", want)
		}
	}
	for _, ns := range []string{"pid", "ipc", "uts", "mnt", "net", "cgroup"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		must(t, err)
		its, err := os.Readlink(proc + "ns/" + ns)
		must(t, err)
		if own == its {
			t.Errorf("web shares the %s namespace", ns)
		}
	}
	cgroup, err := os.ReadFile(proc + "cgroup")
	must(t, err)
	if !strings.Contains(string(cgroup), n.cgroup+"/web") {
		t.Errorf("cgroup of web: %s", cgroup)
	}
	environ, err := os.ReadFile(proc + "environ")
	must(t, err)
	if strings.Contains(string(environ), "NOTIFY_SOCKET") || strings.Contains(string(environ), "WATCHDOG") {
		t.Errorf("environment of web: %q", environ)
	}
	var limits []string
	for _, pattern := range []string{"/sys/fs/cgroup" + n.cgroup, "/sys/fs/cgroup/*" + n.cgroup} {
		found, _ := filepath.Glob(pattern + "/web/pids.max")
		limits = append(limits, found...)
	}
	if len(limits) == 0 {
		t.Error("no pids limit")
	}
	for _, file := range limits {
		if text, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(text)) != "50" {
			t.Errorf("%s: %q, %v", file, text, err)
		}
	}
}

// processes returns the processes whose first argument is name.
func processes(t *testing.T, name string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var pids []int
	for _, file := range lines {
		text, err := os.ReadFile(file)
		if first, _, _ := strings.Cut(string(text), "\x00"); err == nil && first == name {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// image puts the example where a node finds it at its first boot, and a file that is
// none.
func (n *node) image(t *testing.T) {
	t.Helper()
	preload := filepath.Join(n.folder, "state", "preload")
	n.imageOf(t, preload, "example", "web")
	must(t, os.WriteFile(filepath.Join(preload, "bad.tar"), []byte("this is no tar"), 0o644))
}

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(limit) {
			t.Fatalf("waited for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
