package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"kogge.example/image"
	"kogge.example/image/example"
	"kogge.example/qemu"
)

// worker is a node of a fleet, with the command line that operates it.
type worker struct {
	*bench
	vm     *qemu.VM
	socket string // test port
	cli    string
	env    []string
	name   string
	memory int // in MiB
	disk   int // in MiB; 0: the image's size
}

// guestHost is this machine as QEMU's network shows it to the guest.
const guestHost = "10.0.2.2"

// work boots one node, has it join a fleet and gives it more and more to do.
func (b *bench) work(ctx context.Context, runs int, idle time.Duration) ([]row, error) {
	w := b.worker("work", 1024)
	if err := w.buildCLI(ctx); err != nil {
		return nil, err
	}
	if err := w.boot(ctx); err != nil {
		return nil, err
	}
	defer w.vm.Close()
	defer w.vm.Kill()
	var all []row
	for _, take := range []func() ([]row, error){
		func() ([]row, error) { return w.roundTrip(ctx, 4*runs) },
		func() ([]row, error) { return w.idle(ctx, idle) },
		func() ([]row, error) { return w.pulls(ctx, min(runs, 3)) },
		func() ([]row, error) { return w.many(ctx) },
		func() ([]row, error) { return w.flood(ctx) },
	} {
		rows, err := take()
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// worker is a node with so much memory that does not run yet. Its name is that of its files and
// of its fleet.
func (b *bench) worker(name string, memoryMiB int) *worker {
	w := &worker{bench: b, name: name, memory: memoryMiB, socket: filepath.Join(b.dir, name+".sock"), cli: filepath.Join(b.dir, "kogge")}
	w.env = append(os.Environ(), "KOGGE_CONFIG="+filepath.Join(b.dir, name+".config"), "KOGGE_CACHE="+b.cache, "KOGGE_FLEET=", "KOGGE_NODE=")
	return w
}

func (w *worker) buildCLI(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", w.cli, "./cmd/kogge")
	build.Dir = w.source
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build kogge: %w: %s", err, out)
	}
	return nil
}

// boot starts the node and takes it into a fleet.
func (w *worker) boot(ctx context.Context) error {
	o := w.options
	o.Tags = "testport"
	img := filepath.Join(w.dir, w.name+".img")
	built, err := image.Build(ctx, o, img)
	if err != nil {
		return err
	}
	join := filepath.Join(w.dir, w.name+".join.yaml")
	if _, err := w.kogge(ctx, "fleet", "create", "bench", "--no-passphrase"); err != nil {
		return err
	}
	if _, err := w.kogge(ctx, "fleet", "token", "bench", "--node", "n1", "-o", join); err != nil {
		return err
	}
	m := w.machine(w.name, true)
	m.Disks[0].Path, m.Disks[0].SizeMiB, m.MemoryMiB, m.Join, m.Offline = img, w.disk, w.memory, join, false
	m.Forwards = append(m.Forwards, qemu.Forward{Guest: apiPort})
	m.Direct = &qemu.Direct{Kernel: built.Kernel, Initrd: built.Initrd, Cmdline: built.Cmdline}
	m.Extra = []string{"-chardev", "socket,id=testport,server=on,wait=off,path=" + w.socket, "-serial", "chardev:testport"}
	if w.vm, err = qemu.Start(ctx, m, filepath.Join(w.dir, m.Name)); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, _, err := w.vm.WaitHTTP(bounded, example.Port, "/"); err != nil {
		return err
	}
	port, err := w.vm.Port(apiPort)
	if err != nil {
		return err
	}
	_, err = w.kogge(ctx, "node", "adopt", fmt.Sprintf("127.0.0.1:%d", port))
	return err
}

// apiPort is where a node answers operators.
const apiPort = 7443

// kogge runs the command line and returns what it prints.
func (w *worker) kogge(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.cli, args...)
	cmd.Env = w.env
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kogge %s: %w: %s", strings.Join(args, " "), err, errors.String())
	}
	return out.String(), nil
}

// status is one question to the node, and how long it took in milliseconds.
func (w *worker) status(ctx context.Context) (float64, error) {
	began := time.Now()
	_, err := w.kogge(ctx, "node", "status")
	return float64(time.Since(began).Microseconds()) / 1000, err
}

func (w *worker) roundTrip(ctx context.Context, runs int) ([]row, error) {
	r := row{What: "kogge node status, whole command, warm", Unit: "ms"}
	for i := range runs + 1 {
		ms, err := w.status(ctx)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			r.Values = append(r.Values, ms)
		}
	}
	return []row{r}, nil
}

