package trial

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

const tinyBoot = 72 << 10

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// bootDisk is a boot partition with two proven slots, A armed last.
func bootDisk(t *testing.T, l bootloader.Loader) []byte {
	t.Helper()
	d := crashdisk.New(make([]byte, tinyBoot), 1<<20)
	if err := fat.Format(d, fat.Spec{Size: tinyBoot, Label: "KOGGE", Serial: 1, When: noon, Tiny: true}, nil); err != nil {
		t.Fatal(err)
	}
	v := openBoot(t, d)
	for _, slot := range []bootloader.Slot{"B", "A"} {
		for _, name := range l.BootFiles() {
			if err := l.Install(v, slot, name, 4, strings.NewReader("four"), noon); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(l.Arm(v, slot, "1."+string(slot), 3, noon), l.Bless(v, slot, noon)); err != nil {
			t.Fatal(err)
		}
	}
	return d.AfterCut(1)
}

func openBoot(t *testing.T, d *crashdisk.Disk) *fat.Volume {
	t.Helper()
	v, err := fat.Open(d, 0, tinyBoot)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// countOne is what a boot of slot A does to the boot partition.
func countOne(l bootloader.Loader, v *fat.Volume, now time.Time) (bootloader.Slot, error) {
	if _, err := v.Repair(); err != nil {
		return "", err
	}
	state, r, err := readCount(l, v)
	if err != nil {
		return "", err
	}
	r = r.Begin("A")
	other, _, err := fallBack(l, v, state, &r, now)
	return other, err
}

// TestCountPowerCut cuts the power at every write of four boots of a proven slot that
// is never found good. Each time it goes on counting, and the third boot arms the other
// slot for one try, or the one after it if the count was torn; never twice.
func TestCountPowerCut(t *testing.T) {
	for _, b := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		t.Run(string(b), func(t *testing.T) {
			l, err := bootloader.For(b)
			if err != nil {
				t.Fatal(err)
			}
			start, seen := bootDisk(t, l), map[string]bool{}
			for writes := 0; ; writes++ {
				d := crashdisk.New(start, writes)
				var done int
				var err error
				for done = 0; done < 3 && err == nil; done++ {
					var other bootloader.Slot
					var v *fat.Volume
					if v, err = fat.Open(d, 0, tinyBoot); err != nil {
						break
					}
					other, err = countOne(l, v, noon)
					if err == nil && (other == "B") != (done == 2) {
						t.Fatalf("boot %d arms %q", done+1, other)
					}
				}
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("%d writes: %v", writes, err)
				}
				for seed := range uint64(64) {
					cut := d.AfterCut(seed)
					if !seen[string(cut)] {
						seen[string(cut)] = true
						goesOn(t, fmt.Sprintf("%d writes, seed %d", writes, seed), l, cut)
					}
				}
				if err == nil {
					return
				}
			}
		})
	}
}

// goesOn boots slot A from what a cut left, until the other slot is armed.
func goesOn(t *testing.T, where string, l bootloader.Loader, cut []byte) {
	t.Helper()
	d := crashdisk.New(cut, 1<<20)
	for boot := 1; ; boot++ {
		v := openBoot(t, d)
		state, err := l.State(v)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if e := state.Of("B"); e.Counted { // it is armed
			if e.Left != 1 || state.Starts != "B" {
				t.Fatalf("%s: %+v", where, state)
			}
			break
		}
		if state.Starts != "A" || boot > 4 {
			t.Fatalf("%s: %d more boots, and %+v", where, boot, state)
		}
		if _, err := countOne(l, v, noon); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
	}
	v := openBoot(t, d)
	if report, err := v.Repair(); err != nil || len(report.Damage) > 0 {
		t.Fatalf("%s: %v, %v", where, report, err)
	}
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Fatalf("%s: %v, %v", where, report, err)
	}
}

// TestCountInPlace: a count is there at the first boot, survives damage, and is one
// sector that lies where it lay.
func TestCountInPlace(t *testing.T) {
	l, err := bootloader.For(boards.SystemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	d := crashdisk.New(bootDisk(t, l), 1<<20)
	for boot := 1; boot <= 2; boot++ {
		if _, err := countOne(l, openBoot(t, d), noon); err != nil {
			t.Fatal(err)
		}
		if _, r, err := readCount(l, openBoot(t, d)); err != nil || r != (memory.Count{Slot: "A", Bad: boot}) {
			t.Fatalf("boot %d: %+v, %v", boot, r, err)
		}
	}
	for _, damage := range []string{"", "short", string(make([]byte, 512))} {
		if err := openBoot(t, d).WriteFile(memory.CountFile, []byte(damage), noon); err != nil {
			t.Fatal(err)
		}
		if other, err := countOne(l, openBoot(t, d), noon); err != nil || other != "" {
			t.Fatalf("%d bytes: %q, %v", len(damage), other, err)
		}
		if _, r, err := readCount(l, openBoot(t, d)); err != nil || r.Bad != 1 {
			t.Errorf("%d bytes: %+v, %v", len(damage), r, err)
		}
	}
}

// TestBlessUnknown: a slot that runs although its loader knows nothing of it, because
// nothing else could be started, is proven by a good boot.
func TestBlessUnknown(t *testing.T) {
	for _, b := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		l, err := bootloader.For(b)
		if err != nil {
			t.Fatal(err)
		}
		part := freshPart(t, l)
		installB(t, l, part)
		err = part.Edit(func(v *fat.Volume) error {
			if b == boards.SystemdBoot {
				return v.Remove("loader/entries/kogge-b+3-0.conf")
			}
			return errors.Join(v.Remove("B/armed"), v.Remove("kogge.env"))
		})
		if err != nil {
			t.Fatal(err)
		}
		n := &Boot{Node: Node{Facts: &control.Boot{Slot: "B", Version: "1.1", Loader: string(b)}, Part: part}, loader: l}
		if err := n.bless(); err != nil {
			t.Fatal(err)
		}
		if s := stateOf(t, l, part); !s.B.Proven() || s.B.Version != "1.1" || s.Starts != "B" || !s.A.Proven() {
			t.Errorf("%s: %+v", b, s)
		}
	}
}

