package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	containerdlog "github.com/containerd/log"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
	"kogge.example/agent/workload"
	"kogge.example/agent/workload/runtime"
)

// TestPull pulls images from a real registry into a real containerd: behind TLS and
// passwords, through cuts, from a mirror that lies, onto a disk that is full.
func TestPull(t *testing.T) {
	if namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		testPull(t)
	}
}

// diskSize is that of the disk that images are pulled to.
const diskSize = 128 << 20

func testPull(t *testing.T) {
	loopbackUp(t)
	p := newPuller(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *puller)
	}{
		{"password", pullWithPassword},
		{"token", pullWithToken},
		{"cuts", pullThroughCuts},
		{"resume", pullAfterStop},
		{"together", pullTogether},
		{"on", pullOnFor},
		{"several", pullPlatform},
		{"layers", pullLayers},
		{"pins", pullPinned},
		{"lies", pullLies},
		{"endless", pullEndless},
		{"platform", pullOtherPlatform},
		{"refused", pullRefused},
		{"elsewhere", pullElsewhere},
		{"strange", pullStrange},
		{"full", pullOntoFullDisk},
		{"collect", pullCollects},
		{"preload", pullOverPreload},
		{"load", loadOntoFullDisk},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.images.reset()
			test.run(t, p)
		})
	}
	for _, secret := range []string{password, "Basic ", "Bearer ", "the-token"} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, &p.log)
		}
	}
}

const (
	user     = "n07"
	password = "correct horse battery"
)

// puller is a node as far as pulls go, and a registry.
type puller struct {
	engine   *workload.Engine
	root     string // of containerd
	settings string
	images   *library
	log      locked

	mu      sync.Mutex // guards what follows
	wanted  []workload.Container
	refused error
}

// wants has containers of these images be wanted.
func (p *puller) wants(refs ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = nil
	for _, ref := range refs {
		p.wanted = append(p.wanted, workload.Container{ID: "by-" + ref, Image: p.images.host + "/" + ref})
	}
}

// has are the images that are there, without the registry's name.
func (p *puller) has(t *testing.T) string {
	t.Helper()
	all, err := p.engine.Images(t.Context())
	must(t, err)
	var names []string
	for _, i := range all {
		names = append(names, strings.TrimPrefix(i.Name, p.images.host+"/"))
	}
	return strings.Join(names, " ")
}

// locked is a buffer for more than one goroutine.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newPuller(t *testing.T) *puller {
	t.Helper()
	folder, err := os.MkdirTemp("/tmp", "k") // short: sockets lie in it
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(folder)) })
	disk := filepath.Join(folder, "state")
	must(t, os.Mkdir(disk, 0o755))
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)))
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	p := &puller{root: filepath.Join(disk, "containerd"), settings: filepath.Join(disk, "registries.json")}
	t.Setenv("PATH", os.Getenv("PATH")) // the server sets it
	c := runtime.Config{Root: p.root, State: filepath.Join(folder, "run"), Socket: filepath.Join(folder, "c.sock"), Bin: folder}
	server, err := runtime.Start(context.Background(), c)
	must(t, err)
	t.Cleanup(server.Stop)
	p.engine, err = workload.Connect(workload.Paths{
		Socket: c.Socket, Images: disk,
		Registries: workload.OpenRegistries(strings.TrimSuffix(p.settings, ".json")+".age", filepath.Join(disk, "key")),
	}, "")
	must(t, err)
	t.Cleanup(func() { must(t, p.engine.Close()) })
	p.engine.Wants(func() ([]workload.Container, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.wanted, p.refused
	})
	p.images = newLibrary(t)
	p.set(t, p.images.access(user, password))
	log.SetOutput(io.MultiWriter(&p.log, os.Stderr))
	containerdlog.L.Logger.SetOutput(io.MultiWriter(&p.log, os.Stderr))
	return p
}

// set writes the settings of the registry.
func (p *puller) set(t *testing.T, r map[string]any) {
	t.Helper()
	data, err := json.Marshal(map[string]any{p.images.host: r})
	must(t, err)
	must(t, os.WriteFile(p.settings, data, 0o600))
}

