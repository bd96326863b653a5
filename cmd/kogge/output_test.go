package main

import (
	"os"
	"strings"
	"testing"
)

// TestDiskFull: no command says that all is well whose output is lost. The world's node and
// files are there for all of them.
func TestDiskFull(t *testing.T) {
	(&world{}).open(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	for _, line := range []string{
		"version", "version --json", "--help", "help", "help limits", "help apply", "apply --help", "node", "boards list", "node list", "node config get", "node config get --json",
		"fleet create other --no-passphrase", "fleet token hanse", "completion bash", "apply --check -f shop.yaml",
	} {
		root, out := rootCommand(), &harmless{w: full}
		root.SetOut(out)
		root.SetArgs(strings.Fields(line))
		if err := out.end(root.ExecuteContext(t.Context())); err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("kogge %s: %v", line, err)
		}
	}
	r, w, err := os.Pipe()
	must(t, err)
	r.Close()
	defer w.Close()
	root := rootCommand()
	root.SetOut(w)
	root.SetArgs([]string{"help", "limits"})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Errorf("to a reader who has gone: %v", err)
	}
}

// TestConfigGet: what a node gives back into a file is the text that it has, to the byte, and
// on a terminal no order to that.
func TestConfigGet(t *testing.T) {
	p := &pid1{starts: map[string]int{}}
	(&world{pid1: p.serve}).open(t)
	get := func(out *os.File) {
		t.Helper()
		root := rootCommand()
		root.SetOut(out)
		root.SetArgs([]string{"node", "config", "get", "n1"})
		must(t, root.ExecuteContext(t.Context()))
	}
	for name, text := range map[string]string{
		"carriage returns": "# n1\r\nhostname: n1\r\n", "byte order mark": "\ufeffhostname: n1\n", "direction of writing": "hostname: n1 # \u200fabc\n",
		"no newline at the end": "hostname: n1", "end of a character": "hostname: n1 # \u20ac", "plain": "hostname: größer\n",
	} {
		must(t, os.WriteFile("node.yaml", []byte(text), 0o600))
		file, err := os.Create("n1.back")
		must(t, err)
		get(file)
		must(t, file.Close())
		if got, err := os.ReadFile("n1.back"); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v, want %q", name, got, err, text)
		}
		tty, read := terminal(t)
		get(tty)
		if got := read(); orders(got) >= 0 || got != clean(text) {
			t.Errorf("%s, on a terminal: %q", name, got)
		}
	}
}
