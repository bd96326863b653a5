package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/debian/archive"
	"kogge.example/image/disk"
	"kogge.example/image/firmware"
	"kogge.example/image/loader"
	"kogge.example/image/program"
	"kogge.example/image/sbom"
	"kogge.example/update/bootloader"
	"kogge.example/update/osrelease"
	content "kogge.example/update/release"
	"kogge.example/update/verity"
)

// work is the folder of builds that several tests look at.
var work string

func TestMain(m *testing.M) {
	var err error
	if work, err = os.MkdirTemp("", "kogge-image-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(work)
	os.Exit(code)
}

// packages is the cache of Debian packages that is shared with kogge itself: what
// is missing is downloaded.
func packages(t *testing.T) debian.Cache {
	t.Helper()
	dir := os.Getenv("KOGGE_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(user, "kogge")
	}
	return debian.Cache{Dir: filepath.Join(dir, "debian"), Say: t.Logf}
}

// options are those of a build of the tree at source with a cache of its own.
func options(t *testing.T, source, cache string) Options {
	t.Helper()
	b, err := boards.Find("qemu-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Board: b, Version: "1.0-test", When: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: source, Cache: cache,
		Packages: packages(t), Config: []byte("hostname: test\n"), Say: t.Logf,
	}
}

// firstTree copies the checkout once: the builds to be compared start from equal
// sources even while somebody edits the real ones.
var firstTree = sync.OnceValues(func() (string, error) {
	source, err := program.Source(context.Background())
	if err != nil {
		return "", err
	}
	to := filepath.Join(work, "first")
	return to, copyTree(source, to)
})

// copyTree copies the sources of a checkout.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case rel != "." && strings.HasPrefix(e.Name(), "."), rel == "scratch":
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
}

// firstBuild is the image that the tests judge.
var firstBuild = struct {
	sync.Once
	image string
	built Built
	opts  Options
	err   error
}{}

func build(t *testing.T) (string, Built, Options) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds an image: not with -short")
	}
	firstBuild.Do(func() {
		b := &firstBuild
		source, err := firstTree()
		if err != nil {
			b.err = err
			return
		}
		b.opts = options(t, source, filepath.Join(work, "cache1"))
		b.image = filepath.Join(work, "first.img")
		b.built, b.err = Build(t.Context(), b.opts, b.image)
	})
	if firstBuild.err != nil {
		t.Fatal(firstBuild.err)
	}
	return firstBuild.image, firstBuild.built, firstBuild.opts
}

// judge runs the reference tool for a format.
func judge(t *testing.T, apt, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%s is missing: apt-get install %s", name, apt)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// part copies a partition of an image into a file of its own.
func part(t *testing.T, f *os.File, c disk.Contents, name string) string {
	t.Helper()
	p, err := c.Table.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, p.Offset(), p.Size())); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestImageJudged has each part of a real image judged by the tool of those who