// pull pulls and returns the last progress before the end.
func (p *puller) pull(ref string) (workload.Progress, error) {
	var last workload.Progress
	err := p.engine.Pull(context.Background(), p.images.host+"/"+ref, "", func(now workload.Progress) { last = now })
	return last, err
}

func (p *puller) mustPull(t *testing.T, ref string) {
	t.Helper()
	if _, err := p.pull(ref); err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	if _, err := p.engine.Digest(t.Context(), p.images.host+"/"+ref); err != nil {
		t.Fatal(err)
	}
}

// fails pulls what cannot be pulled, and wants the reason in these words.
func (p *puller) fails(t *testing.T, ref string, why error, words ...string) {
	t.Helper()
	_, err := p.pull(ref)
	if why != nil && !errors.Is(err, why) || err == nil {
		t.Fatalf("pull %s: %v, want %v", ref, err, why)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("pull %s: %v, want %q in it", ref, err, w)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("the password is in %v", err)
	}
	if _, err := p.engine.Digest(t.Context(), p.images.host+"/"+ref); !errors.Is(err, workload.ErrNoImage) {
		t.Errorf("%s after a pull that failed: %v", ref, err)
	}
}

func pullWithPassword(t *testing.T, p *puller) {
	_, size := p.images.push(t, "a/web:1", goruntime.GOARCH, random(t, 1, 1<<20))
	p.set(t, map[string]any{"ca": p.images.ca})
	p.fails(t, "a/web:1", workload.ErrDenied)
	p.set(t, p.images.access(user, "wrong"))
	p.images.forget()
	p.fails(t, "a/web:1", workload.ErrDenied)
	if n, _, _ := p.images.seen(); n > 5 {
		t.Errorf("a wrong password was tried in %d requests", n)
	}
	p.set(t, map[string]any{"user": user, "password": password, "ca": p.images.ca})
	p.mustPull(t, "a/web:1")
	if _, _, sent := p.images.seen(); sent < size {
		t.Errorf("%d bytes sent of %d", sent, size)
	}
	p.set(t, p.images.access(user, password))
	must(t, os.Chmod(p.settings, 0o644))
	p.fails(t, "a/web:2", nil, "has to be 0600")
	must(t, os.Chmod(p.settings, 0o600))
}

func pullWithToken(t *testing.T, p *puller) {
	p.images.push(t, "a/token:1", goruntime.GOARCH, random(t, 2, 1<<20))
	p.images.mu.Lock()
	p.images.bearer = true
	p.images.mu.Unlock()
	p.mustPull(t, "a/token:1")
	p.set(t, p.images.access(user, "wrong"))
	p.fails(t, "a/token:2", workload.ErrDenied)
	p.set(t, p.images.access(user, password))
}

// pullThroughCuts: each connection breaks in the middle, and the pull goes on there.
func pullThroughCuts(t *testing.T, p *puller) {
	_, size := p.images.push(t, "a/cut:1", goruntime.GOARCH, random(t, 3, 6<<20), random(t, 4, 6<<20), random(t, 5, 1<<20))
	p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			p.images.proxy.ServeHTTP(&limited{w, 2<<20 + 100}, r)
			return true
		}
		return false
	})
	p.mustPull(t, "a/cut:1")
	_, ranges, sent := p.images.seen()
	if n := len(strings.Fields(strings.Join(ranges, " "))); n < 4 {
		t.Errorf("ranges %q: want four that go on", ranges)
	}
	if most := size + size/5; sent > most {
		t.Errorf("%d bytes sent for %d", sent, size)
	}
}

// pullAfterStop: a pull that was given up in the middle goes on there in the next one,
// even if the collector ran between them.
func pullAfterStop(t *testing.T, p *puller) {
	const ref = "a/resume:1"
	_, size := p.images.push(t, ref, goruntime.GOARCH, random(t, 6, 8<<20))
	hold := make(chan struct{})
	p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("Range") != "" {
			return false
		}
		p.images.proxy.ServeHTTP(&held{w, 5 << 20, hold}, r)
		return true
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := p.engine.Pull(ctx, p.images.host+"/"+ref, "", func(now workload.Progress) {
		if now.Done >= 4<<20 {
			cancel()
		}
	})
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a pull that was given up: %v", err)
	}
	close(hold)
	p.images.bends(nil)
	must(t, p.engine.Forget(t.Context(), p.images.host+"/a/cut:1")) // after which the collector runs
	p.images.forget()
	p.mustPull(t, ref)
	_, ranges, sent := p.images.seen()
	if !strings.Contains(strings.Join(ranges, " "), "bytes=") || sent > size-4<<20+64<<10 {
		t.Errorf("the second pull asked for %q and got %d of %d bytes", ranges, sent, size)
	}
}

