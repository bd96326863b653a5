package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// module writes a module of these files and changes into it.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	files["go.mod"] = "module m.example\n\ngo 1.26\n"
	for name, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// testFile is a test file of package p with one test.
func testFile(name, imports, body string) string {
	return "package p\n\nimport (\n\"testing\"\n" + imports + "\n)\n\nfunc " + name + "(t *testing.T) {\n" + body + "\n}\n"
}

// TestRun has the last line count what failed, whatever way it failed.
func TestRun(t *testing.T) {
	module(t, map[string]string{
		"a/a_test.go": testFile("TestGood", "", `t.Run("one", func(*testing.T) {})`),
		"b/b_test.go": testFile("TestBad", "", `t.Error("what is wrong")`),
		"c/c_test.go": testFile("TestSkipped", "", `t.Skip("why not")`),
		"d/d_test.go": testFile("TestNotBuilt", "", `undefined()`),
		"e/e_test.go": testFile("TestExits", `"os"`, `os.Exit(3)`),
	})
	var out strings.Builder
	r := newTally(&out)
	if err := r.run(t.Context(), time.Hour, nil, []string{"./..."}); !errors.Is(err, errFailed) {
		t.Errorf("err %v", err)
	}
	r.summary(time.Second)
	for _, want := range []string{
		"what is wrong", "why not", "undefined: undefined", `(?m)^pass .* m\.example/a$`, `(?m)^fail .* m\.example/e$`,
		`m\.example/a TestGood/one`, `tests took 1 s\n2 passed, 3 failed, 1 skipped\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the output lacks %s", want)
		}
	}
	if strings.Contains(out.String(), "s  m.example/a TestGood\n") || t.Failed() {
		t.Errorf("output:\n%s", &out)
	}
}

// waitFor ends a context once it has been written a text.
type waitFor struct {
	bytes.Buffer
	text string
	end  context.CancelCauseFunc
}

func (w *waitFor) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if strings.Contains(w.String(), w.text) {
		w.end(errors.New("the limit"))
	}
	return n, err
}

// TestLimit ends a run in the middle. It says what was running and what had not begun,
// and nothing is left of it, not even a process that a test had started.
func TestLimit(t *testing.T) {
	module(t, map[string]string{
		"a/a_test.go": testFile("TestGood", "", ""),
		"b/b_test.go": testFile("TestHangs", `"os/exec"`, `cmd := exec.Command("cat")
			stdin, err := cmd.StdinPipe()
			if err != nil || cmd.Start() != nil {
				t.Fatal(err)
			}
			t.Run("inside", func(t *testing.T) { t.Parallel() })
			t.Logf("child %d runs", cmd.Process.Pid)
			cmd.Wait()
			stdin.Close()`),
		"c/c_test.go": testFile("TestNever", "", ""),
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	var out strings.Builder
	log := &waitFor{text: "runs\n", end: cancel}
	r := newTally(&out)
	r.log = log
	err := r.run(ctx, time.Hour, nil, []string{"-p=1", "./..."})
	if err == nil || err.Error() != "the limit" {
		t.Errorf("err %v", err)
	}
	r.summary(time.Second)
	for _, want := range []string{
		`(?m)^pass .* m\.example/a$`,
		"tests that were running:\n  m\\.example/b TestHangs\n",
		"tests that waited for their turn:\n  m\\.example/b TestHangs/inside\n",
		"packages that have not ended:\n  m\\.example/b\n",
		"packages that have not begun:\n  m\\.example/c\n",
		`2 packages did not end\ntests took 1 s\n1 passed, 2 failed, 0 skipped\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the output lacks %s", want)
		}
	}
	if t.Failed() {
		t.Errorf("output:\n%s", &out)
	}
	m := regexp.MustCompile(`child (\d+) runs`).FindSubmatch(log.Bytes())
	pid, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(grace.Milliseconds())); n != 1 {
		t.Errorf("process %d, which a test has started, is left: %v", pid, err)
	}
}

