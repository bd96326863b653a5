package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kogge.example/qemu"
)

// limit is how long a test waits for a guest: generous, because the machine may be busy.
const limit = 2 * time.Minute

// TestMain plays the parent that dies, where a test asks for it, and otherwise
// makes sure that the tests leave no QEMU behind.
func TestMain(m *testing.M) {
	if dir := os.Getenv("KOGGE_TEST_PARENT"); dir != "" {
		parent(dir, os.Getenv("KOGGE_TEST_IMAGE"), os.Getenv("KOGGE_TEST_DETACHED") != "")
		return
	}
	code := m.Run()
	if left := children(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "tests left QEMU running: %v\n", left)
		code = 1
	}
	os.Exit(code)
}

// children are the QEMU processes of this one.
func children() []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		head, rest, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) && strings.Contains(head, "(qemu-system") {
			pid, _, _ := strings.Cut(head, " ")
			n, _ := strconv.Atoi(pid)
			pids = append(pids, n)
		}
	}
	return pids
}

// guest is the smallest machine around a disk.
func guest(name, image string) qemu.Machine {
	return qemu.Machine{Name: name, MemoryMiB: 64, CPUs: 1, Disks: []qemu.Disk{{Path: image}}, Offline: true}
}

func testCtx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// start starts m in a folder of the test, or fails it.
func start(t *testing.T, ctx context.Context, m qemu.Machine, dir string) *qemu.VM {
	t.Helper()
	v, err := qemu.Start(ctx, m, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// say types text and waits for the nth line that matches want.
func say(t *testing.T, ctx context.Context, v *qemu.VM, text, want string, n int) {
	t.Helper()
	if text != "" {
		if err := v.Console().Send(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.Console().WaitCount(ctx, regexp.MustCompile(want), n); err != nil {
		t.Fatal(err)
	}
}

// blurt types text without waiting for the guest to take it.
func blurt(t *testing.T, ctx context.Context, v *qemu.VM, text string) {
	t.Helper()
	conn, err := v.Console().Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// TestOneMachine follows a machine through its life: seed, clock, console, a
// second process that finds it, reset, end, second start, another image.
func TestOneMachine(t *testing.T) {
	ctx := testCtx(t)
	all := t.TempDir()
	// Longer than a unix socket's path may be.
	dir := filepath.Join(all, strings.Repeat("long-", 25)+"n1")
	image := guestImage(t)
	seed := filepath.Join(all, "node, with comma.yaml")
	if err := os.WriteFile(seed, []byte("hostname: n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := guest("n1", image)
	m.Seed = seed
	m.RTC = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
	m.Forwards = []qemu.Forward{{Guest: 80}, {Guest: 53, UDP: true}}
	v := start(t, ctx, m, dir)

	say(t, ctx, v, "", `^ready$`, 1) // without its escape sequences
	var followed []string
	follow := make(chan error)
	go func() { follow <- v.Console().Follow(ctx, func(l string) { followed = append(followed, l) }) }()
	say(t, ctx, v, "s", `^hostname: n1$`, 1)
	say(t, ctx, v, "c", `^2090$`, 1)
	say(t, ctx, v, "eAeB", `^B$`, 1)
	say(t, ctx, v, "w", `^W$`, 1)
	after, err := v.Console().After()
	if err != nil {
		t.Fatal(err)
	}
	say(t, ctx, v, "eA", `^A$`, 2)
	if lines, err := after.Lines(); err != nil || len(lines) != 1 || lines[0] != "A" {
		t.Errorf("console after the write: %q, %v", lines, err)
	}
	_, next, err := v.Console().Next(ctx, regexp.MustCompile(`^A$`), 1)
	if err != nil {
		t.Fatal(err)
	}
	if lines, err := next.Lines(); err != nil || !slices.Equal(lines, []string{"B", "W", "A"}) {
		t.Errorf("console after the first A: %q, %v", lines, err)
	}
	if port, err := v.Port(80); err != nil || port == 0 {
		t.Errorf("port 80 is at %d, %v", port, err)
	}
	if _, err := v.Port(53); err == nil {
		t.Error("a UDP forward passes for a TCP one")
	}
	var devices []struct{ Devices []any }
	if err := v.Monitor(ctx, "query-pci", nil, &devices); err != nil || len(devices) == 0 || len(devices[0].Devices) < 4 {
		t.Errorf("query-pci: %v, %v", devices, err)
	}

	other := secondOwner(t, ctx, v, m)
	defer other.Close()
	if err := other.Powerdown(ctx); err != nil {
		t.Error(err)
	}
	if _, err := v.WaitEvent(ctx, "POWERDOWN", 1); err != nil {
		t.Error(err)
	}
	if err := v.Reset(ctx); err != nil {
		t.Error(err)
	}
	say(t, ctx, v, "", `^ready$`, 2)
	if used, err := other.CPUSeconds(); err != nil || used <= 0 {
		t.Errorf("cpu seconds of the running VM: %v, %v", used, err)
	}
	// QEMU may close the line before its answer is read.
	if err := other.Monitor(ctx, "quit", nil, nil); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if err := v.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if err := <-follow; err != nil {
		t.Error(err)
	}
	if lines, err := v.Console().Lines(); err != nil || !slices.Equal(lines, followed) {
		t.Errorf("followed %q, the log has %q, %v", followed, lines, err)
	}
	if used, err := v.CPUSeconds(); err != nil || used <= 0 {
		t.Errorf("cpu seconds of the ended VM: %v, %v", used, err)
	}
	if infos, err := qemu.List(all); err != nil || len(infos) != 1 || infos[0].Running {
		t.Errorf("list after the end: %+v, %v", infos, err)
	}
	if _, err := qemu.Attach(dir); !errors.Is(err, qemu.ErrNotRunning) {
		t.Errorf("attach to an ended VM: %v", err)
	}
	secondRun(t, m, dir)
}

// secondOwner looks at a running VM as another process would, and returns it as
// that one sees it.
func secondOwner(t *testing.T, ctx context.Context, v *qemu.VM, m qemu.Machine) *qemu.VM {
	if _, err := qemu.Start(ctx, m, v.Dir); !errors.Is(err, qemu.ErrRunning) {
		t.Errorf("second start in one folder: %v", err)
	}
	if err := qemu.Remove(v.Dir); !errors.Is(err, qemu.ErrRunning) {
		t.Errorf("remove a running VM: %v", err)
	}
	infos, err := qemu.List(filepath.Dir(v.Dir))
	if err != nil || len(infos) != 1 || !infos[0].Running || infos[0].Name != "n1" || infos[0].PID != v.PID() || len(infos[0].Forwards) != 2 {
		t.Fatalf("list: %+v, %v", infos, err)
	}
	other, err := qemu.Attach(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	say(t, ctx, other, "eC", `^C$`, 1)
	return other
}

// secondRun starts m again in its folder: with its overlay, unless its image is
// another one by now.
func secondRun(t *testing.T, m qemu.Machine, dir string) {
	ctx := testCtx(t)
	was, err := os.ReadFile(filepath.Join(dir, "console.log"))
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "disk0.qcow2")
	before, err := os.Stat(overlay)
	if err != nil {
		t.Fatal(err)
	}
	v := start(t, ctx, m, dir)
	if err := v.Kill(); err != nil {
		t.Error(err)
	}
	if err := v.Wait(); err != nil {
		t.Errorf("wait for a VM that we killed: %v", err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "console.1.log")); err != nil || !bytes.Equal(now, was) {
		t.Errorf("console.1.log differs from the first run's log: %v", err)
	}
	if now, err := os.Stat(overlay); err != nil || !os.SameFile(before, now) || now.Size() < before.Size() {
		t.Errorf("second run has another overlay: %v", err)
	}

	image := m.Disks[0].Path
	if data, err := os.ReadFile(image); err != nil || data[512] != 0 {
		t.Errorf("the guest's write reached the image: %v", err)
	}
	if err := os.Truncate(image, 2<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := qemu.Start(ctx, m, dir); !errors.Is(err, qemu.ErrImageChanged) {
		t.Errorf("start with another image under the overlay: %v", err)
	}
	m.Fresh = true
	m.Extra = []string{"-device", "warp-drive"} // a start that fails late takes nothing with it
	if _, err := qemu.Start(ctx, m, dir); err == nil {
		t.Error("QEMU has warp drives now")
	}
	m.Fresh, m.Extra = false, nil
	start(t, ctx, m, dir).Kill()
	if err := qemu.Remove(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder after remove: %v", err)
	}
}

// TestGuestEndsQEMU ends QEMU from within: waits fail at once and say how.
func TestGuestEndsQEMU(t *testing.T) {
	ctx := testCtx(t)
	m := guest("n1", guestImage(t))
	m.Extra = []string{"-device", "isa-debug-exit,iobase=0xf4,iosize=1"}
	dir := t.TempDir()
	v := start(t, ctx, m, dir)
	say(t, ctx, v, "", `^ready$`, 1)
	blurt(t, ctx, v, "x") // QEMU ends before it can hang up
	_, err := v.Console().WaitLine(ctx, regexp.MustCompile("never"))
	if err == nil {
		t.Fatal("found a line that nobody said")
	}
	for _, want := range []string{`wait for line "never"`, "QEMU ended with exit status 241", filepath.Join(dir, "console.log"), "\tready"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error without %q: %v", want, err)
		}
	}
	if _, err := v.WaitEvent(ctx, "NEVER", 1); err == nil {
		t.Error("WaitEvent outlives QEMU")
	}
	if err := v.Wait(); err == nil || !strings.Contains(err.Error(), "exit status 241") {
		t.Errorf("wait: %v", err)
	}
}

// TestStopKillsWhoDoesNotListen presses the power button of a guest that has no
// ear for it.
func TestStopKillsWhoDoesNotListen(t *testing.T) {
	ctx := testCtx(t)
	v := start(t, ctx, guest("n1", guestImage(t)), t.TempDir())
	pressed, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if _, err := v.WaitEvent(ctx, "POWERDOWN", 1); err == nil {
			cancel()
		}
	}()
	if err := v.Stop(pressed); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("stop: %v", err)
	}
	if v.Running() {
		t.Error("QEMU runs on")
	}
}

// TestCancelEndsQEMU ends the context that a VM was started with.
func TestCancelEndsQEMU(t *testing.T) {
	ctx, cancel := context.WithCancel(testCtx(t))
	v := start(t, ctx, guest("n1", guestImage(t)), t.TempDir())
	cancel()
	if err := v.Wait(); err != nil {
		t.Error(err)
	}
	if err := qemu.Remove(v.Dir); err != nil { // it refuses a running VM
		t.Error(err)
	}
}

// TestDoubleFault resets a guest that dies young, and only once.
func TestDoubleFault(t *testing.T) {
	ctx := testCtx(t)
	m := guest("n1", guestImage(t))
	m.ReadyLine = "^never$"
	v := start(t, ctx, m, t.TempDir())
	say(t, ctx, v, "", `^ready$`, 1)
	say(t, ctx, v, "d", `^ready$`, 2)
	if v.Restarts() != 1 {
		t.Errorf("%d restarts", v.Restarts())
	}
	say(t, ctx, v, "deA", `^A$`, 1) // no third life
	if v.Restarts() != 1 {
		t.Errorf("%d restarts after the second fault", v.Restarts())
	}
}

// parent is the process that starts a VM, says its number, and waits to be killed.
func parent(dir, image string, detached bool) {
	m := guest("n1", image)
	m.Detached = detached
	v, err := qemu.Start(context.Background(), m, dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(v.PID())
	os.Stdin.Read(make([]byte, 1))
}

// killedParent starts a VM in another process, which it kills, and returns the
// VM's folder.
func killedParent(t *testing.T, detached string) (dir string) {
	dir = filepath.Join(t.TempDir(), "n1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "KOGGE_TEST_PARENT="+dir, "KOGGE_TEST_IMAGE="+guestImage(t), "KOGGE_TEST_DETACHED="+detached)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, _ := stdout.Read(line)
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := strconv.Atoi(strings.TrimSpace(string(line[:n]))); err != nil {
		t.Fatalf("the other process says %q", line[:n])
	}
	return dir
}

// TestParentKilled kills the process that started a VM with kill -9.
func TestParentKilled(t *testing.T) {
	ctx := testCtx(t)
	dir := killedParent(t, "")
	v, err := qemu.Attach(dir)
	if errors.Is(err, qemu.ErrNotRunning) {
		return // it is gone already
	}
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	select {
	case <-v.Done():
	case <-ctx.Done():
		t.Error("QEMU outlives its parent")
		v.Kill()
	}
}

// TestDetached does the same to a VM that is to outlive it, takes it over, and starts it again.
func TestDetached(t *testing.T) {
	ctx := testCtx(t)
	dir := killedParent(t, "yes")
	v, err := qemu.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	defer v.Kill()
	say(t, ctx, v, "", `^ready$`, 1)
	say(t, ctx, v, "eA", `^A$`, 1)
	if _, err := v.WaitEvent(ctx, "RESET", 1); err == nil {
		t.Error("an attached VM hears events")
	}
	if _, err := qemu.Again(dir); !errors.Is(err, qemu.ErrRunning) {
		t.Errorf("again, of a VM that runs: %v", err)
	}
	if err := v.Kill(); err != nil {
		t.Error(err)
	}
	again, err := qemu.Again(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Detached = false
	say(t, ctx, start(t, ctx, again, dir), "", `^ready$`, 1)
	if _, err := qemu.Again(t.TempDir()); !errors.Is(err, qemu.ErrNoVM) {
		t.Errorf("again, of none: %v", err)
	}
	if _, err := v.CPUSeconds(); err == nil {
		t.Error("CPU time of somebody else's ended process")
	}
}

// TestPrivateNetwork has one VM announce itself and finds that in what another
// VM on the same network received, and not in a third one's on another.
func TestPrivateNetwork(t *testing.T) {
	ctx := testCtx(t)
	image := guestImage(t)
	network := fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())
	vms := map[string]*qemu.VM{}
	for name, net := range map[string]string{"n1": network, "n2": network, "n3": network + "-other"} {
		m := guest(name, image)
		m.Network, m.Pcap = net, true
		vms[name] = start(t, ctx, m, filepath.Join(t.TempDir(), name))
	}
	var cards []byte
	line := regexp.MustCompile(`netdev=net1,romfile=,mac=52:54:00:(..):(..):(..)`).FindStringSubmatch(vms["n1"].CommandLine())
	for _, x := range line[1:] {
		b, err := strconv.ParseUint(x, 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, byte(b))
	}
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00}, cards...) // broadcast from n1
	heard := func(name string) bool {
		data, err := os.ReadFile(filepath.Join(vms[name].Dir, "net1.pcap"))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(data, frame)
	}
	announce := map[string]int{"initial": 50, "max": 100, "rounds": 3, "step": 50} // milliseconds
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for try := 0; !heard("n2"); try++ {
		if try%20 == 0 {
			if err := vms["n1"].Monitor(ctx, "announce-self", announce, nil); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("n2 never heard n1")
		}
	}
	if heard("n3") {
		t.Error("n3 hears another network")
	}
}