// held is an answer that stops in the middle.
type held struct {
	http.ResponseWriter
	left int
	hold chan struct{}
}

func (h *held) Write(p []byte) (int, error) {
	if h.left < len(p) {
		n, err := h.ResponseWriter.Write(p[:h.left])
		_ = http.NewResponseController(h.ResponseWriter).Flush()
		if err == nil {
			<-h.hold
			panic(http.ErrAbortHandler)
		}
		return n, err
	}
	h.left -= len(p)
	return h.ResponseWriter.Write(p)
}

// pullLayers: layers are unpacked beside each other, and what one deletes of another
// is gone in the end.
func pullLayers(t *testing.T, p *puller) {
	below := static.NewLayer(tarOf(t, map[string][]byte{"kept": nil, "deleted": nil, "emptied/old": nil}), types.OCIUncompressedLayer)
	above := static.NewLayer(tarOf(t, map[string][]byte{".wh.deleted": nil, "emptied/.wh..wh..opq": nil, "emptied/new": nil}), types.OCIUncompressedLayer)
	p.images.push(t, "a/layers:1", goruntime.GOARCH, below, above)
	p.mustPull(t, "a/layers:1")
	snapshots := filepath.Join(p.root, "io.containerd.snapshotter.v1.overlayfs", "snapshots", "*", "fs")
	lower, err := filepath.Glob(filepath.Join(snapshots, "kept"))
	must(t, err)
	upper, err := filepath.Glob(filepath.Join(snapshots, "emptied", "new"))
	must(t, err)
	if len(lower) != 1 || len(upper) != 1 {
		t.Fatalf("layers are at %q and %q", lower, upper)
	}
	whole := t.TempDir()
	top := filepath.Dir(filepath.Dir(upper[0]))
	must(t, unix.Mount("overlay", whole, "overlay", unix.MS_RDONLY, "lowerdir="+top+":"+filepath.Dir(lower[0])))
	defer func() { must(t, unix.Unmount(whole, 0)) }()
	var files []string
	must(t, fs.WalkDir(os.DirFS(whole), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	if got := strings.Join(files, " "); got != "emptied/new kept" {
		t.Errorf("the image has %q", got)
	}
}

// pullTogether: two that want one image cost one transfer.
func pullTogether(t *testing.T, p *puller) {
	_, size := p.images.push(t, "a/both:1", goruntime.GOARCH, random(t, 7, 2<<20))
	var both sync.WaitGroup
	for range 3 {
		both.Go(func() {
			if _, err := p.pull("a/both:1"); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if _, _, sent := p.images.seen(); sent > size+64<<10 {
		t.Errorf("%d bytes sent for %d", sent, size)
	}
}

// pullOnFor: who wanted a pull first may go, and it goes on for the other; when both
// have gone, it ends.
func pullOnFor(t *testing.T, p *puller) {
	const ref = "a/on:1"
	p.images.push(t, ref, goruntime.GOARCH, random(t, 30, 8<<20))
	hold := make(chan struct{})
	p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		p.images.proxy.ServeHTTP(&held{w, 4 << 20, hold}, r)
		return true
	})
	// wait pulls until the returned function is called, and says when half is there.
	wait := func(half chan<- struct{}) (leave func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		over, once := make(chan error, 1), sync.Once{}
		go func() {
			over <- p.engine.Pull(ctx, p.images.host+"/"+ref, "", func(now workload.Progress) {
				if len(now.Layers) == 1 && now.Layers[0].Done >= 3<<20 && now.Layers[0].From == p.images.host {
					once.Do(func() { close(half) })
				}
			})
		}()
		return func() error { cancel(); return <-over }
	}
	first, second := make(chan struct{}), make(chan struct{})
	leaveFirst := wait(first)
	<-first
	before, _, _ := p.images.seen()
	leaveSecond := wait(second)
	<-second
	if err := leaveFirst(); !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	third := make(chan struct{})
	leaveThird := wait(third) // which joins what goes on
	<-third
	if asked, _, _ := p.images.seen(); asked != before {
		t.Errorf("asked %d times more: it did not go on", asked-before)
	}
	if err := errors.Join(leaveSecond(), leaveThird()); !errors.Is(err, context.Canceled) {
		t.Errorf("the others: %v", err)
	}
	close(hold)
	var last workload.Progress
	p.images.bends(nil)
	must(t, p.engine.Pull(t.Context(), p.images.host+"/"+ref, "", func(now workload.Progress) { last = now }))
	if len(last.Layers) != 1 || last.Layers[0].Before < 3<<20 || last.Layers[0].Done != last.Layers[0].Size || last.Done != last.Total {
		t.Errorf("at the end of the next pull: %+v", last)
	}
}

// pullPlatform: of an image for several platforms the one that is asked for comes,
// beside the one that is there.
func pullPlatform(t *testing.T, p *puller) {
	if goruntime.GOARCH != "amd64" {
		t.Skip("another platform that runs here is known for amd64 only")
	}
	var manifests []string
	for i, arch := range []string{"amd64", "386", other} {
		ref := fmt.Sprintf("a/several:%s", arch)
		digest, _ := p.images.push(t, ref, arch, random(t, uint64(40+i), 1<<20))
		w := httptest.NewRecorder()
		p.images.proxy.ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/several/manifests/"+arch, nil))
		manifests = append(manifests, fmt.Sprintf(`{"mediaType": %q, "size": %d, "digest": %q, "platform": {"os": "linux", "architecture": %q}}`,
			types.OCIManifestSchema1, w.Body.Len(), digest, arch))
	}
	p.images.put(t, "a/several:1", types.OCIImageIndex, fmt.Appendf(nil, `{"schemaVersion": 2, "mediaType": %q, "manifests": [%s]}`, types.OCIImageIndex, strings.Join(manifests, ",")))
	name := p.images.host + "/a/several:1"
	has := func(platforms ...string) {
		t.Helper()
		for _, platform := range []string{"", "linux/amd64", "linux/386"} {
			err := p.engine.Lacks(t.Context(), workload.Container{Image: name, Platform: platform})
			if err != nil && !errors.Is(err, workload.ErrNoImage) || (err == nil) != slices.Contains(platforms, platform) {
				t.Errorf("platform %q: %v", platform, err)
			}
		}
	}
	has()
	pull := func(platform string) error {
		return p.engine.Pull(t.Context(), name, platform, func(workload.Progress) {})
	}
	must(t, pull("linux/386"))
	has("linux/386")
	must(t, pull(""))
	has("", "linux/386", "linux/amd64")
	for platform, words := range map[string]string{"linux/" + other: "linux/" + other + " is asked for, and this node is linux/amd64", "windows/amd64": "this node is", "x/y/z/a": "platform"} {
		if err := pull(platform); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("platform %s: %v", platform, err)
		}
	}
	p.images.push(t, "a/one:1", "386", random(t, 45, 1000))
	err := p.engine.Pull(t.Context(), p.images.host+"/a/one:1", "linux/amd64", func(workload.Progress) {})
	if !errors.Is(err, workload.ErrPlatform) || !strings.Contains(err.Error(), "linux/386, and linux/amd64 is asked for") {
		t.Errorf("another one than the image is for: %v", err)
	}
}

// pullPinned: a name with a digest means those bytes, wherever its tag has gone.
func pullPinned(t *testing.T, p *puller) {
	old, _ := p.images.push(t, "a/pin:1", goruntime.GOARCH, random(t, 8, 1000))
	now, _ := p.images.push(t, "a/pin:1", goruntime.GOARCH, random(t, 9, 1000))
	for ref, want := range map[string]v1.Hash{"a/pin:1": now, "a/pin@" + old.String(): old} {
		p.mustPull(t, ref)
		if got, err := p.engine.Digest(t.Context(), p.images.host+"/"+ref); err != nil || got != want.String() {
			t.Errorf("%s is %s, want %s (%v)", ref, got, want, err)
		}
	}
}

// pullLies: a registry that sends other bytes is found out; where it is a mirror, the
// registry itself is asked.
func pullLies(t *testing.T, p *puller) {
	p.images.push(t, "a/lie:1", goruntime.GOARCH, random(t, 10, 2<<20))
	liar := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			p.images.proxy.ServeHTTP(&twisted{w}, r)
			return true
		}
		return false
	}
	p.images.bends(liar)
	p.fails(t, "a/lie:1", workload.ErrLie)
	p.images.bends(nil)
	p.mustPull(t, "a/lie:1") // nothing of the lie is left

	p.images.push(t, "a/lie:2", goruntime.GOARCH, random(t, 11, 2<<20))
	mirror := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.Replace(r.URL.Path, "/v2/cache/", "/v2/", 1)
		if !liar(w, r) {
			p.images.proxy.ServeHTTP(w, r)
		}
	}))
	defer mirror.Close()
	settings := p.images.access(user, password)
	settings["mirrors"] = []any{map[string]any{"url": mirror.URL + "/cache", "ca": p.images.ca}}
	p.set(t, settings)
	p.mustPull(t, "a/lie:2")
	p.set(t, p.images.access(user, password))
}

