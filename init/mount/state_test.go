package mount

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"kogge.example/update/crashdisk"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// grown is the size, in sectors, of the disk that an image was written to.
const grown = 9 << 20 / gpt.SectorSize

// TestGrowTablePowerCut cuts the power at every write of the growth: each time the
// disk boots, its slots where they were, and the next boot finishes the work.
func TestGrowTablePowerCut(t *testing.T) {
	image := imageTable("image")
	before := content(t, image, grown)
	for writes := 0; ; writes++ {
		d := crashdisk.New(before, writes)
		table, err := growTable(d, grown*gpt.SectorSize, "image")
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(32) {
			where := fmt.Sprintf("writes=%d seed=%d", writes, seed)
			after := d.Again(seed, 1000)
			found, readErr := gpt.Read(after, grown*gpt.SectorSize)
			if readErr != nil {
				t.Fatalf("%s: %v", where, readErr)
			}
			sameSlots(t, where, image, found)
			again, growErr := growTable(after, grown*gpt.SectorSize, "image")
			if growErr != nil {
				t.Fatalf("%s: another boot: %v", where, growErr)
			}
			finished(t, where, image, again)
			if err == nil && (again.DiskGUID != table.DiskGUID) {
				t.Fatalf("%s: new names a second time", where)
			}
		}
		if err == nil {
			if writes < 4 {
				t.Fatalf("only %d writes", writes)
			}
			return
		}
	}
}

// sameSlots says whether a disk still has the slots of its image: the loader and the
// kernel find them by these places.
func sameSlots(t *testing.T, where string, image, got gpt.Table) {
	t.Helper()
	for _, name := range partition.All() {
		want, err1 := image.Find(name)
		p, err2 := got.Find(name)
		if err := errors.Join(err1, err2); err != nil || p.First != want.First || p.Number != want.Number || name != partition.State && p.Last != want.Last {
			t.Fatalf("%s: %s is at %d to %d, %v", where, name, p.First, p.Last, err)
		}
	}
}

func finished(t *testing.T, where string, image, got gpt.Table) {
	t.Helper()
	sameSlots(t, where, image, got)
	state, _ := got.Find(partition.State)
	if state.Last < grown-(2<<20)/gpt.SectorSize {
		t.Fatalf("%s: STATE ends at %d of %d", where, state.Last, uint64(grown))
	}
	if got.DiskGUID == image.DiskGUID {
		t.Fatalf("%s: the disk still has the image's name", where)
	}
	for i, p := range got.Partitions {
		if p.GUID == image.Partitions[i].GUID {
			t.Fatalf("%s: %s still has the image's name", where, p.Name)
		}
	}
}

func TestGrowTableOnce(t *testing.T) {
	d := crashdisk.New(content(t, imageTable("image"), grown), 1000)
	first, err := growTable(d, grown*gpt.SectorSize, "image")
	if err != nil {
		t.Fatal(err)
	}
	// No write is left to a disk that is cut at its first one.
	again := d.Again(0, 0)
	second, err := growTable(again, grown*gpt.SectorSize, "image")
	if err != nil || second.DiskGUID != first.DiskGUID {
		t.Errorf("the second boot: %v", err)
	}
	// A disk that another release named keeps its names, on a larger disk too.
	larger := append(d.AfterCut(0), make([]byte, 4<<20)...)
	third, err := growTable(crashdisk.New(larger, 1000), int64(len(larger)), "another image")
	if err != nil || third.DiskGUID != first.DiskGUID {
		t.Errorf("a larger disk: %v", err)
	}
}

