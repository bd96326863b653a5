package install

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrust: the newest root of trust counts, wherever it is from, and stays.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	tr := trust{image: filepath.Join(dir, "image.json"), kept: filepath.Join(dir, "tuf", "root.json")}
	if _, err := tr.root(); !errors.Is(err, ErrRefused) {
		t.Errorf("no root at all: %v", err)
	}
	v1, v2, v3 := rootOf(t, "hanse", 1, "a"), rootOf(t, "hanse", 2, "b"), rootOf(t, "hanse", 3, "c")
	want := func(what string, root []byte) {
		t.Helper()
		if got, err := tr.root(); err != nil || !bytes.Equal(got, root) {
			t.Errorf("%s: %v, or another root", what, err)
		}
	}
	must(t, os.WriteFile(tr.image, v1, 0o600))
	want("of the image", v1)
	must(t, tr.keep(v2, 2))
	want("a newer one was kept", v2)
	must(t, tr.keep(v1, 1))
	want("an older one is not kept", v2)
	must(t, os.WriteFile(tr.image, v3, 0o600))
	want("the image has a newer one", v3)
	must(t, os.WriteFile(tr.image, v1, 0o600))
	want("rolled back", v2)
	must(t, os.WriteFile(tr.kept, v2[:100], 0o600))
	if _, err := tr.root(); err == nil || !strings.Contains(err.Error(), "root of trust "+tr.kept) {
		t.Errorf("a damaged one: %v", err)
	}
	if err := tr.keep(v3, 3); err == nil {
		t.Error("a damaged one was replaced")
	}
}

// TestTrustMoves: a release that brings newer keys is the last that the old ones can
// make.
func TestTrustMoves(t *testing.T) {
	roots := [][]byte{rootOf(t, "hanse", 1, "hanse"), rootOf(t, "hanse", 2, "new")}
	m := newMachine(t, makeRelease(t, "1.0", 1, wish{}), 8*mib)
	rotated := makeRelease(t, "1.1", 2, wish{roots: roots, targets: "new"})
	stolen := makeRelease(t, "1.2", 3, wish{})
	m.have(rotated)
	if said, err := m.update(Order{Source: rotated.open(t)}); err != nil {
		t.Fatalf("%s, %v", said, err)
	}
	m.boot()
	m.good()
	must(t, m.Rollback(t.Context(), Order{When: Now, By: "ada"}, func(Step) {}))
	m.boot()
	m.good()
	if said, err := m.update(Order{Source: stolen.open(t)}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "signed") {
		t.Errorf("made with the old key after it was exchanged: %s, %v", said, err)
	}
}