// twisted changes each answer.
type twisted struct{ http.ResponseWriter }

func (w *twisted) Write(p []byte) (int, error) {
	return w.ResponseWriter.Write(bytes.Repeat([]byte{'x'}, len(p)))
}

// pullEndless: bodies that do not end are left.
func pullEndless(t *testing.T, p *puller) {
	p.images.push(t, "a/endless:1", goruntime.GOARCH, random(t, 12, 1<<20))
	for what, why := range map[string]string{"/blobs/": workload.ErrLie.Error(), "/manifests/": "longer than"} {
		p.images.forget()
		p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, what) {
				return false
			}
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			for chunk := make([]byte, 64<<10); ; {
				if _, err := w.Write(chunk); err != nil || r.Method == http.MethodHead {
					return true
				}
			}
		})
		p.fails(t, "a/endless:1", nil, why)
		if _, _, sent := p.images.seen(); sent > 32<<20 {
			t.Errorf("took %d bytes of %s", sent, what)
		}
	}
}

// pullOtherPlatform: an image that cannot run here is refused before its layers come.
func pullOtherPlatform(t *testing.T, p *puller) {
	p.images.push(t, "a/other:1", other, random(t, 13, 2<<20))
	p.fails(t, "a/other:1", workload.ErrPlatform, "linux/"+other, "this node is linux/"+goruntime.GOARCH)
	if _, _, sent := p.images.seen(); sent > 1<<20 {
		t.Errorf("%d bytes came", sent)
	}
	one, _ := p.images.push(t, "a/other:1", other)
	p.images.put(t, "a/other:2", types.OCIImageIndex, fmt.Appendf(nil,
		`{"schemaVersion": 2, "manifests": [{"mediaType": %q, "size": 1, "digest": %q, "platform": {"os": "linux", "architecture": %q}}]}`,
		types.OCIManifestSchema1, one, other))
	p.fails(t, "a/other:2", workload.ErrPlatform, "linux/"+other)
}

