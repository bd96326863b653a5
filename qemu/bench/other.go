package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"kogge.example/image"
	"kogge.example/image/example"
	"kogge.example/image/program"
	"kogge.example/qemu"
)

const mb = 1e6

// sizes reads the sizes of the built image and its parts.
func (b *bench) sizes() ([]row, error) {
	st, err := os.Stat(b.image)
	if err != nil {
		return nil, err
	}
	used := float64(st.Sys().(*syscall.Stat_t).Blocks) * 512 / mb
	init, err := os.Stat(filepath.Join(b.cache, "programs", b.options.Board.Arch, "with-", program.Init))
	if err != nil {
		return nil, err
	}
	packed, err := exec.Command("sh", "-c", `zstd -q -19 -T0 -c "$0" | wc -c`, b.image).Output()
	if err != nil {
		return nil, fmt.Errorf("compress the image: %w; install zstd", err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(packed)), 64)
	if err != nil {
		return nil, fmt.Errorf("compress the image: %w", err)
	}
	return []row{
		{What: "image, used bytes, one slot and the example", Unit: "MB", Values: []float64{used}, Goal: 60},
		{What: "image, zstd -19", Unit: "MB", Values: []float64{n / mb}, Goal: 52},
		{What: "root file system with verity tree", Unit: "MB", Values: []float64{float64(b.built.RootBytes) / mb}},
		{What: "boot files (kernel, initramfs)", Unit: "MB", Values: []float64{float64(b.built.BootBytes) / mb}},
		{What: "initramfs", Unit: "MB", Values: []float64{float64(b.built.InitrdBytes) / mb}, Goal: 4},
		{What: "init", Unit: "MB", Values: []float64{float64(init.Size()) / mb}, Goal: 6},
	}, nil
}

