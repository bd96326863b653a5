package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	containerdlog "github.com/containerd/log"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"kogge.example/agent/containerd"
	"kogge.example/agent/engine"
	"kogge.example/agent/namespace"
	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
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

// diskFiles is how many files it can have.
const diskFiles = 20_000

func testPull(t *testing.T) {
	loopbackUp(t)
	p := newPuller(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *puller)
	}{
		{"assessed", assessRefused},
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
		{"spares", bombSpares},
		{"packed", packedWell},
		{"stalled", loadStalled},
		{"preloads", preloadNames},
		{"once", preloadRefused},
		{"damaged", preloadOnce},
		{"broken", loadBroken},
		{"names", loadNames},
		{"bombs", loadBombs},
		{"pinned", loadPins},
		{"cut", loadCut},
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
	engine     *engine.Engine
	root       string // of containerd
	socket     string
	registries *registry.Store
	key        string // that of the registries' settings
	images     *library
	log        locked

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
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", diskSize, diskFiles)))
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	p := &puller{root: filepath.Join(disk, "containerd"), key: filepath.Join(disk, "key"), socket: filepath.Join(folder, "c.sock")}
	p.registries = registry.Open(filepath.Join(disk, "registries.age"), p.key)
	t.Setenv("PATH", os.Getenv("PATH")) // the server sets it
	c := containerd.Config{Root: p.root, State: filepath.Join(folder, "run"), Socket: p.socket, Bin: folder}
	server, err := containerd.Start(context.Background(), c)
	must(t, err)
	t.Cleanup(server.Stop)
	p.engine, err = engine.Connect(engine.Paths{
		Socket: c.Socket, Images: disk,
		Registries: p.registries,
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

// assessRefused: what the assessment hears of containerd does not hang on workloads that
// are refused, which are none of the node's own faults.
func assessRefused(t *testing.T, p *puller) {
	a := probed{parts: &parts{}, socket: p.socket}
	defer a.close()
	if e, err := a.engine(); err == nil || !strings.Contains(err.Error(), "no connection to containerd yet") {
		t.Errorf("before the agent is there: %v, %v", e, err)
	}
	why := "workloads refused: shop.yaml:1:1: nonsense"
	a.parts.refused.Store(&why)
	for range 2 {
		e, err := a.engine()
		must(t, err)
		must(t, e.Serving(t.Context()))
	}
	none := probed{parts: a.parts, socket: p.socket + ".none"}
	defer none.close()
	e, err := none.engine()
	must(t, err)
	limited, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := e.Serving(limited); err == nil {
		t.Error("a containerd that is not there serves")
	}
}

// set writes the settings of the registry.
func (p *puller) set(t *testing.T, r map[string]any) {
	t.Helper()
	data, err := json.Marshal(map[string]any{p.images.host: r})
	must(t, err)
	settings, err := registry.Parse(data)
	must(t, err)
	must(t, p.registries.Change(func(r registry.Registries) error {
		clear(r)
		maps.Copy(r, settings)
		return nil
	}))
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
	p.fails(t, "a/web:1", registry.ErrDenied)
	p.set(t, p.images.access(user, "wrong"))
	p.images.forget()
	p.fails(t, "a/web:1", registry.ErrDenied)
	if n, _, _ := p.images.seen(); n > 5 {
		t.Errorf("a wrong password was tried in %d requests", n)
	}
	p.set(t, map[string]any{"user": user, "password": password, "ca": p.images.ca})
	p.mustPull(t, "a/web:1")
	if _, _, sent := p.images.seen(); sent < size {
		t.Errorf("%d bytes sent of %d", sent, size)
	}
	p.set(t, p.images.access(user, password))
	must(t, os.Chmod(p.key, 0o644))
	p.fails(t, "a/web:2", nil, "must be 0600")
	must(t, os.Chmod(p.key, 0o600))
}

func pullWithToken(t *testing.T, p *puller) {
	p.images.push(t, "a/token:1", goruntime.GOARCH, random(t, 2, 1<<20))
	p.images.mu.Lock()
	p.images.bearer = true
	p.images.mu.Unlock()
	p.mustPull(t, "a/token:1")
	p.set(t, p.images.access(user, "wrong"))
	p.fails(t, "a/token:2", registry.ErrDenied)
	p.set(t, p.images.access(user, password))
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
			err := p.engine.CheckImage(t.Context(), workload.Container{Image: name, Platform: platform})
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
	for platform, words := range map[string]string{"linux/" + other: "linux/" + other + " was requested, this node is linux/amd64", "windows/amd64": "this node is", "x/y/z/a": "platform"} {
		if err := pull(platform); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("platform %s: %v", platform, err)
		}
	}
	p.images.push(t, "a/one:1", "386", random(t, 45, 1000))
	err := p.engine.Pull(t.Context(), p.images.host+"/a/one:1", "linux/amd64", func(workload.Progress) {})
	if !errors.Is(err, registry.ErrPlatform) || !strings.Contains(err.Error(), "it is for linux/386, but linux/amd64 was requested") {
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

// pullOtherPlatform: an image that cannot run here is refused before its layers come.
func pullOtherPlatform(t *testing.T, p *puller) {
	p.images.push(t, "a/other:1", other, random(t, 13, 2<<20))
	p.fails(t, "a/other:1", registry.ErrPlatform, "linux/"+other, "this node is linux/"+goruntime.GOARCH)
	if _, _, sent := p.images.seen(); sent > 1<<20 {
		t.Errorf("%d bytes came", sent)
	}
	one, _ := p.images.push(t, "a/other:1", other)
	p.images.put(t, "a/other:2", types.OCIImageIndex, fmt.Appendf(nil,
		`{"schemaVersion": 2, "manifests": [{"mediaType": %q, "size": 1, "digest": %q, "platform": {"os": "linux", "architecture": %q}}]}`,
		types.OCIManifestSchema1, one, other))
	p.fails(t, "a/other:2", registry.ErrPlatform, "linux/"+other)
}

// pullRefused: what the registry says is what the operator reads.
func pullRefused(t *testing.T, p *puller) {
	p.images.push(t, "a/none:1", goruntime.GOARCH, random(t, 14, 1000))
	p.fails(t, "a/none:2", registry.ErrMissing)
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
		p.fails(t, name+":1", registry.ErrDenied)
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
		"nothing":  {string(types.OCIManifestSchema1), []byte(`{}`), "it is not a container image"},
		"text":     {string(types.OCIManifestSchema1), []byte(`"`), "that cannot be read"},
		"deep":     {string(types.OCIImageIndex), []byte(strings.Repeat(`{"manifests":[`, 100_000)), "that cannot be read"},
		"negative": {string(types.OCIManifestSchema1), manifest(string(types.OCIConfigJSON), "-1"), "part of -1 bytes"},
		"huge":     {string(types.OCIManifestSchema1), manifest(string(types.OCIConfigJSON), "9223372036854775807"), "part of 9223372036854775807 bytes"},
		"no image": {string(types.OCIManifestSchema1), manifest("application/vnd.example.chart", "2"), "it is not a container image"},
		"empty":    {string(types.OCIImageIndex), []byte(`{"schemaVersion": 2, "manifests": []}`), "an index without images"},
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
		p.fails(t, ref, registry.ErrLie, c.words)
	}
}