// pullRefused: what the registry says is what the operator reads.
func pullRefused(t *testing.T, p *puller) {
	p.images.push(t, "a/none:1", goruntime.GOARCH, random(t, 14, 1000))
	p.fails(t, "a/none:2", workload.ErrMissing)
	p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"errors": [{"code": "CLOSED", "message": "back at noon"}]}`)
		return true
	})
	p.fails(t, "a/none:1", nil, p.images.host, "503 Service Unavailable", "CLOSED back at noon")
	gone := httptest.NewServer(nil)
	gone.Close()
	ref := strings.TrimPrefix(gone.URL, "http://") + "/a/none:1"
	err := p.engine.Pull(t.Context(), ref, "", func(workload.Progress) {})
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a registry that is away: %v", err)
	}
}

// pullElsewhere: where a registry redirects to, nobody is told a password or a token,
// however it asks; and a circle of redirections has an end.
func pullElsewhere(t *testing.T, p *puller) {
	var mu sync.Mutex
	var told []string
	asked := 0
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		told = append(told, r.Header["Authorization"]...)
		body, _ := io.ReadAll(r.Body)
		told = append(told, string(body))
		mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/open") {
			r.URL.Path = strings.TrimSuffix(r.URL.Path, "/open")
			p.images.proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer elsewhere.Close()
	for i, bearer := range []bool{false, true} {
		name := fmt.Sprintf("a/elsewhere%d", i)
		p.images.push(t, name+":1", goruntime.GOARCH, random(t, uint64(20+i), 1<<20))
		p.images.mu.Lock()
		p.images.bearer = bearer
		p.images.mu.Unlock()
		redirect := func(suffix string) {
			p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				http.Redirect(w, r, elsewhere.URL+r.URL.Path+suffix, http.StatusTemporaryRedirect)
				return true
			})
		}
		redirect("")
		p.fails(t, name+":1", workload.ErrDenied)
		redirect("/open")
		p.mustPull(t, name+":1")
	}
	// The server of tokens sends the password on.
	p.images.bends(nil)
	p.images.push(t, "a/token:3", goruntime.GOARCH)
	p.images.mu.Lock()
	p.images.tokens = elsewhere.URL
	p.images.mu.Unlock()
	p.fails(t, "a/token:3", nil, p.images.host, "redirects a request with credentials to another server")
	p.images.mu.Lock()
	p.images.tokens = ""
	p.images.mu.Unlock()
	if text := strings.Join(told, ""); text != "" || asked < 4 {
		t.Errorf("in %d requests the other server was told %q", asked, text)
	}
	p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path+"x", http.StatusTemporaryRedirect)
		return true
	})
	p.images.forget()
	p.fails(t, "a/circle:1", nil, p.images.host, "redirects more than 10 times")
	if n, _, _ := p.images.seen(); n > 80 {
		t.Errorf("asked %d times in a circle", n)
	}
}

// pullStrange: what is no image is found out, whatever it is called.
func pullStrange(t *testing.T, p *puller) {
	manifest := func(config, size string) []byte {
		return fmt.Appendf(nil, `{"schemaVersion": 2, "mediaType": %q, "config": {"mediaType": %q, "digest": "sha256:%064d", "size": %s}, "layers": []}`,
			types.OCIManifestSchema1, config, 1, size)
	}
	for name, c := range map[string]struct {
		kind  string
		raw   []byte
		words string
	}{
		"page":     {"text/html", []byte("<html>please log in to the hotel's network</html>"), "text/html"},
		"schema1":  {string(types.DockerManifestSchema1), []byte(`{"schemaVersion": 1}`), "manifest.v1+json"},
		"nothing":  {string(types.OCIManifestSchema1), []byte(`{}`), "it is no container image"},
		"text":     {string(types.OCIManifestSchema1), []byte(`"`), "that cannot be read"},
		"deep":     {string(types.OCIImageIndex), []byte(strings.Repeat(`{"manifests":[`, 100_000)), "that cannot be read"},
		"negative": {string(types.OCIManifestSchema1), manifest(string(types.OCIConfigJSON), "-1"), "part of -1 bytes"},
		"huge":     {string(types.OCIManifestSchema1), manifest(string(types.OCIConfigJSON), "9223372036854775807"), "part of 9223372036854775807 bytes"},
		"no image": {string(types.OCIManifestSchema1), manifest("application/vnd.example.chart", "2"), "it is no container image"},
		"empty":    {string(types.OCIImageIndex), []byte(`{"schemaVersion": 2, "manifests": []}`), "an index of no image"},
	} {
		p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", c.kind)
			_, err := w.Write(c.raw)
			return err == nil
		})
		ref := "a/strange:" + strings.ReplaceAll(name, " ", "")
		p.fails(t, ref, workload.ErrLie, c.words)
	}
}

