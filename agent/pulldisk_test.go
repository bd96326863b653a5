package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"kogge.example/agent/images"
	"kogge.example/agent/registry"
)

// pullOntoFullDisk: what does not fit is refused, or given up and cleared away.
func pullOntoFullDisk(t *testing.T, p *puller) {
	before := used(t, p.root)
	p.images.forget()
	p.images.push(t, "a/big:1", goruntime.GOARCH, random(t, 15, diskSize-8<<20))
	p.fails(t, "a/big:1", registry.ErrFull, "MB needed")
	if _, _, sent := p.images.seen(); sent > 1<<20 {
		t.Errorf("%d bytes came", sent)
	}
	p.images.push(t, "a/bomb:1", goruntime.GOARCH, bomb(t, diskSize+diskSize/4))
	p.fails(t, "a/bomb:1", registry.ErrFull)
	p.images.push(t, "a/crumbs:1", goruntime.GOARCH, crumbs(t, 2*diskFiles))
	p.fails(t, "a/crumbs:1", registry.ErrFull)
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
		i := slices.IndexFunc(all, func(i images.Image) bool { return strings.HasSuffix(i.Name, "/a/used:1") })
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
	p.fails(t, "a/hopeless:1", registry.ErrFull, "MB needed")
	// And what is in use stays, whatever becomes of the pull.
	if has := p.has(t); has != before {
		t.Errorf("there is %s, and was %s", has, before)
	}
	p.wants("a/used:1", "a/new:1", "a/next:1", "a/half:1", "a/more:1")
	p.images.push(t, "a/more:1", goruntime.GOARCH, random(t, 67, 30*mega))
	p.fails(t, "a/more:1", registry.ErrFull)
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

// loadOntoFullDisk: a tar that does not fit, as it comes or unpacked, in bytes or in files,
// is given up, and nothing is left of it.
func loadOntoFullDisk(t *testing.T, p *puller) {
	before := used(t, p.root)
	p.wants("a/used:1", "a/new:1", "a/next:1", "a/half:1", "a/more:1")
	stay := p.has(t)
	for _, layer := range []v1.Layer{random(t, 75, diskSize), bomb(t, 2*diskSize), crumbs(t, 2*diskFiles)} {
		tar, err := os.Open(saved(t, p.images.host+"/a/loaded:1", layer))
		must(t, err)
		defer tar.Close()
		if _, err := p.engine.Load(t.Context(), tar); !errors.Is(err, registry.ErrFull) {
			t.Errorf("%v", err)
		}
		if has := p.has(t); has != stay {
			t.Errorf("there is %s, and was %s", has, stay)
		}
	}
	until(t, "the disk to be as before", func() bool { return used(t, p.root) < before+1<<20 })
}

// bombSpares: what is small and fills the disk is given up before it costs images that nobody
// uses right now: on a site without a registry they would have to be brought again. A load
// that fails takes the image of its own name from nobody either.
func bombSpares(t *testing.T, p *puller) {
	p.wants()
	_, _, err := p.engine.Prune(t.Context(), false)
	must(t, err)
	until(t, "an empty store", func() bool { return used(t, p.root) < 4<<20 })
	refs := []string{"c/one:1", "c/two:1", "c/three:1", "c/four:1"}
	for i, ref := range refs { // the first one goes first
		p.images.push(t, ref, goruntime.GOARCH, random(t, uint64(80+i), 4<<20))
		p.mustPull(t, ref)
	}
	left := func(least int, what string) {
		t.Helper()
		if n := strings.Count(p.has(t), "c/"); n < least {
			t.Errorf("%s: %d images are left: %s", what, n, p.has(t))
		}
		until(t, "the disk to be clear of it", func() bool { return used(t, p.root) < 40<<20 })
	}
	for n, layer := range []v1.Layer{bomb(t, 2*diskSize), crumbs(t, 2*diskFiles)} {
		tar, err := os.Open(saved(t, p.images.host+"/"+refs[0], layer))
		must(t, err)
		defer tar.Close()
		if _, err := p.engine.Load(t.Context(), tar); !errors.Is(err, registry.ErrFull) {
			t.Errorf("%v", err)
		}
		if !strings.Contains(p.has(t), refs[0]) {
			t.Errorf("the image of the load's own name is gone: %s", p.has(t))
		}
		left(len(refs)-1-n, "loaded")
	}
	there := strings.Count(p.has(t), "c/")
	p.images.push(t, "c/bomb:1", goruntime.GOARCH, bomb(t, 2*diskSize))
	p.fails(t, "c/bomb:1", registry.ErrFull)
	left(there-1, "pulled")
}

// unused empties the store and pulls images that nobody uses: each has twice its size of the
// disk.
func (p *puller) unused(t *testing.T, size int, refs ...string) {
	t.Helper()
	p.wants()
	_, _, err := p.engine.Prune(t.Context(), false)
	must(t, err)
	until(t, "an empty store", func() bool { return used(t, p.root) < 4<<20 })
	for i, ref := range refs {
		p.images.push(t, ref, goruntime.GOARCH, random(t, uint64(100+i), size))
		p.mustPull(t, ref)
	}
}

// packedWell: what packs well, though no more than real layers do, has unused images removed
// until it fits: loaded as docker save | gzip writes it, and pulled.
func packedWell(t *testing.T, p *puller) {
	refs := []string{"d/one:1", "d/two:1", "d/three:1", "d/four:1"}
	p.unused(t, 12<<20, refs...)
	ref := p.images.host + "/d/well:1"
	plain := tarOf(t, map[string][]byte{"data": mixed(40<<20, 5)})
	data, err := os.ReadFile(saved(t, ref, static.NewLayer(plain, types.OCIUncompressedLayer)))
	must(t, err)
	_, err = p.engine.Load(t.Context(), bytes.NewReader(gzipped(t, data)))
	if must(t, err); !strings.Contains(p.has(t), "d/well:1") {
		t.Errorf("there is %s", p.has(t))
	}
	p.unused(t, 12<<20, refs...)
	layer := gzipped(t, tarOf(t, map[string][]byte{"data": mixed(60<<20, 6)}))
	p.images.push(t, "d/well:1", goruntime.GOARCH, honest{static.NewLayer(layer, types.OCILayer), layer})
	p.mustPull(t, "d/well:1")
	if !strings.Contains(p.has(t), "d/well:1") {
		t.Errorf("there is %s", p.has(t))
	}
}

// loadStalled: while a load or pull waits for bytes that do not come, the minute's collection
// goes on beside it: something else may fill the disk meanwhile.
func loadStalled(t *testing.T, p *puller) {
	p.unused(t, 2<<20, "d/one:1", "d/two:1", "d/three:1", "d/four:1")
	r, w := io.Pipe()
	var loading sync.WaitGroup
	loading.Go(func() { _, _ = p.engine.Load(t.Context(), r) })
	defer loading.Wait()
	defer w.Close()
	_, err := w.Write(box(t, boxed{p.images.host + "/d/late:1", "late", false})[:700])
	must(t, err)
	var disk unix.Statfs_t
	must(t, unix.Statfs(filepath.Dir(p.root), &disk))
	logs := filepath.Join(filepath.Dir(p.root), "logs")
	must(t, os.WriteFile(logs, make([]byte, int64(disk.Bavail)*int64(disk.Bsize)-2<<20), 0o600))
	defer os.Remove(logs)
	until(t, "more unused images to go than the load may have removed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a round
		defer cancel()
		p.engine.Tend(ctx)
		return !strings.Contains(p.has(t), "d/three:1")
	})
}