// TestGrowTableRefused: where STATE cannot grow, the disk and its partitions get names of
// their own all the same, and the caller learns them.
func TestGrowTableRefused(t *testing.T) {
	image := imageTable("image", partition.State)
	d := crashdisk.New(content(t, image, grown), 1000)
	got, err := growTable(d, grown*gpt.SectorSize, "image")
	if err == nil || !strings.Contains(err.Error(), "grow STATE") {
		t.Errorf("without STATE: %v", err)
	}
	found, err := gpt.Read(d, grown*gpt.SectorSize)
	if err != nil || found.DiskGUID == image.DiskGUID || found.DiskGUID != got.DiskGUID || len(found.Partitions) != len(image.Partitions) {
		t.Fatalf("%+v, %v", found, err)
	}
	for i, p := range found.Partitions {
		if p.GUID == image.Partitions[i].GUID || p != got.Partitions[i] {
			t.Errorf("%s still has the image's name, or the caller another", p.Name)
		}
	}
}

// TestGrowState grows the table of a file. It is no block device, so there is
// no kernel to be told: that error comes after everything else is done.
func TestGrowState(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, content(t, imageTable("image"), grown), 0o644); err != nil {
		t.Fatal(err)
	}
	d := Disk{Name: strings.Repeat("../", 16) + name[1:], Size: grown * gpt.SectorSize, Table: imageTable("image")}
	// Name is joined to /dev/, whose parents lead to the file.
	if err := GrowState(&d, "image"); err == nil || !strings.Contains(err.Error(), "tell the kernel") {
		t.Fatalf("growth of a file: %v", err)
	}
	finished(t, "in memory", imageTable("image"), d.Table)
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := GrowState(&d, "image"); err != nil {
		t.Errorf("the second time: %v", err)
	}
	if after, err := os.ReadFile(name); err != nil || string(after) != string(before) {
		t.Errorf("the second time wrote something (%v)", err)
	}
	if err := os.WriteFile(name, content(t, imageTable("image", partition.State), grown), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := GrowState(&d, "image"); err == nil || !strings.Contains(err.Error(), "grow STATE") {
		t.Errorf("without STATE: %v", err)
	}
	d.Name = "no-such-disk"
	if err := GrowState(&d, "image"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a disk: %v", err)
	}
}

// TestBlkpg compares with include/uapi/linux/blkpg.h on machines of 64 bits:
//
//	struct blkpg_ioctl_arg { int op; int flags; int datalen; void *data; };
//	struct blkpg_partition { long long start, length; int pno; char devname[64], volname[64]; };
func TestBlkpg(t *testing.T) {
	var arg blkpg
	var part blkpgPartition
	for name, c := range map[string][2]uintptr{
		"op": {unsafe.Offsetof(arg.op), 0}, "flags": {unsafe.Offsetof(arg.flags), 4}, "datalen": {unsafe.Offsetof(arg.length), 8},
		"data": {unsafe.Offsetof(arg.data), 16}, "size of the argument": {unsafe.Sizeof(arg), 24},
		"start": {unsafe.Offsetof(part.start), 0}, "length": {unsafe.Offsetof(part.length), 8}, "pno": {unsafe.Offsetof(part.number), 16},
		"size of the partition": {unsafe.Sizeof(part), 152},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d, want %d", name, c[0], c[1])
		}
	}
}

// ext4 makes a file system of so many MiB with the host's mke2fs.
func ext4(t testing.TB, mib int, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("mke2fs")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/mke2fs")
	}
	if err != nil {
		t.Fatal("mke2fs is missing: apt-get install e2fsprogs")
	}
	file := filepath.Join(t.TempDir(), "ext4")
	args = append(append([]string{"-q", "-F", "-t", "ext4"}, args...), file, fmt.Sprintf("%dM", mib))
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return file
}

