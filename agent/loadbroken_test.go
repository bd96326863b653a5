package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	goruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"kogge.example/agent/images"
	"kogge.example/agent/workload"
)

// boxed is an image in a tar, with one small layer.
type boxed struct {
	name, text string // text is what the layer has
	broken     bool   // the layer is none of which the configuration speaks
}

// box is what docker save would write of these images.
func box(t *testing.T, all ...boxed) []byte {
	t.Helper()
	files := map[string][]byte{}
	var manifest []map[string]any
	for n, one := range all {
		layer := layerOf(t, one.text, tar.Header{Name: "etc/text", Mode: 0o644})
		sum := sha256.Sum256(layer)
		if one.broken {
			sum[0]++
		}
		text, err := json.Marshal(map[string]any{
			"architecture": goruntime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{one.text}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sum)}},
		})
		must(t, err)
		config, file := fmt.Sprintf("%x.json", sha256.Sum256(text)), fmt.Sprintf("layer%d.tar", n)
		files[config], files[file] = text, layer
		manifest = append(manifest, map[string]any{"Config": config, "RepoTags": []string{one.name}, "Layers": []string{file}})
	}
	var err error
	files["manifest.json"], err = json.Marshal(manifest)
	must(t, err)
	return tarOf(t, files)
}

// state is what there is of images, without what the collector may still have to take.
func (p *puller) state(t *testing.T) []images.Image {
	t.Helper()
	all, err := p.engine.Images(t.Context())
	must(t, err)
	for n := range all {
		all[n].Disk = 0
	}
	return all
}

// whole fails unless the layers of every image are there: a container could start from it.
func (p *puller) whole(t *testing.T) {
	t.Helper()
	c, err := client.New(p.socket)
	must(t, err)
	defer c.Close()
	ctx := namespaces.WithNamespace(t.Context(), images.Namespace)
	all, err := c.ListImages(ctx)
	must(t, err)
	for _, i := range all {
		if ok, err := i.IsUnpacked(ctx, images.Snapshotter); err != nil || !ok {
			t.Errorf("image %s is a name without layers: %v", i.Name(), err)
		}
	}
}

// loadBroken: an archive, a preload or a pull with an image that cannot be unpacked leaves
// each name with the image that it had, and none with one that cannot run.
func loadBroken(t *testing.T, p *puller) {
	p.wants("b/one:1")
	one, two, three, four := p.images.host+"/b/one:1", p.images.host+"/b/two:1", p.images.host+"/b/three:1", p.images.host+"/b/four:1"
	_, err := p.engine.Load(t.Context(), bytes.NewReader(box(t, boxed{one, "one", false}, boxed{two, "two", false})))
	must(t, err)
	good := p.state(t)
	stays := func(what string, err error, named string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: %v, want %s in it", what, err, named)
		}
		if now := p.state(t); !reflect.DeepEqual(now, good) {
			t.Errorf("%s: there is\n%+v, and was\n%+v", what, now, good)
		}
		p.whole(t)
	}
	for what, all := range map[string][]boxed{
		"alone":  {{one, "new", true}},
		"first":  {{one, "new", true}, {two, "newer", false}, {three, "newest", false}},
		"middle": {{two, "newer", false}, {one, "new", true}, {three, "newest", false}},
		"last":   {{three, "newest", false}, {two, "newer", false}, {one, "new", true}},
	} {
		_, err := p.engine.Load(t.Context(), bytes.NewReader(box(t, all...)))
		stays("loaded, the broken one "+what, err, one)
	}
	data := box(t, boxed{one, "new", false}, boxed{three, "newest", false})
	_, err = p.engine.Load(t.Context(), bytes.NewReader(data[:len(data)/2]))
	stays("loaded, and half of it came", err, "import")

	for what, c := range map[string]struct{ data, why string }{
		"short":  {"FROM debian\n", "it is only a part of a tar, or none"},
		"text":   {"hello, this is not a tar\x1b[2J\n" + strings.Repeat(" ", 1000), "it is not a tar"},
		"packed": {"BZh91AY&SY", "packed with bzip2"},
	} {
		_, err = p.engine.Load(t.Context(), strings.NewReader(c.data))
		stays("loaded "+what, err, c.why)
	}

	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "a.tar"), box(t, boxed{three, "newest", false}, boxed{four, "new", true}), 0o644))
	names, err := p.engine.Preload(t.Context(), folder)
	if len(names) != 0 {
		t.Errorf("preloaded %q", names)
	}
	stays("preloaded", err, four)

	// A registry sends what it announced, and yet the layer is another one than the
	// configuration says.
	p.images.push(t, "b/one:1", goruntime.GOARCH, otherwise{random(t, 90, 1000)})
	_, err = p.pull("b/one:1")
	stays("pulled", err, "")
	must(t, os.RemoveAll(filepath.Join(folder, "a.tar")))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(box(t, boxed{one, "new", false}, boxed{three, "newest", false}))
	must(t, errors.Join(err, z.Close()))
	must(t, os.WriteFile(filepath.Join(folder, "web.tar.gz"), packed.Bytes(), 0o644))
	_, err = p.engine.Load(t.Context(), &packed)
	must(t, err)
	if now := p.state(t); len(now) != len(good)+1 {
		t.Errorf("a good archive after all: %+v", now)
	}
	p.whole(t)
	must(t, p.engine.Forget(t.Context(), three))
	if names, err := p.engine.Preload(t.Context(), folder); err != nil || !slices.Equal(names, []string{three}) { // one was loaded
		t.Errorf("preloaded %q, %v", names, err)
	}
	must(t, p.engine.Forget(t.Context(), three))
}