// memoryOf is what the node uses, and what its containers' own processes do, in MiB.
func (w *worker) memoryOf() (used, containers float64, err error) {
	text, err := ask(w.socket, "memory")
	if err != nil {
		return 0, 0, err
	}
	rows, err := memoryRows(text, 0)
	if err != nil {
		return 0, 0, err
	}
	for _, r := range rows[1:] {
		if strings.HasPrefix(r.What, "  PSS of /app") {
			containers += r.Values[0]
		}
	}
	return rows[0].Values[0], containers, nil
}

func (w *worker) idle(ctx context.Context, idle time.Duration) ([]row, error) {
	if err := rest(ctx, idle); err != nil {
		return nil, err
	}
	used, _, err := w.memoryOf()
	return []row{{What: fmt.Sprintf("idle memory, API up, one container, %v, 1 GiB", idle), Unit: "MiB", Values: []float64{used}, Goal: 85}}, err
}

// rest leaves the node alone.
func rest(ctx context.Context, long time.Duration) error {
	select {
	case <-time.After(long):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pulls has the node pull 100 MB from a registry on this machine.
func (w *worker) pulls(ctx context.Context, runs int) ([]row, error) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	_, port, _ := strings.Cut(host, ":")
	inside := guestHost + ":" + port
	if _, err := w.kogge(ctx, "registry", "set", inside, "--insecure"); err != nil {
		return nil, err
	}
	wall := row{What: "pull of 100 MB in two layers, TCG, wall", Unit: "s"}
	cpu := row{What: "  the same in CPU seconds", Unit: "s"}
	for i := range runs {
		name := fmt.Sprintf("bench/pull:%d", i)
		if err := push(ctx, host, "bench/pull", fmt.Sprint(i), uint64(i)); err != nil {
			return nil, err
		}
		before, err := w.vm.CPUSeconds()
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := w.kogge(ctx, "images", "pull", inside+"/"+name); err != nil {
			return nil, err
		}
		took := time.Since(began).Seconds()
		after, err := w.vm.CPUSeconds()
		if err != nil {
			return nil, err
		}
		wall.Values, cpu.Values = append(wall.Values, took), append(cpu.Values, after-before)
		if _, err := w.kogge(ctx, "images", "rm", inside+"/"+name); err != nil {
			return nil, err
		}
	}
	return []row{wall, cpu}, nil
}

// push puts an image of 100 MB into a registry on this machine.
func push(ctx context.Context, host, repository, tag string, seed uint64) error {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return err
	}
	for layer := range uint64(2) {
		data := randomTar(seed*2+layer, 50e6)
		if img, err = mutate.AppendLayers(img, static.NewLayer(data, types.OCIUncompressedLayer)); err != nil {
			return err
		}
		if err := put(ctx, http.MethodPost, blobs(host, repository, data), "", data); err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	if err := put(ctx, http.MethodPost, blobs(host, repository, config), "", config); err != nil {
		return err
	}
	return put(ctx, http.MethodPut, "http://"+host+"/v2/"+repository+"/manifests/"+tag, string(types.DockerManifestSchema2), manifest)
}

// blobs is where a registry takes a blob whole.
func blobs(host, repository string, data []byte) string {
	return fmt.Sprintf("http://%s/v2/%s/blobs/uploads/?digest=sha256:%x", host, repository, sha256.Sum256(data))
}

func put(ctx context.Context, method, url, kind string, data []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("push: %s %s: %s: %s", method, url, answer.Status, text)
	}
	return nil
}

// randomTar is a layer with one file of so many bytes that nothing compresses.
func randomTar(seed uint64, size int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data)                                                                  // never fails
	_ = w.WriteHeader(&tar.Header{Name: fmt.Sprintf("data%d", seed), Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg}) // into memory
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

