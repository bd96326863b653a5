package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"kogge.example/agent/removal"
)

// deep makes a chain of folders, each in the one before.
func deep(t *testing.T, folder string, levels int) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(folder, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for n := 0; err == nil && n < levels; n++ {
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

// TestSweep removes what containers left with more levels than this process may have files:
// a volume that was being removed when an agent ended, and a root file system.
func TestSweep(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }) // before the folders go
	e := &Engine{paths: Paths{Volumes: filepath.Join(t.TempDir(), "volumes")}}
	e.open, e.close = context.WithCancel(t.Context())
	defer func() { e.close(); e.sweeps.Wait() }()
	var helped []string
	e.paths.Remove = func(ctx context.Context, folder string) error {
		helped = append(helped, folder)
		return removal.All(ctx, folder)
	}
	deep(t, filepath.Join(e.paths.Volumes, removedPrefix+"db"), 2*atOnce)
	deep(t, filepath.Join(e.paths.Volumes, removedPrefix+"small"), 3)
	upper := filepath.Join(filepath.Dir(e.paths.Volumes), "fs")
	deep(t, upper, 3*atOnce)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	if err := e.empty(t.Context(), upper); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for left := []string{""}; len(left) > 0; left, _ = filepath.Glob(filepath.Join(e.paths.Volumes, removedPrefix+"*")) {
		if ctx.Err() != nil {
			t.Fatalf("left: %q", left)
		}
		e.sweep(ctx)
	}
	if len(helped) != 2 {
		t.Errorf("the helper was called for %q", helped)
	}
	if entries, err := os.ReadDir(upper); err == nil && len(entries) > 0 {
		t.Errorf("the root file system has %v", entries)
	}
}

// TestDiscardedIsNoVolume: what is being removed is nobody's volume, whatever that was called.
func TestDiscardedIsNoVolume(t *testing.T) {
	e := &Engine{paths: Paths{Volumes: t.TempDir()}}
	for range 2 { // the same name twice
		folder := filepath.Join(e.paths.Volumes, "db")
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := e.discard(folder); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(e.paths.Volumes)
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s would be listed", entry.Name())
		}
	}
}

func TestUpperOf(t *testing.T) {
	for want, mounts := range map[string][]mount.Mount{
		"/s/7/fs": {{Type: "overlay", Options: []string{"index=off", "workdir=/s/7/work", "upperdir=/s/7/fs", "lowerdir=/s/1/fs"}}},
		"/s/8/fs": {{Type: "bind", Source: "/s/8/fs", Options: []string{"rw", "rbind"}}},
		"":        {{Type: "bind", Source: "/s/1/fs", Options: []string{"ro", "rbind"}}},
	} {
		if got := upperOf(mounts); got != want {
			t.Errorf("%v: %q", mounts, got)
		}
	}
}