// preloadNames: a file whose name is none of an archive is no preload, and one that gives
// another image a name which is there takes it from nobody: neither from what was loaded nor
// from another preload; the next version of the same preload does.
func preloadNames(t *testing.T, p *puller) {
	p.wants()
	_, _, err := p.engine.Prune(t.Context(), false)
	must(t, err)
	one, two, three := p.images.host+"/e/one:1", p.images.host+"/e/two:1", p.images.host+"/e/three:1"
	folder := t.TempDir()
	put := func(file string, all ...boxed) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(folder, file), box(t, all...), 0o644))
	}
	boot := func(want ...string) {
		t.Helper()
		if names, err := p.engine.Preload(t.Context(), folder); err != nil || !slices.Equal(names, want) {
			t.Errorf("preloaded %q, want %q (%v)", names, want, err)
		}
	}
	digest := func(name string) string {
		t.Helper()
		d, err := p.engine.Digest(t.Context(), name)
		must(t, err)
		return d
	}
	put("web.tar", boxed{one, "one", false})
	boot(one)
	was := digest(one)
	for _, file := range []string{"web.tar.old", "web.tar.bak", "web", "web.tar~", "tar", "web.tar.xz"} {
		put(file, boxed{one, "older", false})
	}
	must(t, os.WriteFile(filepath.Join(folder, "README.md"), []byte("what is here"), 0o644))
	boot()
	_, err = p.engine.Load(t.Context(), bytes.NewReader(box(t, boxed{two, "loaded", false})))
	must(t, err)
	loaded := digest(two)
	put("old.tar.gz", boxed{one, "older", false}, boxed{two, "older", false}, boxed{three, "three", false})
	boot(three)
	boot()
	if digest(one) != was || digest(two) != loaded {
		t.Error("an old archive took a name of a newer image")
	}
	put("web.tar", boxed{one, "one, the next version", false})
	boot(one)
	if digest(one) == was {
		t.Error("the next version of a preload is not there")
	}
	for _, name := range []string{one, two, three} {
		must(t, p.engine.Forget(t.Context(), name))
	}
}

// preloadRefused: a preload that is refused is not read at each boot, but has the same words,
// until it or the release is another one.
func preloadRefused(t *testing.T, p *puller) {
	folder := t.TempDir()
	file := filepath.Join(folder, "pin.tar")
	name := p.images.host + "/e/pin"
	pinned := name + "@sha256:" + strings.Repeat("0", 64)
	good := name + ":" + strings.Repeat("1", len(pinned)-len(name)-1) // as long
	changed := time.Now()
	put := func(name string) {
		t.Helper()
		must(t, os.WriteFile(file, layout(t, map[string]string{"io.containerd.image.name": name}, func(_, _, _ map[string]any) {}), 0o644))
		must(t, os.Chtimes(file, changed, changed))
	}
	put(pinned)
	var said string
	for range 2 {
		names, err := p.engine.Preload(t.Context(), folder)
		if len(names) > 0 || err == nil || !strings.Contains(err.Error(), "image "+pinned+": it is another one") || said != "" && err.Error() != said {
			t.Fatalf("%q, %v, and before %s", names, err, said)
		}
		said = err.Error()
		put(good) // which nobody reads
	}
	defer func(release string) { p.engine.Release = release }(p.engine.Release)
	for _, look := range []func(){
		func() { p.engine.Release = "the next one" },
		func() {
			put(pinned)
			_, _ = p.engine.Preload(t.Context(), folder)
			changed = changed.Add(time.Second)
			put(good)
		},
	} {
		look()
		if names, err := p.engine.Preload(t.Context(), folder); err != nil || !slices.Equal(names, []string{good}) {
			t.Errorf("%q, %v", names, err)
		}
		must(t, p.engine.Forget(t.Context(), good))
	}
}

