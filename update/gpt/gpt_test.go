package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kogge.example/update/crashdisk"
	"kogge.example/update/golden"
)

const mib = 1 << 20 / SectorSize

// unit is the size of a partition where a whole MiB would only take time.
const unit = 64

// example is a node's disk, small, with partitions of size sectors.
func example(size, sectors uint64) Table {
	return Table{
		DiskGUID: DeriveGUID("kogge 1.0", "disk"),
		Sectors:  sectors,
		Partitions: []Partition{
			{Number: 1, Name: "ESP", Type: EFISystem, GUID: DeriveGUID("kogge 1.0", "ESP"), First: 1 * size, Last: 2*size - 1},
			{Number: 2, Name: "ROOT-A", Type: LinuxData, GUID: DeriveGUID("kogge 1.0", "ROOT-A"), First: 2 * size, Last: 3*size - 1},
			{Number: 4, Name: "STATE", Type: LinuxData, GUID: DeriveGUID("kogge 1.0", "STATE"), First: 3 * size, Last: 4*size - 1},
		},
	}
}

// disk returns the bytes of a disk of size sectors that carries t.
func disk(t *testing.T, table Table, sectors uint64) []byte {
	t.Helper()
	content := make([]byte, sectors*SectorSize)
	front, back, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	copy(content, front)
	copy(content[table.Sectors*SectorSize-uint64(len(back)):], back)
	return content
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%s is missing: apt-get install gdisk", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestWriteReadBySgdisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const sectors = 16 * mib
	if err := f.Truncate(sectors * SectorSize); err != nil {
		t.Fatal(err)
	}
	want := example(mib, sectors)
	if err := Write(f, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(f, sectors*SectorSize)
	if err != nil || got.Damage != nil {
		t.Fatal(err, got.Damage)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	_, shown, _ := strings.Cut(run(t, "sgdisk", "-p", "-i", "1", "-i", "4", path), "\nNumber")
	golden.Compare(t, "sgdisk.txt", shown)

	// The disk grows: sgdisk has to find nothing to complain about either.
	const grown = 64*mib + 7
	if err := f.Truncate(grown * SectorSize); err != nil {
		t.Fatal(err)
	}
	if got, err = Grow(f, grown*SectorSize, "STATE"); err != nil {
		t.Fatal(err)
	}
	if state, err := got.Find("STATE"); err != nil || state.Last != 63*mib-1 || state.Number != 4 {
		t.Errorf("STATE after growth: %+v, %v", state, err)
	}
	if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v after growth:\n%s", out)
	}
	before := got
	if got, err = Randomize(f, grown*SectorSize); err != nil {
		t.Fatal(err)
	}
	if got.DiskGUID == before.DiskGUID || got.Partitions[2].GUID == before.Partitions[2].GUID {
		t.Error("Randomize kept a GUID")
	}
	if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v after Randomize:\n%s", out)
	}
}

// TestReadDamaged destroys each sector of the table in turn: one copy has to be
// read, and the damage told.
func TestReadDamaged(t *testing.T) {
	const sectors = 8 * unit
	want := example(unit, sectors)
	sound := disk(t, want, sectors)
	for _, at := range []uint64{1, 2, sectors - 33, sectors - 1} {
		content := bytes.Clone(sound)
		content[at*SectorSize+40] ^= 1
		got, err := Read(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Errorf("sector %d damaged: %v", at, err)
			continue
		}
		if got.Damage == nil {
			t.Errorf("sector %d damaged: not told", at)
		}
		got.Damage = nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sector %d damaged: %s", at, diff)
		}
	}
	content := bytes.Clone(sound)
	content[SectorSize] ^= 1
	content[len(content)-1] ^= 1 // not summed: the header has 92 bytes
	if _, err := Read(bytes.NewReader(content), int64(len(content))); err != nil {
		t.Errorf("padding of the backup damaged: %v", err)
	}
	content[len(content)-SectorSize] ^= 1
	_, err := Read(bytes.NewReader(content), int64(len(content)))
	const wantErr = "partition table: primary: no signature in sector 1; backup: no signature in sector 511"
	if err == nil || err.Error() != wantErr {
		t.Errorf("both headers damaged: got %v\nwant %s", err, wantErr)
	}
}

