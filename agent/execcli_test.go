package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// execEvents asks what happened, to containers and by operators.
func execEvents(t *testing.T, e *execs) {
	events := func(args ...string) string {
		cmd := e.kogge(t, args...)
		cmd.Args = append([]string{cmd.Args[0]}, args...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kogge %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	until(t, "the first commands to be gone", func() bool { return len(e.folders(t)) == 0 })
	all := events("events")
	for _, want := range []string{
		"container  web               started: example.invalid/prober:1\n",
		"container  job               exited: exit code 0\n",
		"container  hungry            exited: exit code 137: killed; its mem_limit is 32 MiB\n",
		"container  hungry            out of memory: the kernel killed one of its processes\n",
		"command    web               started: /app (ada)\n",
		"command    web               ended: /app: exit code 7 (ada)\n",
		"command    web               start failed: no such program: \"nonsense\": executable file not found in $PATH (ada)\n",
		"command    web               cut off: /app (bob)\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q in\n%s", want, all)
		}
	}
	if strings.Contains(all, "SHADE") || strings.Contains(all, "both") {
		t.Errorf("arguments of commands are in the events:\n%s", all)
	}
	other := events("node", "events", "--kind", "node,operator,service")
	for _, want := range []string{"service    agent             started: ", "node       fleet             adopted (ada)\n", "revoked (ada)\n"} {
		if !strings.Contains(other, want) {
			t.Errorf("no event %q in\n%s", want, other)
		}
	}
}

// kogge is the command line as ada has it.
func (e *execs) kogge(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	nodes := fmt.Sprintf(`{"n1": {"address": %q, "adopted": "2026-11-25T00:00:00Z"}}`, apiAddress)
	must(t, os.WriteFile(filepath.Join(e.node.folder, "hanse", "nodes.json"), []byte(nodes), 0o600))
	cmd := exec.CommandContext(t.Context(), filepath.Join(e.node.bin, "kogge"), append([]string{"exec"}, args...)...)
	cmd.Env = append(os.Environ(), "KOGGE_CONFIG="+e.node.folder, "KOGGE_FLEET=hanse", "SHADE=dark")
	return cmd
}

func execCommandLine(t *testing.T, e *execs) {
	for _, c := range []struct {
		args, input, out, errs string
		code                   int
	}{
		{args: "web /app command exit 7", code: 7},
		{args: "web /app command exit 1", code: 1},
		{args: "web /app command both", out: "to standard output\n", errs: "to standard error\n"},
		{args: "-i web /app command cat", input: "a line\n", out: "a line\n"},
		{args: "web /app command cat", input: "a line\n"},
		{args: "-u 7 web /app whoami", out: "7"},
		{args: "web /app exec -u 7", errs: "usage: prober", code: 1}, // its own flags
		{args: "web nonsense", errs: `kogge: container web: no such program: "nonsense": executable file not found in $PATH` + "\n", code: 127},
		{args: "web /etc", errs: `kogge: container web: cannot be run: "/etc": is a directory` + "\n", code: 126},
		{args: "nonsense /app", errs: "kogge: node n1: there is no container nonsense here\nkogge: hint: kogge ps lists them\n", code: 125},
		{args: "job /app", errs: "kogge: node n1: container job does not run: ended, exit code 0\n", code: 125},
		{args: "-t web /app", errs: "kogge: exec -t: input and output are not a terminal\nkogge: hint: ", code: 125},
		{args: "--nonsense web /app", errs: "kogge: unknown flag: --nonsense\n", code: 125},
		{args: "web", errs: "kogge: exec: a container and a command are needed\n", code: 125},
		{args: "-e SHADE -e NONE -e COLOUR=blue web /app command self", out: "COLOUR=blue"},
		{args: "-e SHADE -e NONE -e COLOUR=blue web /app command self", out: "SHADE=dark"},
	} {
		cmd := e.kogge(t, strings.Fields(c.args)...)
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.input), &out, &errs
		_ = cmd.Run() // the exit code says it
		if code := cmd.ProcessState.ExitCode(); code != c.code {
			t.Errorf("exec %s: exit code %d, want %d", c.args, code, c.code)
		}
		if !strings.Contains(out.String(), c.out) || c.out == "" && out.Len() > 0 {
			t.Errorf("exec %s: output %q, want %q", c.args, &out, c.out)
		}
		if !strings.Contains(errs.String(), c.errs) || c.errs == "" && errs.Len() > 0 {
			t.Errorf("exec %s: errors %q, want %q", c.args, &errs, c.errs)
		}
	}
	// Without a terminal Ctrl-C is a signal to us, which is for the command.
	cmd := e.kogge(t, "web", "/app", "command", "interrupted")
	var out locked
	cmd.Stdout = &out
	must(t, cmd.Start())
	until(t, "the command to be ready", func() bool { return strings.Contains(out.String(), "ready") })
	must(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("interrupted: exit code %d, want 3", code)
	}
}

// execCommandLineTerminal has the command line at a terminal, as a person does.
func execCommandLineTerminal(t *testing.T, e *execs) {
	screen, path, err := console.NewPty()
	must(t, err)
	defer screen.Close()
	terminal, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer terminal.Close()
	var seen locked
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&seen, screen) // ends with an error when nobody has the other end
	}()
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	must(t, err)
	must(t, screen.Resize(console.WinSize{Width: 100, Height: 30}))
	at := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		must(t, cmd.Start())
		return cmd
	}
	start := func(args ...string) *exec.Cmd {
		return at(e.kogge(t, append([]string{"-it", "web", "/app", "command"}, args...)...))
	}
	sees := func(text string) {
		t.Helper()
		until(t, fmt.Sprintf("%q on the screen", text), func() bool { return strings.Contains(seen.String(), text) })
	}
	types := func(text string) {
		t.Helper()
		_, err := io.WriteString(screen, text)
		must(t, err)
	}
	ends := func(cmd *exec.Cmd, code int) {
		t.Helper()
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("exit code %d, want %d; on the screen %q", got, code, seen.String())
		}
		after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		must(t, err)
		if *after != *before {
			t.Errorf("the terminal is left as %+v, was %+v", *after, *before)
		}
	}
	cmd := start("size")
	sees("100 x 30\r\n")
	must(t, screen.Resize(console.WinSize{Width: 41, Height: 7}))
	sees("41 x 7\r\n")
	types("q\r")
	ends(cmd, 0)
	cmd = start("interrupted")
	sees("ready")
	types("\x03") // for the command's terminal, not for ours
	ends(cmd, 3)
	// What containers use is shown again and again.
	top := e.kogge(t)
	top.Args = []string{"kogge", "top", "--interval", "200ms"}
	top = at(top)
	until(t, "two screens", func() bool { return strings.Count(seen.String(), "\x1b[H\x1b[2Jnode n1, ") > 1 })
	sees("\r\nweb  ")
	types("\x03")
	ends(top, 0)
	// The window is closed under a command that would stay.
	cmd = start("stubborn")
	until(t, "a child", func() bool { return len(commands(t)) == 2 })
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	until(t, "both to be gone", func() bool { return len(commands(t)) == 0 })
	terminal.Close()
	<-read
}