// pullOntoFullDisk: what does not fit is refused, or given up and cleared away.
func pullOntoFullDisk(t *testing.T, p *puller) {
	before := used(t, p.root)
	p.images.forget()
	p.images.push(t, "a/big:1", goruntime.GOARCH, random(t, 15, diskSize-8<<20))
	p.fails(t, "a/big:1", workload.ErrFull, "MB are missing")
	if _, _, sent := p.images.seen(); sent > 1<<20 {
		t.Errorf("%d bytes came", sent)
	}
	p.images.push(t, "a/bomb:1", goruntime.GOARCH, bomb(t, diskSize+diskSize/4))
	p.fails(t, "a/bomb:1", workload.ErrFull)
	until(t, "the disk to be as before", func() bool { return used(t, p.root) < before+1<<20 })
}

// pullCollects: for an image that does not fit, what broken pulls left goes, then images
// that nobody uses, the one of the longest ago first, and no more than has to.
func pullCollects(t *testing.T, p *puller) {
	p.wants()
	p.images.push(t, "a/gone:1", goruntime.GOARCH, random(t, 59, 8<<20))
	p.mustPull(t, "a/gone:1")
	_, freed, err := p.engine.Prune(t.Context(), false)
	must(t, err)
	if has := p.has(t); has != "" || freed < 8<<20 {
		t.Fatalf("pruned, %d bytes, and there is %s", freed, has)
	}
	until(t, "an empty store", func() bool { return used(t, p.root) < 4<<20 })
	const mega = 1 << 20
	for i, name := range []string{"used", "old", "new"} {
		p.images.push(t, "a/"+name+":1", goruntime.GOARCH, random(t, uint64(60+i), 12*mega))
		p.mustPull(t, "a/"+name+":1") // twice its size: as it travels, and unpacked
	}
	p.images.push(t, "a/half:1", goruntime.GOARCH, random(t, 64, 4*mega))
	p.images.bends(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/"):
			return false
		case r.Header.Get("Range") != "":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			p.images.proxy.ServeHTTP(&limited{w, 3 * mega}, r)
		}
		return true
	})
	p.fails(t, "a/half:1", nil, "503")
	p.images.bends(nil)
	// Its use is noted, and that of others is not.
	p.wants("a/used:1")
	ctx, cancel := context.WithCancel(t.Context())
	var tending sync.WaitGroup
	tending.Go(func() { p.engine.Tend(ctx) })
	until(t, "a note of use", func() bool {
		all, err := p.engine.Images(t.Context())
		must(t, err)
		i := slices.IndexFunc(all, func(i workload.Image) bool { return strings.HasSuffix(i.Name, "/a/used:1") })
		return !all[i].Used.IsZero() && slices.Equal(all[i].By, []string{"by-a/used:1"})
	})
	cancel()
	tending.Wait()
	all, err := p.engine.Images(t.Context())
	must(t, err)
	for _, i := range all {
		if i.Disk < 2*i.Size-mega || i.Size < 12*mega || !strings.HasSuffix(i.Name, "/a/used:1") && (len(i.By) > 0 || !i.Used.IsZero()) {
			t.Errorf("%+v", i)
		}
	}
	would, _, err := p.engine.Prune(t.Context(), true)
	if must(t, err); len(would) != 2 || !strings.HasSuffix(would[0].Name, "a/old:1") {
		t.Errorf("would prune %+v", would)
	}
	p.images.push(t, "a/next:1", goruntime.GOARCH, random(t, 65, 28*mega))
	p.mustPull(t, "a/next:1")
	if has := p.has(t); has != "a/new:1 a/next:1 a/used:1" {
		t.Errorf("there is %s", has)
	}
	p.images.forget()
	p.mustPull(t, "a/half:1")
	if _, ranges, _ := p.images.seen(); strings.Join(ranges, "") != "" {
		t.Errorf("what a broken pull left was there: %q", ranges)
	}
	// While nobody can say what is wanted, nothing goes.
	p.mu.Lock()
	p.refused = errors.New("shop.yaml:1:1: nonsense")
	p.mu.Unlock()
	if gone, _, err := p.engine.Prune(t.Context(), false); err != nil || len(gone) != 0 {
		t.Errorf("pruned %+v, %v", gone, err)
	}
	p.mu.Lock()
	p.refused = nil
	p.mu.Unlock()
	// What does not fit with nothing else there takes nothing away.
	before := p.has(t)
	p.images.push(t, "a/hopeless:1", goruntime.GOARCH, random(t, 66, 110*mega))
	p.fails(t, "a/hopeless:1", workload.ErrFull, "MB are missing")
	// And what is in use stays, whatever becomes of the pull.
	if has := p.has(t); has != before {
		t.Errorf("there is %s, and was %s", has, before)
	}
	p.wants("a/used:1", "a/new:1", "a/next:1", "a/half:1", "a/more:1")
	p.images.push(t, "a/more:1", goruntime.GOARCH, random(t, 67, 30*mega))
	p.fails(t, "a/more:1", workload.ErrFull)
	if has := p.has(t); has != before {
		t.Errorf("there is %s, and was %s", has, before)
	}
	gone, _, err := p.engine.Prune(t.Context(), false)
	if must(t, err); len(gone) != 0 {
		t.Errorf("pruned %+v", gone)
	}
}

