package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, c := range []struct {
		script string
		status int
		output string
	}{
		{"echo out; echo err >&2", 0, "out\nerr\n"},
		{"exit 7", 7, ""},
		{"kill -9 $$", 137, ""},
		{"readlink /proc/self/fd/0", 0, "/dev/null\n"},
		{"(sleep 1000 & ) ; echo left a child", 0, "left a child\n"}, // holds the pipe
	} {
		output, status, err := Command(ctx, "/bin/sh", "-c", c.script)
		if err != nil || status != c.status || string(output) != c.output {
			t.Errorf("%s: %q, %d, %v", c.script, output, status, err)
		}
	}
	if output, status, err := Command(ctx, "/bin/sh", "-c", "yes | head -c 1000000"); err != nil || status != 0 || len(output) != maxOutput {
		t.Errorf("much output: %d bytes, %d, %v", len(output), status, err)
	}
	if _, _, err := Command(ctx, "/no/such/program"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	output, status, err := Command(short, "/bin/sh", "-c", "echo so far; exec sleep 1000")
	if !errors.Is(err, context.DeadlineExceeded) || status != 128+int(syscall.SIGKILL) {
		t.Errorf("hangs: %q, %d, %v", output, status, err)
	}
}

// TestBesideExec runs os/exec beside the reaper, as tests of other packages do.
func TestBesideExec(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", i)).Run(); exitCode(err) != i {
				t.Errorf("os/exec: exit status %d became %v", i, err)
			}
		})
		wg.Go(func() {
			if _, status, err := Command(context.Background(), "/bin/sh", "-c", fmt.Sprintf("exit %d", i)); err != nil || status != i {
				t.Errorf("Command: exit status %d became %d, %v", i, status, err)
			}
		})
	}
	wg.Wait()
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// subreaper is the environment variable that makes this binary a process to
// which orphans are re-parented, as they are to PID 1; see TestMain.
const subreaper = "KOGGE_TEST_SUBREAPER"

// TestReapOrphans makes many processes that are re-parented to us and end, while
// commands run whose exit status counts.
func TestReapOrphans(t *testing.T) {
	if os.Getenv(subreaper) == "" {
		asInit(t)
		return
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			script := fmt.Sprintf("(true & true & sleep 0.01 & ) ; exit %d", i)
			if _, status, err := Command(context.Background(), "/bin/sh", "-c", script); err != nil || status != i {
				t.Errorf("exit status %d became %d, %v", i, status, err)
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		left := ourChildren()
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("never reaped: %v", left)
		}
	}
}

// TestHandover is a service whose successor is announced by MAINPID= and
// re-parented to us; it needs cgroups, which prove that the two belong together.
func TestHandover(t *testing.T) {
	if os.Getenv(subreaper) == "" {
		asInit(t)
		return
	}
	tree := hierarchy(t)
	s := service("handover")
	s.Notify = true
	n := run(t, func(c *Config) { c.Cgroups = tree }, s)
	if tree.None() { // the successor is a stranger then, and ends with its parent
		n.until("second start", func() bool { return n.one("handover").Starts > 1 })
		return
	}
	n.until("successor", func() bool { return strings.Contains(n.log("handover"), "good: begins") })
	var first int
	n.until("handover", func() bool {
		s := n.one("handover")
		first = s.PID
		return s.State == string(Running) && s.PID != 0 && parent(s.PID) == os.Getpid() && name(s.PID) == "good"
	})
	if s := n.one("handover"); s.Starts != 1 || s.Exits != 0 {
		t.Errorf("handover: %+v", s)
	}
	must(syscall.Kill(first, syscall.SIGKILL)) // now its exit is the service's
	n.until("second start", func() bool { return n.one("handover").Starts == 2 })
}

// name is the behaviour of a service process.
func name(pid int) string {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	return args[len(args)-1]
}

// asInit runs the calling test in a process that reaps as PID 1 does.
func asInit(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	must(err)
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), subreaper+"=1")
	if output, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, output)
	}
}

// ourChildren lists the children of this process, living or not.
func ourChildren() (pids []int) {
	entries, err := os.ReadDir("/proc")
	must(err)
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && parent(pid) == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
