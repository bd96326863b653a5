package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// edited is a tar whose files are what edit makes of them; nil: it lacks that one.
func edited(t *testing.T, data []byte, edit func(name string, text []byte) []byte) []byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return tarOf(t, files)
		}
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		if text = edit(h.Name, text); text != nil {
			files[h.Name] = text
		}
	}
}

// preloadOnce: a preload that a node cannot use, be it damaged or because others have its
// names, is read as a whole once, and not at each boot before any container starts.
func preloadOnce(t *testing.T, p *puller) {
	changed := time.Now()
	put := func(file string, data []byte) {
		t.Helper()
		must(t, errors.Join(os.WriteFile(file, data, 0o644), os.Chtimes(file, changed, changed)))
	}
	zipped := func(data []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(data)
		must(t, errors.Join(err, z.Close()))
		return b.Bytes()
	}
	name := p.images.host + "/f/one:1"
	whole := box(t, boxed{name, "once", false})
	packed := zipped(whole)
	wrong := slices.Clone(packed)
	copy(wrong[20:], bytes.Repeat([]byte{0xff}, 20))
	layers := func(with []byte) func(name string, text []byte) []byte {
		return func(name string, text []byte) []byte {
			if strings.HasSuffix(name, "json") || name == "oci-layout" || text[0] == '{' {
				return text
			}
			return with
		}
	}
	for what, data := range map[string][]byte{
		"half a tar":                   whole[:len(whole)/2],
		"half of a packed one":         packed[:len(packed)/2],
		"packed, with wrong bytes":     wrong,
		"without its layer":            edited(t, whole, layers(nil)),
		"without its layer, by skopeo": edited(t, layout(t, map[string]string{"io.containerd.image.name": name}, func(_, _, _ map[string]any) {}), layers(nil)),
		"another layer":                box(t, boxed{name, "once", true}),
		"a broken layer":               edited(t, whole, layers(zipped(layerOf(t, "once", tar.Header{Name: "etc/text", Mode: 0o644}))[:40])),
		"a layer that is none":         edited(t, whole, layers(bytes.Repeat([]byte("no layer "), 300))),
	} {
		folder := t.TempDir()
		file := filepath.Join(folder, "web.tar")
		put(file, data)
		_, first := p.engine.Preload(t.Context(), folder)
		put(file, make([]byte, len(data))) // which nobody reads
		if _, err := p.engine.Preload(t.Context(), folder); first == nil || err == nil || err.Error() != first.Error() {
			t.Errorf("%s: %v, and then %v", what, first, err)
		}
	}

	three, unread := strings.Replace(name, "/one:", "/three:", 1), strings.Replace(name, "/one:", "/two:", 1)
	for what, free := range map[string]func(first string) error{
		"the other one is gone":   os.Remove,
		"its image was forgotten": func(string) error { return p.engine.Forget(t.Context(), name) },
	} {
		folder := t.TempDir()
		first, second := filepath.Join(folder, "a.tar"), filepath.Join(folder, "b.tar")
		boot := func(want ...string) {
			t.Helper()
			if names, err := p.engine.Preload(t.Context(), folder); err != nil || !slices.Equal(names, want) {
				t.Errorf("%s: preloaded %q, want %q (%v)", what, names, want, err)
			}
		}
		put(first, box(t, boxed{name, "once", false}, boxed{three, "three", false}))
		put(second, box(t, boxed{name, "other", false}))
		boot(name, three)
		put(second, box(t, boxed{unread, "other", false})) // as long, and nobody reads it
		boot()
		must(t, free(first))
		boot(unread)
		for _, one := range []string{name, unread, three} {
			must(t, ignore(p.engine.Forget(t.Context(), one), workload.ErrNoImage))
		}
	}
}