// know its format best.
func TestImageJudged(t *testing.T) {
	path, built, o := build(t)
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
	if err := c.Verify(f); err != nil {
		t.Error(err)
	}
	if c.Board != o.Board.Name || c.Version != o.Version || c.Arch != o.Board.Arch || c.Slot != "a" {
		t.Errorf("the image says %+v", c)
	}
	if out := judge(t, "gdisk", "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	judge(t, "dosfstools", "fsck.fat", "-n", part(t, f, c, "ESP"))
	judge(t, "e2fsprogs", "e2fsck", "-f", "-n", part(t, f, c, "STATE"))
	root := part(t, f, c, "ROOT-A")
	judge(t, "cryptsetup-bin", "veritysetup", "verify", "--no-superblock", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096",
		"--salt="+hex.EncodeToString(c.Verity.Salt[:]), fmt.Sprintf("--data-blocks=%d", c.Verity.Blocks),
		fmt.Sprintf("--hash-offset=%d", c.Verity.Blocks*verity.BlockSize), root, root, hex.EncodeToString(c.Verity.Root[:]))
	boot, err := disk.Boot(f, c.Table)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := boot.ReadFile("kogge/node.yaml"); err != nil || !bytes.Equal(got, o.Config) {
		t.Errorf("node.yaml on the boot partition: %q, %v", got, err)
	}
	efi, err := boot.Reader("EFI/kogge/a.efi")
	if err != nil {
		t.Fatal(err)
	}
	checkSections(t, efi, built)
}

// checkSections compares the boot file's sections with what went in.
func checkSections(t *testing.T, efi io.ReaderAt, built Built) {
	t.Helper()
	f, err := pe.NewFile(efi)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, want := range map[string][]byte{".linux": read(built.Kernel), ".initrd": read(built.Initrd), ".cmdline": []byte(built.Cmdline)} {
		s := f.Section(name)
		if s == nil {
			t.Errorf("there is no section %s", name)
			continue
		}
		data, err := s.Data()
		if err != nil || !bytes.Equal(data[:s.VirtualSize], want) {
			t.Errorf("section %s is not what went in (%v)", name, err)
		}
	}
}

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

// TestReproducible builds one release a second time: other folders for sources and
// results, another time zone, locale and file mode mask, a later time.
func TestReproducible(t *testing.T) {
	first, _, _ := build(t)
	source, err := firstTree()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(work, "a longer way", "to the second")
	if err := copyTree(source, elsewhere); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TZ", "Pacific/Apia")
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Setenv("GOFLAGS", "-trimpath=false")
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	second := filepath.Join(work, "second.img")
	if _, err := Build(t.Context(), options(t, elsewhere, filepath.Join(work, "cache2")), second); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{program.Init, program.Agent, program.Shim, program.Runc} {
		dir := "programs/amd64/with-"
		a, b := sum(t, filepath.Join(work, "cache1", dir, name)), sum(t, filepath.Join(work, "cache2", dir, name))
		if a != b {
			t.Errorf("program %s differs", name)
		}
	}
	if sum(t, first) != sum(t, second) {
		t.Error("the images differ")
	}
}

// TestUBootImage builds for a board of another architecture whose slots are files. With
// KOGGE_E2E=all it does so twice, as [TestReproducible] does for the first board.
func TestUBootImage(t *testing.T) {
	_, _, o := build(t)
	var err error
	if o.Board, err = boards.Find("qemu-arm64-uboot"); err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(work, "uboot1.img"), filepath.Join(work, "uboot2.img")
	built, err := Build(t.Context(), o, first)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(first)
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
	if err := c.Verify(f); err != nil {
		t.Error(err)
	}
	if c.Board != o.Board.Name || c.Version != o.Version || c.Arch != "arm64" || c.Slot != "a" {
		t.Errorf("the image says %+v", c)
	}
	judge(t, "dosfstools", "fsck.fat", "-n", part(t, f, c, "ESP"))
	boot, err := disk.Boot(f, c.Table)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"A/cmdline": []byte("bootargs=" + built.Cmdline + "\n"), bootloader.ScriptFile: bootloader.BootScript(),
		"kogge/node.yaml": o.Config,
	}
	for name, path := range map[string]string{"A/kernel": built.Kernel, "A/initrd": built.Initrd} {
		if want[name], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range want {
		if got, err := boot.ReadFile(name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s has %d bytes that are not those that went in (%v)", name, len(got), err)
		}
	}
	loader, err := bootloader.For(o.Board.Bootloader)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := loader.State(boot); err != nil || !s.A.Proven() || s.B.Present || s.Starts != bootloader.A {
		t.Errorf("the loader is told %+v, %v", s, err)
	}
	// Every program is for that architecture.
	for _, name := range []string{program.Init, program.Agent, program.Shim, program.Runc} {
		e, err := elf.Open(filepath.Join(o.Cache, "programs/arm64/with-", name))
		if err != nil {
			t.Fatal(err)
		}
		if libs, err := e.ImportedLibraries(); e.Machine != elf.EM_AARCH64 || err != nil || len(libs) > 0 {
			t.Errorf("program %s is for %v and wants %v (%v)", name, e.Machine, libs, err)
		}
		e.Close()
	}
	if os.Getenv("KOGGE_E2E") != "all" {
		return
	}
	o.Source = filepath.Join(work, "another place", "for the sources")
	if err := copyTree(filepath.Join(work, "first"), o.Source); err != nil {
		t.Fatal(err)
	}
	o.Cache = filepath.Join(work, "cache3")
	if _, err := Build(t.Context(), o, second); err != nil {
		t.Fatal(err)
	}
	if sum(t, first) != sum(t, second) {
		t.Error("the images differ")
	}
}

// TestBoardFacts builds for a board that has all that real ones need: programs of its own
// in front of a first partition that begins late, and a device tree.
func TestBoardFacts(t *testing.T) {
	_, _, o := build(t)
	var err error
	if o.Board, err = boards.Find("qemu-arm64-uboot"); err != nil {
		t.Fatal(err)
	}
	// Any file of the board's packages will do for a loader.
	const program, offset = "usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt", 64 * boards.Sector
	o.Board.Firmware = []boards.Blob{{Package: "ca-certificates", File: program, Offset: offset, Max: boards.MiB}}
	o.Board.FirstPartition = 16 * boards.MiB
	o.Board.DTB = "rockchip/rk3328-rock64.dtb"
	name := filepath.Join(work, "facts.img")
	if _, err := Build(t.Context(), o, name); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
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
	if err := c.Verify(f); err != nil {
		t.Error(err)
	}
	if at := c.Table.Partitions[0].Offset(); at != o.Board.FirstPartition {
		t.Errorf("the first partition begins at byte %d", at)
	}
	lock, err := debian.LoadLock(o.Board.Name)
	if err != nil {
		t.Fatal(err)
	}
	files, err := o.Packages.Fetch(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	want, err := readPackageFile(files, program)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, offset); err != nil || !bytes.Equal(got, want) || len(want) == 0 {
		t.Errorf("the program is not at byte %d (%v)", offset, err)
	}
	boot, err := disk.Boot(f, c.Table)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := boot.ReadFile("A/dtb")
	if err != nil || len(tree) < 1000 || binary.BigEndian.Uint32(tree) != 0xd00dfeed || !bytes.Contains(tree, []byte("pine64,rock64")) {
		t.Errorf("the slot's device tree has %d bytes (%v)", len(tree), err)
	}
	// A release for the board has it as well.
	parts, err := Parts(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(parts.Parts, func(f content.File) bool { return f.Name == "dtb" }); i < 0 || parts.Parts[i].Size != int64(len(tree)) {
		t.Errorf("parts of the release: %+v", parts.Parts)
	}
}

func sum(t *testing.T, name string) string {
	t.Helper()
	s, _, err := hashFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(s[:])
}

// TestBuildRefuses asks for what cannot be built.
func TestBuildRefuses(t *testing.T) {
	_, _, o := build(t)
	archive := filepath.Join(t.TempDir(), "web.tar")
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*Options)
		out    string
		want   string
	}{
		"missing output folder": {func(*Options) {}, "missing/kogge.img", "output: "},
		"slot too small":        {func(o *Options) { o.SlotSize = 8 << 20 }, "kogge.img", "choose a larger --slot-size"},
		"missing preload":       {func(o *Options) { o.Preload = []string{"/no/such.tar"} }, "kogge.img", "preload: open /no/such.tar"},
		"equal preloads":        {func(o *Options) { o.Preload = []string{archive, archive} }, "kogge.img", "two files of this name"},
		"preload by its name":   {func(o *Options) { o.Preload = []string{o.Source + "/go.mod"} }, "kogge.img", "preload go.mod: a node takes no archive by this name"},
		"board without lock":    {func(o *Options) { o.Board.Name = "toaster" }, "kogge.img", "kogge image lock toaster"},
		"unknown boot loader":   {func(o *Options) { o.Board.Bootloader = "third" }, "kogge.img", `board qemu-x86_64: boot loader "third" is unknown`},
		"MBR":                   {func(o *Options) { o.Board.Table = boards.MBR }, "kogge.img", `board qemu-x86_64: partition table "mbr": images have a plain GPT so far`},
		"hybrid MBR":            {func(o *Options) { o.Board.Table = boards.Hybrid }, "kogge.img", `partition table "hybrid": images have a plain GPT so far`},
		"unknown table":         {func(o *Options) { o.Board.Table = "disklabel" }, "kogge.img", `partition table "disklabel" is unknown`},
		"no device tree":        {func(o *Options) { o.Board.DTB = "acme/toaster.dtb" }, "kogge.img", "board qemu-x86_64: device tree: none of the board's packages contains the file usr/lib/linux-image-"},
		"firmware not locked": {func(o *Options) {
			o.Board.Firmware = []boards.Blob{{Package: "u-boot-rockchip", File: "x", Offset: 64 * boards.Sector}}
		}, "kogge.img", "package u-boot-rockchip is not in the board's lock: kogge image lock qemu-x86_64"},
		"firmware not there": {func(o *Options) {
			o.Board.Firmware = []boards.Blob{{Package: "ca-certificates", File: "x", Offset: 64 * boards.Sector}}
		}, "kogge.img", "board qemu-x86_64: firmware: none of the board's packages contains the file x"},
		"first partition": {func(o *Options) { o.Board.FirstPartition = 1000 }, "kogge.img", "the first partition cannot begin at byte 1000"},
		"required module": {func(o *Options) { o.Board.Required = []string{"warp_regulator"} }, "kogge.img", "no module warp_regulator"},
		"missing module":  {func(o *Options) { o.Board.Drivers = []string{"warp_drive"} }, "kogge.img", "no module warp_drive"},
	} {
		t.Run(what, func(t *testing.T) {
			o := o
			c.change(&o)
			dir := t.TempDir()
			_, err := Build(t.Context(), o, filepath.Join(dir, c.out))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestMarkedImage builds where a locked package has left the mirror for a newer one, and
// without one of the suites: the image says both, in the root and before it is
// started, and no release can be made so.
func TestMarkedImage(t *testing.T) {
	_, _, o := build(t)
	const name, newer = "linux-image-cloud-amd64", "9999-1" // the image has no file of it
	lock, err := debian.LoadLock(o.Board.Name)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := lock.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	// All else is in the cache already.
	cached := o.Packages.Dir
	o.Packages.Dir = t.TempDir()
	for _, folder := range []string{"deb", "files"} {
		names, err := os.ReadDir(filepath.Join(cached, folder))
		if err == nil {
			err = os.Mkdir(filepath.Join(o.Packages.Dir, folder), 0o755)
		}
		for _, e := range names {
			if !strings.HasPrefix(e.Name(), fmt.Sprintf("%x", locked.SHA256)) {
				err = errors.Join(err, os.Symlink(filepath.Join(cached, folder, e.Name()), filepath.Join(o.Packages.Dir, folder, e.Name())))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a := archive.New(t)
	a.Publish(t, "trixie", name+" "+newer)
	a.Publish(t, "trixie-updates")
	o.Packages.Without = []string{"trixie-security"}
	var said []string
	o.Packages.Say = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	o.Say = o.Packages.Say
	path := filepath.Join(t.TempDir(), "marked.img")
	built, err := Build(t.Context(), o, path)
	if err != nil {
		t.Fatal(err)
	}
	const marks = "unlocked,without-trixie-security"
	if built.Marks != marks || !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "WARNING: package "+locked.String()+" has left") }) {
		t.Errorf("marks %q, said %q", built.Marks, said)
	}
	facts, err := osrelease.Read(filepath.Join(unpackRoot(t, path, o), osrelease.File))
	want := fmt.Sprintf("[%s=%s:amd64 instead of %s] [trixie-security]", name, newer, locked)
	if got := fmt.Sprint(facts.Unlocked, facts.WithoutSuites); err != nil || got != want {
		t.Errorf("the root says %s, want %s (%v)", got, want, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := disk.Inspect(f, st.Size()); err != nil || c.Marks != marks || c.String() != "Kogge 1.0-test for board qemu-x86_64 (unlocked, without-trixie-security)" {
		t.Errorf("the image says %q, %s, %v", c.Marks, c, err)
	}
	for _, without := range [][]string{o.Packages.Without, nil} {
		o.Packages.Without = without
		if without == nil {
			a.Publish(t, "trixie-security")
		}
		if _, err := Parts(t.Context(), o); !errors.Is(err, ErrMarked) {
			t.Errorf("a release, without %v: %v", without, err)
		}
	}
	o.Packages.Locked = true
	for what, make := range map[string]func() error{
		"an image":  func() error { _, err := Build(t.Context(), o, path); return err },
		"a release": func() error { _, err := Parts(t.Context(), o); return err },
	} {
		if err := make(); !errors.Is(err, debian.ErrGone) {
			t.Errorf("%s, locked: %v", what, err)
		}
	}
}

// TestThirdLoader adds a boot loader that nobody knows to the list, and asks everything
// that depends on the boot loader: each says that it does not know it, and none takes it
// for another one.
func TestThirdLoader(t *testing.T) {
	const third boards.Bootloader = "third"
	known := boards.Bootloaders
	boards.Bootloaders = append(slices.Clone(known), third)
	defer func() { boards.Bootloaders = known }()
	board := boards.All[0]
	board.Bootloader = third
	o := Options{
		Board: board, Version: "1.0", When: time.Unix(0, 0), Source: t.TempDir(), Cache: t.TempDir(),
		Packages: debian.Cache{Dir: t.TempDir()}, Say: func(string, ...any) {},
	}
	empty := filepath.Join(t.TempDir(), "empty.img")
	f, err := os.Create(empty)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, make([]byte, disk.MiB), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := disk.Write(f, disk.Spec{Seed: "seed", Root: part, State: part, SlotSize: disk.MiB}); err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for place, ask := range map[string]func() error{
		"the node's verbs":                 func() error { _, err := bootloader.For(third); return err },
		"the builder's":                    func() error { _, err := loader.For(third); return err },
		"the packages of firmware":         func() error { _, err := loader.FirmwarePackages(); return err },
		"the locks of the boards":          func() error { _, err := debian.Sets([]boards.Board{board}); return err },
		"the firmware of virtual machines": func() error { _, err := firmware.Fetch(t.Context(), o.Packages, board); return err },
		"an image":                         func() error { _, err := Build(t.Context(), o, filepath.Join(t.TempDir(), "x.img")); return err },
		"a release":                        func() error { _, err := Parts(t.Context(), o); return err },
		"what an image says of itself":     func() error { _, err := disk.Inspect(f, st.Size()); return err },
	} {
		if err := ask(); err == nil || !strings.Contains(err.Error(), `boot loader "third" is unknown`) {
			t.Errorf("%s: %v", place, err)
		}
	}
}

// TestLoadersByName holds the source to it that only the two packages with a file per boot
// loader, and the boards, call one by its name: elsewhere a question would have a silent
// answer for the next one.
func TestLoadersByName(t *testing.T) {
	source, err := program.Source(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byName := regexp.MustCompile(`\bboards\.(SystemdBoot|UBoot)\b|boards\.Bootloader\("|== "(systemd-boot|u-boot)"`)
	looked := 0
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(source, path)
		if err = errors.Join(err, relErr); err != nil {
			return err
		}
		switch {
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata") && rel != ".":
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		switch filepath.ToSlash(filepath.Dir(rel)) {
		case "update/bootloader", "image/loader", "boards":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		looked++
		for n, line := range strings.Split(string(text), "\n") {
			if byName.MatchString(line) {
				t.Errorf("%s:%d: %s: let update/bootloader or image/loader say it", rel, n+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil || looked < 200 {
		t.Errorf("%d files, %v", looked, err)
	}
}