func TestExt4Blocks(t *testing.T) {
	for _, c := range []struct {
		args []string
		mib  int
		want uint64 // 0: refused
	}{
		{[]string{"-b", "4096"}, 64, 16384},
		{[]string{"-b", "4096", "-O", "64bit"}, 64, 16384},
		{[]string{"-b", "4096", "-O", "^64bit"}, 64, 16384},
		{[]string{"-b", "4096", "-E", "resize=1000000"}, 33, 33 * 256},
		{[]string{"-b", "1024"}, 16, 0},
	} {
		f, err := os.Open(ext4(t, c.mib, c.args...))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := ext4Blocks(f); got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("mke2fs %v: %d blocks, %v", c.args, got, err)
		}
	}
	for _, text := range []string{"", "short", strings.Repeat("\x00", 4096), strings.Repeat("\xff", 4096)} {
		if got, err := ext4Blocks(strings.NewReader(text)); err == nil {
			t.Errorf("%d bytes of nothing: %d blocks", len(text), got)
		}
	}
}

func FuzzExt4Blocks(f *testing.F) {
	data, err := os.ReadFile(ext4(f, 8, "-b", "4096"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:2048])
	f.Add(make([]byte, 2048))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ext4Blocks(strings.NewReader(string(data))); err == nil && len(data) < 2048 {
			t.Error("a superblock out of nothing")
		}
	})
}

// TestMountStateRefuses is MountState up to the mount: what it makes of e2fsck's words. The
// device is a file, so that a mount is refused.
func TestMountStateRefuses(t *testing.T) {
	disk := func(name string) Disk { return Disk{Name: "vda", Parts: map[string]string{partition.State: name}} }
	whole := ext4(t, 400, "-b", "4096", "-O", "metadata_csum", "-J", "size=8") // with two backups
	torn := ext4(t, 400, "-b", "4096", "-O", "metadata_csum", "-J", "size=8")
	patch(t, torn, 1024+700, strings.Repeat("torn", 25))
	none := filepath.Join(t.TempDir(), "zeros")
	if err := os.WriteFile(none, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	checker := func(err error, said string, statuses ...int) (Checker, *[]string) {
		var calls []string
		return func(_ context.Context, path string, args ...string) ([]byte, int, error) {
			calls = append(calls, path+" "+strings.Join(args, " "))
			status := statuses[min(len(calls), len(statuses))-1]
			return []byte("one\ntwo\nthree\nfour\nfive\n" + said), status, err
		}, &calls
	}
	const passed = "mount STATE from "
	for _, c := range []struct {
		name     string
		disk     Disk
		err      error
		said     string
		statuses []int
		calls    int
		want     string
		corrupt  bool
	}{
		{name: "no partition", disk: Disk{Name: "vda"}, statuses: []int{0}, want: "disk /dev/vda has no such partition"},
		{name: "no device", disk: disk("/dev/no-such-partition"), statuses: []int{8}, want: "no such file or directory"},
		{name: "no checker", disk: disk(whole), err: os.ErrNotExist, statuses: []int{0}, calls: 1, want: "check STATE: file does not exist"},
		{name: "out of memory", disk: disk(whole), statuses: []int{137}, calls: 1, want: "was ended by signal 9"},
		{name: "out of memory at the backup", disk: disk(torn), statuses: []int{8, 137}, calls: 2, want: "was ended by signal 9"},
		{name: "out of memory at last", disk: disk(torn), statuses: []int{8, 1, 139}, calls: 3, want: "was ended by signal 11"},
		{name: "out of memory, in its own words", disk: disk(none), said: "e2fsck: Memory allocation failed", statuses: []int{8}, calls: 1, want: "could not be checked"},
		{name: "beyond repair", disk: disk(whole), said: "six\n", statuses: []int{4}, calls: 1, want: "exited with 4: two; three; four; five; six", corrupt: true},
		{name: "beyond repair and repaired", disk: disk(whole), statuses: []int{5}, calls: 1, want: "exited with 5", corrupt: true},
		{name: "a bad sector", disk: disk(whole), said: "Error reading block 5 (Input/output error) while getting next inode from scan.", statuses: []int{4}, calls: 1, want: "could not be checked"},
		{name: "a disk that went away", disk: disk(whole), said: "Error writing block 5 (Input/output error).", statuses: []int{12}, calls: 1, want: "could not be checked"},
		{name: "in use", disk: disk(whole), said: "is in use.", statuses: []int{8}, calls: 1, want: "could not be checked"},
		{name: "wrong arguments", disk: disk(whole), statuses: []int{16}, calls: 1, want: "could not be checked"},
		{name: "cancelled", disk: disk(whole), statuses: []int{32}, calls: 1, want: "could not be checked"},
		{name: "no library", disk: disk(whole), statuses: []int{128}, calls: 1, want: "could not be checked"},
		{name: "cancelled halfway", disk: disk(whole), statuses: []int{36}, calls: 1, want: "could not be checked"},
		{name: "a newer release's", disk: disk(whole), said: "has unsupported feature(s): FEATURE_I30", statuses: []int{8}, calls: 1, want: "a newer release"},
		{name: "a newer release's, torn", disk: disk(torn), said: "has unsupported feature(s): FEATURE_I30", statuses: []int{8}, calls: 2, want: "a newer release"},
		{name: "backup beyond repair", disk: disk(torn), statuses: []int{8, 1, 4}, calls: 3, want: "exited with 4", corrupt: true},
		{name: "backups lead to damage alone", disk: disk(torn), statuses: []int{8, 4, 8, 4, 8}, calls: 5, want: "no backup of its superblock leads anywhere", corrupt: true},
		{name: "backups lead nowhere", disk: disk(torn), statuses: []int{8}, calls: 5, want: "could not be checked"},
		{name: "no file system", disk: disk(none), statuses: []int{8}, calls: 1, want: "no superblock", corrupt: true},
		{name: "backup leads to the journal", disk: disk(torn), statuses: []int{8, 1, 1}, calls: 3, want: passed},
		{name: "second backup leads to the journal", disk: disk(torn), statuses: []int{8, 8, 8, 1, 1}, calls: 5, want: passed},
		{name: "clean", disk: disk(whole), statuses: []int{0}, calls: 1, want: passed},
		{name: "repaired", disk: disk(whole), statuses: []int{1}, calls: 1, want: passed},
		{name: "repaired, asks for a restart", disk: disk(whole), statuses: []int{3}, calls: 1, want: passed},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, calls := checker(c.err, c.said, c.statuses...)
			err := MountState(t.Context(), c.disk, check)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrCorrupt) != c.corrupt || len(*calls) != c.calls {
				t.Errorf("%v after %q", err, *calls)
			}
		})
	}
}