// three starts three nodes with so many processors at once, and waits until all answer.
func (b *bench) three(ctx context.Context, cpus int) ([]row, error) {
	var g errgroup.Group
	cpu := make([]float64, 3)
	wall := make([]float64, 3)
	for i := range cpu {
		g.Go(func() error {
			m := b.machine(fmt.Sprintf("n%d", i+1), true)
			m.MemoryMiB, m.CPUs = 512, cpus
			var err error
			cpu[i], wall[i], err = b.toAnswer(ctx, m)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return []row{
		{What: "three nodes at once: wall until each answers", Unit: "s", Values: wall},
		{What: "three nodes at once: CPU of each", Unit: "s", Values: cpu},
	}, nil
}

// memory boots an image with the test port, leaves it alone, and asks for the
// kernel's and each process's figures.
func (b *bench) memory(ctx context.Context, idle time.Duration) ([]row, error) {
	o := b.options
	o.Tags = "testport"
	img := filepath.Join(b.dir, "testport.img")
	built, err := image.Build(ctx, o, img)
	if err != nil {
		return nil, err
	}
	m := b.machine("idle", true)
	m.Disks[0].Path = img
	m.Direct = &qemu.Direct{Kernel: built.Kernel, Initrd: built.Initrd, Cmdline: built.Cmdline}
	socket := filepath.Join(b.dir, "test.sock")
	m.Extra = []string{"-chardev", "socket,id=testport,server=on,wait=off,path=" + socket, "-serial", "chardev:testport"}
	vm, err := qemu.Start(ctx, m, filepath.Join(b.dir, m.Name))
	if err != nil {
		return nil, err
	}
	defer vm.Close()
	defer vm.Kill()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, _, err := vm.WaitHTTP(bounded, example.Port, "/"); err != nil {
		return nil, err
	}
	select {
	case <-time.After(idle): // the measurement is of a node that is left alone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	text, err := ask(socket, "memory")
	if err != nil {
		return nil, err
	}
	rows, err := memoryRows(text, idle)
	if err != nil {
		return nil, err
	}
	if text, err = ask(socket, "read", "/state/log/agent.log"); err != nil {
		return nil, err
	}
	start, err := startRow(text)
	return append(rows, start), err
}

// startRow finds the example's start in the agent's log.
func startRow(log string) (row, error) {
	m := startLine.FindStringSubmatch(log)
	if m == nil {
		return row{}, fmt.Errorf("the agent's log tells of no start: %s", log)
	}
	took, err := time.ParseDuration(m[1])
	if err != nil {
		return row{}, fmt.Errorf("the agent's log: %w", err)
	}
	return row{What: "container create and start inside the node, first boot, wall", Unit: "ms", Values: []float64{float64(took.Milliseconds())}}, nil
}

var startLine = regexp.MustCompile(`container example: running \(started in ([^)]+)\)`)

// ask sends one command to the test port.
func ask(socket, op string, args ...string) (string, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return "", fmt.Errorf("test port: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	request, err := json.Marshal(map[string]any{"id": 1, "op": op, "args": args})
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "%s\n", request); err != nil {
		return "", fmt.Errorf("test port: %w", err)
	}
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a struct {
			Text, Error string
		}
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue // the firmware's or kernel's own words
		}
		if a.Error != "" {
			return "", fmt.Errorf("test port: %s", a.Error)
		}
		return a.Text, nil
	}
	return "", fmt.Errorf("test port: closed: %w", lines.Err())
}

// memoryRows turns the test port's report into rows.
func memoryRows(report string, idle time.Duration) ([]row, error) {
	kib := map[string]float64{}
	var processes []row
	for line := range strings.Lines(report) {
		f := strings.Fields(line)
		if len(f) > 4 && f[0] == "process" {
			rss, _ := strconv.ParseFloat(f[1], 64)
			pss, _ := strconv.ParseFloat(f[2], 64)
			anon, _ := strconv.ParseFloat(f[3], 64)
			name := strings.Join(f[4:min(len(f), 6)], " ")
			processes = append(processes, row{What: "  PSS of " + name, Unit: "MiB", Values: []float64{pss / 1024}, Note: fmt.Sprintf("RSS %.1f, anonymous %.1f", rss/1024, anon/1024)})
		} else if len(f) >= 2 {
			kib[f[0]], _ = strconv.ParseFloat(f[1], 64)
		}
	}
	if kib["MemTotal:"] == 0 {
		return nil, fmt.Errorf("the node's report has no MemTotal")
	}
	used := (kib["MemTotal:"] - kib["MemAvailable:"]) / 1024
	return append([]row{{What: fmt.Sprintf("idle memory, %v after the answer, 1 GiB", idle), Unit: "MiB", Values: []float64{used}, Goal: 75}}, processes...), nil
}

// builds times kogge image build in a copy of the source tree.
func (b *bench) builds(ctx context.Context, runs int) ([]row, error) {
	tree := filepath.Join(b.dir, "tree")
	if out, err := exec.CommandContext(ctx, "git", "clone", "-q", b.source, tree).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy of the source tree: %w: %s", err, out)
	}
	build := func() (float64, error) {
		start := time.Now()
		cmd := exec.CommandContext(ctx, "go", "run", "./cmd/kogge", "image", "build", "--version", "bench", "-o", filepath.Join(b.dir, "build.img"))
		cmd.Dir = tree
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("image build: %w: %s", err, out)
		}
		return time.Since(start).Seconds(), nil
	}
	same := row{What: "image build, nothing changed, wall", Unit: "s", Goal: 4}
	changed := row{What: "image build, one line of the agent changed, wall", Unit: "s", Goal: 10}
	if _, err := build(); err != nil {
		return nil, err
	}
	for i := range runs {
		v, err := build()
		if err != nil {
			return nil, err
		}
		same.Values = append(same.Values, v)
		line := fmt.Sprintf("package main\n\nfunc init() { benchLine = %d }\n\nvar benchLine int\n", time.Now().UnixNano()+int64(i))
		if err := os.WriteFile(filepath.Join(tree, "agent", "benchline.go"), []byte(line), 0o644); err != nil {
			return nil, err
		}
		if v, err = build(); err != nil {
			return nil, err
		}
		changed.Values = append(changed.Values, v)
	}
	return []row{same, changed}, nil
}
