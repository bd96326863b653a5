package medium

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"kogge.example/image/disk"
	"kogge.example/update/crashdisk"
	"kogge.example/update/gpt"
)

// used fills a medium with what an earlier owner has left.
func used(size int64) []byte {
	b := make([]byte, size)
	random := rand.New(rand.NewPCG(7, 7))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// checkWhole fails unless data is a disk with the test image on it.
func checkWhole(t *testing.T, data []byte, version string) gpt.Table {
	t.Helper()
	c := inspect(t, data)
	if err := c.Verify(memory(data)); err != nil {
		t.Fatal(err)
	}
	if c.Version != version || c.Board != "test" || c.Arch != "amd64" {
		t.Fatalf("medium says board %s, release %s, processor %s", c.Board, c.Version, c.Arch)
	}
	if c.Table.Sectors != uint64(len(data))/gpt.SectorSize {
		t.Fatalf("the backup table is not at the end: %d of %d sectors", c.Table.Sectors, len(data)/gpt.SectorSize)
	}
	for _, p := range c.Table.Partitions {
		if p.GUID == gpt.DeriveGUID(version, p.Name) {
			t.Fatalf("partition %s still has the image's GUID", p.Name)
		}
	}
	// The first and the last MiB of an empty slot are zero.
	b, err := c.Table.Find("ROOT-B")
	if err != nil {
		t.Fatal(err)
	}
	slot := data[b.Offset():][:b.Size()]
	for _, part := range [][]byte{slot[:disk.MiB], slot[len(slot)-disk.MiB:]} {
		if !bytes.Equal(part, make([]byte, disk.MiB)) {
			t.Fatal("slot B does not look empty")
		}
	}
	return c.Table
}

func TestWriteFile(t *testing.T) {
	image := testImage(t, "1.0")
	imageFile, c, err := OpenImage(file(t, "image", image))
	if err != nil {
		t.Fatal(err)
	}
	defer imageFile.Close()
	size := int64(len(image)) + 5*disk.MiB + 3*gpt.SectorSize // media have odd sizes
	target := file(t, "medium", used(size))
	facts, err := Look(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := Decide(facts, int64(len(image)), true); err != nil {
		t.Fatal(err)
	}
	d, err := Open(facts)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Step]int64{}
	config := []byte("hostname: written\n")
	r, err := Write(t.Context(), imageFile, c, d, size, Options{Config: config, When: when, Progress: func(s Step, done, total int64) {
		if done <= seen[s] || done > total {
			t.Errorf("%s went from %d to %d of %d bytes", s, seen[s], done, total)
		}
		seen[s] = done
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if seen[Writing] != r.Written+r.Zeroed || seen[Reading] != seen[Writing] {
		t.Errorf("progress ended at %v, report: %+v", seen, r)
	}
	data, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	table := checkWhole(t, data, "1.0")
	for _, p := range c.Table.Partitions {
		if p.Name == "STATE" && !bytes.Equal(data[p.Offset():][:p.Size()], image[p.Offset():][:p.Size()]) {
			t.Error("STATE is not that of the image")
		}
	}
	v, err := disk.Boot(memory(data), table)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.ReadFile(nodeYAML); err != nil || !bytes.Equal(got, config) {
		t.Errorf("node.yaml: %q, %v", got, err)
	}
	judge(t, "gdisk", "sgdisk", "-v", target)
	esp, err := table.Find("ESP")
	if err != nil {
		t.Fatal(err)
	}
	judge(t, "dosfstools", "fsck.fat", "-n", file(t, "esp", data[esp.Offset():][:esp.Size()]))
}

// judge runs the reference tool for a format.
func judge(t *testing.T, apt, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is missing: apt-get install %s", name, apt)
	}
	if err != nil || bytes.Contains(out, []byte("Problem:")) {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// fragile is a crashdisk as a target.
type fragile struct{ *crashdisk.Disk }

func (f fragile) Zero(at, n int64) error {
	_, err := f.WriteAt(make([]byte, n), at)
	return err
}

func (f fragile) Fresh() (io.ReaderAt, func() error, error) {
	return f, func() error { return nil }, nil
}

// TestWritePowerCut cuts the power at every write: the medium has its old content,
// or no partition table, or all of the new one.
func TestWritePowerCut(t *testing.T) {
	image := testImage(t, "2.0")
	c := inspect(t, image)
	size := int64(len(image)) + 2*disk.MiB
	before := used(size)
	old := gpt.Table{DiskGUID: gpt.DeriveGUID("old", "disk"), Sectors: uint64(size) / gpt.SectorSize, Partitions: []gpt.Partition{
		{Name: "photos", Type: gpt.LinuxData, GUID: gpt.DeriveGUID("old", "photos"), First: 2048, Last: uint64(size)/gpt.SectorSize - 4096},
	}}
	if err := gpt.Write(memory(before), old); err != nil {
		t.Fatal(err)
	}
	whole := 0
	for writes := 0; ; writes++ {
		d := crashdisk.New(before, writes)
		_, err := Write(t.Context(), memory(image), c, fragile{d}, size, Options{Config: []byte("hostname: x\n"), When: when})
		if err != nil && !errors.Is(err, ErrUnusable) {
			t.Fatalf("writes=%d: %v does not say that the medium is unusable", writes, err)
		}
		for seed := range uint64(5) {
			data := d.AfterCut(seed)
			got, readErr := gpt.Read(memory(data), size)
			switch {
			case readErr != nil:
			case got.DiskGUID == old.DiskGUID:
				if !bytes.Equal(data[disk.MiB:size-disk.MiB], before[disk.MiB:size-disk.MiB]) {
					t.Fatalf("writes=%d seed=%d: the old table leads to new content", writes, seed)
				}
			default:
				v := inspect(t, data)
				v.Table.Damage = nil // one copy of the table may be missing yet
				if err := v.Verify(memory(data)); err != nil {
					t.Fatalf("writes=%d seed=%d: a table, and behind it: %v", writes, seed, err)
				}
				whole++
			}
		}
		if err == nil {
			checkWhole(t, d.AfterCut(0), "2.0")
			break
		}
	}
	if whole == 0 {
		t.Error("no cut left a whole medium")
	}
}

// liar is a medium that keeps less than it claims, as fakes do.
type liar struct {
	memory
	from int64
}

func (l liar) WriteAt(p []byte, at int64) (int, error) {
	if at >= l.from && at < int64(len(l.memory))-disk.MiB {
		return len(p), nil
	}
	return l.memory.WriteAt(p, at)
}

func (l liar) Zero(at, n int64) error {
	_, err := l.memory.WriteAt(make([]byte, n), at)
	return err
}

func (l liar) Fresh() (io.ReaderAt, func() error, error) {
	return l, func() error { return nil }, nil
}

func TestWriteReadBack(t *testing.T) {
	image := testImage(t, "1.0")
	size := int64(len(image)) + disk.MiB
	l := liar{used(size), 36 * disk.MiB}
	_, err := Write(t.Context(), memory(image), inspect(t, image), l, size, Options{})
	if !errors.Is(err, ErrReadBack) || !errors.Is(err, ErrUnusable) {
		t.Fatalf("got %v", err)
	}
	if _, err := gpt.Read(l.memory, size); err == nil {
		t.Error("a medium that failed the check has a partition table")
	}
}

func TestWriteInterrupted(t *testing.T) {
	image := testImage(t, "1.0")
	size := int64(len(image))
	for _, at := range []Step{Writing, Reading} {
		ctx, cancel := context.WithCancel(t.Context())
		l := liar{used(size), size}
		_, err := Write(ctx, memory(image), inspect(t, image), l, size, Options{Progress: func(s Step, done, total int64) {
			if s == at && done > total/2 {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, ErrUnusable) {
			t.Errorf("stopped in %s: %v", at, err)
		}
		if _, err := gpt.Read(l.memory, size); err == nil {
			t.Errorf("stopped in %s: the medium has a partition table", at)
		}
	}
}

func TestWriteTooSmall(t *testing.T) {
	image := testImage(t, "1.0")
	before := used(int64(len(image)) - 2*disk.MiB)
	l := liar{bytes.Clone(before), int64(len(before))}
	if _, err := Write(t.Context(), memory(image), inspect(t, image), l, int64(len(before)), Options{}); err == nil || errors.Is(err, ErrUnusable) {
		t.Fatalf("got %v", err)
	}
	if !bytes.Equal(l.memory, before) {
		t.Error("something was written")
	}
}

// TestOpenImageDamaged changes one byte at a time in everything that a node needs
// for its first boot.
func TestOpenImageDamaged(t *testing.T) {
	image := testImage(t, "1.0")
	c := inspect(t, image)
	place := func(name string) int64 {
		p, err := c.Table.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		return p.Offset()
	}
	for what, at := range map[string]int64{
		"primary table":     520,
		"backup table":      int64(len(image)) - 500,
		"boot sector":       place("ESP") + 510,
		"FAT":               place("ESP") + 32*gpt.SectorSize + 9,
		"root file system":  place("ROOT-A") + 77777,
		"hash tree":         place("ROOT-A") + 300*4096 + 5,
		"STATE superblock":  place("STATE") + 1024 + 0x38,
		"zeros of the root": place("ROOT-A") + 10*4096,
	} {
		image[at] ^= 0xff
		f, _, err := OpenImage(file(t, "image", image))
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s: got %v", what, err)
		}
		image[at] ^= 0xff
	}
	for what, data := range map[string][]byte{"cut short": image[:len(image)-disk.MiB], "front only": image[:disk.MiB]} {
		if f, _, err := OpenImage(file(t, "image", data)); err == nil {
			f.Close()
			t.Errorf("%s: was taken", what)
		}
	}
	for what, data := range map[string][]byte{"empty": {}, "text": []byte("hello"), "zeros": make([]byte, disk.MiB)} {
		if _, _, err := OpenImage(file(t, "image", data)); !errors.Is(err, disk.ErrNoImage) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if _, _, err := OpenImage(file(t, "image", append([]byte("QFI\xfb"), make([]byte, 4096)...))); !errors.Is(err, disk.ErrQcow2) {
		t.Errorf("qcow2: got %v", err)
	}
	if _, _, err := OpenImage(t.TempDir()); !errors.Is(err, disk.ErrNoImage) {
		t.Errorf("a folder: got %v", err)
	}
}
