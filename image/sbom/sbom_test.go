package sbom

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	spdxjson "github.com/spdx/tools-golang/json"

	"kogge.example/image/debian"
	"kogge.example/image/rootfs"
)

var when = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: thing
License: Artistic

Files: *
Copyright: somebody
License: GPL-2+
 some text
 License: not this

Files: a
 b
Copyright: other
License: Expat or GPL-2 and odd stuff

Files: c
License: GPL-2, or else MIT

License: ISC
 the text of a licence that no stanza of files names

Files: d
License: GPL-2+
`

func TestStanzaLicenses(t *testing.T) {
	want := []string{"GPL-2+", "Expat or GPL-2 and odd stuff", "GPL-2, or else MIT", "GPL-2+"}
	if diff := cmp.Diff(want, stanzaLicenses(copyright)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, stanzaLicenses(strings.ReplaceAll(copyright, "\n", "\r\n"))); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "This is free software.\n\nFiles: *\nLicense: GPL-2\n"} {
		if got := stanzaLicenses(text); got != nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
	d := builder{licenses: map[string]string{}}
	for name, want := range map[string]string{
		"GPL-2+":                       "GPL-2.0-or-later",
		"gpl-2":                        "GPL-2.0-only",
		"Expat or GPL-2 and odd stuff": "(MIT OR GPL-2.0-only AND LicenseRef-Debian-odd-stuff)",
		"GPL-2, or else MIT":           "LicenseRef-Debian-GPL-2--or-else-MIT",
		"LGPL-9+":                      "LicenseRef-Debian-LGPL-9-or-later",
		"ISC and zlib":                 "ISC AND Zlib",
	} {
		if got := d.expression(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

func FuzzLicenses(f *testing.F) {
	f.Add(copyright)
	f.Add("Format: copyright-format/1.0\n\nFiles:\nLicense: \x00 or and\n")
	f.Fuzz(func(t *testing.T, text string) {
		d := builder{licenses: map[string]string{}}
		for _, name := range stanzaLicenses(text) {
			if e := d.expression(name); e == "" || strings.ContainsAny(e, "\n\x00") {
				t.Errorf("%q gives %q", name, e)
			}
		}
	})
}

// aPackage is an unpacked Debian package with a copyright file.
func aPackage(t *testing.T, name, text string) debian.File {
	t.Helper()
	f := debian.File{Package: debian.Package{Name: name, Arch: "all", Version: "1:2+b1"}, Dir: t.TempDir()}
	put(t, copyrightFile(f), text)
	return f
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// input is an image of this test's own executable, a kernel module and some text.
func input(t *testing.T) Input {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := rootfs.Layout([]rootfs.Entry{
		{Path: "/bin/program", File: program, Mode: 0o755},
		{Path: "/lib/modules/a.ko", Data: []byte("\x7fELF and more")},
		{Path: "/etc/text", Data: []byte("text")},
		{Path: "/etc/empty", Data: []byte{}},
		{Path: "/link", Link: "etc"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Input{
		Board: "test", Arch: "amd64", Version: "1.0", When: when, Entries: entries, Compiler: "gcc 12", CompilerUses: []string{"/bin/program"},
		Packages: []debian.File{aPackage(t, "kernel", copyright)},
		Origin: func(path string) []string {
			if strings.HasSuffix(path, ".ko") {
				return []string{"kernel"}
			}
			return nil
		},
	}
}

func TestDocument(t *testing.T) {
	in := input(t)
	files, err := ReadFiles(in.Entries)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Document(in, files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Document(in, files)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("the second document has other bytes (%v)", err)
	}
	doc, err := spdxjson.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if doc.CreationInfo.Created != "2026-03-01T12:00:00Z" || !strings.HasPrefix(doc.DocumentNamespace, "https://kogge.example/spdx/kogge-test-1.0/") {
		t.Errorf("made %s, namespace %s", doc.CreationInfo.Created, doc.DocumentNamespace)
	}
	locators := map[string]bool{}
	for _, p := range doc.Packages {
		for _, r := range p.PackageExternalReferences {
			locators[r.Locator] = true
		}
		if p.PackageName == "kernel" && !strings.Contains(p.PackageLicenseDeclared, "GPL-2.0-or-later") {
			t.Errorf("licence of the kernel: %s", p.PackageLicenseDeclared)
		}
	}
	if !locators["pkg:deb/debian/kernel@1%3A2%2Bb1?arch=all&distro=trixie"] {
		t.Errorf("package URLs: %v", locators)
	}
	if len(doc.Files) != 2 {
		t.Errorf("%d files, want the program and the module", len(doc.Files))
	}
	if len(doc.OtherLicenses) != 2 {
		t.Errorf("%d licences without an identifier, want 2", len(doc.OtherLicenses))
	}
	// Something else in the image makes another namespace.
	in.Version = "1.1"
	other, err := Document(in, files)
	if err != nil || bytes.Equal(other, data) {
		t.Errorf("another release, the same document (%v)", err)
	}
}

// TestDocumentUnknown has an executable whose origin nobody knows.
func TestDocumentUnknown(t *testing.T) {
	in := input(t)
	files, err := ReadFiles(in.Entries)
	if err != nil {
		t.Fatal(err)
	}
	in.Origin = func(string) []string { return nil }
	if _, err := Document(in, files); err == nil || !strings.Contains(err.Error(), "/lib/modules/a.ko: the source of this executable is unknown") {
		t.Errorf("got %v", err)
	}
	in.Origin = func(string) []string { return []string{"ghost"} }
	if _, err := Document(in, files); err == nil || !strings.Contains(err.Error(), "ghost") {
		t.Errorf("got %v", err)
	}
}

func TestModules(t *testing.T) {
	files, err := ReadFiles(input(t).Entries)
	if err != nil {
		t.Fatal(err)
	}
	modules, version := Modules(files)
	if !strings.HasPrefix(version, "go1.") && !strings.HasPrefix(version, "devel") {
		t.Errorf("Go version %q", version)
	}
	// The Go tool names no dependencies in the executable of a test.
	if len(modules) != 2 || !modules[0].Own || modules[1] != (Module{Path: Stdlib, Version: version}) {
		t.Errorf("the modules of this test: %+v", modules)
	}
}

func TestLicenses(t *testing.T) {
	common := debian.File{Dir: t.TempDir()}
	put(t, filepath.Join(common.Dir, "usr/share/common-licenses/GPL-2"), "GPL 2 text")
	s := Sources{Checkout: t.TempDir(), GoRoot: t.TempDir(), ModuleCache: t.TempDir(), Common: []debian.File{common}}
	put(t, filepath.Join(s.Checkout, "LICENSE"), "Apache")
	put(t, filepath.Join(s.Checkout, "image/LICENSE"), "not a licence of the module")
	put(t, filepath.Join(s.GoRoot, "LICENSE"), "BSD")
	mod := filepath.Join(s.ModuleCache, "example.org/!upper@v1.0.0")
	put(t, filepath.Join(mod, "COPYING.md"), "MIT text")
	put(t, filepath.Join(mod, "sub/license.txt"), "MIT text")
	put(t, filepath.Join(mod, "license.go"), "package x")
	put(t, filepath.Join(mod, "testdata/LICENSE"), "of a test")
	modules := []Module{{Path: "example.org/Upper", Version: "v1.0.0"}, {Path: "kogge.example", Version: "(devel)", Own: true}, {Path: Stdlib, Version: "go1.26"}}
	packages := []debian.File{aPackage(t, "p", "See /usr/share/common-licenses/GPL-2."), {Package: debian.Package{Name: "meta"}, Dir: t.TempDir()}}
	data, err := Licenses(modules, packages, s, when)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"common/GPL-2": "GPL 2 text", "debian/p/copyright": "See /usr/share/common-licenses/GPL-2.",
		"go/example.org/Upper@v1.0.0/COPYING.md": "MIT text", "go/example.org/Upper@v1.0.0/sub/license.txt": "→ go/example.org/Upper@v1.0.0/COPYING.md",
		"go/kogge.example@(devel)/LICENSE": "Apache", "go/stdlib@go1.26/LICENSE": "BSD",
	}
	if diff := cmp.Diff(want, untar(t, data)); diff != "" {
		t.Error(diff)
	}
	again, err := Licenses(modules, packages, s, when)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("the second archive has other bytes (%v)", err)
	}
	if _, err := Licenses([]Module{{Path: "example.org/none", Version: "v1.0.0"}}, nil, s, when); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a module that is not in the cache: %v", err)
	}
	put(t, filepath.Join(s.ModuleCache, "example.org/bare@v1.0.0/x.go"), "package x")
	if _, err := Licenses([]Module{{Path: "example.org/bare", Version: "v1.0.0"}}, nil, s, when); err == nil {
		t.Error("a module without a licence was taken")
	}
	if _, err := Licenses(nil, []debian.File{aPackage(t, "q", "/usr/share/common-licenses/GPL-9")}, s, when); err == nil {
		t.Error("a common licence that is not there was taken")
	}
}

func untar(t *testing.T, data []byte) map[string]string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
		if h.Typeflag == tar.TypeLink {
			files[h.Name] = "→ " + h.Linkname
		}
	}
}
