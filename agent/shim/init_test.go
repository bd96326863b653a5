package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes the test's own binary a process of TestReap.
const roleEnv = "KOGGE_SHIM_TEST_ROLE"

// TestMain is also process 1, the program that it starts, and what that leaves.
func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "init":
		// As process 1 of a container it gets orphans without asking.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Setenv(roleEnv, "program")
		os.Exit(reap(os.Args[1:]))
	case "program":
		fmt.Println(os.Args[1:])
		os.Setenv(roleEnv, "parent")
		out, err := exec.Command("/proc/self/exe").Output()
		fmt.Printf("%s %v\n", out, err)
		if len(os.Args) > 2 {
			code, _ := strconv.Atoi(os.Args[2])
			os.Exit(code)
		}
		time.Sleep(time.Hour) // ended by a signal
	case "parent": // of an orphan that ends at once
		os.Setenv(roleEnv, "orphan")
		cmd := exec.Command("/proc/self/exe")
		if err := cmd.Start(); err != nil {
			fmt.Print(err)
		}
		fmt.Print(cmd.Process.Pid)
	case "orphan":
	}
}

// asInit starts process 1 with args and returns it, and its output by line.
func asInit(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleEnv+"=init")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("output ends: %v after %q", err, text)
	}
	return strings.TrimSpace(text)
}

func code(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

func TestReapExitCode(t *testing.T) {
	cmd, out := asInit(t, "/proc/self/exe", "a b", "7")
	if got := line(t, out); got != "[a b 7]" {
		t.Errorf("arguments %s", got)
	}
	if got := code(t, cmd); got != 7 {
		t.Errorf("exit code %d, want that of the program, 7", got)
	}
}

// TestReapSignal: a signal reaches the program, its end by a signal becomes a code,
// and an orphan is reaped meanwhile.
func TestReapSignal(t *testing.T) {
	cmd, out := asInit(t, "/proc/self/exe")
	line(t, out)
	orphan, _, _ := strings.Cut(line(t, out), " ")
	limit := time.Now().Add(30 * time.Second)
	for {
		if _, err := os.Stat("/proc/" + orphan); err != nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("process %s was never reaped", orphan)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got, want := code(t, cmd), 128+int(syscall.SIGTERM); got != want {
		t.Errorf("exit code %d, want %d", got, want)
	}
}

func TestReapNothing(t *testing.T) {
	for want, args := range map[int][]string{
		notFound:      {"/no/such/program"},
		notExecutable: {"/etc/hostname"},
	} {
		cmd, out := asInit(t, args...)
		if got := line(t, out); !strings.HasPrefix(got, "init: ") {
			t.Errorf("%v: %q", args, got)
		}
		if got := code(t, cmd); got != want {
			t.Errorf("%v: exit code %d, want %d", args, got, want)
		}
	}
	cmd, _ := asInit(t)
	if got := code(t, cmd); got != notFound {
		t.Errorf("nothing to start: exit code %d", got)
	}
}
