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
