package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"kogge.example/boards"
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

// TestToolchain: make builds and tests with the toolchain that images are built with, and
// the environment cannot name another.
func TestToolchain(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nexport GOTOOLCHAIN := " + Toolchain + "\n"; !strings.Contains(string(makefile), want) {
		t.Errorf("the Makefile lacks the line %q", want)
	}
	t.Setenv("GOTOOLCHAIN", "go1.1")
	out, err := Go(t.Context(), "env", "GOVERSION").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != Toolchain {
		t.Errorf("programs are built by %s, %v", got, err)
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

// TestCompiler wants a compiler for every architecture of the boards, and the line
// that installs it where it is missing.
func TestCompiler(t *testing.T) {
	for _, b := range boards.All {
		if line, err := Compiler(t.Context(), b.Arch); err != nil || !strings.Contains(line, "gcc") {
			t.Errorf("board %s: %q, %v", b.Name, line, err)
		}
	}
	if _, err := Compiler(t.Context(), "vax"); err == nil || !strings.Contains(err.Error(), `architecture "vax"`) {
		t.Errorf("a vax: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	foreign := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if _, err := Compiler(t.Context(), foreign); err == nil || !strings.Contains(err.Error(), "install it: apt-get install gcc-") {
		t.Errorf("without a compiler: %v", err)
	}
}

// TestCrossSysroot has the cross compiler look for its parts: all of the C library
// comes from the sysroot, whatever the host has for the same architecture.
func TestCrossSysroot(t *testing.T) {
	cc, err := compilerFor("arm64")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, text := range map[string]string{"usr/lib/aarch64-linux-gnu/crt1.o": "", "usr/lib/aarch64-linux-gnu/libc.a": "", "usr/include/stdio.h": "the sysroot's\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"crt1.o", "libc.a"} {
		args := append(strings.Fields(cc.link(root)), "-print-file-name="+file)
		out, err := exec.Command(cc.cc, args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := filepath.EvalSymlinks(strings.TrimSpace(string(out))); err != nil || got != filepath.Join(root, "usr/lib/aarch64-linux-gnu", file) {
			t.Errorf("%s is %s (%v)", file, out, err)
		}
	}
	source := filepath.Join(root, "x.c")
	if err := os.WriteFile(source, []byte("#include <stdio.h>\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, env := range cc.env(root) {
		flags, ok := strings.CutPrefix(env, "CGO_CFLAGS=")
		if !ok {
			continue
		}
		out, err := exec.Command(cc.cc, append(strings.Fields(flags), "-E", source)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "the sysroot's") {
			t.Errorf("stdio.h: %v\n%s", err, out)
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
