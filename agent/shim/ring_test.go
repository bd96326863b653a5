package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestRingKeepsTheNewest writes in pieces of every size, over several openings as
// of a container that restarts, and wants the tail of it all back, within bounds.
func TestRingKeepsTheNewest(t *testing.T) {
	const size = 1000
	path := filepath.Join(t.TempDir(), "web.log")
	rnd := rand.New(rand.NewPCG(1, 2))
	var all []byte
	for run := range 20 {
		r := &ring{path: path, size: size}
		for i := range 40 {
			piece := bytes.Repeat(fmt.Appendf(nil, "%d.%d ", run, i), rnd.IntN(60))
			if n, err := r.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
			all = append(all, piece...)
			kept := kept(t, path)
			if len(kept) > 2*size {
				t.Fatalf("run %d, piece %d: %d bytes are kept", run, i, len(kept))
			}
			if len(kept) < min(size, len(all)) {
				t.Fatalf("run %d, piece %d: only %d bytes of %d are kept", run, i, len(kept), len(all))
			}
			if !bytes.HasSuffix(all, kept) {
				t.Fatalf("run %d, piece %d: what is kept is not the end of what was written", run, i)
			}
		}
		r.close()
	}
}

func kept(t *testing.T, path string) []byte {
	t.Helper()
	var all []byte
	for _, p := range []string{path + ".1", path} {
		data, err := os.ReadFile(p)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

// TestRingNeverRefuses: a log that cannot be written takes what it gets all the
// same, and works again when it can be.
func TestRingNeverRefuses(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "log")
	r := &ring{path: filepath.Join(folder, "web.log"), size: 100}
	defer r.close()
	for range 3 {
		if n, err := r.Write([]byte("lost")); n != 4 || err != nil {
			t.Fatalf("without a folder: %d, %v", n, err)
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("kept")); err != nil {
		t.Fatal(err)
	}
	if got := kept(t, r.path); string(got) != "kept" {
		t.Errorf("kept %q", got)
	}
}

// TestOutput stands in for the task service: it opens the FIFO as that one does,
// late, twice, and for writing.
func TestOutput(t *testing.T) {
	bundle := t.TempDir()
	path := filepath.Join(t.TempDir(), "log", "web.log")
	o, err := collect(filepath.Join(bundle, "output"), path, ringSize)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for range 2 {
		w, err := os.OpenFile(o.path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		text := bytes.Repeat([]byte("hello\n"), 50_000) // more than a pipe holds
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		w.Close()
		want = append(want, text...)
	}
	o.end()
	if got := kept(t, path); !bytes.Equal(got, want) {
		t.Errorf("kept %d bytes, want %d", len(got), len(want))
	}
}

func TestRingPath(t *testing.T) {
	for uri, want := range map[string]string{
		"ring:///run/kogge/log/web.log": "/run/kogge/log/web.log",
		"ring://relative":               "",
		"file:///tmp/x":                 "",
		"/run/fifo":                     "",
		"":                              "",
	} {
		if got, ok := ringPath(uri); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %v", uri, got, ok)
		}
	}
}
