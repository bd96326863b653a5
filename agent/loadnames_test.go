package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"kogge.example/agent/images"
	"kogge.example/agent/workload"
)

// loadNames: what an older release stored under a name that is no full one goes like any
// other image, where an operator removes it, by prune, and to make room.
func loadNames(t *testing.T, p *puller) {
	p.wants()
	_, _, err := p.engine.Prune(t.Context(), false)
	must(t, err)
	c, err := client.New(p.socket)
	must(t, err)
	defer c.Close()
	ctx := namespaces.WithNamespace(t.Context(), images.Namespace)
	before := strings.Fields(p.has(t))
	full := p.images.host + "/n/full:1"
	bad := []string{"short:1", "UPPER:1", "a b\x1b[31m\nc", "x@sha256:abc"}
	old := func() {
		t.Helper()
		_, err := p.engine.Load(t.Context(), bytes.NewReader(box(t, boxed{full, "text", false})))
		must(t, err)
		its, err := c.ImageService().Get(ctx, full)
		must(t, err)
		for _, name := range bad {
			_, err := c.ImageService().Create(ctx, coreimages.Image{Name: name, Target: its.Target})
			must(t, err)
		}
	}
	all := func() []string {
		t.Helper()
		now := strings.Fields(strings.ReplaceAll(p.has(t), "a b\x1b[31m\nc", "lines"))
		return slices.DeleteFunc(now, func(name string) bool { return slices.Contains(before, name) })
	}
	old()
	for _, name := range bad {
		must(t, p.engine.Forget(t.Context(), name))
	}
	if now := all(); !slices.Equal(now, []string{"n/full:1"}) {
		t.Errorf("removed one by one, and there is %q", now)
	}
	must(t, p.engine.Forget(t.Context(), full))
	old()
	if gone, _, err := p.engine.Prune(t.Context(), false); err != nil || len(gone) != len(bad)+1 || len(all()) != 0 {
		t.Errorf("pruned %d, %v, and there is %q", len(gone), err, all())
	}
	old()
	filler := filepath.Join(filepath.Dir(p.root), "full")
	var st unix.Statfs_t
	must(t, unix.Statfs(p.root, &st))
	fill(t, filler, (int64(st.Bavail)-int64(st.Blocks)/20)*int64(st.Bsize))
	defer func() { must(t, unix.Unlink(filler)) }()
	limited, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = p.engine.Load(limited, bytes.NewReader(box(t, boxed{full, "text", false})))
	if limited.Err() != nil {
		t.Fatalf("making room has no end: %v", err)
	}
	if now := all(); len(now) != 0 {
		t.Errorf("there was no room, and there is %q (%v)", now, err)
	}
}

// fill makes a file of zeros.
func fill(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	must(t, err)
	must(t, unix.Fallocate(f, 0, 0, size))
	must(t, unix.Close(f))
}

// loadPins: what has the name of a digest is what has that digest: an archive gives it to
// nothing else, and what an older release took is not there.
func loadPins(t *testing.T, p *puller) {
	pin := p.images.host + "/n/pin@sha256:" + strings.Repeat("a", 64)
	for what, archive := range map[string][]byte{
		"by its name":     layout(t, map[string]string{coreimages.AnnotationImageName: pin}, func(_, _, _ map[string]any) {}),
		"by its ref":      layout(t, map[string]string{ocispec.AnnotationRefName: pin}, func(_, _, _ map[string]any) {}),
		"by docker's tag": box(t, boxed{pin, "text", false}),
	} {
		if _, err := p.engine.Load(t.Context(), bytes.NewReader(archive)); err == nil || !strings.Contains(err.Error(), pin+": it is another one, sha256:") {
			t.Errorf("%s: %v", what, err)
		}
	}
	name := p.images.host + "/n/pin:1"
	_, err := p.engine.Load(t.Context(), bytes.NewReader(box(t, boxed{name, "text", false})))
	must(t, err)
	digest, err := p.engine.Digest(t.Context(), name)
	must(t, err)
	c, err := client.New(p.socket)
	must(t, err)
	defer c.Close()
	ctx := namespaces.WithNamespace(t.Context(), images.Namespace)
	its, err := c.ImageService().Get(ctx, name)
	must(t, err)
	good := p.images.host + "/n/pin@" + digest
	for _, name := range []string{pin, good} {
		_, err := c.ImageService().Create(ctx, coreimages.Image{Name: name, Target: its.Target})
		must(t, err)
	}
	if err := p.engine.CheckImage(t.Context(), workload.Container{Image: good}); err != nil {
		t.Errorf("a pin that holds: %v", err)
	}
	if err := p.engine.CheckImage(t.Context(), workload.Container{Image: pin}); !errors.Is(err, workload.ErrNoImage) || !strings.Contains(err.Error(), digest) {
		t.Errorf("a pin that does not hold: %v", err)
	}
	for _, name := range []string{pin, good, name} {
		must(t, p.engine.Forget(t.Context(), name))
	}
}
