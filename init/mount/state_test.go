package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

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

// TestMountStateRefuses is MountState up to the mount: what e2fsck says of STATE.
func TestMountStateRefuses(t *testing.T) {
	d := Disk{Name: "vda", Parts: map[string]string{partition.State: "/dev/no-such-partition"}}
	checker := func(err error, statuses ...int) (Checker, *[]string) {
		var calls []string
		return func(_ context.Context, path string, args ...string) ([]byte, int, error) {
			calls = append(calls, path+" "+strings.Join(args, " "))
			status := statuses[min(len(calls), len(statuses))-1]
			return []byte("one\ntwo\nthree\nfour\nfive\nsix\n"), status, err
		}, &calls
	}
	for _, c := range []struct {
		name     string
		disk     Disk
		err      error
		statuses []int
		calls    int
		want     string
		corrupt  bool
	}{
		{name: "no partition", disk: Disk{Name: "vda"}, statuses: []int{0}, want: "disk /dev/vda has no such partition"},
		{name: "no checker", disk: d, err: os.ErrNotExist, statuses: []int{0}, calls: 1, want: "check STATE: file does not exist"},
		{name: "out of memory", disk: d, statuses: []int{137}, calls: 1, want: "was ended by signal 9"},
		{name: "out of memory at the backup", disk: d, statuses: []int{8, 137}, calls: 2, want: "was ended by signal 9"},
		{name: "out of memory at last", disk: d, statuses: []int{8, 1, 139}, calls: 3, want: "was ended by signal 11"},
		{name: "beyond repair", disk: d, statuses: []int{4}, calls: 1, want: "exited with 4: two; three; four; five; six", corrupt: true},
		{name: "backup beyond repair", disk: d, statuses: []int{8, 1, 4}, calls: 3, want: "exited with 4", corrupt: true},
		{name: "no file system", disk: d, statuses: []int{8}, calls: 5, want: "exited with 8", corrupt: true},
		{name: "backup leads to the journal", disk: d, statuses: []int{8, 1, 1}, calls: 3, want: "mount STATE from /dev/no-such-partition"},
		{name: "second backup leads to the journal", disk: d, statuses: []int{8, 8, 8, 1, 1}, calls: 5, want: "mount STATE from /dev/no-such-partition"},
		{name: "clean", disk: d, statuses: []int{0}, calls: 1, want: "mount STATE from /dev/no-such-partition"},
		{name: "repaired", disk: d, statuses: []int{1}, calls: 1, want: "mount STATE from /dev/no-such-partition"},
		{name: "repaired, asks for a restart", disk: d, statuses: []int{3}, calls: 1, want: "mount STATE from /dev/no-such-partition"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, calls := checker(c.err, c.statuses...)
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