func TestEncodeRefuses(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Table)
		want string
	}{
		{"overlap", func(t *Table) { t.Partitions[1].First-- },
			`partition table: partition "ROOT-A": begins at sector 4095, within "ESP", which ends at 4095`},
		{"past the end", func(t *Table) { t.Partitions[2].Last = 8*mib - 33 },
			`partition table: partition "STATE": sectors 6144 to 16351 are not within 34 to 16350`},
		{"over the primary", func(t *Table) { t.Partitions[0].First = 33 },
			`partition table: partition "ESP": sectors 33 to 4095 are not within 34 to 16350`},
		{"backwards", func(t *Table) { t.Partitions[0].Last = 2047 },
			`partition table: partition "ESP": sectors 2048 to 2047 are not within 34 to 16350`},
		{"number twice", func(t *Table) { t.Partitions[1].Number = 1 },
			`partition table: partition "ROOT-A": number 1 is taken`},
		{"number", func(t *Table) { t.Partitions[1].Number = 129 },
			`partition table: partition "ROOT-A": number 129: want 1 to 128`},
		{"GUID twice", func(t *Table) { t.Partitions[1].GUID = t.Partitions[0].GUID },
			`partition table: partition "ROOT-A": GUID ` + DeriveGUID("kogge 1.0", "ESP").String() + ` is taken or zero`},
		{"no type", func(t *Table) { t.Partitions[1].Type = GUID{} },
			`partition table: partition "ROOT-A": no type`},
		{"name", func(t *Table) { t.Partitions[1].Name = strings.Repeat("x", 37) },
			`partition table: partition "` + strings.Repeat("x", 37) + `": the name does not fit 36 UTF-16 units`},
		{"disk", func(t *Table) { t.DiskGUID = GUID{} }, `partition table: the disk has no GUID`},
		{"small", func(t *Table) { t.Sectors = 67 }, `partition table: 67 sectors: want 68 to 18014398509481984`},
	}
	for _, test := range tests {
		table := example(mib, 8*mib)
		test.edit(&table)
		if _, _, err := table.Encode(); err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v\nwant %s", test.name, err, test.want)
		}
	}
}

func TestGrowRefuses(t *testing.T) {
	const sectors = 8 * unit
	tests := []struct {
		name      string
		partition string
		size      int64
		want      string
	}{
		{"unknown", "DATA", sectors * SectorSize, `partition "DATA": not in the table`},
		{"smaller disk", "STATE", 4 * unit * SectorSize,
			`partition table: partition "STATE": sectors 192 to 255 are not within 34 to 222`},
		{"no disk", "STATE", 0, `primary: a disk of 0 bytes is too small; backup: a disk of 0 bytes is too small`},
	}
	for _, test := range tests {
		content := disk(t, example(unit, sectors), sectors)
		d := crashdisk.New(content, 100)
		_, err := Grow(d, test.size, test.partition)
		want := fmt.Sprintf("grow partition table to %d bytes: %s", test.size, test.want)
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", test.name, err, want)
		}
		if !bytes.Equal(d.AfterCut(1), content) {
			t.Errorf("%s: something was written", test.name)
		}
	}
}

// TestGrowBeforeOthers: a partition grows up to the next one, which somebody else has made,
// and no further; sgdisk finds nothing wrong.
func TestGrowBeforeOthers(t *testing.T) {
	const sectors = 100 * mib
	for _, c := range []struct {
		name   string
		others string // arguments of sgdisk
		last   uint64 // of STATE then
	}{
		{"one right behind it, to the end", "-n5:32M:0", 32*mib - 1},
		{"a gap of half a MiB", "-a1 -n5:66560:+10M", 32*mib - 1},
		{"two, in another order", "-n6:60M:+1M -n5:50M:+1M", 50*mib - 1},
	} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, sectors*SectorSize); err != nil {
			t.Fatal(err)
		}
		run(t, "sgdisk", append([]string{"-o", "-n1:1M:+4M", "-c1:ESP", "-t1:ef00", "-n2:8M:+4M", "-c2:ROOT-A", "-n3:12M:+4M", "-c3:ROOT-B", "-n4:16M:+16M", "-c4:STATE"}, append(strings.Fields(c.others), path)...)...)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		before, err := Read(f, sectors*SectorSize)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Grow(f, sectors*SectorSize, "STATE")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if state, err := got.Find("STATE"); err != nil || state.Last != c.last {
			t.Errorf("%s: STATE ends at %d, want %d, %v", c.name, state.Last, c.last, err)
		}
		for i, p := range before.Partitions {
			if p.Name != "STATE" && p != got.Partitions[i] {
				t.Errorf("%s: %+v is now %+v", c.name, p, got.Partitions[i])
			}
		}
		if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("%s: sgdisk -v:\n%s", c.name, out)
		}
		if again, err := Grow(f, sectors*SectorSize, "STATE"); err != nil || !equal(got, again) {
			t.Errorf("%s: again: %v", c.name, err)
		}
	}
}

