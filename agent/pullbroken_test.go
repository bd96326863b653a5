package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

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
	p.fails(t, "a/lie:1", registry.ErrLie)
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
	for what, why := range map[string]string{"/blobs/": registry.ErrLie.Error(), "/manifests/": "longer than"} {
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
