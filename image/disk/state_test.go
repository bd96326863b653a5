package disk

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kogge.example/update/blank"
)

// TestReserveGrows: root's reserve of a STATE that has grown to a disk's size is a share of
// that. The kernel takes the share that there is in whole percent, and adds as much of what
// is new (ext4_update_super in fs/ext4/resize.c); of 0.999 percent it makes nought.
func TestReserveGrows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{blank.Size, blank.Size + 6<<20} {
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", reservedPercent, file)
		cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		super := make([]byte, 1024)
		_, err = f.ReadAt(super, 1024)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		le := binary.LittleEndian
		blocks, reserved := uint64(le.Uint32(super[0x4:])), uint64(le.Uint32(super[0x8:]))
		if percent := reserved * 100 / blocks; percent < 1 {
			t.Errorf("%d of %d blocks are reserved: %d percent of what is added", reserved, blocks, percent)
		}
	}
}

// TestPlainState: a STATE for releases that know no quotas has none of ext4's features for
// them, which their kernels would not mount for writing; the other one has both.
func TestPlainState(t *testing.T) {
	for features, want := range map[Features]uint32{PlainState: 0, QuotaState: 0x100 | 0x2000} { // RO_COMPAT_QUOTA, RO_COMPAT_PROJECT
		file := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, blank.Size); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", string(features), file)
		cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"), "MKE2FS_CONFIG=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint32(data[1024+0x64:]) & (0x100 | 0x2000); got != want {
			t.Errorf("%s: %#x, want %#x", features, got, want)
		}
	}
}
