package trees

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBin removes what containers left with more levels than this process may have files:
// a volume that was being removed when an agent ended, and a root file system.
func TestBin(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "volumes")
	var helped []string
	b := OpenBin(folder, func(ctx context.Context, folder string) error {
		helped = append(helped, folder)
		return All(ctx, folder)
	})
	defer b.Close()
	upper := filepath.Join(filepath.Dir(folder), "fs")
	for path, levels := range map[string]int{filepath.Join(folder, Discarded+"db"): 2 * atOnce, filepath.Join(folder, Discarded+"small"): 3, upper: 3 * atOnce} {
		must(t, os.MkdirAll(path, 0o700))
		deepen(t, path, levels)
	}
	fewFiles(t, 100)
	must(t, b.Clear(t.Context(), upper))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for left := []string{""}; len(left) > 0; left, _ = filepath.Glob(filepath.Join(folder, Discarded+"*")) {
		if ctx.Err() != nil {
			t.Fatalf("left: %q", left)
		}
		b.Empty(ctx)
	}
	if len(helped) != 2 {
		t.Errorf("the helper was called for %q", helped)
	}
	if entries, err := os.ReadDir(upper); err == nil && len(entries) > 0 {
		t.Errorf("the root file system has %v", entries)
	}
}

// TestDiscarded: what is being removed is nobody's volume, whatever that was called.
func TestDiscarded(t *testing.T) {
	b := OpenBin(t.TempDir(), nil)
	defer b.Close()
	for range 2 { // the same name twice
		folder := filepath.Join(b.Folder, "db")
		must(t, os.Mkdir(folder, 0o700))
		must(t, b.Discard(folder))
	}
	entries, err := os.ReadDir(b.Folder)
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s would be listed", entry.Name())
		}
	}
}