// saved is what docker save would write of an image with one layer.
func saved(t *testing.T, ref string, layer v1.Layer) string {
	t.Helper()
	image, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{OS: "linux", Architecture: goruntime.GOARCH, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{hashOf(t, layer)}}})
	must(t, err)
	tag, err := name.NewTag(ref)
	must(t, err)
	file := filepath.Join(t.TempDir(), "image.tar")
	must(t, tarball.WriteToFile(file, tag, image))
	return file
}

func hashOf(t *testing.T, layer v1.Layer) v1.Hash {
	t.Helper()
	hash, err := layer.DiffID()
	must(t, err)
	return hash
}

// pullOverPreload: a pull that takes the place of a preload has it for good, and no
// collector takes it.
func pullOverPreload(t *testing.T, p *puller) {
	p.wants()
	ref := p.images.host + "/a/pre:1"
	file := saved(t, ref, random(t, 70, 1<<20))
	preload := func() string {
		t.Helper()
		names, err := p.engine.Preload(t.Context(), filepath.Dir(file))
		must(t, err)
		return strings.Join(names, " ")
	}
	if got := preload(); got != ref {
		t.Fatalf("preloaded %s", got)
	}
	digest, _ := p.images.push(t, "a/pre:1", goruntime.GOARCH, random(t, 71, 1<<20))
	p.mustPull(t, "a/pre:1")
	_, _, err := p.engine.Prune(t.Context(), false)
	must(t, err)
	if got := preload() + p.has(t); got != "a/pre:1" {
		t.Errorf("preloaded again, or there is %s", got)
	}
	if got, err := p.engine.Digest(t.Context(), ref); err != nil || got != digest.String() {
		t.Errorf("it is %s, want %s (%v)", got, digest, err)
	}
	tar, err := os.Open(saved(t, ref, random(t, 72, 1000)))
	must(t, err)
	defer tar.Close()
	_, err = p.engine.Load(t.Context(), tar)
	must(t, err)
	if got := preload(); got != "" {
		t.Errorf("preloaded %s over what was loaded", got)
	}
}

