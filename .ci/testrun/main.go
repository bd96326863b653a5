// Command testrun runs go test with the given arguments and shows what a person
// wants to know of it: the output of failures, each package's time, the five
// slowest tests, and a last line that counts. At its limit it ends everything and
// says what was running and what had not begun.
//
//	testrun [-limit 75m] [--] ARGUMENT…    go test ARGUMENT…
//	testrun -e2e PART                      one part of the end-to-end tests, see parts
//	testrun -e2e rest                      the parts that have not passed on this commit, in turn
//	testrun -e2e state                     what has passed on this commit
//	testrun -fuzz 1m                       each fuzz target for so long
//
// Results of parts are kept in _e2e/COMMIT, at the top of the checkout.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// grace is how long a run may take to end itself once it is told to.
const grace = 20 * time.Second

func main() {
	limit := flag.Duration("limit", 75*time.Minute, "the time after which everything is ended")
	e2e := flag.String("e2e", "", "a `part` of the end-to-end tests, or rest, or state")
	each := flag.Duration("fuzz", 0, "run each fuzz target for so long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *e2e != "":
		err = endToEnd(ctx, os.Stdout, *e2e)
	case *each > 0:
		err = fuzz(ctx, os.Stdout, *each)
	default:
		start := time.Now()
		t := newTally(os.Stdout)
		err = t.run(ctx, *limit, nil, flag.Args())
		t.summary(time.Since(start))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testrun: %v\n", err)
		os.Exit(1)
	}
}

// errFailed says that tests failed: which, has been printed.
var errFailed = errors.New("there are failures")

// run runs go test with args and more environment, and prints and counts what it
// says. At the limit, or when ctx ends, all processes of the run are ended.
func (t *tally) run(ctx context.Context, limit time.Duration, env, args []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the limit of %v is over", limit))
	defer cancel()
	if err := t.expect(ctx, env, args); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The tests are in the group of go test. What they start in groups of its own goes with
	// them: virtual machines have a death signal.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	out, w := io.Pipe()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if ctx.Err() != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of the group
		}
		w.Close()
		ended <- err
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(t.out, lines.Text()) // the compiler's own words
			continue
		}
		t.add(e)
	}
	err := errors.Join(lines.Err(), <-ended)
	switch {
	case ctx.Err() != nil:
		t.unfinished()
		return context.Cause(ctx)
	case t.failed > 0:
		return errFailed
	}
	return err
}

// expect notes which packages args name, so that one that never began is missed.
func (t *tally) expect(ctx context.Context, env, args []string) error {
	list := append([]string{"list", "-e", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, packages(args)...)
	cmd := exec.CommandContext(ctx, "go", list...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if pkg := lines.Text(); pkg != "" && !slices.Contains(t.pending, pkg) {
			t.pending = append(t.pending, pkg)
		}
	}
	return nil
}
