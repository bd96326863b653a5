package release

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheck spoils each file of a release in each way, in a folder and in a tar, and puts
// there what does not belong to it. Each time the file is named.
func TestCheck(t *testing.T) {
	b := bundle(t, "1.1", 7, "targets-1", "targets-2")
	const dir, other = "blobs/sha256/", "ab"
	files := map[string][]byte{}
	for _, e := range unpack(t, archive(t, b)) {
		files[e.Name] = e.data
	}
	empty := dir + "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // {}
	if string(files[empty]) != "{}" || len(files) < 12 {
		t.Fatalf("a release of %d files without the empty config", len(files))
	}
	flipped := func(d []byte) []byte { d = bytes.Clone(d); d[len(d)/2] ^= 1; return d }
	type change struct {
		what, name string
		data       []byte // nil: the file goes
	}
	var changes []change
	for name, data := range files {
		changes = append(changes,
			change{"flip", name, flipped(data)}, change{"cut", name, data[:len(data)-1]}, change{"empty", name, []byte{}},
			change{"longer", name, append(bytes.Clone(data), 'x')}, change{"zeros behind", name, append(bytes.Clone(data), 0, 0)}, change{"gone", name, nil},
		)
	}
	changes = append(changes,
		change{"one more blob", dir + strings.Repeat(other, 32), []byte("x")},
		change{"one more blob, whole", dir + strings.TrimPrefix(string(digestOf([]byte("x"))), "sha256:"), []byte("x")},
	)
	for _, c := range changes {
		spoilt := map[string][]byte{}
		for name, data := range files {
			spoilt[name] = data
		}
		spoilt[c.name] = c.data
		var entries []entry
		for name, data := range spoilt {
			if data != nil {
				entries = append(entries, entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600}, data})
			}
		}
		said := func(kind string, err error) {
			// White space behind these two is no part of what they say, and may stay.
			if (c.name == indexName || c.name == "oci-layout") && c.what == "cut" && err == nil {
				return
			}
			name := strings.TrimPrefix(c.name, dir)
			if err == nil || !errors.Is(err, ErrLayout) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrNoLayout) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s of %s in a %s: %v", c.what, c.name, kind, err)
			}
		}
		said("tar", openArchive(t, pack(t, entries)).Check(t.Context()))
		folder := t.TempDir()
		put(t, folder, entries)
		said("folder", checkFolder(t, folder))
	}
	for name, make := range map[string]func(folder string) error{
		"README":                      func(f string) error { return os.WriteFile(filepath.Join(f, "README"), nil, 0o600) },
		"index.json.new":              func(f string) error { return os.WriteFile(filepath.Join(f, "index.json.new"), nil, 0o600) },
		dir + ".new-1":                func(f string) error { return os.WriteFile(filepath.Join(f, dir, ".new-1"), nil, 0o600) },
		"blobs/sha512":                func(f string) error { return os.Mkdir(filepath.Join(f, "blobs/sha512"), 0o700) },
		dir + other:                   func(f string) error { return os.WriteFile(filepath.Join(f, dir, other), nil, 0o600) },
		`\x1b[2J`:                     func(f string) error { return os.WriteFile(filepath.Join(f, "\x1b[2J"), nil, 0o600) },
		dir + strings.Repeat("c", 64): func(f string) error { return os.Mkdir(filepath.Join(f, dir, strings.Repeat("c", 64)), 0o700) },
		dir + strings.Repeat("d", 64): func(f string) error { return os.Symlink("/etc/passwd", filepath.Join(f, dir, strings.Repeat("d", 64))) },
	} {
		folder := t.TempDir()
		must(t, b.Write(t.Context(), folder))
		must(t, checkFolder(t, folder))
		must(t, make(folder))
		if err := checkFolder(t, folder); !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s beside it: %v", name, err)
		}
	}
	must(t, openArchive(t, archive(t, b)).Check(t.Context()))
	many := t.TempDir()
	must(t, b.Write(t.Context(), many))
	for i := range 30 {
		must(t, os.WriteFile(filepath.Join(many, fmt.Sprintf("x%02d", i)), nil, 0o600))
	}
	if err := checkFolder(t, many); err == nil || !strings.Contains(err.Error(), `"x19"`) || !strings.Contains(err.Error(), "and 10 more files") {
		t.Errorf("many: %v", err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := openArchive(t, archive(t, b)).Check(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func checkFolder(t *testing.T, folder string) error {
	t.Helper()
	d, err := OpenDir(folder)
	must(t, err)
	defer d.Close()
	return d.Check(t.Context())
}

func put(t *testing.T, folder string, entries []entry) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(folder, blobDir), 0o700))
	for _, e := range entries {
		must(t, os.WriteFile(filepath.Join(folder, e.Name), e.data, 0o600))
	}
}
