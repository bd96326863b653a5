package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// partLimit is for the whole of a part.
const partLimit = time.Hour

// part is a part of the end-to-end tests.
type part struct {
	name string
	runs []run
}

// run is one go test of a part.
type run struct{ env, args []string }

// result is what became of a part. It is kept in _e2e/COMMIT/PART.json; the output of
// all its tests lies beside it in PART.log.
type result struct {
	Commit  string // with "-dirty" where the tree was not the commit's
	Part    string
	Begun   time.Time
	Seconds float64
	Passed  int
	Failed  int
	Skipped int
	Why     string `json:",omitempty"` // it is not good; "" is good
}

// parse reads the list of parts, in their order. See .ci/e2e.txt.
func parse(text []byte) (all []part, err error) {
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		var r run
		for _, word := range f[1:] {
			if name, _, set := strings.Cut(word, "="); set && name == strings.ToUpper(name) {
				r.env = append(r.env, word)
			} else {
				r.args = append(r.args, word)
			}
		}
		if len(packages(r.args)) == 0 {
			return nil, fmt.Errorf("part %s: %q names no package", f[0], strings.TrimSpace(line))
		}
		i := slices.IndexFunc(all, func(p part) bool { return p.name == f[0] })
		if i < 0 {
			i, all = len(all), append(all, part{name: f[0]})
		}
		all[i].runs = append(all[i].runs, r)
	}
	return all, nil
}

// endToEnd does what -e2e asks for: a part, the rest, or to tell the state.
func endToEnd(ctx context.Context, out io.Writer, what string) error {
	text, err := os.ReadFile(filepath.Join(".ci", "e2e.txt"))
	if err != nil {
		return err
	}
	all, err := parse(text)
	if err != nil {
		return err
	}
	commit, err := commitNow(ctx)
	if err != nil {
		return err
	}
	var todo []part
	switch what {
	case "state":
		return tell(out, all, commit)
	case "rest":
		for _, p := range all {
			if !passed(commit, p.name) {
				todo = append(todo, p)
			}
		}
	default:
		i := slices.IndexFunc(all, func(p part) bool { return p.name == what })
		if i < 0 {
			return fmt.Errorf("part %q: there are %s", what, strings.Join(names(all), ", "))
		}
		todo = all[i : i+1]
	}
	var failed error
	for _, p := range todo {
		if ctx.Err() != nil {
			break
		}
		r, err := p.run(ctx, out, commit)
		if err := errors.Join(err, r.keep()); err != nil {
			return err
		}
		if r.Why != "" {
			failed = errFailed
		}
	}
	if what == "rest" {
		return errors.Join(failed, tell(out, all, commit))
	}
	_ = tell(out, all, commit) // a part that passed is a success, whole or not
	return failed
}

// run runs a part.
func (p part) run(ctx context.Context, out io.Writer, commit string) (result, error) {
	r := result{Commit: commit, Part: p.name, Begun: time.Now().UTC().Truncate(time.Second)}
	if err := os.MkdirAll(filepath.Dir(r.path()), 0o755); err != nil {
		return r, err
	}
	log, err := os.Create(strings.TrimSuffix(r.path(), ".json") + ".log")
	if err != nil {
		return r, err
	}
	defer log.Close()
	fmt.Fprintf(out, "part %s of commit %s, at most %v; all output is in %s\n", p.name, commit, partLimit, log.Name())
	t := newTally(out)
	t.log = log
	ctx, cancel := context.WithTimeoutCause(ctx, partLimit, fmt.Errorf("the limit of %v is over", partLimit))
	defer cancel()
	for _, run := range p.runs {
		args := append([]string{"-count=1", "-timeout=" + (partLimit + grace).String()}, run.args...)
		if err = t.run(ctx, partLimit, run.env, args); err != nil && !errors.Is(err, errFailed) {
			break
		}
	}
	t.summary(time.Since(r.Begun))
	r.Seconds, r.Passed, r.Failed, r.Skipped = time.Since(r.Begun).Seconds(), t.passed, t.failed, t.skipped
	now, nowErr := commitNow(context.WithoutCancel(ctx))
	if nowErr != nil {
		return r, nowErr
	}
	r.Why = r.judge(err, now)
	return r, log.Close()
}

// judge says why a part is not good; "" if it is. now is the commit after it.
func (r result) judge(err error, now string) string {
	switch {
	case err != nil:
		return err.Error()
	case r.Failed > 0:
		return fmt.Sprintf("%d failed", r.Failed)
	case r.Skipped > 0:
		return fmt.Sprintf("%d skipped: nothing of a part may be", r.Skipped)
	case r.Passed == 0:
		return "nothing has run"
	case now != r.Commit:
		return "the source tree changed while it ran: it is " + now + " now"
	case strings.HasSuffix(r.Commit, dirty):
		return "the source tree is not the commit's"
	}
	return ""
}

// dirty is at the end of the name of a tree that has what no commit has.
const dirty = "-dirty"

// commitNow names the source tree.
func commitNow(ctx context.Context) (string, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", args[0], err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	commit, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "", err
	}
	changes, err := git("status", "--porcelain")
	if err == nil && changes != "" {
		commit += dirty
	}
	return commit, err
}

// path is where the result lies.
func (r result) path() string { return filepath.Join("_e2e", r.Commit, r.Part+".json") }

func (r result) keep() error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.path(), append(text, '\n'), 0o644)
}

// read returns the result of a part on a commit; ok tells whether there is one.
func read(commit, name string) (r result, ok bool) {
	text, err := os.ReadFile(result{Commit: commit, Part: name}.path())
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return r, err == nil && d.Decode(&r) == nil && r.Commit == commit && r.Part == name
}

// passed tells whether a part has passed on a commit.
func passed(commit, name string) bool {
	r, ok := read(commit, name)
	return ok && r.Why == ""
}

// tell prints what became of each part on the commit, and whether that is the whole.
func tell(out io.Writer, all []part, commit string) error {
	var missing []string
	passedAll := 0
	for _, p := range all {
		r, ok := read(commit, p.name)
		switch {
		case !ok:
			fmt.Fprintf(out, "%-14s has not run on %s\n", p.name, commit)
		case r.Why != "":
			fmt.Fprintf(out, "%-14s is not good: %s\n", p.name, r.Why)
		default:
			fmt.Fprintf(out, "%-14s passed in %.0f s\n", p.name, r.Seconds)
		}
		if ok {
			passedAll += r.Passed
		}
		if !ok || r.Why != "" {
			missing = append(missing, p.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("e2e of %s is not whole: it lacks %s", commit, strings.Join(missing, ", "))
	}
	fmt.Fprintf(out, "e2e of %s is whole: %d passed, 0 failed\n", commit, passedAll)
	return nil
}

func names(all []part) (list []string) {
	for _, p := range all {
		list = append(list, p.name)
	}
	return list
}
