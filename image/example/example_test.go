package example

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var (
	when   = time.Date(2026, 11, 22, 12, 0, 0, 999, time.FixedZone("east", 3600))
	binary = []byte("\x7fELF, more or less")
)

func image(t *testing.T, arch string, when time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Tar(&b, "kogge.example/hello:1", arch, binary, when); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTarIsAnImage unpacks the tar and lets a library that we did not write judge.
func TestTarIsAnImage(t *testing.T) {
	folder := t.TempDir()
	r := tar.NewReader(bytes.NewReader(image(t, "arm", when)))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, filepath.FromSlash(h.Name))
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		t.Fatalf("%d manifests", len(manifest.Manifests))
	}
	m := manifest.Manifests[0]
	if got := m.Annotations["io.containerd.image.name"]; got != "kogge.example/hello:1" {
		t.Errorf("named %q", got)
	}
	img, err := index.Image(m.Digest)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.OS != "linux" || c.Architecture != "arm" || c.Variant != "v7" || c.Config.User != user || c.Config.Entrypoint[0] != entrypoint {
		t.Errorf("config %+v", c)
	}
	if !c.Created.Equal(when.Truncate(time.Second)) {
		t.Errorf("created %s", c.Created)
	}
	files := tar.NewReader(mutate.Extract(img))
	h, err := files.Next()
	if err != nil || h.Name != entrypoint[1:] || h.Mode != 0o755 {
		t.Fatalf("file %+v, %v", h, err)
	}
	if data, err := io.ReadAll(files); err != nil || !bytes.Equal(data, binary) {
		t.Errorf("content %q, %v", data, err)
	}
}

func TestTarIsReproducible(t *testing.T) {
	one := image(t, "amd64", when)
	if !bytes.Equal(one, image(t, "amd64", when.UTC().Truncate(time.Second))) {
		t.Error("the same moment elsewhere gives other bytes")
	}
	if bytes.Equal(one, image(t, "arm64", when)) || bytes.Equal(one, image(t, "amd64", when.Add(time.Second))) {
		t.Error("another architecture or time gives the same bytes")
	}
}

func TestTarRefuses(t *testing.T) {
	for _, ref := range []string{"", "UPPER/x:1", "no-registry:1", "kogge.example/hello", "kogge.example/hello@sha256:0"} {
		if err := Tar(io.Discard, ref, "amd64", binary, when); err == nil {
			t.Errorf("image name %q was taken", ref)
		}
	}
}

type fullDisk struct{ left int }

var errFull = errors.New("disk full")

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestTarOnAFullDisk stops the writer after every block.
func TestTarOnAFullDisk(t *testing.T) {
	for left := 0; left < len(image(t, "amd64", when)); left += 512 {
		if err := Tar(&fullDisk{left}, "kogge.example/hello:1", "amd64", binary, when); !errors.Is(err, errFull) {
			t.Fatalf("after %d bytes: %v", left, err)
		}
	}
}
