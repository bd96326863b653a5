package image

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"kogge.example/image/debian"
	"kogge.example/image/disk"
	"kogge.example/image/sbom"
)

// unpackRoot returns a folder with the root file system's files, as the tool of the
// people who wrote the format unpacks them.
func unpackRoot(t *testing.T, path string, o Options) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := disk.Inspect(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	files, err := new(release).fetch(t.Context(), o, debian.Tools)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := debian.OpenTools(files)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "root")
	cmd, err := tools.Command(t.Context(), nil, "fsck.erofs", "--extract="+dir, "--no-preserve-owner", part(t, f, c, "ROOT-A"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
	return dir
}

// TestModulesAreUnsigned looks at every module of root and initramfs: the check of each
// signature would be paid for at each boot.
func TestModulesAreUnsigned(t *testing.T) {
	path, built, o := build(t)
	trailer := []byte("~Module signature appended~")
	modules := 0
	err := filepath.WalkDir(unpackRoot(t, path, o), func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".ko" {
			return err
		}
		modules++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, trailer) {
			t.Errorf("%s has a signature", path)
		}
		return err
	})
	if err != nil || modules < 50 {
		t.Errorf("the root has %d modules (%v)", modules, err)
	}
	packed, err := os.ReadFile(built.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	archive, err := z.DecodeAll(packed, nil)
	if err != nil || bytes.Count(archive, []byte(".ko\x00")) < 5 || bytes.Contains(archive, trailer) {
		t.Errorf("the initramfs has %d modules, with a signature: %v (%v)", bytes.Count(archive, []byte(".ko\x00")), bytes.Contains(archive, trailer), err)
	}
}

// TestManifest compares the manifest with the files that are really in the root, and
// wants every executable and kernel module to be in the SBOM with its origin.
func TestManifest(t *testing.T) {
	path, _, o := build(t)
	dir := unpackRoot(t, path, o)
	data, err := os.ReadFile(filepath.Join(dir, sbom.ManifestPath))
	if err != nil {
		t.Fatal(err)
	}
	var m sbom.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	listed := map[string]sbom.File{}
	for _, f := range m.Files {
		listed[f.Path] = f
	}
	made := spdxFiles(t, filepath.Join(dir, sbom.DocumentPath))
	elfs := 0
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		if name == sbom.ManifestPath {
			return nil
		}
		want, ok := listed[name]
		if !ok {
			t.Errorf("%s is not in the manifest", name)
			return nil
		}
		delete(listed, name)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			if !want.Dir {
				t.Errorf("%s is a folder", name)
			}
		case e.Type()&fs.ModeSymlink != 0:
			if target, err := os.Readlink(path); err != nil || target != want.Link {
				t.Errorf("%s leads to %s, the manifest says %s", name, target, want.Link)
			}
		default:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := fmt.Sprintf("%x", sha256.Sum256(data))
			if sum != want.SHA256 || info.Size() != want.Size || fmt.Sprintf("%04o", info.Mode().Perm()) != want.Mode {
				t.Errorf("%s: size %d, mode %v, SHA-256 %s; the manifest says %+v", name, info.Size(), info.Mode(), sum, want)
			}
			if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
				elfs++
				if made[name] != sum {
					t.Errorf("%s: the SBOM has SHA-256 %q and an origin, the file %s", name, made[name], sum)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range listed {
		t.Errorf("%s is in the manifest and not in the root", name)
	}
	if elfs < 50 || elfs != len(made) {
		t.Errorf("%d executables and modules in the root, %d in the SBOM", elfs, len(made))
	}
	out, err := exec.Command("tar", "--use-compress-program=zstd", "-tf", filepath.Join(dir, sbom.LicensesPath)).CombinedOutput()
	if err != nil {
		t.Errorf("licences: tar: %v (apt-get install tar zstd)\n%s", err, out)
	}
	for _, want := range []string{"common/GPL-2", "go/stdlib@", "go/github.com/opencontainers/runc@", "go/kogge.example@", "debian/e2fsck-static/copyright"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the licences lack %s", want)
		}
	}
}

// spdxFiles reads the SBOM with a reader that we did not write, and returns the
// SHA-256 of each file that was made from a package.
func spdxFiles(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := spdxjson.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	if ids, err := spdxlib.GetDescribedPackageIDs(doc); err != nil || len(ids) != 1 {
		t.Errorf("the document describes %v, %v", ids, err)
	}
	packages := map[string]bool{}
	for _, p := range doc.Packages {
		packages[string(p.PackageSPDXIdentifier)] = true
	}
	origins := map[string]int{}
	for _, r := range doc.Relationships {
		if r.Relationship == "GENERATED_FROM" && packages[string(r.RefB.ElementRefID)] {
			origins[string(r.RefA.ElementRefID)]++
		}
	}
	made := map[string]string{}
	for _, file := range doc.Files {
		if origins[string(file.FileSPDXIdentifier)] == 0 {
			t.Errorf("%s was made from nothing", file.FileName)
			continue
		}
		for _, c := range file.Checksums {
			if c.Algorithm == "SHA256" {
				made[strings.TrimPrefix(file.FileName, ".")] = c.Value
			}
		}
	}
	return made
}
