package medium

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/image/disk"
	"kogge.example/image/uki"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/verity"
)

// when is the time in every file of the test image.
var when = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// partMiB are the sizes of the test image's partitions: as small as FAT32 allows, with a
// slot B that has a middle.
var partMiB = map[string]int64{"ESP": 34, "ROOT-A": 3, "ROOT-B": 4, "STATE": 2}

// testImage makes a small image with all that a real one has.
func testImage(t *testing.T, seed string) []byte {
	t.Helper()
	table := gpt.Table{DiskGUID: gpt.DeriveGUID(seed, "disk")}
	next := uint64(disk.MiB / gpt.SectorSize)
	for _, name := range []string{"ESP", "ROOT-A", "ROOT-B", "STATE"} {
		sectors := uint64(partMiB[name] * disk.MiB / gpt.SectorSize)
		kind := gpt.LinuxData
		if name == "ESP" {
			kind = gpt.EFISystem
		}
		table.Partitions = append(table.Partitions, gpt.Partition{Name: name, Type: kind, GUID: gpt.DeriveGUID(seed, name), First: next, Last: next + sectors - 1})
		next += sectors
	}
	table.Sectors = next + disk.MiB/gpt.SectorSize
	image := make(memory, table.Sectors*gpt.SectorSize)
	if err := gpt.Write(image, table); err != nil {
		t.Fatal(err)
	}
	part := func(name string) []byte {
		p, err := table.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		return image[p.Offset():][:p.Size()]
	}
	// 300 blocks: more than a MiB, with zeros in the middle, and a tree of two levels.
	const blocks = 300
	root := part("ROOT-A")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range root[:blocks*verity.BlockSize] {
		root[i] = byte(random.Uint32())
	}
	clear(root[8*verity.BlockSize : 40*verity.BlockSize])
	salt := [32]byte{1, 2, 3}
	tree, hash, err := verity.HashTree(bytes.NewReader(root), blocks, salt)
	if err != nil {
		t.Fatal(err)
	}
	copy(root[blocks*verity.BlockSize:], tree)
	cmdline := "quiet kogge.board=test kogge.version=" + seed + " kogge.verity=" + verity.Params{Root: hash, Salt: salt, Blocks: blocks}.String()
	kernel, err := uki.Build(stub(), uki.Image{OSRelease: "ID=kogge\n", Cmdline: cmdline, Uname: "6.12", Kernel: []byte("kernel"), Initrd: []byte("initrd")})
	if err != nil {
		t.Fatal(err)
	}
	err = fat.Format(memory(part("ESP")), fat.Spec{Size: partMiB["ESP"] * disk.MiB, Label: "KOGGE", Serial: 1, When: when}, []fat.File{
		{Path: "EFI/kogge/a.efi", Size: int64(len(kernel)), Data: bytes.NewReader(kernel)},
		{Path: "kogge/README.TXT", Size: 2, Data: bytes.NewReader([]byte("hi"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	state := part("STATE")
	copy(state[1024+0x38:], []byte{0x53, 0xef})
	copy(state[disk.MiB+5:], "something in the middle of STATE")
	return image
}

// stub is the least PE file that a unified kernel image can be made of.
func stub() []byte {
	le := binary.LittleEndian
	b := make([]byte, 1536)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	coff := b[0x44:]
	le.PutUint16(coff, 0x8664)
	le.PutUint16(coff[2:], 1)    // sections
	le.PutUint16(coff[16:], 240) // size of the optional header
	opt := b[0x58:]
	le.PutUint16(opt, 0x20b)     // PE32+
	le.PutUint32(opt[32:], 4096) // section alignment
	le.PutUint32(opt[36:], 512)  // file alignment
	le.PutUint32(opt[60:], 1024) // headers
	le.PutUint32(opt[108:], 16)  // directories
	s := b[0x58+240:]
	copy(s, ".text")
	le.PutUint32(s[8:], 16)
	le.PutUint32(s[12:], 4096)
	le.PutUint32(s[16:], 512)
	le.PutUint32(s[20:], 1024)
	return b
}

// memory is a disk that never fails.
type memory []byte

func (m memory) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(m).ReadAt(p, at) }
func (m memory) Sync() error                            { return nil }

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[at:], p), nil
}

// inspect is what an image says of itself.
func inspect(t *testing.T, image []byte) disk.Contents {
	t.Helper()
	c, err := disk.Inspect(memory(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// file puts data into a file of the test's folder.
func file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPlanFront wants all of what is in front of the first partition on the medium.
func TestPlanFront(t *testing.T) {
	const front, size = 16 * disk.MiB, 17 * disk.MiB
	image := make(memory, size)
	image[9*disk.MiB] = 1
	c := disk.Contents{Table: gpt.Table{Partitions: []gpt.Partition{{Name: "STATE", First: front / gpt.SectorSize, Last: size/gpt.SectorSize - 1}}}}
	chunks, err := plan(image, c)
	if err != nil {
		t.Fatal(err)
	}
	if sum(chunks) != size || len(chunks) != 17 || chunks[9].zero || !chunks[8].zero {
		t.Errorf("%d bytes in %d chunks: %+v", sum(chunks), len(chunks), chunks)
	}
}
