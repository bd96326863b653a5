package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kogge.example/image/example"
)

// hog is a container that takes all it can get of one thing. See qemu/e2e/hog.
type hog struct {
	name, kind, folder string
	program            string // "": the one of 64 bits
}

// allHogs are tried one after the other.
var allHogs = []hog{
	{name: "anonymous", kind: "anonymous", folder: "/data"},
	{name: "anonymous-32", kind: "anonymous", folder: "/data", program: "hog32"},
	{name: "tmpfs", kind: "tmpfs", folder: "/data"},
	{name: "dentries", kind: "dentries", folder: "/data"},
	{name: "files", kind: "files", folder: "/data"},
	{name: "files-32", kind: "files", folder: "/data", program: "hog32"},
	{name: "inodes", kind: "inodes", folder: "/data"},
	{name: "inodes-image", kind: "inodes", folder: "/"},
	{name: "disk", kind: "disk", folder: "/data"},
	{name: "deep", kind: "deep", folder: "/data"},
	{name: "forks", kind: "forks", folder: "/data"},
	{name: "flows", kind: "flows", folder: "/data"},
	{name: "neighbours", kind: "neighbours", folder: "/data"},
	{name: "answers", kind: "answers", folder: "/data"},
	{name: "echoes", kind: "echoes", folder: "/data"},
	{name: "halves", kind: "halves", folder: "/data"},
	{name: "callers", kind: "callers", folder: "/data"},
	{name: "filters", kind: "filters", folder: "/data"},
	{name: "lists", kind: "lists", folder: "/data"},
	{name: "log", kind: "log", folder: "/data"},
	{name: "inotify", kind: "inotify", folder: "/data"},
	{name: "aio", kind: "aio", folder: "/data"},
	{name: "terminals", kind: "terminals", folder: "/data"},
}

// hogs gives a node of 512 MiB one hog after the other, each for so long, and so many projects of new
// names at the end. All the while the node is asked how it is, and another container has to answer.
func (b *bench) hogs(ctx context.Context, s settings) ([]row, error) {
	list := allHogs
	if s.hogs != "" {
		list = nil
		for _, name := range strings.Split(s.hogs, ",") {
			i := slices.IndexFunc(allHogs, func(h hog) bool { return h.name == name })
			if i < 0 {
				return nil, fmt.Errorf("there is no hog %q", name)
			}
			list = append(list, allHogs[i])
		}
	}
	w := b.worker("hogs", 512)
	w.disk = 4096
	if err := w.buildCLI(ctx); err != nil {
		return nil, err
	}
	if err := w.boot(ctx); err != nil {
		return nil, err
	}
	defer w.vm.Close()
	defer w.vm.Kill()
	for name, arch := range map[string]string{"hog": "amd64", "hog32": "386"} {
		if err := w.loadHog(ctx, name, arch); err != nil {
			return nil, err
		}
	}
	port, err := w.vm.Port(example.Port)
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("http://127.0.0.1:%d/", port)
	var all []row
	for _, h := range list {
		rows, err := w.endure(ctx, h.name, address, func() error { return w.hog(ctx, h, s.hog) })
		for _, r := range rows {
			fmt.Fprintln(os.Stderr, r)
		}
		if err != nil {
			return nil, fmt.Errorf("hog %s: %w", h.name, err)
		}
		all = append(all, rows...)
	}
	if s.projects == 0 {
		return all, nil
	}
	refused := 0
	rows, err := w.endure(ctx, fmt.Sprintf("%d applies", s.projects), address, func() error {
		var err error
		refused, err = w.applies(ctx, s.projects)
		return err
	})
	if len(rows) > 0 {
		rows[0].Note = fmt.Sprintf("%d of them refused", refused)
	}
	return append(all, rows...), err
}

// loadHog gives the node the image kogge.local/NAME:1 with the hog for an architecture.
func (w *worker) loadHog(ctx context.Context, name, arch string) error {
	binary := filepath.Join(w.dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./qemu/e2e/hog")
	cmd.Dir, cmd.Env = w.source, append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	var tarball bytes.Buffer
	if err := example.Tar(&tarball, "kogge.local/"+name+":1", "amd64", data, w.options.When); err != nil {
		return err
	}
	if err := os.WriteFile(binary+".tar", tarball.Bytes(), 0o644); err != nil {
		return err
	}
	_, err = w.kogge(ctx, "images", "load", binary+".tar")
	return err
}

// endure does something while a container at an address is asked without end, and the node
// how it is once a second; all of those answers are in the rows.
func (w *worker) endure(ctx context.Context, name, address string, do func() error) ([]row, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	answers := poll(asking, address)
	status := row{What: name + ": longest kogge node status", Unit: "s", Goal: 5}
	silent := make(chan float64)
	go func() {
		longest := 0.0
		for asking.Err() == nil {
			began := time.Now()
			_, err := w.kogge(asking, "node", "status")
			if took := time.Since(began).Seconds(); asking.Err() == nil {
				longest = max(longest, took)
				if err != nil {
					status.Note = strings.TrimSpace(err.Error())
				}
			}
			_ = rest(asking, time.Second)
		}
		silent <- longest
	}()
	err := do()
	stop()
	status.Values = []float64{<-silent}
	last, first, gapErr := answers.gap()
	if err == nil {
		err = gapErr
	}
	return []row{status, {What: "  longest silence of another container", Unit: "s", Values: []float64{first.Sub(last).Seconds()}}}, err
}

// hog has one hog for so long, and what an operator does to be rid of it.
func (w *worker) hog(ctx context.Context, h hog, long time.Duration) error {
	program := h.program
	if program == "" {
		program = "hog"
	}
	file := fmt.Sprintf(`name: %[1]s
services:
  hog: {image: "kogge.local/%[2]s:1", entrypoint: [/app, %[3]s, %[4]s], user: "0:0", restart: always, stop_grace_period: 0s, volumes: ["data:/data"]}
volumes: {data: }
`, h.name, program, h.kind, h.folder)
	path := filepath.Join(w.dir, h.name+".yaml")
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		return err
	}
	if _, err := w.kogge(ctx, "apply", "-f", path, "--no-wait"); err != nil {
		return err
	}
	if err := rest(ctx, long); err != nil {
		return err
	}
	for _, args := range [][]string{{"node", "config", "get", "n1"}, {"rm", h.name}, {"volumes", "rm", h.name + ".data"}} {
		if _, err := w.kogge(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// applies gives the node projects of ever new names, and takes them away again. refused are
// those that it would not have.
func (w *worker) applies(ctx context.Context, projects int) (refused int, err error) {
	var taken []string
	for n := range projects {
		name := fmt.Sprintf("p%d", n)
		path := filepath.Join(w.dir, "project.yaml")
		if err := os.WriteFile(path, fmt.Appendf(nil, "name: %s\nservices: {web: {image: %s}}\n", name, example.Image), 0o644); err != nil {
			return refused, err
		}
		if _, err := w.kogge(ctx, "apply", "-f", path, "--no-wait"); err != nil {
			refused++
			continue
		}
		taken = append(taken, name)
	}
	for _, name := range taken {
		if _, err := w.kogge(ctx, "rm", name); err != nil {
			return refused, err
		}
	}
	return refused, nil
}
