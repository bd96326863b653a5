package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/init/mount"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// TestLeaveSlot wants a proven slot that does not open left for the other one, if that is
// proven as well, and the loader's word for it; and no going back and forth.
func TestLeaveSlot(t *testing.T) {
	for _, name := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		loader, err := bootloader.For(name)
		if err != nil {
			t.Fatal(err)
		}
		disk, part := freshDisk(t, loader)
		board := boards.Board{Bootloader: name}
		next := func() (slot bootloader.Slot) {
			t.Helper()
			err := part.Read(func(v *fat.Volume) error {
				state, err := loader.State(v)
				slot, _ = state.Next()
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return slot
		}
		if _, err := leaveSlot(control.Boot{}, board, disk, ""); err == nil || !strings.Contains(err.Error(), "slot B: empty") {
			t.Errorf("%s: a fresh image: error %v", name, err)
		}
		installB(t, loader, part)
		if _, err := leaveSlot(control.Boot{}, board, disk, ""); err == nil || !strings.Contains(err.Error(), "on trial") {
			t.Errorf("%s: slot B is on trial: error %v", name, err)
		}
		if err := part.Edit(func(v *fat.Volume) error { return loader.Bless(v, bootloader.B, time.Now()) }); err != nil {
			t.Fatal(err)
		}
		if _, err := leaveSlot(control.Boot{Alone: "two disks"}, board, disk, ""); err == nil || next() != bootloader.B {
			t.Errorf("%s: two disks: error %v, slot %s starts next", name, err, next())
		}
		if name == boards.SystemdBoot { // A was chosen at the menu, and does not open: B is as good as it was
			if left, err := leaveSlot(control.Boot{}, board, disk, bootloader.A); err != nil || left != bootloader.A || next() != bootloader.B {
				t.Errorf("%s: slot A was chosen: left %s, slot %s starts next, %v", name, left, next(), err)
			}
			if err := part.Edit(func(v *fat.Volume) error {
				return errors.Join(loader.Arm(v, bootloader.A, "1.0", 1, time.Now()), loader.Bless(v, bootloader.A, time.Now()),
					loader.Arm(v, bootloader.B, "1.1", 1, time.Now()), loader.Bless(v, bootloader.B, time.Now()))
			}); err != nil {
				t.Fatal(err)
			}
		}
		if left, err := leaveSlot(control.Boot{}, board, disk, ""); err != nil || left != bootloader.B || next() != bootloader.A {
			t.Errorf("%s: slot B is proven: left %s, slot %s starts next, %v", name, left, next(), err)
		}
		if _, err := leaveSlot(control.Boot{}, board, disk, ""); err == nil || next() != bootloader.A {
			t.Errorf("%s: slot A does not open either: slot %s starts next, %v", name, next(), err)
		}
	}
}

// TestLookForDisk: what keeps a disk from being the boot disk is said while it is looked for, once,
// and what is so for a moment only is not.
func TestLookForDisk(t *testing.T) {
	unfit := errors.New("disk /dev/sda (8 MiB) cannot be used")
	elsewhere := fmt.Errorf("%w: the loader started from partition 1", mount.ErrNoDisk)
	var said []string
	say := func(text string) { said = append(said, text) }
	found := mount.Disk{Name: "sdb"}
	check := func(name string, disk mount.Disk, err error, want ...string) {
		t.Helper()
		if err != nil || disk.Name != found.Name || !slices.Equal(said, want) {
			t.Errorf("%s: disk %q, %v, said %q, want %q", name, disk.Name, err, said, want)
		}
		said = nil
	}
	after := 0 // so many more looks there is the disk
	until := func(why, unusable error) func() (mount.Disk, error, error) {
		return func() (mount.Disk, error, error) {
			if len(said) > 0 {
				if after--; after < 0 {
					return found, unusable, nil
				}
			}
			return mount.Disk{}, unusable, why
		}
	}
	after = 3
	disk, err := lookForDisk(until(mount.ErrNoDisk, unfit), time.Hour, time.Millisecond, say)
	check("a damaged disk", disk, err, mount.ErrNoDisk.Error()+"\n"+unfit.Error())
	disk, err = lookForDisk(until(elsewhere, nil), time.Hour, time.Millisecond, say)
	check("another disk", disk, err, elsewhere.Error())
	looks := 0
	disk, err = lookForDisk(func() (mount.Disk, error, error) {
		if looks++; looks > 5 {
			return found, nil, nil
		}
		return mount.Disk{}, fmt.Errorf("partition %d is not there (yet)", looks), mount.ErrNoDisk
	}, time.Hour, time.Millisecond, say)
	check("a disk that comes up", disk, err)
	if _, err = lookForDisk(func() (mount.Disk, error, error) { return mount.Disk{}, unfit, mount.ErrNoDisk }, 0, time.Hour, say); !errors.Is(err, mount.ErrNoDisk) || !errors.Is(err, unfit) || len(said) > 0 {
		t.Errorf("in the end: %v, said %q", err, said)
	}
	broken := errors.New("list disks: no /sys")
	if _, err = lookForDisk(func() (mount.Disk, error, error) { return mount.Disk{}, nil, broken }, time.Hour, 0, say); err != broken {
		t.Errorf("disks cannot be listed: %v", err)
	}
}

// freshDisk is the disk of a fresh image, in a file: slot A is proven.
func freshDisk(t *testing.T, loader bootloader.Loader) (mount.Disk, bootpart.Partition) {
	t.Helper()
	const size = 128 << 10
	device := filepath.Join(t.TempDir(), "esp")
	f, err := os.Create(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	files := loader.Fresh("1.0")
	for _, file := range loader.BootFiles() {
		path, err := loader.Path(bootloader.A, file)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fat.File{Path: path, Size: 700, Data: bytes.NewReader(make([]byte, 700))})
	}
	if err := fat.Format(f, fat.Spec{Size: size, Label: "KOGGE", Serial: 1, When: time.Unix(1_700_000_000, 0), Tiny: true}, files); err != nil {
		t.Fatal(err)
	}
	disk := mount.Disk{Parts: map[string]string{partition.ESP: device}}
	disk.Table.Partitions = []gpt.Partition{{Number: 1, Name: partition.ESP, First: 0, Last: size/gpt.SectorSize - 1}}
	part, err := bootPartition(disk)
	if err != nil {
		t.Fatal(err)
	}
	return disk, part
}

// installB puts a release into slot B and arms it.
func installB(t *testing.T, loader bootloader.Loader, part bootpart.Partition) {
	t.Helper()
	err := part.Edit(func(v *fat.Volume) error {
		for _, file := range loader.BootFiles() {
			if err := loader.Install(v, bootloader.B, file, 700, bytes.NewReader(make([]byte, 700)), time.Now()); err != nil {
				return err
			}
		}
		return loader.Arm(v, bootloader.B, "1.1", bootloader.Tries, time.Now())
	})
	if err != nil {
		t.Fatal(err)
	}
}
