package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"kogge.example/boards"
	"kogge.example/image"
	"kogge.example/image/debian"
	"kogge.example/image/example"
	"kogge.example/image/firmware"
	"kogge.example/image/initramfs"
	"kogge.example/image/program"
	"kogge.example/qemu"
)

// bench holds what the measurements share.
type bench struct {
	dir     string // temporary
	source  string
	cache   string
	options image.Options
	image   string // of the release
	built   image.Built
	seed    string
	uefi    *qemu.UEFI
	hello   string // initramfs with a Go program that says hello
}

// limit bounds each boot: a lost one must not hang the bench.
const limit = 5 * time.Minute

func prepare(ctx context.Context) (*bench, error) {
	b := &bench{}
	var err error
	if b.source, err = program.Source(ctx); err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	b.cache = filepath.Join(cache, "kogge")
	if dir := os.Getenv("KOGGE_CACHE"); dir != "" {
		b.cache = dir
	}
	if b.dir, err = os.MkdirTemp("", "kogge-bench-"); err != nil {
		return nil, err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	packages := debian.Cache{Dir: filepath.Join(b.cache, "debian"), Say: say}
	board, err := boards.Find("qemu-x86_64")
	if err != nil {
		return nil, err
	}
	b.options = image.Options{
		Board: board, Version: "bench", When: time.Unix(1_700_000_000, 0).UTC(), Source: b.source, Cache: b.cache, Packages: packages, Say: say,
	}
	tarball := filepath.Join(b.dir, "example.tar")
	po := program.Options{Source: b.source, Cache: filepath.Join(b.cache, "programs"), Arch: board.Arch}
	if err := example.Build(ctx, po, b.options.When, tarball); err != nil {
		return nil, err
	}
	b.options.Preload = []string{tarball}
	b.image = filepath.Join(b.dir, "kogge.img")
	if b.built, err = image.Build(ctx, b.options, b.image); err != nil {
		return nil, err
	}
	b.seed = filepath.Join(b.dir, "node.yaml")
	if err := os.WriteFile(b.seed, []byte(example.NodeYAML), 0o644); err != nil {
		return nil, err
	}
	files, err := firmware.Fetch(ctx, packages, board)
	if err != nil {
		return nil, err
	}
	b.uefi = &qemu.UEFI{Code: files.Code, Vars: files.Vars}
	return b, b.buildHello(ctx)
}

// helloSource is the least that a Go program can do as PID 1.
const helloSource = `package main

import (
	"os"
	"syscall"
)

func main() {
	os.Stdout.WriteString("hello\n")
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
`

// buildHello makes an initramfs with nothing but that program.
func (b *bench) buildHello(ctx context.Context) error {
	dir := filepath.Join(b.dir, "hello")
	if err := compile(ctx, dir, helloSource, "init"); err != nil {
		return err
	}
	data, err := initramfs.Build(filepath.Join(dir, "init"), nil)
	if err != nil {
		return err
	}
	b.hello = filepath.Join(b.dir, "hello.zst")
	return os.WriteFile(b.hello, data, 0o644)
}

// compile makes a static program of one file in a new folder.
func compile(ctx context.Context, dir, source, program string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"main.go": source, "go.mod": "module " + program + "\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

// machine is a node from the release's image.
func (b *bench) machine(name string, direct bool) qemu.Machine {
	m := qemu.Machine{
		Name: name, Disks: []qemu.Disk{{Path: b.image, SizeMiB: 4096}}, Forwards: []qemu.Forward{{Guest: example.Port}},
		Seed: b.seed, Offline: true, Accel: "tcg", Fresh: true, ReadyLine: "kogge: ",
	}
	if direct {
		m.Direct = &qemu.Direct{Kernel: b.built.Kernel, Initrd: b.built.Initrd, Cmdline: b.built.Cmdline}
	} else {
		m.UEFI = b.uefi
	}
	return m
}

// boots measures all kinds of boot in turn, so that a busy minute hits them all.
func (b *bench) boots(ctx context.Context, runs int) ([]row, error) {
	bare := row{What: "bare kernel and Go hello, direct kernel", Unit: "s"}
	rows := map[bool][]row{
		true:  {{What: "direct kernel, first boot to HTTP 200", Unit: "s", Goal: 12.5}, {What: "direct kernel, second boot to HTTP 200", Unit: "s", Goal: 9.5}, {What: "  the same in wall seconds", Unit: "s"}},
		false: {{What: "UEFI, first boot to HTTP 200", Unit: "s", Goal: 20}, {What: "UEFI, second boot to HTTP 200", Unit: "s", Goal: 17}, {What: "  the same in wall seconds", Unit: "s"}},
	}
	for range runs {
		cpu, err := b.bare(ctx)
		if err != nil {
			return nil, err
		}
		bare.Values = append(bare.Values, cpu)
		for _, direct := range []bool{true, false} {
			values, err := b.twice(ctx, direct)
			if err != nil {
				return nil, err
			}
			for i, v := range values {
				rows[direct][i].Values = append(rows[direct][i].Values, v)
			}
		}
	}
	share := row{What: "share that is ours: direct second boot less bare", Unit: "s", Values: []float64{rows[true][1].median() - bare.median()}}
	return append(append(append([]row{bare}, rows[true]...), share), rows[false]...), nil
}

// bare boots the kernel with the hello program and nothing else.
func (b *bench) bare(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m := qemu.Machine{Name: "bare", Accel: "tcg", Fresh: true, Direct: &qemu.Direct{Kernel: b.built.Kernel, Initrd: b.hello, Cmdline: "console=ttyS0 quiet loglevel=4 panic=10"}}
	vm, err := qemu.Start(ctx, m, filepath.Join(b.dir, m.Name))
	if err != nil {
		return 0, err
	}
	defer vm.Close()
	defer vm.Kill()
	if _, err := vm.Console().WaitLine(ctx, regexp.MustCompile("hello")); err != nil {
		return 0, err
	}
	return vm.CPUSeconds()
}

// twice boots one fresh disk two times: CPU seconds of the first and second boot,
// wall seconds of the second.
func (b *bench) twice(ctx context.Context, direct bool) ([]float64, error) {
	var values []float64
	m := b.machine("node", direct)
	for boot := range 2 {
		m.Fresh = boot == 0
		cpu, wall, err := b.toAnswer(ctx, m)
		if err != nil {
			return nil, err
		}
		values = append(values, cpu)
		if boot == 1 {
			values = append(values, wall)
		}
	}
	return values, nil
}

// marks are console lines that divide a boot into phases.
var marks = []struct{ name, line string }{
	{"stage 0 has found the slot", "kogge: slot"},
	{"PID 1 starts services", "service containerd: starting"},
	{"containerd serves", "service containerd: running"},
	{"agent has started the container", "service agent: running"},
}

// phases boots a used disk directly and reads the CPU seconds at each mark.
func (b *bench) phases(ctx context.Context, runs int) ([]row, error) {
	m := b.machine("phases", true)
	if _, _, err := b.toAnswer(ctx, m); err != nil {
		return nil, err
	}
	m.Fresh = false
	rows := make([]row, len(marks))
	for i := range rows {
		rows[i] = row{What: "  CPU until " + marks[i].name, Unit: "s"}
	}
	answer := row{What: "  CPU until the first 200", Unit: "s"}
	for range runs {
		vm, err := qemu.Start(ctx, m, filepath.Join(b.dir, m.Name))
		if err != nil {
			return nil, err
		}
		next := 0
		follow, cancel := context.WithTimeout(ctx, limit)
		_ = vm.Console().Follow(follow, func(line string) {
			if next < len(marks) && strings.Contains(line, marks[next].line) {
				cpu, _ := vm.CPUSeconds()
				rows[next].Values = append(rows[next].Values, cpu)
				if next++; next == len(marks) {
					cancel()
				}
			}
		})
		cancel()
		answered, cancel := context.WithTimeout(ctx, limit)
		_, _, err = vm.WaitHTTP(answered, example.Port, "/")
		cancel()
		if err == nil {
			var cpu float64
			cpu, err = vm.CPUSeconds()
			answer.Values = append(answer.Values, cpu)
		}
		err = errors.Join(err, vm.Stop(ctx))
		vm.Close()
		if err != nil {
			return nil, err
		}
	}
	return append(rows, answer), nil
}

// toAnswer boots m until its container answers, then shuts it down cleanly.
func (b *bench) toAnswer(ctx context.Context, m qemu.Machine) (cpu, wall float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	vm, err := qemu.Start(ctx, m, filepath.Join(b.dir, m.Name))
	if err != nil {
		return 0, 0, err
	}
	defer vm.Close()
	status, _, err := vm.WaitHTTP(ctx, example.Port, "/")
	if err != nil || status != 200 {
		return 0, 0, fmt.Errorf("node %s: status %d: %w", m.Name, status, err)
	}
	if cpu, err = vm.CPUSeconds(); err != nil {
		return 0, 0, err
	}
	wall = time.Since(start).Seconds()
	if cpu > strange {
		b.keepConsole(m.Name, cpu)
	}
	return cpu, wall, vm.Stop(ctx)
}

// strange is what no boot takes, in CPU seconds: it hung, or its kernel died and
// started over. The console tells.
const strange = 25

// keepConsole saves the console of a boot from the end of the bench.
func (b *bench) keepConsole(name string, cpu float64) {
	data, err := os.ReadFile(filepath.Join(b.dir, name, "console.log"))
	if err == nil {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("kogge-bench-%s-%d.log", name, time.Now().Unix()))
		if err = os.WriteFile(path, data, 0o644); err == nil {
			fmt.Fprintf(os.Stderr, "a boot took %.1f CPU seconds: its console is in %s\n", cpu, path)
			return
		}
	}
	fmt.Fprintf(os.Stderr, "a boot took %.1f CPU seconds: %v\n", cpu, err)
}
