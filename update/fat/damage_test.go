package fat

import (
	"bytes"
	"errors"
	"runtime"
	"syscall"
	"testing"

	"kogge.example/update/crashdisk"
)

// TestCrossLinked has two slots' kernels share clusters, and updates one of them: the
// other, which may be the one that runs, has to read as before to the last byte.
func TestCrossLinked(t *testing.T) {
	sound := small(t, file("a", 2000), file("b", 2000), file("c", 600))
	tests := []struct {
		name          string
		link          func(t *testing.T, d damaged)
		victim, stays string
	}{
		{"the second runs into the first", func(t *testing.T, d damaged) { d.link(d.first(t, "b"), d.first(t, "a")+1) }, "b", "a"},
		{"the first runs into the second", func(t *testing.T, d damaged) { d.link(d.first(t, "a"), d.first(t, "b")+1) }, "a", "b"},
		// c is whole by its size, and looks as if its chain was too long.
		{"one ends within the other", func(t *testing.T, d damaged) {
			d.link(d.first(t, "c"), d.first(t, "b")+1)
			d.link(d.first(t, "a"), endOfChain) // there is other damage
		}, "c", "b"},
		{"the first ends within the second", func(t *testing.T, d damaged) {
			d.entry(t, "a")[28], d.entry(t, "a")[29] = 0x58, 2 // 600 bytes
			d.link(d.first(t, "a"), d.first(t, "b")+1)
		}, "a", "b"},
	}
	edits := map[string]func(v *Volume, name string) error{
		"remove":  func(v *Volume, name string) error { return v.Remove(name) },
		"replace": func(v *Volume, name string) error { return v.WriteFile(name, content("replaced", 600), when) },
	}
	for _, test := range tests {
		b := bytes.Clone(sound)
		test.link(t, damaged{openSmall(t, crashdisk.New(b, 0)), b})
		want, err := openSmall(t, crashdisk.New(b, 0)).ReadFile(test.stays)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		for name, edit := range edits {
			d := crashdisk.New(b, 1<<20)
			v := openSmall(t, d)
			report, err := v.Repair()
			if err != nil || len(report.Damage) == 0 {
				t.Fatalf("%s: %v, %v", test.name, report, err)
			}
			if err := edit(v, test.victim); err != nil {
				t.Fatalf("%s, %s: %v", test.name, name, err)
			}
			// Every cluster that is free now gets another file's bytes.
			if err := v.WriteFile("new", content("new", int(v.free()-1)*sectorSize), when); err != nil {
				t.Fatalf("%s, %s: %v", test.name, name, err)
			}
			if err := v.WriteFile("newer", make([]byte, 2*sectorSize), when); !errors.Is(err, ErrFull) {
				t.Errorf("%s, %s: room for a file more: %v", test.name, name, err)
			}
			for _, v := range []*Volume{v, openSmall(t, d.Again(0, 0))} {
				if got, err := v.ReadFile(test.stays); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %s: %s does not read as before: %v", test.name, name, test.stays, err)
				}
			}
		}
	}
}

// badDisk cannot read a sector until it is written.
type badDisk struct {
	*crashdisk.Disk
	bad map[int64]bool // by offset
}

func (d badDisk) ReadAt(p []byte, offset int64) (int, error) {
	for at := range d.bad {
		if offset < at+sectorSize && at < offset+int64(len(p)) {
			return 0, syscall.EIO
		}
	}
	return d.Disk.ReadAt(p, offset)
}

func (d badDisk) WriteAt(p []byte, offset int64) (int, error) {
	n, err := d.Disk.WriteAt(p, offset)
	for at := range d.bad {
		if err == nil && offset <= at && at < offset+int64(len(p)) {
			delete(d.bad, at)
		}
	}
	return n, err
}

// badFAT is a disk with a small volume that cannot read one copy of its FAT.
func badFAT(t testing.TB, content []byte, copy int64, writes int) badDisk {
	t.Helper()
	v := openSmall(t, crashdisk.New(content, 0))
	at := (v.reserved + copy*v.fatSectors) * sectorSize
	return badDisk{crashdisk.New(content, writes), map[int64]bool{at: true}}
}

