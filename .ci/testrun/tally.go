package main

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"
)

// event is one line of go test -json. Source: go doc test2json
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string  // of what was built
	Elapsed                       float64 // seconds
}

// id names one test.
type id struct{ pkg, test string }

// tally is what the events add up to.
type tally struct {
	out     io.Writer
	log     io.Writer // gets all output; nil for none
	output  map[id][]string
	took    map[id]float64
	pending []string        // packages that have not ended
	begun   map[string]bool // packages that have said something
	running map[id]bool     // tests that have begun and not ended
	paused  map[id]bool     // of these, the ones that wait for their turn
	broken  map[string]bool // packages with a failed test

	passed, failed, skipped int
}

func newTally(out io.Writer) *tally {
	return &tally{
		out: out, output: map[id][]string{}, took: map[id]float64{},
		begun: map[string]bool{}, running: map[id]bool{}, paused: map[id]bool{}, broken: map[string]bool{},
	}
}

// packages are the arguments of go test that name packages: those that begin with a dot.
// Flags with a value apart would look alike, so these are written with a "=".
func packages(args []string) (pkgs []string) {
	for _, a := range args {
		if strings.HasPrefix(a, ".") {
			pkgs = append(pkgs, a)
		}
	}
	return pkgs
}

func (t *tally) add(e event) {
	k := id{e.Package, e.Test}
	switch e.Action {
	case "run":
		t.running[k] = true
	case "pause":
		t.paused[k] = true
	case "cont":
		delete(t.paused, k)
	case "output", "build-output":
		k.pkg += e.ImportPath // an event has one of them
		t.output[k] = append(t.output[k], e.Output)
		if t.log != nil {
			fmt.Fprint(t.log, e.Output)
		}
	case "build-fail":
		k.pkg += e.ImportPath
		fmt.Fprint(t.out, strings.Join(t.output[k], ""))
		delete(t.output, k)
	case "start":
		t.begun[e.Package] = true
	case "pass", "fail", "skip":
		t.end(k, e)
	}
}

// end counts a test, or prints the line of a package.
func (t *tally) end(k id, e event) {
	text := strings.Join(t.output[k], "")
	delete(t.output, k)
	if k.test == "" {
		t.pending = slices.DeleteFunc(t.pending, func(pkg string) bool { return pkg == k.pkg })
		if e.Action == "fail" {
			fmt.Fprint(t.out, text)
			if !t.broken[k.pkg] {
				t.failed++ // it was not built, or ended beside its tests
			}
		}
		if e.Action != "skip" {
			fmt.Fprintf(t.out, "%-4s %6.1f s  %s\n", e.Action, e.Elapsed, k.pkg)
		}
		return
	}
	delete(t.running, k)
	t.took[k] = e.Elapsed
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		t.broken[k.pkg] = true
		fmt.Fprint(t.out, text)
	case "skip":
		t.skipped++
		fmt.Fprint(t.out, text) // a test that did not run says why
	}
}

// unfinished says what a run that was ended has left undone, and counts each package that
// has not ended as failed. Those that have ended have a line each already.
func (t *tally) unfinished() {
	fmt.Fprintln(t.out, "the run was ended before all had run")
	say := func(what string, names []string) {
		if len(names) == 0 {
			return
		}
		fmt.Fprintf(t.out, "%s:\n", what)
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(t.out, "  %s\n", name)
		}
	}
	var cut, never, running, waiting []string
	for _, pkg := range t.pending {
		if t.begun[pkg] {
			cut = append(cut, pkg)
		} else {
			never = append(never, pkg)
		}
	}
	for k := range t.running {
		if name := k.pkg + " " + k.test; t.paused[k] {
			waiting = append(waiting, name)
		} else {
			running = append(running, name)
		}
	}
	t.failed += len(t.pending)
	say("tests that were running", running)
	say("tests that waited for their turn", waiting)
	say("packages that have not ended", cut)
	say("packages that have not begun", never)
}

// summary are the last lines of a run. A test that has tests of its own is none of the
// slowest: its time is theirs, and that of waiting for their turn.
func (t *tally) summary(took time.Duration) {
	parents := map[id]bool{}
	for k := range t.took {
		for i, r := range k.test {
			if r == '/' {
				parents[id{k.pkg, k.test[:i]}] = true
			}
		}
	}
	var all []id
	for k := range t.took {
		if !parents[k] {
			all = append(all, k)
		}
	}
	sort.Slice(all, func(i, j int) bool { return t.took[all[i]] > t.took[all[j]] })
	fmt.Fprintln(t.out, "slowest tests:")
	for _, k := range all[:min(5, len(all))] {
		fmt.Fprintf(t.out, "  %6.1f s  %s %s\n", t.took[k], k.pkg, k.test)
	}
	if n := len(t.pending); n > 0 {
		fmt.Fprintf(t.out, "%d packages did not end\n", n)
	}
	fmt.Fprintf(t.out, "tests took %.0f s\n", took.Seconds())
	fmt.Fprintf(t.out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
