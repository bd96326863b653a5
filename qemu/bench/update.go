package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"kogge.example/image/example"
	"kogge.example/qemu"
)

// updateLimit bounds each step of an update; a bad release boots three times.
const updateLimit = 15 * time.Minute

// updates makes releases and has a node install them: a sound one, and one whose kernel
// panics at each boot.
func (b *bench) updates(ctx context.Context) ([]row, error) {
	w := b.worker("update", 1024)
	if err := w.buildCLI(ctx); err != nil {
		return nil, err
	}
	good, bad := filepath.Join(b.dir, "1.1.oci"), filepath.Join(b.dir, "1.2.oci")
	if _, err := w.kogge(ctx, "release", "keys", "create", "bench", "--no-passphrase"); err != nil {
		return nil, err
	}
	counter := time.Now().Unix() // of 1.1: higher than that of the commit, which 1.0 has
	create := func(version, out string, counter int64, args ...string) error {
		_, err := w.kogge(ctx, append([]string{"release", "create", "--version", version, "--counter", fmt.Sprint(counter), "--tags", "testport", "--keys", "bench", "-o", out}, args...)...)
		return err
	}
	made := row{What: "release create, signed, nothing changed, wall", Unit: "s", Goal: 10}
	for i := range 3 {
		if err := os.RemoveAll(good); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := create("1.1", good, counter); err != nil {
			return nil, err
		}
		if i > 0 { // the first one compiles
			made.Values = append(made.Values, time.Since(began).Seconds())
		}
	}
	if err := create("1.2", bad, counter+1, "--fault", "kernel-panic"); err != nil {
		return nil, err
	}
	if err := w.bootUEFI(ctx); err != nil {
		return nil, err
	}
	defer w.vm.Close()
	defer w.vm.Kill()
	staging, err := w.staging(ctx, good)
	if err != nil {
		return nil, err
	}
	whole, err := w.outage(ctx)
	if err != nil {
		return nil, err
	}
	back, err := w.wayBack(ctx, bad)
	return slices.Concat([]row{made}, staging, whole, back), err
}

// bootUEFI starts a node of release 1.0 as people's machines start, and takes it into a
// fleet.
func (w *worker) bootUEFI(ctx context.Context) error {
	config, join, img := filepath.Join(w.dir, "update.yaml"), filepath.Join(w.dir, "update-join.yaml"), filepath.Join(w.dir, "update.img")
	if err := os.WriteFile(config, []byte(example.NodeYAML+"assess: {for: 5s, timeout: 3m}\n"), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"image", "build", "--version", "1.0", "--tags", "testport", "--trust", "bench", "--config", config, "--preload", w.options.Preload[0], "-o", img},
		{"fleet", "create", "update", "--no-passphrase"},
		{"fleet", "token", "update", "--node", "n1", "-o", join},
	} {
		if _, err := w.kogge(ctx, args...); err != nil {
			return err
		}
	}
	m := w.machine("update", false)
	m.Disks[0].Path, m.Join, m.Seed, m.Offline, m.ReadyLine = img, join, "", false, ""
	m.Forwards = append(m.Forwards, qemu.Forward{Guest: apiPort})
	m.Extra = []string{"-chardev", "socket,id=testport,server=on,wait=off,path=" + w.socket, "-serial", "chardev:testport"}
	var err error
	if w.vm, err = qemu.Start(ctx, m, filepath.Join(w.dir, m.Name)); err != nil {
		return err
	}
	booting, cancel := context.WithTimeout(ctx, updateLimit)
	defer cancel()
	if _, err := w.vm.Console().WaitLine(booting, assessedLine("A", "1.0")); err != nil {
		return err
	}
	port, err := w.vm.Port(apiPort)
	if err != nil {
		return err
	}
	_, err = w.kogge(ctx, "node", "adopt", fmt.Sprintf("127.0.0.1:%d", port))
	return err
}

// assessedLine is what the console says of a good boot.
func assessedLine(slot, release string) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`^kogge: boot assessment: good, slot %s, release %s$`, slot, regexp.QuoteMeta(release)))
}

// staging has the node take a release, and not boot it yet.
func (w *worker) staging(ctx context.Context, release string) ([]row, error) {
	size, err := releaseBytes(release)
	if err != nil {
		return nil, err
	}
	before, err := w.written()
	if err != nil {
		return nil, err
	}
	calm, err := w.anonymous()
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := w.kogge(ctx, "node", "update", "n1", release, "--reboot", "manual")
		done <- err
	}()
	most := calm
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				return nil, err
			}
			running = false
		case <-tick.C:
			now, err := w.anonymous()
			if err != nil {
				return nil, err
			}
			most = max(most, now)
		}
	}
	took := time.Since(began).Seconds()
	after, err := w.written()
	if err != nil {
		return nil, err
	}
	return []row{
		{What: "a release onto the node and armed, wall", Unit: "s", Values: []float64{took}, Note: fmt.Sprintf("release %.1f MB", float64(size)/1e6)},
		{What: "  bytes written / bytes of the release", Unit: "", Values: []float64{(after - before) / float64(size)}, Goal: 1.05},
		{What: "  anonymous memory of the agent, highest less before", Unit: "MiB", Values: []float64{most - calm}, Goal: 48, Note: fmt.Sprintf("before: %.1f", calm)},
	}, nil
}

// releaseBytes is the size of what a release has for its one board.
func releaseBytes(layout string) (size int64, err error) {
	const documents = 1 << 20 // manifests and metadata are smaller, layers larger
	err = filepath.WalkDir(filepath.Join(layout, "blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > documents {
			size += info.Size()
		}
		return err
	})
	if err == nil && size == 0 {
		err = errors.New("the release has no layers")
	}
	return size, err
}

