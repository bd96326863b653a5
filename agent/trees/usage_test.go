package trees

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestUsage counts what is there, once, and nothing that a link leads to.
func TestUsage(t *testing.T) {
	outside, folder := t.TempDir(), t.TempDir()
	write := func(path string, size int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outside, "big"), 8<<20)
	empty, least := Usage(t.Context(), folder)
	if least || empty > 64<<10 {
		t.Errorf("an empty folder takes %d bytes (least %v)", empty, least)
	}
	write(filepath.Join(folder, "a", "b", "c"), 1<<20)
	for i := range 600 { // more than one ReadDir gives
		write(filepath.Join(folder, "many", fmt.Sprint(i)), 1)
	}
	for from, to := range map[string]string{"away": outside, "up": "..", "round": ".", "a/file": filepath.Join(outside, "big")} {
		if err := os.Symlink(to, filepath.Join(folder, from)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		if err := os.Link(filepath.Join(folder, "a", "b", "c"), filepath.Join(folder, fmt.Sprint("name", i))); err != nil {
			t.Fatal(err)
		}
	}
	got, least := Usage(t.Context(), folder)
	if low, high := int64(1<<20+600*512), int64(1<<20+600*64<<10); least || got < low || got > high {
		t.Errorf("%d bytes (least %v), want between %d and %d", got, least, low, high)
	}
	if _, least := Usage(t.Context(), filepath.Join(folder, "none")); !least {
		t.Error("a folder that is not there takes so much and no more")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got, least := Usage(over, folder); !least {
		t.Errorf("without time %d bytes are all there is", got)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if folders, _, err := countFolder(t.Context(), root, ".", 1); len(folders) != 1 || err == nil {
		t.Errorf("of two folders, and room for one: %q, %v", folders, err)
	}
}
