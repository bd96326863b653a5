package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// target is one fuzz target.
type target struct{ pkg, name string }

// targets finds the fuzz targets of all packages, in the order of their packages.
func targets(ctx context.Context) (all []target, err error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}`, "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	function := regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)
	for line := range strings.Lines(string(out)) {
		pkg, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pkg == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range function.FindAllSubmatch(text, -1) {
			all = append(all, target{pkg, string(m[1])})
		}
	}
	return all, nil
}

// fuzz runs each fuzz target for so long, one after the other, and tells what it cost and which
// of them found something. Go keeps the input of a crash in the package's testdata/fuzz, where
// the tests try it from then on.
func fuzz(ctx context.Context, out io.Writer, long time.Duration) error {
	all, err := targets(ctx)
	if err != nil {
		return err
	}
	var cpu time.Duration
	var ran, crashes int
	for _, f := range all {
		cmd := exec.CommandContext(ctx, "go", "test", f.pkg, "-run=^$", "-fuzz=^"+f.name+"$", "-fuzztime="+long.String())
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = grace
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		err := cmd.Run()
		if cmd.ProcessState == nil {
			return err // there is no go
		}
		took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		cpu += took
		if ctx.Err() != nil {
			break
		}
		ran++
		verdict := "ok   "
		if err != nil {
			verdict = "crash"
			crashes++
			fmt.Fprintf(out, "%s", said.Bytes())
		}
		fmt.Fprintf(out, "%s %6.0f s  %s %s\n", verdict, took.Seconds(), f.pkg, f.name)
	}
	fmt.Fprintf(out, "%d of %d targets, %.1f hours of processor time with their building, %d crashes\n", ran, len(all), cpu.Hours(), crashes)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case crashes > 0:
		return errFailed
	case len(all) == 0:
		return errors.New("there is no fuzz target")
	}
	return nil
}
