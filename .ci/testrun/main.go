// Command testrun runs go test with the given arguments and shows what a person
// wants to know of it: the output of failures, each package's time, the five
// slowest tests, and a last line that counts.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"time"
)

// event is one line of go test -json. Source: go doc test2json
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
}

// id names one test.
type id struct{ pkg, test string }

// tally is what the events add up to.
type tally struct {
	output                  map[id][]string
	took                    map[id]float64
	passed, failed, skipped int
}

func main() {
	start := time.Now()
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testrun: go test: %v\n", err)
		os.Exit(1)
	}
	t := tally{output: map[id][]string{}, took: map[id]float64{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // the compiler's own words
			continue
		}
		t.add(e)
	}
	err = cmd.Wait()
	t.slowest(5)
	fmt.Printf("tests took %.0f s\n", time.Since(start).Seconds())
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if err != nil || t.failed > 0 {
		os.Exit(1)
	}
}

func (t *tally) add(e event) {
	k := id{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		t.output[k] = append(t.output[k], e.Output)
	case "build-fail":
		fmt.Print(strings.Join(t.output[k], ""))
	case "pass", "fail", "skip":
		t.end(k, e)
	}
}

// end counts a test, or prints the line of a package.
func (t *tally) end(k id, e event) {
	text := strings.Join(t.output[k], "")
	delete(t.output, k)
	if k.test == "" {
		if e.Action == "fail" {
			fmt.Print(text)
		}
		if e.Action != "skip" {
			fmt.Printf("%-4s %6.1f s  %s\n", e.Action, e.Elapsed, k.pkg)
		}
		return
	}
	t.took[k] = e.Elapsed
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		fmt.Print(text)
	case "skip":
		t.skipped++
		fmt.Print(text) // a test that did not run says why
	}
}

func (t *tally) slowest(n int) {
	var all []id
	for k := range t.took {
		if !strings.Contains(k.test, "/") {
			all = append(all, k)
		}
	}
	sort.Slice(all, func(i, j int) bool { return t.took[all[i]] > t.took[all[j]] })
	fmt.Println("slowest tests:")
	for _, k := range all[:min(n, len(all))] {
		fmt.Printf("  %6.1f s  %s %s\n", t.took[k], k.pkg, k.test)
	}
}