// TestCountTrial: a try that the loader could not count is counted, and the slot is on
// trial.
func TestCountTrial(t *testing.T) {
	l, err := bootloader.For(boards.SystemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	part := freshPart(t, l)
	installB(t, l, part)
	b := &Boot{Node: Node{Facts: &control.Boot{Slot: "B", Version: "1.1", Loader: string(boards.SystemdBoot)}, Part: part, Say: func(string) {}}}
	for left := bootloader.Tries - 1; left >= 0; left-- {
		if err := part.Edit(func(v *fat.Volume) error { return b.countTrial(l, v) }); err != nil {
			t.Fatal(err)
		}
		if s := stateOf(t, l, part); s.B.Left != left || !b.Facts.Trial {
			t.Errorf("%+v, on trial %v", s, b.Facts.Trial)
		}
	}
}

func stateOf(t *testing.T, l bootloader.Loader, part bootpart.Partition) (state bootloader.State) {
	t.Helper()
	err := part.Read(func(v *fat.Volume) (err error) {
		state, err = l.State(v)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// TestBlessPowerCut cuts the power at every write of a blessing: of a slot on trial, of one
// with bad boots, and of one that the loader knows nothing of. Each time a slot starts
// that is proven, or that is on trial and can be blessed.
func TestBlessPowerCut(t *testing.T) {
	for _, b := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		l, err := bootloader.For(b)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			trial   bool
			prepare func(v *fat.Volume) error
		}{
			"trial": {true, func(v *fat.Volume) error {
				return errors.Join(l.Arm(v, "B", "1.B", 3, noon), l.Count(v, "B", noon))
			}},
			"bad boots": {false, func(v *fat.Volume) error {
				return errors.Join(l.Arm(v, "B", "1.B", 3, noon), l.Bless(v, "B", noon), writeCount(v, memory.Count{Slot: "B", Bad: 2}))
			}},
			"unknown": {false, func(v *fat.Volume) error {
				for _, file := range []string{"loader/entries/kogge-b.conf", "B/proven", "kogge.env"} {
					if err := v.Remove(file); err != nil && !errors.Is(err, fat.ErrNotExist) {
						return err
					}
				}
				return nil
			}},
		} {
			t.Run(string(b)+"/"+name, func(t *testing.T) {
				d := crashdisk.New(bootDisk(t, l), 1<<20)
				if err := c.prepare(openBoot(t, d)); err != nil {
					t.Fatal(err)
				}
				cutBless(t, l, d.AfterCut(1), c.trial)
			})
		}
	}
}

func cutBless(t *testing.T, l bootloader.Loader, start []byte, trial bool) {
	t.Helper()
	record, seen := memory.Count{Slot: "B"}, map[string]bool{}
	for writes := 0; ; writes++ {
		d := crashdisk.New(start, writes)
		v, err := fat.Open(d, 0, tinyBoot)
		if err == nil {
			err = bless(l, v, record, trial, "1.B", noon)
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatalf("%d writes: %v", writes, err)
		}
		for seed := range uint64(64) {
			where := fmt.Sprintf("%d writes, seed %d", writes, seed)
			cut := d.AfterCut(seed)
			if seen[string(cut)] {
				continue
			}
			seen[string(cut)] = true
			after := crashdisk.New(cut, 1<<20)
			v := openBoot(t, after)
			if _, err := v.Repair(); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			state, _, err := readCount(l, v)
			if next, found := state.Next(); err != nil || !found || !state.Of(next).Proven() && state.Of(next).Left == 0 || !state.A.Proven() {
				t.Fatalf("%s: %+v, %v", where, state, err)
			}
			if err := bless(l, v, record, state.B.Counted, "1.B", noon); err != nil {
				t.Fatalf("%s: once more: %v", where, err)
			}
			state, r, err := readCount(l, openBoot(t, after))
			if err != nil || state.Starts != "B" || !state.B.Proven() || state.B.Version != "1.B" || r != record {
				t.Fatalf("%s: once more: %+v, %+v, %v", where, state, r, err)
			}
		}
		if err == nil {
			return
		}
	}
}

// freshPart is the boot partition of a fresh image, in a file: slot A is proven.
func freshPart(t *testing.T, loader bootloader.Loader) bootpart.Partition {
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
	if err := fat.Format(f, fat.Spec{Size: size, Label: "KOGGE", Serial: 1, When: noon, Tiny: true}, files); err != nil {
		t.Fatal(err)
	}
	return bootpart.Partition{Device: device, Size: size}
}

// installB puts a release into slot B and arms it.
func installB(t *testing.T, loader bootloader.Loader, part bootpart.Partition) {
	t.Helper()
	err := part.Edit(func(v *fat.Volume) error {
		for _, file := range loader.BootFiles() {
			if err := loader.Install(v, bootloader.B, file, 700, bytes.NewReader(make([]byte, 700)), noon); err != nil {
				return err
			}
		}
		return loader.Arm(v, bootloader.B, "1.1", bootloader.Tries, noon)
	})
	if err != nil {
		t.Fatal(err)
	}
}
