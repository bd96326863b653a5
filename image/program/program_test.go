package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/image/debian"
)

func TestSource(t *testing.T) {
	dir, err := Source(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Errorf("%s is no checkout: %v", dir, err)
	}
	t.Chdir(t.TempDir())
	if _, err := Source(t.Context()); err == nil || !strings.Contains(err.Error(), "change into") {
		t.Errorf("outside of a checkout: %v", err)
	}
}

// TestBuildError has the compiler refuse a program: its own words reach the operator.
func TestBuildError(t *testing.T) {
	source := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.org/x\n\ngo 1.25\n", "main.go": "package main\n\nfunc main() { undefinedThing() }\n"} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tg := target{name: "x", pkg: ".", env: []string{"CGO_ENABLED=0"}}
	err := tg.build(t.Context(), source, filepath.Join(t.TempDir(), "x"), "amd64")
	if err == nil || !strings.Contains(err.Error(), "program x: go build: ") || !strings.Contains(err.Error(), "undefined: undefinedThing") {
		t.Errorf("got %v", err)
	}
}

// TestMergeSysroot joins two packages, and starts over when one of them changes.
func TestMergeSysroot(t *testing.T) {
	aPackage := func(sum byte, name string) debian.File {
		f := debian.File{Dir: t.TempDir()}
		f.SHA256[0] = sum
		path := filepath.Join(f.Dir, "usr/lib", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b, c := aPackage(1, "a.so"), aPackage(2, "b.so"), aPackage(3, "c.so")
	dir := filepath.Join(t.TempDir(), "sysroot")
	for _, step := range []struct {
		files      []debian.File
		have, lack []string
	}{
		{[]debian.File{a, b}, []string{"a.so", "b.so"}, []string{"c.so"}},
		{[]debian.File{a, b}, []string{"a.so", "b.so"}, []string{"c.so"}},
		{[]debian.File{a, c}, []string{"a.so", "c.so"}, []string{"b.so"}},
	} {
		root, err := mergeSysroot(step.files, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range step.have {
			if _, err := os.Stat(filepath.Join(root, "lib", name)); err != nil {
				t.Error(err)
			}
		}
		for _, name := range step.lack {
			if _, err := os.Stat(filepath.Join(root, "usr/lib", name)); err == nil {
				t.Errorf("%s of a package that has gone is still there", name)
			}
		}
	}
}

// TestRuncKey changes what runc's bytes depend on.
func TestRuncKey(t *testing.T) {
	source := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module x\n")
	write("go.sum", "")
	key := func(o Options) string {
		k, err := runcKey(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	o := Options{Source: source, Arch: "amd64"}
	seen := map[string]bool{key(o): true}
	differs := func(what string, o Options) {
		if k := key(o); seen[k] {
			t.Errorf("another %s, the same key", what)
		} else {
			seen[k] = true
		}
	}
	differs("architecture", Options{Source: source, Arch: "arm64"})
	differs("C library", Options{Source: source, Arch: "amd64", Sysroot: []debian.File{{Package: debian.Package{SHA256: [32]byte{1}}}}})
	write("go.mod", "module x\n\ngo 1.25\n")
	differs("go.mod", o)
	if err := os.Remove(filepath.Join(source, "go.sum")); err != nil {
		t.Fatal(err)
	}
	if _, err := runcKey(t.Context(), o); err == nil {
		t.Error("a checkout without go.sum")
	}
}
