package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCalledOff: a command that waits for the other end of a pipe, which never comes, or for
// standard input, ends when it is called off.
func TestCalledOff(t *testing.T) {
	(&world{}).open(t)
	must(t, unix.Mkfifo("pipe", 0o600))
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	for _, line := range []string{
		"node config set pipe", "node config set -", "images load pipe", "images load -", "apply --check -f -",
		"operator sign pipe", "operator join pipe", "operator install pipe", "registry set r.example --ca pipe", "node reset n1 --join pipe", "node reset n1",
		"registry login r.example -u ada --password-stdin", "fleet create other --passphrase-file pipe", "image seed x.img --config pipe", "image seed x.img --join pipe",
		"image build --board pc-x86_64 --config pipe -o x.img", "release push shop.oci r.example/os:1.1 --ca pipe",
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("Ctrl-C was pressed"))
		over := make(chan error, 1)
		go func() {
			root := rootCommand()
			root.SetOut(io.Discard)
			root.SetErr(io.Discard)
			root.SetArgs(strings.Fields(line))
			over <- root.ExecuteContext(ctx)
		}()
		select {
		case err := <-over:
			if err == nil {
				t.Errorf("kogge %s: no error", line)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("kogge %s: it waits", line)
		}
	}
}

// TestInputBounded: what has no end is not read to its end.
func TestInputBounded(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]string{1 << 10: "/dev/zero has more than 1024 bytes"} {
		if _, err := readInput(t.Context(), "/dev/zero", most); err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("12345678"), 0o600))
	if text, err := readInput(t.Context(), file, 8); err != nil || string(text) != "12345678" {
		t.Errorf("%q, %v", text, err)
	}
}

// waiting has this test program wait as a command does that nothing calls off.
const waiting = "KOGGE_TEST_WAITING"

// TestSecondSignal: the first Ctrl-C calls a command off, and the second one ends it.
func TestSecondSignal(t *testing.T) {
	if os.Getenv(waiting) != "" {
		ctx, stop := untilSignal(context.Background())
		defer stop()
		os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		for os.Stdout.WriteString("called off\n"); ; time.Sleep(time.Hour) {
		}
	}
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondSignal$")
		cmd.Env = append(os.Environ(), waiting+"=1")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for _, want := range []string{"ready", "called off"} {
			if !lines.Scan() || lines.Text() != want {
				t.Fatalf("%s: %q, want %q", sig, lines.Text(), want)
			}
			must(t, cmd.Process.Signal(sig))
		}
		// What calls off lets go of the signals in a goroutine of its own: the second may have come too early.
		over := make(chan error, 1)
		go func() { over <- cmd.Wait() }()
		for limit := time.After(30 * time.Second); ; {
			select {
			case <-over:
				if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != sig {
					t.Errorf("%s: %s", sig, cmd.ProcessState)
				}
			case <-time.After(100 * time.Millisecond):
				_ = cmd.Process.Signal(sig)
				continue
			case <-limit:
				t.Fatalf("%s: it goes on", sig)
			}
			break
		}
	}
}

// TestEditorSignal: Ctrl-C while the editor runs is the editor's. What it writes after that
// is set, as if nobody had pressed it.
func TestEditorSignal(t *testing.T) {
	p := &pid1{starts: map[string]int{"network": 1, "agent": 1}}
	(&world{pid1: p.serve}).open(t)
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", "sh ed.sh")
	// The signal is this program's too, as that of a terminal is for all in front of it. The
	// editor goes on for a while after that.
	must(t, os.WriteFile("ed.sh", []byte("trap 'took=1' INT\nkill -INT $PPID $$\nuntil test -e off; do sleep 0.1; done\nsleep 0.3\ntest -n \"$took\" || exit 3\necho 'hostname: n7' > \"$1\"\n"), 0o600))
	ctx, stop := untilSignal(t.Context())
	defer stop()
	context.AfterFunc(ctx, func() { _ = os.WriteFile("off", nil, 0o600) })
	root := rootCommand()
	var out strings.Builder
	root.SetOut(&out)
	root.SetArgs([]string{"node", "config", "edit", "n1"})
	if err := root.ExecuteContext(ctx); err != nil || !strings.Contains(out.String(), "node n1 keeps these settings") {
		t.Errorf("%q, %v", out.String(), err)
	}
	if got, err := os.ReadFile("node.yaml"); err != nil || string(got) != "hostname: n7\n" {
		t.Errorf("%q, %v", got, err)
	}
	<-ctx.Done() // it was called off, too
}
