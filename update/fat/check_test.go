package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/golden"
)

// damaged is a volume with known places to damage.
type damaged struct {
	*Volume
	b []byte
}

func (d damaged) link(cluster, next uint32) {
	for i := range d.fats {
		d.linkIn(i, cluster, next)
	}
}

// linkIn is link in one copy of the FAT.
func (d damaged) linkIn(copy int64, cluster, next uint32) {
	binary.LittleEndian.PutUint32(d.b[(d.reserved+copy*d.fatSectors)*sectorSize+int64(cluster)*4:], next)
}

// entry returns the short entry of a file as it is on disk.
func (d damaged) entry(t *testing.T, name string) []byte {
	t.Helper()
	dir, e, err := d.lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(e.last) * entrySize
	return d.b[d.offset(dir.chain[at/d.clusterBytes()])+at%d.clusterBytes():][:entrySize]
}

func (d damaged) first(t *testing.T, name string) uint32 {
	t.Helper()
	_, e, err := d.lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return e.first
}

// TestCheck damages a volume in one way after another: golden are what Check finds,
// what Repair leaves, and what can still be read.
func TestCheck(t *testing.T) {
	sound := small(t, file("a.txt", 2000), file("b.txt", 600), file("dir/c.txt", 100), file("dir/empty", 0))
	tests := []struct {
		name   string
		damage func(t *testing.T, d damaged)
	}{
		{"nothing", func(*testing.T, damaged) {}},
		{"lost chain", func(_ *testing.T, d damaged) { d.link(50, 51); d.link(51, endOfChain) }},
		{"lost circle", func(_ *testing.T, d damaged) { d.link(50, 51); d.link(51, 50) }},
		{"lost cluster leads into a file", func(t *testing.T, d damaged) { d.link(50, d.first(t, "a.txt")) }},
		{"bad cluster", func(_ *testing.T, d damaged) { d.link(50, 0x0ffffff7) }},
		{"long chain", func(t *testing.T, d damaged) { d.link(d.first(t, "b.txt")+1, 50); d.link(50, endOfChain) }},
		{"empty file with a cluster", func(t *testing.T, d damaged) {
			d.entry(t, "dir/empty")[26] = 50
			d.link(50, endOfChain)
		}},
		{"short chain", func(t *testing.T, d damaged) { d.link(d.first(t, "a.txt"), endOfChain) }},
		{"file in a circle", func(t *testing.T, d damaged) { d.link(d.first(t, "a.txt")+1, d.first(t, "a.txt")) }},
		{"link out of the volume", func(t *testing.T, d damaged) { d.link(d.first(t, "a.txt"), 0x01000000) }},
		{"link to a free cluster", func(t *testing.T, d damaged) { d.link(d.first(t, "a.txt"), 0) }},
		{"two files share a cluster", func(t *testing.T, d damaged) { d.link(d.first(t, "b.txt"), d.first(t, "a.txt")+1) }},
		{"file out of the volume", func(t *testing.T, d damaged) { d.entry(t, "a.txt")[20] = 1 }},
		{"directory is the root", func(t *testing.T, d damaged) { d.entry(t, "dir")[26] = byte(d.root) }},
		{"directory in a circle", func(t *testing.T, d damaged) { d.link(d.first(t, "dir"), d.first(t, "dir")) }},
		{"directory torn when it grew", func(t *testing.T, d damaged) { d.link(d.first(t, "dir"), 0x0fffff32) }},
		{"directory broken", func(t *testing.T, d damaged) { d.link(d.first(t, "dir"), 0x01000000) }},
		{"long name without its file", func(t *testing.T, d damaged) { d.entry(t, "dir/c.txt")[0] = deleted }},
		{"copies differ", func(_ *testing.T, d damaged) { d.b[(d.reserved+d.fatSectors)*sectorSize+200] = 1 }},
		{"second copy damaged", func(t *testing.T, d damaged) { d.linkIn(1, d.first(t, "a.txt"), 0) }},
		{"first copy damaged", func(t *testing.T, d damaged) { d.linkIn(0, d.first(t, "a.txt"), 0) }},
		{"first copy lost", func(t *testing.T, d damaged) { clear(d.b[d.reserved*sectorSize:][:sectorSize]) }},
		{"both copies damaged, each in its way", func(t *testing.T, d damaged) {
			d.linkIn(0, d.first(t, "a.txt"), 0)
			d.linkIn(1, d.first(t, "b.txt"), 0)
		}},
		{"summary", func(_ *testing.T, d damaged) { d.b[infoSector*sectorSize+488]++ }},
		{"no summary", func(_ *testing.T, d damaged) { d.b[infoSector*sectorSize] = 0 }},
		{"dirty", func(_ *testing.T, d damaged) { d.b[dirtyByte] = dirtyBit }},
		{"dirty for Windows", func(_ *testing.T, d damaged) { d.link(1, endOfChain&^cleanBit) }},
	}
	var got strings.Builder
	for _, test := range tests {
		b := bytes.Clone(sound)
		test.damage(t, damaged{openSmall(t, crashdisk.New(b, 0)), b})
		d := crashdisk.New(b, 1000)
		before, err := openSmall(t, d).Check()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		repaired, err := openSmall(t, d).Repair()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if before.String() != repaired.String() {
			t.Errorf("%s: Repair reports %v, Check %v", test.name, repaired, before)
		}
		if before.Clean() && !bytes.Equal(d.AfterCut(1), b) {
			t.Errorf("%s: Repair wrote to a clean volume", test.name)
		}
		v := openSmall(t, d.Again(0, 0))
		after, err := v.Check()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		fmt.Fprintf(&got, "%s\n  check:  %v\n  repair: %v\n", test.name, before, after)
		for _, name := range []string{"a.txt", "b.txt", "dir/c.txt", "dir/empty"} {
			if _, err := v.ReadFile(name); err != nil {
				fmt.Fprintf(&got, "  %v\n", err)
			}
		}
	}
	golden.Compare(t, "check.txt", got.String())
}

