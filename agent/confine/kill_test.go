package confine

import (
	"os"
	"path/filepath"
	"testing"
)

// TestKill writes to the group that is there, and makes nothing where there is none.
func TestKill(t *testing.T) {
	root := t.TempDir()
	for _, group := range []string{"workload/web", "workload/other"} {
		if err := os.MkdirAll(filepath.Join(root, group), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(root, "workload/web/cgroup.kill")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	Kill(root, "/workload/web")
	if text, err := os.ReadFile(file); err != nil || string(text) != "1" {
		t.Errorf("%q, %v", text, err)
	}
	for _, group := range []string{"/workload/other", "/workload/none"} {
		Kill(root, group)
		if _, err := os.Lstat(filepath.Join(root, group, "cgroup.kill")); err == nil {
			t.Errorf("%s: a file was made", group)
		}
	}
}