func TestLastLines(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"\n\n":              "",
		"one":               "one",
		"one\ntwo\n":        "one; two",
		"one\ntwo\nthree\n": "two; three",
		"\none\n\ntwo":      "; two",
	} {
		if got := lastLines(text, 2); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// e2fsck is the real program, as PID 1 runs it.
func e2fsck(ctx context.Context, path string, args ...string) ([]byte, int, error) {
	out, err := exec.CommandContext(ctx, filepath.Base(path), args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return out, exit.ExitCode(), nil
	}
	return out, 0, err
}

// superblocks are the places, in bytes, of the superblock and its backups in the file
// system of so many MiB that [ext4] makes.
func superblocks(mib int) (places []int64) {
	for _, group := range []int64{0, 1, 3, 5, 7, 9} {
		if at := max(1024, group<<27); at < int64(mib)<<20 {
			places = append(places, at)
		}
	}
	return places
}

// patch changes bytes of a file.
func patch(t *testing.T, name string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

// setFeature sets the highest bit but one of a field of features in superblocks: what a
// release of the far future does.
func setFeature(t *testing.T, name string, field int64, places ...int64) {
	t.Helper()
	setBytes(t, name, field+3, []byte{0x40}, places...)
}

// setBytes changes superblocks, with the checksum that then is right.
func setBytes(t *testing.T, name string, field int64, text []byte, places ...int64) {
	t.Helper()
	for _, at := range places {
		super := block(t, name, at)
		copy(super[field:], text)
		binary.LittleEndian.PutUint32(super[0x3fc:], ^crc32.Checksum(super[:0x3fc], crc32.MakeTable(crc32.Castagnoli)))
		patch(t, name, at, string(super))
	}
}

// setJournal changes the superblock of the journal, with the checksum that then is right.
func setJournal(t *testing.T, name string, field int, text ...byte) {
	t.Helper()
	out, err := exec.Command("debugfs", "-R", "bmap <8> 0", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	super := block(t, name, first*4096)
	copy(super[field:], text)
	if binary.BigEndian.Uint32(super[0x28:])&0x18 != 0 { // CSUM_V2 or V3
		clear(super[0xfc:0x100])
		binary.BigEndian.PutUint32(super[0xfc:], ^crc32.Checksum(super, crc32.MakeTable(crc32.Castagnoli)))
	}
	patch(t, name, first*4096, string(super))
}

// block reads a KiB of a file.
func block(t *testing.T, name string, at int64) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMountStateVerdict hands real file systems to the real e2fsck. Corrupt is only what is
// one and cannot be repaired: everything else may be a STATE that is well, and nothing of
// it is written to.
func TestMountStateVerdict(t *testing.T) {
	const mib = 700 // four superblocks
	const passed = "mount STATE from "
	tear := func(t *testing.T, name string, places ...int64) {
		for _, at := range places {
			patch(t, name, at+700, strings.Repeat("torn", 25))
		}
	}
	places := superblocks(mib)
	for _, c := range []struct {
		name    string
		args    []string
		spoil   func(t *testing.T, name string)
		want    string
		corrupt bool
		written bool // it may be
	}{
		{name: "clean", spoil: func(*testing.T, string) {}, want: passed, written: true},
		{name: "with 1024-byte blocks", args: []string{"-b", "1024"}, spoil: func(*testing.T, string) {}, want: passed, written: true},
		{name: "a newer release changed it", spoil: func(t *testing.T, name string) { setFeature(t, name, 0x60, places...) }, want: "a newer release"},
		{name: "one that older ones may read", spoil: func(t *testing.T, name string) { setFeature(t, name, 0x64, places...) }, want: "a newer release"},
		{name: "one that older ones may write", spoil: func(t *testing.T, name string) { setFeature(t, name, 0x5c, places...) }, want: "a newer release"},
		{name: "the superblock alone says so", spoil: func(t *testing.T, name string) { setFeature(t, name, 0x60, 1024) }, want: "a newer release"},
		{name: "torn, and the backups say so", spoil: func(t *testing.T, name string) {
			setFeature(t, name, 0x60, places[1:]...)
			tear(t, name, 1024)
		}, want: "a newer release"},
		{name: "a newer kernel changed its journal", spoil: func(t *testing.T, name string) { setJournal(t, name, 0x28, 0x40) }, want: "a newer release", written: true},
		{name: "and for readers nothing", spoil: func(t *testing.T, name string) { setJournal(t, name, 0x2c, 0x40) }, want: "a newer release", written: true},
		{name: "a newer kernel's journal", spoil: func(t *testing.T, name string) { setJournal(t, name, 4, 0, 0, 0, 9) }, want: "a newer release", written: true},
		{name: "checksums of another kind", spoil: func(t *testing.T, name string) {
			for _, at := range places {
				patch(t, name, at+0x175, "\x02")
			}
		}, want: "could not be checked"},
		{name: "a newer revision", spoil: func(t *testing.T, name string) { setBytes(t, name, 0x4c, []byte{9}, places...) }, want: "a newer release"},
		{name: "torn", spoil: func(t *testing.T, name string) { tear(t, name, 1024) }, want: passed, written: true},
		{name: "torn, as the first backup", spoil: func(t *testing.T, name string) { tear(t, name, places[:2]...) }, want: passed, written: true},
		{name: "torn, as all backups but the last", spoil: func(t *testing.T, name string) { tear(t, name, places[:3]...) }, want: passed, written: true},
		{name: "gone, as all backups but the last", spoil: func(t *testing.T, name string) {
			for _, at := range places[:3] {
				patch(t, name, at, strings.Repeat("\x00", 1024))
			}
		}, want: passed, written: true},
		{name: "torn, with 1024-byte blocks", args: []string{"-b", "1024"}, spoil: func(t *testing.T, name string) { tear(t, name, 1024) }, want: passed, written: true},
		{name: "all torn", spoil: func(t *testing.T, name string) { tear(t, name, places...) }, want: "no superblock", corrupt: true},
		{name: "nothing but zeros", spoil: func(t *testing.T, name string) {
			if err := errors.Join(os.Truncate(name, 0), os.Truncate(name, mib<<20)); err != nil {
				t.Fatal(err)
			}
		}, want: "no superblock", corrupt: true},
		{name: "a format of it was cut", spoil: func(t *testing.T, name string) { // see reformat
			for at := range int64(256) {
				patch(t, name, at<<20, strings.Repeat("\x00", 1<<20))
			}
		}, want: "exited with", corrupt: true, written: true},
		{name: "its journal and root are junk", spoil: func(t *testing.T, name string) {
			for block := int64(1); block < 2000; block++ { // descriptors, bitmaps, inodes
				patch(t, name, block*4096, strings.Repeat("junk", 1024))
			}
		}, want: "exited with", corrupt: true, written: true},
		{name: "encrypted by somebody", spoil: func(t *testing.T, name string) {
			patch(t, name, 0, "LUKS\xba\xbe\x00\x02"+strings.Repeat("\x00", 4088))
		}, want: "LUKS"},
		{name: "btrfs", spoil: func(t *testing.T, name string) {
			patch(t, name, 1024, strings.Repeat("\x00", 1024))
			patch(t, name, 0x10040, "_BHRfS_M")
		}, want: "btrfs"},
		{name: "the partition ends too soon", spoil: func(t *testing.T, name string) {
			if err := os.Truncate(name, 300<<20); err != nil {
				t.Fatal(err)
			}
		}, want: "700 MiB, and its partition 300 MiB"},
		{name: "the partition ends too soon, and torn", spoil: func(t *testing.T, name string) {
			tear(t, name, 1024)
			if err := os.Truncate(name, 300<<20); err != nil {
				t.Fatal(err)
			}
		}, want: "700 MiB, and its partition 300 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := ext4(t, mib, append([]string{"-b", "4096", "-O", "metadata_csum", "-J", "size=8"}, c.args...)...)
			c.spoil(t, name)
			before := digest(t, name)
			err := MountState(t.Context(), Disk{Name: "vda", Parts: map[string]string{partition.State: name}}, e2fsck)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrCorrupt) != c.corrupt {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !c.written && !bytes.Equal(digest(t, name), before) {
				t.Error("it was written to")
			}
		})
	}
}

// digest is one of the content of a file, without its holes.
func digest(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := crc32.NewIEEE()
	for end := int64(0); ; {
		begin, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return h.Sum(nil)
		}
		if err == nil {
			end, err = f.Seek(begin, unix.SEEK_HOLE)
		}
		if err == nil {
			_, err = io.Copy(h, io.NewSectionReader(f, begin, end-begin))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestMountStateProtected is a disk that nobody can write to.
func TestMountStateProtected(t *testing.T) {
	for name, state := range map[string]string{"clean": "", "not clean": "0", "with errors": "2"} {
		image := ext4(t, 64, "-b", "4096", "-O", "metadata_csum")
		if state != "" {
			if out, err := exec.Command("debugfs", "-w", "-R", "set_super_value state "+state, image).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		out, err := exec.Command("losetup", "--read-only", "--find", "--show", image).Output()
		if err != nil {
			t.Fatal(err)
		}
		dev := strings.TrimSpace(string(out))
		t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })
		err = MountState(t.Context(), Disk{Name: "vda", Parts: map[string]string{partition.State: dev}}, e2fsck)
		if err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "write-protected") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
