package quota

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
	"kogge.example/update/golden"
)

// TestLimit prints what containers may have on disks of all sizes, as they fill up.
func TestLimit(t *testing.T) {
	const mib = 1 << 20
	var table strings.Builder
	for _, size := range []uint64{190, 1900, 15000, 5_000_000} {
		files := size * mib / 16384
		r := Reserve(Space{Bytes: size * mib, Files: files})
		fmt.Fprintf(&table, "%d MiB, %d files: %d MiB and %d files are reserved\n", size, files, r.Bytes/mib, r.Files)
		for _, images := range []uint64{0, 50, 90, 100} { // percent
			for _, used := range []uint64{0, 9, 10} { // tenths of what images leave
				s := Space{Bytes: size * mib, Files: files}
				left := Use{s.Bytes * (100 - images) / 100, files * (100 - images) / 100}
				own := Use{left.Bytes * used / 10, left.Files * used / 10}
				s.FreeBytes, s.FreeFiles = left.Bytes-own.Bytes, left.Files-own.Files
				l := Limit(s, own)
				fmt.Fprintf(&table, "  images %3d %%, containers %8d MiB %9d files: limit %8d MiB %9d files\n", images, own.Bytes/mib, own.Files, l.Bytes/mib, l.Files)
				if l.Bytes == 0 || l.Files == 0 || l.Bytes > max(1, own.Bytes+s.FreeBytes) {
					t.Errorf("%+v, %+v: limit %+v", s, own, l)
				}
			}
		}
	}
	golden.Compare(t, "limit.txt", table.String())
}

// TestLayout: the structures are the kernel's.
func TestLayout(t *testing.T) {
	if a, b := unsafe.Sizeof(fsxattr{}), unsafe.Sizeof(dqblk{}); a != 28 || b != 72 {
		t.Errorf("fsxattr has %d bytes, dqblk %d", a, b)
	}
}

// TestNone: a file system without quotas is no mistake of ours, and says so by one error.
func TestNone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	if !namespace.Run(t, unix.CLONE_NEWNS) {
		return
	}
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(folder, 0) }()
	if err := os.MkdirAll(filepath.Join(folder, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"tag": Tag(folder), "tree": TagTree(folder), "bind": Bind(folder)} {
		if !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if Has(folder) || !Has(folder+"/none") {
		t.Error("a file system without quotas has some, or what is not there is known to have none")
	}
	for what, err := range map[string]error{"tag": Tag(folder + "/none"), "bind": Bind(folder + "/none")} {
		if err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
}