// TestHybridMBR: entries that somebody made beside the protective one stay, through damage
// too; a plain MBR, and junk, become the protective one of the disk.
func TestHybridMBR(t *testing.T) {
	const sectors = 64 * mib
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, disk(t, example(mib, 8*mib), sectors), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mbr := func() []byte {
		b := make([]byte, SectorSize)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return b
	}
	run(t, "sgdisk", "-h", "1:EE", path)
	made := mbr()
	if made[bootCode+4] != 0xef || made[bootCode+16+4] != protective {
		t.Fatalf("sgdisk made no hybrid MBR: %x", made[bootCode:])
	}
	for _, damage := range []int64{-1, SectorSize} {
		if damage >= 0 {
			if _, err := f.WriteAt([]byte{0}, damage); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Randomize(f, sectors*SectorSize); err != nil {
			t.Fatal(err)
		}
		if _, err := Grow(f, sectors*SectorSize, "STATE"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mbr(), made) {
			t.Errorf("damage at %d: the hybrid MBR is now %x", damage, mbr()[bootCode:])
		}
	}
	want := protectiveMBR(sectors)[bootCode:]
	for name, junk := range map[string][]byte{
		"zeros":        make([]byte, 66),
		"no signature": bytes.Repeat([]byte{protective, 7}, 33),
		"plain":        append(append(make([]byte, 4), append([]byte{7}, make([]byte, 59)...)...), 0x55, 0xaa),
	} {
		if _, err := f.WriteAt(junk, bootCode); err != nil {
			t.Fatal(err)
		}
		if _, err := Grow(f, sectors*SectorSize, "STATE"); err != nil {
			t.Fatal(err)
		}
		if got := mbr()[bootCode:]; !bytes.Equal(got, want) {
			t.Errorf("%s: %x", name, got)
		}
	}
	// A new table on an old disk begins with an MBR of its own.
	if _, err := f.WriteAt(made[bootCode:], bootCode); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, example(mib, sectors)); err != nil || !bytes.Equal(mbr()[bootCode:], want) {
		t.Errorf("a new table: %v, %x", err, mbr()[bootCode:])
	}
}

// TestGrowPowerCut cuts the power at every write of the growth: each time the disk
// has the old table or the new one, and a second Grow finishes.
func TestGrowPowerCut(t *testing.T) {
	const before, after = 5 * unit, 2*mib + 3
	old := example(unit, before)
	content := disk(t, old, after)
	copy(content, "boot code")
	cuts(t, content, func(d *crashdisk.Disk) error {
		_, err := Grow(d, after*SectorSize, "STATE")
		return err
	}, func(where string, cut []byte) {
		got, err := Read(bytes.NewReader(cut), int64(len(cut)))
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		got.Damage = nil
		grown := example(unit, after)
		grown.Partitions[2].Last = 1*mib - 1
		if !cmp.Equal(got, old) && !cmp.Equal(got, grown) {
			t.Fatalf("%s: neither old nor new: %s", where, cmp.Diff(grown, got))
		}
		again := crashdisk.New(cut, 100)
		if got, err = Grow(again, after*SectorSize, "STATE"); err != nil {
			t.Fatalf("%s: second Grow: %v", where, err)
		}
		finished := again.AfterCut(0)
		onDisk, err := Read(bytes.NewReader(finished), int64(len(finished)))
		if err != nil || onDisk.Damage != nil {
			t.Fatalf("%s: after the second Grow: %v, %v", where, err, onDisk.Damage)
		}
		if !cmp.Equal(got, grown) || !cmp.Equal(onDisk, grown) {
			t.Fatalf("%s: after the second Grow: %s", where, cmp.Diff(grown, onDisk))
		}
		if !bytes.HasPrefix(finished, []byte("boot code")) {
			t.Fatalf("%s: boot code is gone", where)
		}
		third := crashdisk.New(finished, 0)
		if _, err := Grow(third, after*SectorSize, "STATE"); err != nil {
			t.Fatalf("%s: a grown disk was written to: %v", where, err)
		}
	})
}

// TestRandomizePowerCut does the same with new GUIDs, and from a disk whose primary
// copy is damaged to begin with.
func TestRandomizePowerCut(t *testing.T) {
	const sectors = 5 * unit
	old := example(unit, sectors)
	for _, damage := range []int{-1, SectorSize, 2 * SectorSize, (sectors - 1) * SectorSize} {
		content := disk(t, old, sectors)
		if damage >= 0 {
			content[damage] ^= 1
		}
		cuts(t, content, func(d *crashdisk.Disk) error {
			_, err := Randomize(d, sectors*SectorSize)
			return err
		}, func(where string, cut []byte) {
			got, err := Read(bytes.NewReader(cut), int64(len(cut)))
			if err != nil {
				t.Fatalf("damage at %d: %s: %v", damage, where, err)
			}
			got.Damage = nil
			if !cmp.Equal(got, old) && !renamed(old, got) {
				t.Fatalf("damage at %d: %s: neither old nor new: %s", damage, where, cmp.Diff(old, got))
			}
			again := crashdisk.New(cut, 100)
			if _, err := Randomize(again, sectors*SectorSize); err != nil {
				t.Fatalf("damage at %d: %s: second Randomize: %v", damage, where, err)
			}
			finished := again.AfterCut(0)
			if got, err := Read(bytes.NewReader(finished), int64(len(finished))); err != nil || got.Damage != nil {
				t.Fatalf("damage at %d: %s: after the second: %v, %v", damage, where, err, got.Damage)
			}
		})
	}
}

