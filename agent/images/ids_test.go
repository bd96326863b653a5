package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kogge.example/agent/workload"
)

// TestFindIDs: what is found of an image's users and groups.
func TestFindIDs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run as root: it gives files to other users")
	}
	root, outside := t.TempDir(), t.TempDir()
	put := func(path string, uid, gid int) {
		t.Helper()
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err == nil {
			err = os.Lchown(path, uid, gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(outside, "file"), 99999, 99999)
	put(filepath.Join(root, "srv/data"), 1516583083, 0)
	put(filepath.Join(root, "srv/deep/er/app"), 65535, 65536)
	put(filepath.Join(root, "etc/passwd"), 0, 0)
	for path, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:100000:100001::/:/bin/sh\nhalf:x\nfar:x:4294967295:4294967296::\n",
		"etc/group":  "root:x:0:\nteam:x:200000:app,100009\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(outside, filepath.Join(root, "out")), os.Symlink("/nowhere", filepath.Join(root, "link")),
		os.Lchown(filepath.Join(root, "link"), 70000, 70000), syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600), os.Chown(filepath.Join(root, "srv"), 0, 80000)); err != nil {
		t.Fatal(err)
	}
	got, err := findIDs(t.Context(), root, 1000)
	if want := []uint32{65536, 70000, 80000, 100000, 100001, 200000, 1516583083}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if again := parseIDs(formatIDs(got) + "+"); !slices.Equal(again, got) {
		t.Errorf("%v is read as %v", got, again)
	}
	if got := parseIDs(formatIDs(nil)); got != nil {
		t.Errorf("none is read as %v", got)
	}
	// What is known of accounts is known first, and the rest as far as it goes.
	if got, err := findIDs(t.Context(), root, 2); !errors.Is(err, errBounds) || len(got) < 3 || len(got) > 6 {
		t.Errorf("of two files: %v, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := findIDs(ended, root, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("out of time: %v", err)
	}

	// A passwd that is a device, a pipe or a link to the node's own is none.
	for _, make := range []func(path string) error{
		func(path string) error { return syscall.Mkfifo(path, 0o600) },
		func(path string) error { return os.Symlink("/etc/passwd", path) },
		func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		root := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), make(filepath.Join(root, "etc/passwd"))); err != nil {
			t.Fatal(err)
		}
		if got, err := findIDs(t.Context(), root, 1000); err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// TestFindTooMany: of a very large number of ids not all are kept, and enough to see that
// they are too many.
func TestFindTooMany(t *testing.T) {
	root := t.TempDir()
	var lines strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&lines, "u%d:x:%d:%d::/:\n", i, 4_000_000_000+i, 4_100_000_000+i)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(lines.String()), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, err := findIDs(t.Context(), root, 1000)
	if err != nil || len(got) != enoughIDs {
		t.Errorf("%d are kept, %v", len(got), err)
	}
	if _, err := workload.Extend(got); !errors.Is(err, workload.ErrTooManyIDs) {
		t.Error(err)
	}
	if n := len(formatIDs(got)) + len(labelIDs); n > 4096 {
		t.Errorf("a label of %d bytes: containerd takes 4096", n)
	}
}