// mixed is data that packs so many times as small.
func mixed(size, times int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size), byte(times)})
	for at := 0; at < size; at += 4096 * times {
		_, _ = source.Read(data[at:min(size, at+4096)])
	}
	return data
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	must(t, errors.Join(err, z.Close()))
	return b.Bytes()
}

// honest is a packed layer that says right what it is unpacked.
type honest struct {
	v1.Layer
	packed []byte
}

func (h honest) DiffID() (v1.Hash, error) {
	z, err := gzip.NewReader(bytes.NewReader(h.packed))
	if err != nil {
		return v1.Hash{}, err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, z)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}, err
}

// bomb is a small layer with a big file in it.
func bomb(t *testing.T, size int64) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	must(t, err)
	w := tar.NewWriter(z)
	must(t, w.WriteHeader(&tar.Header{Name: "bomb", Mode: 0o644, Size: size, Typeflag: tar.TypeReg}))
	_, err = io.CopyN(w, zeros{}, size)
	must(t, err)
	must(t, w.Close())
	must(t, z.Close())
	return static.NewLayer(b.Bytes(), types.OCILayer) // its DiffID is wrong, and nobody gets that far
}

// crumbs is a small layer with many empty files in it.
func crumbs(t *testing.T, files int) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(t, err)
	w := tar.NewWriter(z)
	for n := range files {
		must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprint(n), Mode: 0o644, Typeflag: tar.TypeReg}))
	}
	must(t, w.Close())
	must(t, z.Close())
	return static.NewLayer(b.Bytes(), types.OCILayer) // as that of bomb
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// used is how many bytes of a folder's disk are taken, also by files that have lost their names
// and are on their way out.
func used(t *testing.T, folder string) int64 {
	t.Helper()
	var disk unix.Statfs_t
	must(t, unix.Statfs(folder, &disk))
	return int64(disk.Blocks-disk.Bfree) * disk.Bsize
}