func TestParse(t *testing.T) {
	all, err := parse([]byte("# head\n\none A_B=1 -run=X=Y ./p\ntwo ./q ./r\none C=2 ./s\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "[{one [{[A_B=1] [-run=X=Y ./p]} {[C=2] [./s]}]} {two [{[] [./q ./r]}]}]"
	if got := fmt.Sprint(all); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := parse([]byte("one -run=X\n")); err == nil {
		t.Error("a part without a package is none")
	}
	text, err := os.ReadFile("../e2e.txt")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := parse(text); err != nil || len(all) < 4 {
		t.Errorf("the real list: %v, %v", all, err)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		r    result
		err  error
		now  string
		want string
	}{
		{"good", result{Commit: "c", Passed: 2}, nil, "c", ""},
		{"failed", result{Commit: "c", Passed: 2, Failed: 1}, nil, "c", "1 failed"},
		{"ended early", result{Commit: "c", Passed: 2}, errors.New("the limit"), "c", "the limit"},
		{"skipped", result{Commit: "c", Passed: 2, Skipped: 1}, nil, "c", "1 skipped: nothing of a part may be"},
		{"empty", result{Commit: "c"}, nil, "c", "nothing has run"},
		{"changed", result{Commit: "c", Passed: 2}, nil, "c-dirty", "the source tree changed while it ran: it is c-dirty now"},
		{"dirty", result{Commit: "c-dirty", Passed: 2}, nil, "c-dirty", "the source tree is not the commit's"},
	} {
		if got := c.r.judge(c.err, c.now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestEndToEnd runs two parts of a small tree of its own, until they are the whole.
func TestEndToEnd(t *testing.T) {
	module(t, map[string]string{
		".ci/e2e.txt": "first -run=. ./p\nsecond PASS=1 -run=. ./q\n",
		".gitignore":  "/_e2e/\n",
		"p/p_test.go": testFile("TestP", "", ""),
		"q/q_test.go": testFile("TestQ", `"os"`, `if os.Getenv("PASS") == "" { t.Fatal("no PASS") }
			if _, err := os.Stat("../bad"); err == nil { t.Fatal("bad") }`),
	})
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@t.example"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	commit := git("rev-parse", "--short=12", "HEAD")
	do := func(what, wantErr string, want ...string) {
		t.Helper()
		var out strings.Builder
		err := endToEnd(t.Context(), &out, what)
		if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("-e2e %s: %v, want %q\n%s", what, err, wantErr, &out)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("-e2e %s lacks %q:\n%s", what, w, &out)
			}
		}
	}
	do("third", `part "third": there are first, second`)
	do("state", "is not whole: it lacks first, second", "first          has not run on "+commit)
	do("first", "", "part first of commit "+commit, "1 passed, 0 failed, 0 skipped", "second         has not run on")
	if log, err := os.ReadFile(filepath.Join("_e2e", commit, "first.log")); err != nil || !strings.Contains(string(log), "--- PASS: TestP") {
		t.Errorf("log %q, %v", log, err)
	}
	if err := os.WriteFile("bad", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	do("rest", "is not whole: it lacks first, second", "part first of commit "+commit+dirty, "first          is not good: the source tree is not the commit's", "second         is not good: there are failures")
	if err := os.Remove("bad"); err != nil {
		t.Fatal(err)
	}
	do("rest", "", "part second of", "e2e of "+commit+" is whole: 2 passed, 0 failed")
	do("state", "", "first          passed in", "is whole")
	git("commit", "-q", "--allow-empty", "-m", "two")
	do("state", "is not whole: it lacks first, second")
	if kept, err := filepath.Glob("_e2e/*"); err != nil || !slices.Contains(kept, filepath.Join("_e2e", commit)) {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// TestFuzz runs two targets, of which one crashes: what it said is told.
func TestFuzz(t *testing.T) {
	target := func(name, body string) string {
		return "package p\n\nimport \"testing\"\n\nfunc " + name + "(f *testing.F) {\nf.Add(1)\nf.Fuzz(func(t *testing.T, n int) {\n" + body + "\n})\n}\n"
	}
	module(t, map[string]string{
		"a/a_test.go": target("FuzzGood", ""),
		"b/b_test.go": target("FuzzBad", `panic("what is wrong")`),
	})
	var out strings.Builder
	if err := fuzz(t.Context(), &out, time.Second); !errors.Is(err, errFailed) {
		t.Errorf("err %v", err)
	}
	for _, want := range []string{
		`(?m)^ok .* m\.example/a FuzzGood$`, `what is wrong`, `(?m)^crash .* m\.example/b FuzzBad$`, `(?m)^2 of 2 targets, 0\.0 hours of .*, 1 crashes$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the output lacks %s:\n%s", want, &out)
		}
	}
}
