package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSetSysctls writes all that it can into a tree like /proc/sys, and names what
// is not there.
func TestSetSysctls(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"fs", "kernel", "vm"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := setSysctls(root); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"fs/protected_symlinks": "1", "kernel/kptr_restrict": "1"} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	// A kernel without some of them: the others are set, and the error says which.
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := setSysctls(root)
	if err == nil || !strings.Contains(err.Error(), "kernel/dmesg_restrict") {
		t.Errorf("error %v does not name kernel/dmesg_restrict", err)
	}
	if _, err := fs.Stat(os.DirFS(root), "fs/protected_fifos"); err != nil {
		t.Error(err)
	}
}
