package volumes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// whole is all that there is to know of a tree.
func whole(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name, _ := filepath.Rel(root, path)
		fmt.Fprintf(&b, "%s %o %d:%d links %d device %x changed %d", name, st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			must(t, err)
			fmt.Fprintf(&b, " %d bytes %.20q", len(text), text)
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			must(t, err)
			b.WriteString(" to " + to)
		}
		var value [64]byte
		for _, name := range []string{"security.capability", "trusted.kogge"} {
			if n, err := unix.Lgetxattr(path, name, value[:]); err == nil {
				fmt.Fprintf(&b, " %s=%x", name, value[:n])
			}
		}
		b.WriteString("\n")
		return nil
	}))
	return b.String()
}

// TestCopyTree copies one of everything, and waits at no pipe.
func TestCopyTree(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run as root: it makes devices and gives files to other users")
	}
	src, dst := filepath.Join(t.TempDir(), "src"), filepath.Join(t.TempDir(), "dst")
	at := func(name string) string { return filepath.Join(src, name) }
	must(t, os.MkdirAll(at("sub/deep"), 0o755), os.Mkdir(dst, 0o700))
	must(t, os.WriteFile(at("file"), []byte("text"), 0o640), os.WriteFile(at("large"), bytes.Repeat([]byte("x"), part+1), 0o600), os.WriteFile(at("empty"), nil, 0o400))
	must(t, os.Link(at("file"), at("sub/same")), os.Symlink("/nowhere", at("link")), os.Symlink("file", at("sub/deep/link")))
	must(t, unix.Mknod(at("pipe"), unix.S_IFIFO|0o600, 0), unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Lchown(at("link"), 5, 6), os.Chown(at("large"), 70000, 70001), unix.Chmod(at("large"), 0o6755), unix.Chmod(at("sub"), 0o3777), os.Chown(src, 999, 998), unix.Chmod(src, 0o2750))
	must(t, unix.Lsetxattr(at("empty"), "security.capability", []byte("\x01\x00\x00\x02\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	if err := unix.Lsetxattr(at("sub"), "trusted.kogge", []byte("x"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	past := time.Unix(1_000_000_000, 5)
	must(t, os.Chtimes(at("file"), past, past), os.Chtimes(at("sub/deep"), past, past), os.Chtimes(src, past, past))
	must(t, copyTree(t.Context(), dst, src))
	if got, want := whole(t, dst), whole(t, src); got != want {
		t.Errorf("the copy:\n%swant:\n%s", got, want)
	}
}

// endsAfter is a context that ends when it was asked so often.
type endsAfter struct {
	context.Context
	left *int
}

func (c endsAfter) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestFillEnds: a start that is given up does not copy to the end, and leaves an empty
// volume, whenever that comes.
func TestFillEnds(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "data/sub"), 0o755))
	for n := range 5 {
		must(t, os.WriteFile(filepath.Join(root, "data/sub", fmt.Sprint(n)), []byte("x"), 0o600))
	}
	must(t, os.WriteFile(filepath.Join(root, "data/large"), bytes.Repeat([]byte("x"), 3*part), 0o600))
	ended := 0
	for most := 0; ; most++ {
		volume := filepath.Join(t.TempDir(), "data")
		must(t, Make(volume))
		left := most
		err := Fill(endsAfter{t.Context(), &left}, volume, root, "/data", 0, 0)
		if err == nil {
			break
		}
		ended++
		fresh, err2 := Fresh(volume)
		if beside, err3 := os.ReadDir(filepath.Dir(volume)); !errors.Is(err, context.Canceled) || err2 != nil || err3 != nil || !fresh || len(beside) != 1 {
			t.Fatalf("ended at %d: %v, %v, %v; fresh %v, there is %v", most, err, err2, err3, fresh, beside)
		}
	}
	if ended < 8 {
		t.Errorf("it could be ended at %d places", ended)
	}
}