// TestBadFAT edits volumes that cannot read a copy of the FAT; only where no copy can be
// read there is nothing to be done.
func TestBadFAT(t *testing.T) {
	sound := small(t, file("a", 2000), file("dir/b", 600))
	want := files(t, openSmall(t, crashdisk.New(sound, 0)))
	for bad, says := range []string{"first copy of the FAT: read FAT: input/output error", "second copy of the FAT: read FAT: input/output error"} {
		d := badFAT(t, sound, int64(bad), 1000)
		v := openDevice(t, d)
		if report, err := v.Check(); err != nil || report.Clean() || report.String() != says {
			t.Errorf("got %v, %v\nwant %s", report, err, says)
		}
		if len(d.bad) == 0 {
			t.Error("Check writes")
		}
		if report, err := v.Repair(); err != nil || report.String() != says {
			t.Errorf("got %v, %v\nwant %s", report, err, says)
		}
		if err := errors.Join(v.Remove("a"), v.WriteFile("a", want["a"], when)); err != nil {
			t.Error(err)
		}
		v = openSmall(t, d.Again(0, 0))
		if report, err := v.Check(); err != nil || !report.Clean() {
			t.Errorf("%s; afterwards %v, %v", says, report, err)
		}
		if got := files(t, v); !same(got, want) {
			t.Errorf("%s; afterwards %v", says, sizes(got))
		}
	}
	d := badFAT(t, sound, 0, 0)
	d.bad[(32+1)*sectorSize] = true
	if _, err := Open(d, 0, 64<<10); !errors.Is(err, syscall.EIO) {
		t.Errorf("no copy can be read: %v", err)
	}
}

// TestSecondCopy has the first copy of the FAT lose the chains of files, and cuts the
// power at every write of the Repair that takes them from the second.
func TestSecondCopy(t *testing.T) {
	b := small(t, file("a", 2000), file("b", 2000), file("dir/c", 600))
	want := files(t, openSmall(t, crashdisk.New(b, 0)))
	d := damaged{openSmall(t, crashdisk.New(bytes.Clone(b), 0)), b}
	d.linkIn(0, d.first(t, "a"), 0)
	d.linkIn(0, d.first(t, "b"), d.first(t, "a"))
	d.linkIn(0, d.first(t, "dir"), d.first(t, "dir/c")+1)
	d.link(50, 51) // lost clusters, as a power cut leaves them
	d.link(51, endOfChain)
	repair := func(d device) error {
		report, err := openDevice(t, d).Repair()
		if err == nil && len(report.Damage) > 0 {
			err = errors.New(report.String())
		}
		return err
	}
	for writes := 0; ; writes++ {
		for _, unread := range []bool{false, true} {
			var disk *crashdisk.Disk
			var err error
			if unread {
				bad := badFAT(t, b, 0, writes)
				disk, err = bad.Disk, repair(bad)
			} else {
				disk = crashdisk.New(b, writes)
				err = repair(disk)
			}
			if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
				t.Fatalf("writes=%d: %v", writes, err)
			}
			for seed := range uint64(64) {
				again := disk.Again(seed, 1000)
				if err := repair(again); err != nil {
					t.Fatalf("writes=%d seed=%d: %v", writes, seed, err)
				}
				v := openSmall(t, again.Again(0, 0))
				if report, err := v.Check(); err != nil || !report.Clean() {
					t.Fatalf("writes=%d seed=%d: %v, %v", writes, seed, report, err)
				}
				if got := files(t, v); !same(got, want) {
					t.Fatalf("writes=%d seed=%d: %v, want %v", writes, seed, sizes(got), sizes(want))
				}
			}
			if err == nil && unread {
				t.Logf("%d writes", writes)
				return
			}
		}
	}
}

// TestCircle reads a file of 4 GiB, in a circle on a volume of 64 KiB: that may not take
// the memory of so long a chain.
func TestCircle(t *testing.T) {
	b := small(t, file("a", 600))
	d := damaged{openSmall(t, crashdisk.New(bytes.Clone(b), 0)), b}
	copy(d.entry(t, "a")[28:], []byte{0xff, 0xff, 0xff, 0xff})
	d.link(d.first(t, "a")+1, d.first(t, "a"))
	v := openSmall(t, crashdisk.New(b, 0))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := v.Reader("a")
	runtime.ReadMemStats(&after)
	const want = `read "a": 4294967295 bytes need 8388608 clusters, the volume has 94`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes of memory", used)
	}
}
