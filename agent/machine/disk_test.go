package machine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	apiv1 "kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/namespace"
)

// TestWritable: a file system that has become read-only is known, whether somebody has
// mounted it so or the kernel has met an error.
func TestWritable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	if !namespace.Run(t, unix.CLONE_NEWNS) {
		return
	}
	image := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-e", "remount-ro", image, "32M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs (package e2fsprogs): %v: %s", err, out)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	for what, spoil := range map[string]func(dir, device string) error{
		"mounted so": func(dir, _ string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") },
		"an error": func(_, device string) error {
			return os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("of a test"), 0)
		},
	} {
		dir := t.TempDir()
		run("mount", "-o", "loop", image, dir)
		device := filepath.Base(strings.TrimSpace(run("findmnt", "-no", "SOURCE", dir)))
		m := Machine{State: dir}
		if err := errors.Join(Writable(dir), m.disk(&apiv1.Disk{})); err != nil {
			t.Errorf("%s: before: %v", what, err)
		}
		if err := spoil(dir, device); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: a write: %v", what, err)
		}
		if err := Writable(dir); !errors.Is(err, errReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
		var disk apiv1.Disk
		if err := m.disk(&disk); !errors.Is(err, errReadOnly) || disk.Total == 0 {
			t.Errorf("%s: status: %v, %v", what, err, &disk)
		}
		run("umount", dir)
		run("sh", "-c", `e2fsck -p "$0" || [ $? -eq 1 ]`, image)
	}
	if err := Writable("/dev/shm"); err != nil {
		t.Errorf("in memory: %v", err)
	}
	if err := Writable("/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
}