// otherwise is a layer of which the configuration says the wrong thing.
type otherwise struct{ v1.Layer }

func (otherwise) DiffID() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, nil
}

// loadCut ends the agent at every one of its calls to containerd that change something, during
// a load and a preload: each name is that of the old image or of the whole new one, never of one without
// layers, and what replaces a preload is not replaced by it.
func loadCut(t *testing.T, p *puller) {
	one, three := p.images.host+"/b/one:1", p.images.host+"/b/three:1"
	before := t.TempDir()
	must(t, os.WriteFile(filepath.Join(before, "a.tar"), box(t, boxed{one, "old", false}), 0o644))
	for what, do := range map[string]func(*images.Store, string) error{
		"load": func(s *images.Store, folder string) error {
			data, err := os.ReadFile(filepath.Join(folder, "a.tar"))
			must(t, err)
			_, err = s.Load(t.Context(), bytes.NewReader(data))
			return err
		},
		"preload": func(s *images.Store, folder string) error {
			_, err := s.Preload(t.Context(), folder)
			return err
		},
	} {
		for calls := int64(0); ; calls++ {
			must(t, ignore(p.engine.Forget(t.Context(), one), workload.ErrNoImage))
			must(t, ignore(p.engine.Forget(t.Context(), three), workload.ErrNoImage))
			_, err := p.engine.Preload(t.Context(), before)
			must(t, err)
			was, err := p.engine.Digest(t.Context(), one)
			must(t, err)
			after := t.TempDir() // each time other layers: none is there yet
			text := fmt.Sprint(what, calls)
			must(t, os.WriteFile(filepath.Join(after, "a.tar"), box(t, boxed{one, text, false}, boxed{three, text + "b", false}), 0o644))
			cut := &cutter{left: calls}
			c, err := client.New(p.socket, client.WithExtraDialOpts([]grpc.DialOption{grpc.WithChainUnaryInterceptor(cut.unary), grpc.WithChainStreamInterceptor(cut.stream)}))
			must(t, err)
			err = do(images.New(c, "", p.registries, func(context.Context) ([]workload.Found, error) { return nil, nil }), after)
			must(t, c.Close())
			p.whole(t)
			all := p.state(t)
			i := slices.IndexFunc(all, func(i images.Image) bool { return i.Name == one })
			if i < 0 || !all[i].Preload {
				t.Fatalf("%s cut after %d calls: the image is gone, or no longer a preload's: %+v", what, calls, all)
			}
			if what == "preload" {
				_, err := p.engine.Preload(t.Context(), after)
				must(t, err)
				if p.whole(t); len(p.state(t)) != len(all)+1 && !slices.ContainsFunc(all, func(i images.Image) bool { return i.Name == three }) {
					t.Errorf("the next boot after %d calls finds %+v", calls, p.state(t))
				}
			}
			if err == nil && cut.left > 0 {
				if now := all[i].Digest; now == was {
					t.Errorf("%s: the image is the old one", what)
				}
				break
			}
			if t.Failed() {
				t.Fatalf("%s cut after %d calls", what, calls)
			}
		}
	}
	must(t, p.engine.Forget(t.Context(), one))
	must(t, p.engine.Forget(t.Context(), three))
}

// cutter lets so many calls through that change something, and none at all after those: nor
// has the agent a word any more with which to clear away.
type cutter struct{ left int64 }

func (c *cutter) over(method string) error {
	reads := []string{"Get", "List", "Info", "Stat", "Status", "Read", "Mounts", "Usage", "ListStatuses"}
	n := int64(-1)
	if slices.Contains(reads, path.Base(method)) {
		n = 0
	}
	if atomic.AddInt64(&c.left, n) < 0 {
		return status.Error(codes.Aborted, "the agent is dead")
	}
	return nil
}

func (c *cutter) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := c.over(method); err != nil {
		return err
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

func (c *cutter) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := c.over(method); err != nil {
		return nil, err
	}
	return streamer(ctx, desc, cc, method, opts...)
}

func ignore(err, none error) error {
	if errors.Is(err, none) {
		return nil
	}
	return err
}
