package mount

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kogge.example/update/blank"
	"kogge.example/update/crashdisk"
)

// blankDisk writes zeros as any other bytes.
type blankDisk struct{ *crashdisk.Disk }

func (d blankDisk) Zero(offset, size int64) error {
	_, err := d.WriteAt(make([]byte, size), offset)
	return err
}

// makeTemplate is a tiny template that has blocks 0, 2 and 5.
func makeTemplate() []byte {
	var b bytes.Buffer
	for _, n := range []uint32{0, 2, 5} {
		_ = binary.Write(&b, binary.LittleEndian, n)
		b.Write(bytes.Repeat([]byte{byte(n) + 1}, blank.BlockSize))
	}
	return b.Bytes()
}

// TestReformatPowerCut cuts the power at every write: the first block is the old
// one, nothing, or the new one, and the new one only with everything else.
func TestReformatPowerCut(t *testing.T) {
	const blocks = 8
	old := bytes.Repeat([]byte{0xff}, blocks*blank.BlockSize)
	want := make([]byte, blocks*blank.BlockSize)
	for _, n := range []int{0, 2, 5} {
		copy(want[n*blank.BlockSize:], bytes.Repeat([]byte{byte(n) + 1}, blank.BlockSize))
	}
	for writes := 0; ; writes++ {
		d := crashdisk.New(old, writes)
		err := reformat(blankDisk{d}, bytes.NewReader(makeTemplate()), blocks*blank.BlockSize)
		for seed := range uint64(64) {
			got := d.AfterCut(seed)
			// ext4's superblock is the second KiB of the first block.
			super := got[1024:2048]
			if bytes.Equal(super, want[1024:2048]) && !bytes.Equal(got[blank.BlockSize:], want[blank.BlockSize:]) {
				t.Fatalf("writes=%d seed=%d: a superblock without its file system", writes, seed)
			}
			if bytes.Equal(super, old[1024:2048]) && !bytes.Equal(got[blank.BlockSize:], old[blank.BlockSize:]) {
				t.Fatalf("writes=%d seed=%d: the old superblock with another content", writes, seed)
			}
		}
		if err == nil {
			if got := d.AfterCut(0); !bytes.Equal(got, want) {
				t.Fatal("the finished file system is another one")
			}
			return
		}
	}
}

// TestReformatRefuses is a template that is damaged.
func TestReformatRefuses(t *testing.T) {
	whole := makeTemplate()
	far := binary.LittleEndian.AppendUint32(nil, 1<<30)
	for what, template := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)-1], "no superblock": whole[blank.BlockSize+4:], "outside": append(far, make([]byte, blank.BlockSize)...),
	} {
		d := blankDisk{crashdisk.New(make([]byte, 8*blank.BlockSize), 1000)}
		if err := reformat(d, bytes.NewReader(template), 8*blank.BlockSize); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

// TestStateUUID reads the UUID where mke2fs writes it.
func TestStateUUID(t *testing.T) {
	img := filepath.Join(t.TempDir(), "state")
	const uuid = "01234567-89ab-4cde-8f01-23456789abcd"
	cmd := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", uuid, img, "16M")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs (package e2fsprogs): %v: %s", err, out)
	}
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	if got := formatUUID(data[1024+0x68:][:16]); got != uuid {
		t.Errorf("UUID %s, want %s", got, uuid)
	}
}
