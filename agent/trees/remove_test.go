package trees

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
)

// TestMain lets the test binary be the helper.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Role {
		if err := Helper(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// deepen makes a chain of folders below folder, as a container does: each level is made
// in the one before. Beside each lies a file every so often.
func deepen(t *testing.T, folder string, levels int) {
	t.Helper()
	at, err := unix.Open(folder, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for n := 0; err == nil && n < levels; n++ {
		if n%500 == 0 {
			if err = unix.Mknodat(at, "file", unix.S_IFREG|0o600, 0); err != nil {
				break
			}
		}
		if err = unix.Mkdirat(at, "d", 0o700); err != nil {
			break
		}
		var next int
		next, err = unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(at)
		at = next
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(at)
}

// fewFiles lets this process, and those that it starts, open few files until the test ends.
func fewFiles(t *testing.T, n uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
}

// TestDeep removes a tree that has more levels than the process may have files, which
// [os.RemoveAll] cannot: it holds a descriptor for each.
func TestDeep(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "volume")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	deepen(t, folder, 4000)
	fewFiles(t, 64)
	if err := os.RemoveAll(folder); err == nil {
		t.Fatal("the tree is no trouble: make it deeper")
	}
	if gone, err := Some(t.Context(), folder, 1000); gone || err != nil {
		t.Fatalf("a part of it: %v, %v", gone, err)
	}
	if err := By(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if err := By(t.Context(), filepath.Join(folder, "none")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}

// TestNames removes names of all kinds, and leaves alone what links lead to.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	must(t, os.MkdirAll(filepath.Join(kept, "inner"), 0o700))
	must(t, os.WriteFile(filepath.Join(kept, "inner", "file"), []byte("x"), 0o600))
	folder := filepath.Join(dir, "volume")
	hostile := []string{"-rf", " ", "\n", "\xff\xfe", "..x", "...", "*", strings.Repeat("n", 255), "\x1b[2J", "%s", "ä"}
	for _, outer := range hostile {
		for _, inner := range hostile {
			must(t, os.MkdirAll(filepath.Join(folder, outer, inner, outer), 0o700))
			must(t, os.Symlink(kept, filepath.Join(folder, outer, inner, "link")))
			must(t, os.Symlink("../..", filepath.Join(folder, outer, inner, "up")))
		}
		must(t, unix.Mkfifo(filepath.Join(folder, outer, "fifo"), 0o600))
		must(t, os.Link(filepath.Join(kept, "inner", "file"), filepath.Join(folder, outer, "hard")))
		must(t, os.Chmod(filepath.Join(folder, outer), 0))
	}
	must(t, os.Symlink(kept, filepath.Join(folder, "link")))
	must(t, All(t.Context(), folder))
	if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(kept, "inner", "file")); err != nil {
		t.Errorf("what a link led to: %v", err)
	}
	// A link in the place of the folder goes, and nothing else.
	must(t, os.Symlink(kept, folder))
	must(t, All(t.Context(), folder))
	if _, err := os.Stat(filepath.Join(kept, "inner", "file")); err != nil {
		t.Errorf("what the folder itself led to: %v", err)
	}
	must(t, All(t.Context(), folder))
}

// TestWide: many folders with many entries, each removed once whatever the bound is.
func TestWide(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "volume")
	for n := range 3 * batch {
		must(t, os.MkdirAll(filepath.Join(folder, "d", fmt.Sprint(n), "a", "b"), 0o700))
	}
	for n := range 3 * batch {
		must(t, os.WriteFile(filepath.Join(folder, fmt.Sprint(n)), nil, 0o600))
	}
	turns := 0
	for gone := false; !gone; turns++ {
		var err error
		gone, err = Some(t.Context(), folder, 100)
		must(t, err)
		if turns > 1000 {
			t.Fatal("it does not end")
		}
	}
	if turns < 30 {
		t.Errorf("3000 entries in %d turns of 100", turns)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, os.MkdirAll(filepath.Join(folder, "d"), 0o700))
	if err := All(ctx, folder); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// TestMountPoint: what is mounted below the folder stays, and so does the way to it; all
// else goes.
func TestMountPoint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	if !namespace.Run(t, unix.CLONE_NEWNS) {
		return
	}
	dir := t.TempDir()
	for _, at := range []string{"mnt", "a/mnt", "a/b/mnt"} {
		folder := filepath.Join(dir, "volume")
		mounted := filepath.Join(folder, at)
		must(t, os.MkdirAll(mounted, 0o700))
		must(t, os.MkdirAll(filepath.Join(folder, "a", "other", "d"), 0o700))
		must(t, unix.Mount("tmpfs", mounted, "tmpfs", 0, ""))
		must(t, os.WriteFile(filepath.Join(mounted, "file"), nil, 0o600))
		if err := All(t.Context(), folder); !errors.Is(err, ErrMountPoint) {
			t.Errorf("%s: %v", at, err)
		}
		left, err := os.ReadFile("/proc/self/mounts")
		if err != nil || !strings.Contains(string(left), "tmpfs "+folder+"/") {
			t.Fatalf("%s: it is not mounted any more: %v", at, err)
		}
		var st unix.Statfs_t
		for line := range strings.Lines(string(left)) {
			if f := strings.Fields(line); strings.HasPrefix(f[1], folder+"/") {
				must(t, unix.Statfs(f[1], &st))
				if _, err := os.Stat(filepath.Join(f[1], "file")); err != nil {
					t.Errorf("%s: what is mounted lost a file: %v", at, err)
				}
				must(t, unix.Unmount(f[1], 0))
			}
		}
		must(t, All(t.Context(), folder))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