// TestEditErrors are the answers to what cannot be done; none of them may change the
// volume.
func TestEditErrors(t *testing.T) {
	content := small(t, file("a.txt", 2000), file("dir/c.txt", 100), File{Path: "hollow/"})
	d := crashdisk.New(content, 0)
	v := openSmall(t, d)
	big := make([]byte, 64<<10)
	_, readErr := v.ReadFile("none")
	_, readDirErr := v.ReadDir("dir/none")
	_, dirErr := v.ReadFile("dir")
	_, listErr := v.ReadDir("a.txt")
	for _, test := range []struct {
		got  error
		want string
	}{
		{readErr, `read "none": no such file or directory`},
		{readDirErr, `read directory "dir/none": "none": no such file or directory`},
		{dirErr, `read "dir": is a directory`},
		{listErr, `read directory "a.txt": "a.txt" is not a directory`},
		{v.WriteFile("none/x", nil, when), `write "none/x": "none": no such file or directory`},
		{v.WriteFile("a.txt/x", nil, when), `write "a.txt/x": "a.txt" is not a directory`},
		{v.WriteFile("dir", nil, when), `write "dir": a file or directory of that name exists: a directory`},
		{v.WriteFile("a:b", nil, when), `write "a:b": name "a:b": FAT does not allow ':'`},
		{v.WriteFile("", nil, when), `write "": name "": not a name`},
		{v.WriteFile("dir/..", nil, when), `write "dir/..": name "..": not a name`},
		{v.WriteFile("big", big, when), `write "big": no space left on the volume: 128 clusters wanted, 86 free`},
		{v.Remove("none"), `remove "none": no such file or directory`},
		{v.Remove("dir"), `remove "dir": directory is not empty`},
		{v.MkdirAll("a.txt/x", when), `make directory "a.txt/x": "a.txt": a file or directory of that name exists`},
		{v.MkdirAll("dir/a:b", when), `make directory "dir/a:b": name "a:b": FAT does not allow ':'`},
		{v.MkdirAll("dir", when), ""},
	} {
		if got := fmt.Sprint(test.got); got != test.want && (test.got != nil || test.want != "") {
			t.Errorf("got %s\nwant %s", got, test.want)
		}
	}
	if !bytes.Equal(d.AfterCut(1), content) {
		t.Error("an edit that cannot be done changed the volume")
	}
	if err := v.Remove("hollow"); err == nil { // the disk has no write left
		t.Error("no power cut")
	}
	if err := v.WriteFile("x", nil, when); err == nil {
		t.Error("a volume takes a write after one has failed")
	}
}

// TestFull fills a volume to the last cluster and empties it again.
func TestFull(t *testing.T) {
	d := crashdisk.New(small(t), 1<<20)
	v := openSmall(t, d)
	free := v.free()
	var names []string
	for i := 0; ; i++ {
		name := fmt.Sprintf("file %d", i)
		if err := v.WriteFile(name, content(name, 1000), when); err != nil {
			if !strings.Contains(err.Error(), ErrFull.Error()) {
				t.Fatal(err)
			}
			break
		}
		names = append(names, name)
	}
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Errorf("full: %v, %v", report, err)
	}
	for _, name := range names {
		if got, err := v.ReadFile(name); err != nil || !bytes.Equal(got, content(name, 1000)) {
			t.Errorf("%s: %v", name, err)
		}
		if err := v.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	// The root stays as long as it was.
	root, err := v.readDirectory(v.root)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := v.free(), free+1-uint32(len(root.chain)); len(names) < 30 || got != want {
		t.Errorf("%d files; %d clusters free at the end, want %d", len(names), got, want)
	}
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Errorf("empty: %v, %v", report, err)
	}
}

func FuzzVolume(f *testing.F) {
	sound := small(f, file("a.txt", 2000), file("dir/a long name of some slots.txt", 600))
	// The boot sector, the FAT and both directories, which are what can be wrong.
	f.Add(sound[:sectorSize], sound[32*sectorSize:33*sectorSize], sound[34*sectorSize:44*sectorSize])
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add(sound[:sectorSize], bytes.Repeat([]byte{5, 0, 0, 0}, 128), bytes.Repeat(sound[34*sectorSize:35*sectorSize], 10))
	f.Fuzz(func(t *testing.T, boot, fat, data []byte) {
		b := bytes.Clone(sound)
		copy(b, boot[:min(len(boot), sectorSize)])
		copy(b[32*sectorSize:], fat[:min(len(fat), sectorSize)])
		copy(b[34*sectorSize:], data)
		d := crashdisk.New(b, 1<<20)
		v, err := Open(d, 0, int64(len(b)))
		if err != nil {
			return
		}
		if list, err := v.ReadDir(""); err == nil {
			for _, e := range list {
				v.ReadDir(e.Name)
				v.ReadFile(e.Name)
			}
		}
		before, err := v.Check()
		if err != nil {
			return
		}
		if _, err := v.Repair(); err != nil {
			return
		}
		after, err := v.Check()
		if err != nil {
			t.Fatal(err)
		}
		if len(before.Damage) == 0 && !after.Clean() {
			t.Errorf("Repair made %v of %v", after, before)
		}
		if v.WriteFile("a.txt", []byte("x"), when) == nil {
			if got, err := v.ReadFile("a.txt"); err != nil || string(got) != "x" {
				t.Errorf("read back: %q, %v", got, err)
			}
		}
		v.MkdirAll("dir/deep/er", when)
		v.Remove("a.txt")
	})
}
