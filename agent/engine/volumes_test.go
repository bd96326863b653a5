package engine

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"kogge.example/agent/workload"
)

// TestMakeVolume makes a volume after each cut that an earlier try may have met, and the
// process's own mask makes none of it less open to readers.
func TestMakeVolume(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, left := range []os.FileMode{0, 0o700, 0o777} { // of the folder under its first name; 0: none
		e := &Engine{paths: Paths{Volumes: filepath.Join(t.TempDir(), "volumes")}}
		fresh := filepath.Join(e.paths.Volumes, ".data.new")
		if left != 0 {
			if err := errors.Join(os.MkdirAll(fresh, 0o700), os.Chmod(fresh, left)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time it is there
			if err := e.Volumes(workload.Container{Volumes: []workload.Volume{{Name: "data"}}}); err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(filepath.Join(e.paths.Volumes, "data"))
		if err != nil || info.Mode() != os.ModeDir|0o755 {
			t.Errorf("after %v: %v, %v", left, info.Mode(), err)
		}
		if all, err := os.ReadDir(e.paths.Volumes); err != nil || len(all) != 1 {
			t.Errorf("after %v there are %v, %v", left, all, err)
		}
	}
}
