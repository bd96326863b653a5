package image

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/disk"
	"kogge.example/image/program"
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

func sum(t *testing.T, name string) string {
	t.Helper()
	s, _, err := hashFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(s[:])
}