// renamed tells whether b is a with every GUID another one.
func renamed(a, b Table) bool {
	if a.DiskGUID == b.DiskGUID || len(a.Partitions) != len(b.Partitions) {
		return false
	}
	for i, p := range b.Partitions {
		if p.GUID == a.Partitions[i].GUID {
			return false
		}
		if p.GUID = a.Partitions[i].GUID; p != a.Partitions[i] {
			return false
		}
	}
	return true
}

// cuts runs work on content with the power failing at each of its writes, and shows
// check what the disk may hold then.
func cuts(t *testing.T, content []byte, work func(*crashdisk.Disk) error, check func(where string, cut []byte)) {
	t.Helper()
	for writes := 0; ; writes++ {
		d := crashdisk.New(content, writes)
		err := work(d)
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatalf("writes=%d: %v", writes, err)
		}
		for seed := range uint64(64) {
			check(fmt.Sprintf("writes=%d seed=%d", writes, seed), d.AfterCut(seed))
		}
		if err == nil {
			if writes < 2 {
				t.Fatalf("only %d writes", writes)
			}
			return
		}
	}
}

func TestGUID(t *testing.T) {
	const text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	if got := EFISystem.String(); got != text {
		t.Errorf("EFISystem is %s", got)
	}
	if g, err := ParseGUID(strings.ToUpper(text)); err != nil || g != EFISystem {
		t.Errorf("ParseGUID: %v, %v", g, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", strings.ReplaceAll(text, "-", "_"), strings.ReplaceAll(text, "c", "x")} {
		if g, err := ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) = %v", bad, g)
		}
	}
	// An image of a released version has these for ever.
	if got := DeriveGUID("kogge", "ESP").String(); got != "2b99e046-c137-8ef3-be7e-1d8e7e843005" {
		t.Errorf("DeriveGUID changed: %s", got)
	}
	if DeriveGUID("ab", "c") == DeriveGUID("a", "bc") {
		t.Error("DeriveGUID: seed and name run together")
	}
	if a, b := RandomGUID(), RandomGUID(); a == b || a[6]>>4 != 4 || a[8]>>6 != 2 {
		t.Errorf("RandomGUID: %v, %v", a, b)
	}
}

func FuzzRead(f *testing.F) {
	const sectors = 100
	table := Table{DiskGUID: DeriveGUID("fuzz", "disk"), Sectors: sectors, Partitions: []Partition{
		{Name: "ESP", Type: EFISystem, GUID: DeriveGUID("fuzz", "1"), First: 34, Last: 40},
		{Name: "STATE", Type: LinuxData, GUID: DeriveGUID("fuzz", "2"), First: 41, Last: 50},
	}}
	front, back, err := table.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(front, back, true)
	f.Add(front, back[1:], true)
	f.Add(front[:600], back, false)
	f.Add([]byte{}, []byte{}, false)
	f.Fuzz(func(t *testing.T, front, back []byte, right bool) {
		content := make([]byte, sectors*SectorSize)
		copy(content, front)
		copy(content[max(0, len(content)-len(back)):], back)
		if right { // or no input would ever get past the checksums
			sum(content, SectorSize)
			sum(content, len(content)-SectorSize)
		}
		got, err := Read(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		d := crashdisk.New(append(content, make([]byte, 1<<15)...), 10)
		if grown, err := Grow(d, int64(len(content))+1<<15, "STATE"); err == nil {
			if len(grown.Partitions) != len(got.Partitions) {
				t.Errorf("Grow made %d partitions of %d", len(grown.Partitions), len(got.Partitions))
			}
		}
	})
}

// sum makes the checksums right of the header at an offset, and of its entries.
func sum(content []byte, at int) {
	h := content[at:][:SectorSize]
	array := binary.LittleEndian.Uint64(h[72:])
	size := uint64(binary.LittleEndian.Uint32(h[80:])) * uint64(binary.LittleEndian.Uint32(h[84:]))
	if disk := uint64(len(content)); array <= disk/SectorSize && size <= disk-array*SectorSize {
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(content[array*SectorSize:][:size]))
	}
	clear(h[16:20])
	length := min(binary.LittleEndian.Uint32(h[12:]), SectorSize)
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
}