// loadOntoFullDisk: a tar that does not fit is given up, and nothing is left of it.
func loadOntoFullDisk(t *testing.T, p *puller) {
	before := used(t, p.root)
	tar, err := os.Open(saved(t, p.images.host+"/a/loaded:1", random(t, 75, diskSize)))
	must(t, err)
	defer tar.Close()
	if _, err := p.engine.Load(t.Context(), tar); !errors.Is(err, workload.ErrFull) {
		t.Errorf("%v", err)
	}
	if has := p.has(t); strings.Contains(has, "loaded") {
		t.Errorf("there is %s", has)
	}
	until(t, "the disk to be as before", func() bool { return used(t, p.root) < before+1<<20 })
}

// bomb is a small layer with a big file in it.
func bomb(t *testing.T, size int64) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(t, err)
	w := tar.NewWriter(z)
	must(t, w.WriteHeader(&tar.Header{Name: "bomb", Mode: 0o644, Size: size, Typeflag: tar.TypeReg}))
	_, err = io.CopyN(w, zeros{}, size)
	must(t, err)
	must(t, w.Close())
	must(t, z.Close())
	return static.NewLayer(b.Bytes(), types.OCILayer) // its DiffID is wrong, and nobody gets that far
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// used is how many bytes the files below folder have.
func used(t *testing.T, folder string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // it went while we looked
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	must(t, err)
	return sum
}