// many gives the node fifty containers.
func (w *worker) many(ctx context.Context) ([]row, error) {
	const more = 49
	used, own, err := w.memoryOf()
	if err != nil {
		return nil, err
	}
	var file strings.Builder
	fmt.Fprintf(&file, "name: many\nservices:\n")
	for i := range more {
		fmt.Fprintf(&file, "  s%d: {image: %s, read_only: true, restart: always}\n", i, example.Image)
	}
	path := filepath.Join(w.dir, "many.yaml")
	if err := os.WriteFile(path, []byte(file.String()), 0o644); err != nil {
		return nil, err
	}
	began := time.Now()
	if _, err := w.kogge(ctx, "apply", "-f", path); err != nil {
		return nil, err
	}
	took := time.Since(began).Seconds()
	if err := rest(ctx, time.Minute); err != nil {
		return nil, err
	}
	usedAfter, ownAfter, err := w.memoryOf()
	if err != nil {
		return nil, err
	}
	if _, err := w.kogge(ctx, "rm", "many"); err != nil {
		return nil, err
	}
	beyond := (usedAfter - used - (ownAfter - own)) / more
	return []row{
		{What: "50 containers on 1 GiB: apply until all run, wall", Unit: "s", Values: []float64{took}},
		{What: "  memory of the node", Unit: "MiB", Values: []float64{usedAfter}},
		{What: "  of each container beyond its own", Unit: "MiB", Values: []float64{beyond}, Goal: 5, Note: fmt.Sprintf("its own: %.1f", (ownAfter-own)/more)},
	}, nil
}

// floodSource writes lines at 50 MB/s for as long as it may.
const floodSource = `package main

import (
	"bytes"
	"os"
	"time"
)

func main() {
	block := bytes.Repeat(append(bytes.Repeat([]byte("x"), 99), '\n'), 5000)
	next := time.Now()
	for {
		os.Stdout.Write(block)
		next = next.Add(10 * time.Millisecond)
		time.Sleep(time.Until(next))
	}
}
`

// flood has a container write its log as fast as anybody would, and asks the node how
// it is all the while.
func (w *worker) flood(ctx context.Context) ([]row, error) {
	const long = time.Minute
	tarball := filepath.Join(w.dir, "flood.tar")
	if err := buildFlood(ctx, filepath.Join(w.dir, "flood"), tarball); err != nil {
		return nil, err
	}
	if _, err := w.kogge(ctx, "images", "load", tarball); err != nil {
		return nil, err
	}
	path := filepath.Join(w.dir, "flood.yaml")
	if err := os.WriteFile(path, []byte("name: flood\nservices:\n  flood: {image: \"kogge.local/flood:1\", restart: always}\n"), 0o644); err != nil {
		return nil, err
	}
	if err := rest(ctx, time.Minute); err != nil { // the kernel takes its time to clear up after fifty
		return nil, err
	}
	diskBefore, err := w.stateUsed(ctx)
	if err != nil {
		return nil, err
	}
	used, _, err := w.memoryOf()
	if err != nil {
		return nil, err
	}
	if _, err := w.kogge(ctx, "apply", "-f", path); err != nil {
		return nil, err
	}
	answers := row{What: "log writer at 50 MB/s: kogge node status", Unit: "ms"}
	peak := row{What: "  most memory of the node beyond before", Unit: "MiB"}
	for end := time.Now().Add(long); time.Now().Before(end); {
		ms, err := w.status(ctx)
		if err != nil {
			return nil, err
		}
		answers.Values = append(answers.Values, ms)
		now, _, err := w.memoryOf()
		if err != nil {
			return nil, err
		}
		peak.Values = append(peak.Values, now-used)
	}
	diskAfter, err := w.stateUsed(ctx)
	if err != nil {
		return nil, err
	}
	_, err = w.kogge(ctx, "rm", "flood")
	return []row{answers, peak, {What: fmt.Sprintf("  STATE taken in %v of it", long), Unit: "MB", Values: []float64{diskAfter - diskBefore}}}, err
}

// stateUsed is how much of STATE is in use, in MB.
func (w *worker) stateUsed(ctx context.Context) (float64, error) {
	text, err := w.kogge(ctx, "node", "status", "--json")
	if err != nil {
		return 0, err
	}
	var s struct {
		State struct {
			Total, Available uint64 `json:",string"`
		}
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return 0, fmt.Errorf("node status: %w", err)
	}
	return float64(s.State.Total-s.State.Available) / mb, nil
}

func buildFlood(ctx context.Context, dir, tarball string) error {
	if err := compile(ctx, dir, floodSource, "flood"); err != nil {
		return err
	}
	binary, err := os.ReadFile(filepath.Join(dir, "flood"))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := example.Tar(&b, "kogge.local/flood:1", "amd64", binary, time.Unix(1_700_000_000, 0)); err != nil {
		return err
	}
	return os.WriteFile(tarball, b.Bytes(), 0o644)
}