// written is how many bytes the node has written to its disk since the start.
func (w *worker) written() (float64, error) {
	if _, err := ask(w.socket, "sync"); err != nil {
		return 0, err
	}
	text, err := ask(w.socket, "read", "/sys/block/vda/stat")
	if err != nil {
		return 0, err
	}
	const sectors = 6 // Documentation/block/stat.rst
	f := strings.Fields(text)
	if len(f) <= sectors {
		return 0, fmt.Errorf("statistics of the disk: %q", text)
	}
	n, err := strconv.ParseFloat(f[sectors], 64)
	return n * 512, err
}

// anonymous is the agent's anonymous memory in MiB.
func (w *worker) anonymous() (float64, error) {
	report, err := ask(w.socket, "memory")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(report) {
		if f := strings.Fields(line); len(f) > 5 && f[0] == "process" && f[5] == "agent" {
			kib, err := strconv.ParseFloat(f[3], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("the node's report has no agent")
}

// mark is a console line that divides the time without an answer.
type mark struct{ name, line string }

// rebootMarks are the marks of a reboot, in their order.
var rebootMarks = []mark{
	{"containers and services stopped, machine reset", "BdsDxe: loading Boot"},
	{"boot loader, kernel, stage 0", "kogge: slot"},
}

// outage has the node boot slot B, which is armed, and measures how long the container
// does not answer.
func (w *worker) outage(ctx context.Context) ([]row, error) {
	port, err := w.vm.Port(example.Port)
	if err != nil {
		return nil, err
	}
	from, err := w.vm.Console().After()
	if err != nil {
		return nil, err
	}
	following, stop := context.WithTimeout(ctx, updateLimit)
	defer stop()
	times := make([]time.Time, len(rebootMarks))
	var follower sync.WaitGroup
	follower.Go(func() {
		_ = from.Follow(following, func(line string) {
			for i, m := range rebootMarks {
				if times[i].IsZero() && strings.Contains(line, m.line) {
					times[i] = time.Now()
				}
			}
		})
	})
	p := poll(following, fmt.Sprintf("http://127.0.0.1:%d/", port))
	if _, err := w.kogge(ctx, "node", "reboot", "n1"); err != nil {
		return nil, err
	}
	if _, err := from.WaitLine(following, assessedLine("B", "1.1")); err != nil {
		return nil, err
	}
	stop()
	follower.Wait()
	last, first, err := p.gap()
	if err != nil {
		return nil, err
	}
	rows := []row{{What: "outage of a container in an update, last to next answer", Unit: "s", Values: []float64{first.Sub(last).Seconds()}, Note: "TCG, UEFI"}}
	at := last
	for i, m := range rebootMarks {
		if times[i].IsZero() {
			return nil, fmt.Errorf("the console had no line %q", m.line)
		}
		rows = append(rows, row{What: "  " + m.name, Unit: "s", Values: []float64{times[i].Sub(at).Seconds()}})
		at = times[i]
	}
	return append(rows, row{What: "  userland until the container answers", Unit: "s", Values: []float64{first.Sub(at).Seconds()}}), nil
}

// answers are when a container answered.
type answers struct {
	mu   sync.Mutex // guards at
	at   []time.Time
	done chan struct{}
}

// poll asks again and again until ctx ends.
func poll(ctx context.Context, url string) *answers {
	a := &answers{done: make(chan struct{})}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		defer close(a.done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if answer, err := client.Get(url); err == nil {
				answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					a.mu.Lock()
					a.at = append(a.at, time.Now())
					a.mu.Unlock()
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return a
}

// gap is the longest time without an answer, once the polling has ended.
func (a *answers) gap() (last, first time.Time, err error) {
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.at) < 2 {
		return last, first, fmt.Errorf("the container answered %d times", len(a.at))
	}
	last, first = a.at[0], a.at[1]
	for i := 1; i < len(a.at); i++ {
		if a.at[i].Sub(a.at[i-1]) > first.Sub(last) {
			last, first = a.at[i-1], a.at[i]
		}
	}
	return last, first, nil
}

// wayBack arms a bad release and waits until the old slot, B, serves again.
func (w *worker) wayBack(ctx context.Context, release string) ([]row, error) {
	resets, err := w.resets()
	if err != nil {
		return nil, err
	}
	if _, err := w.kogge(ctx, "node", "update", "n1", release, "--reboot", "manual"); err != nil {
		return nil, err
	}
	from, err := w.vm.Console().After()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, updateLimit)
	defer cancel()
	began := time.Now()
	if _, err := w.kogge(ctx, "node", "reboot", "n1"); err != nil {
		return nil, err
	}
	if _, err := from.WaitLine(ctx, assessedLine("B", "1.1")); err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	after, err := w.resets()
	return []row{
		{What: "bad release armed until the old slot is good again", Unit: "s", Values: []float64{took}, Note: "its kernel panics at each boot"},
		{What: "  boots", Unit: "", Values: []float64{float64(after - resets)}, Goal: 4},
	}, err
}

// resets is how often the machine has been reset.
func (w *worker) resets() (int, error) {
	now, cancel := context.WithCancel(context.Background())
	cancel() // what has happened is known at once
	for n := 0; ; n++ {
		if _, err := w.vm.WaitEvent(now, "RESET", n+1); err != nil {
			if !w.vm.Running() {
				return n, err
			}
			return n, nil
		}
	}
}
