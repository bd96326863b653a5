package fat

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/crashdisk"
)

// TestEdit edits a volume that mkfs.fat and mtools made and one of ours; both tools
// have to find in them what we wrote, and we what they wrote.
func TestEdit(t *testing.T) {
	for _, made := range []string{"ours", "mkfs.fat"} {
		for _, mib := range []int64{64, 512} {
			t.Run(fmt.Sprintf("%s/%dMiB", made, mib), func(t *testing.T) { testEdit(t, made, mib<<20) })
		}
	}
}

// hasty does not wait for a disk that no power cut threatens.
type hasty struct{ *os.File }

func (hasty) Sync() error { return nil }

// madeBy returns an image with a volume at an offset, and what files are in it.
func madeBy(t *testing.T, made string, offset, size int64) (*os.File, map[string]int) {
	t.Helper()
	dir := t.TempDir()
	part, image := filepath.Join(dir, "part"), filepath.Join(dir, "image")
	names := bootFiles()
	if made == "ours" {
		formatFile(t, part, size, names)
	} else {
		tool(t, "mkfs.fat", "-F", "32", "-C", part, fmt.Sprint(size/1024))
		clear(names)
		tool(t, "mmd", "-i", part, "::seed", "::EFI")
		for name, size := range map[string]int{
			"lower.txt": 10, "UPPER.TXT": 20, "Mixed.Txt": 30, "seed/node.yaml": 40, "seed/a long name of several slots": 5000,
		} {
			names[name] = size
			host := filepath.Join(dir, "file")
			if err := os.WriteFile(host, content(name, size), 0o644); err != nil {
				t.Fatal(err)
			}
			tool(t, "mcopy", "-i", part, host, "::"+name)
		}
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(offset + size + sectorSize); err != nil {
		t.Fatal(err)
	}
	p, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	copyPart(t, p, 0, f, offset, size)
	return f, names
}

func testEdit(t *testing.T, made string, size int64) {
	const offset = 1 << 20 // as in an image
	f, names := madeBy(t, made, offset, size)
	v, err := Open(hasty{f}, offset, size)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, v, names)

	want := map[string][]byte{}
	for name, size := range names {
		want[name] = content(name, size)
	}
	write := func(name string, size int) {
		t.Helper()
		want[name] = content(name+" again", size)
		if err := v.WriteFile(name, want[name], when); err != nil {
			t.Fatal(err)
		}
	}
	write("seed/node.yaml", 9000)
	write("seed/join.yaml", 1)
	write("seed/node.yaml", 0)
	write("UPPER.TXT", 100)
	write("a name with ünïcödé.yaml", 70_000)
	if err := v.MkdirAll("one/Two/three point", when); err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // the directory gets longer, at 4 KiB per cluster too
		write(fmt.Sprintf("one/Two/three point/a file of that name %d", i), i)
	}
	for i := range 200 {
		if i%3 == 0 {
			name := fmt.Sprintf("one/Two/three point/a file of that name %d", i)
			if err := v.Remove("/" + strings.ToUpper(name)); err != nil {
				t.Fatal(err)
			}
			delete(want, name)
		}
	}
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Errorf("Check: %v, %v", report, err)
	}
	// Nothing that is only in our memory.
	if v, err = Open(hasty{f}, offset, size); err != nil {
		t.Fatal(err)
	}
	if got := files(t, v); !same(want, got) {
		t.Errorf("files: want %v\ngot %v", slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	}
	part := filepath.Join(t.TempDir(), "edited")
	p, err := os.Create(part)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Truncate(size); err != nil {
		t.Fatal(err)
	}
	copyPart(t, f, offset, p, 0, size)
	tool(t, "fsck.fat", "-n", "-v", part)
	for name, content := range want {
		if strings.Contains(name, "😀") {
			continue // mtools has no surrogates
		}
		if got := tool(t, "mtype", "-i", part, "::"+name); got != string(content) {
			t.Errorf("%s: mtype shows %d bytes, want %d", name, len(got), len(content))
		}
	}
}

// copyPart copies a volume from one file into another, holes as holes.
func copyPart(t *testing.T, from *os.File, fromOffset int64, to *os.File, toOffset, size int64) {
	t.Helper()
	b := make([]byte, 1<<20)
	for done := int64(0); done < size; done += int64(len(b)) {
		if _, err := from.ReadAt(b, fromOffset+done); err != nil {
			t.Fatal(err)
		}
		if err := writeSparse(to, b, toOffset+done); err != nil {
			t.Fatal(err)
		}
	}
}

// files returns the content of every file on the volume by its path.
func files(t *testing.T, v *Volume) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	dirs := []string{""}
	for len(dirs) > 0 {
		dir := dirs[0]
		dirs = dirs[1:]
		list, err := v.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			name := path.Join(dir, e.Name)
			if e.Dir {
				dirs = append(dirs, name)
				continue
			}
			if found[name], err = v.ReadFile(name); err != nil {
				t.Fatal(err)
			}
			if int64(len(found[name])) != e.Size {
				t.Errorf("%s: %d bytes, listed with %d", name, len(found[name]), e.Size)
			}
		}
	}
	return found
}

func wantFiles(t *testing.T, v *Volume, names map[string]int) {
	t.Helper()
	got := files(t, v)
	if len(got) != len(names) {
		t.Errorf("%d files, want %d", len(got), len(names))
	}
	for name, size := range names {
		if !bytes.Equal(got[name], content(name, size)) {
			t.Errorf("%s: %d bytes, want %d", name, len(got[name]), size)
		}
	}
}

// small returns the bytes of a volume of 64 KiB, in clusters of one sector. In those
// that are free lies an old directory, as good as any stranger's bytes.
func small(t testing.TB, files ...File) []byte {
	t.Helper()
	g, err := newGeometry(64<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := crashdisk.New(make([]byte, 64<<10), 1<<20)
	if err := format(d, g, Spec{Size: 64 << 10, Label: "KOGGE", Serial: 1, When: when}, files); err != nil {
		t.Fatal(err)
	}
	b := d.AfterCut(1)
	v := openSmall(t, crashdisk.New(b, 0))
	stale := bytes.Repeat(newEntry(shortName([]byte("STALE   TXT")), attrArchive, 3, 4000, newStamp(when)), sectorSize/entrySize)
	for c := uint32(rootCluster); v.valid(c); c++ {
		if v.fat[c] == 0 {
			copy(b[v.offset(c):], stale)
		}
	}
	return b
}

func openSmall(t testing.TB, d *crashdisk.Disk) *Volume {
	t.Helper()
	return openDevice(t, d)
}

func openDevice(t testing.TB, d device) *Volume {
	t.Helper()
	v, err := Open(d, 0, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPowerCut cuts the power at every write of an edit. Each time the file has its old
// content or its new one, nothing else has changed, Repair leaves a clean volume with
// the same files, and the edit can be made again.
func TestPowerCut(t *testing.T) {
	present := []File{file("dir/node.yaml", 700), file("bystander", 1500)}
	for i := range 28 { // with node.yaml, . and .. all 32 slots of two clusters are taken
		present = append(present, File{Path: fmt.Sprintf("dir/S%d", i)})
	}
	before := small(t, present...)
	v := openSmall(t, crashdisk.New(before, 0))
	root, err := v.readDirectory(v.root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range root.count() - 1 { // behind the end of the root lies what is none of it
		if root.isEnd(i) && i > 0 {
			stale := newEntry(shortName([]byte("STALE   TXT")), attrArchive, 3, 4000, newStamp(when))
			copy(before[v.offset(v.root)+int64(i+1)*entrySize:], stale)
		}
	}
	fresh := content("fresh", 1600)
	tests := []struct {
		name string
		file string
		want []byte // nil: gone
		edit func(*Volume) error
	}{
		{"replace", "dir/node.yaml", fresh, func(v *Volume) error { return v.WriteFile("dir/node.yaml", fresh, when) }},
		{"empty", "dir/node.yaml", []byte{}, func(v *Volume) error { return v.WriteFile("dir/node.yaml", nil, when) }},
		{"new", "dir/a long new name.yaml", fresh, func(v *Volume) error {
			return v.WriteFile("dir/a long new name.yaml", fresh, when)
		}},
		{"new in root", "N", fresh, func(v *Volume) error { return v.WriteFile("N", fresh, when) }},
		{"remove", "dir/node.yaml", nil, func(v *Volume) error { return v.Remove("dir/node.yaml") }},
		{"new directory", "new dir/x", fresh, func(v *Volume) error {
			return errors.Join(v.MkdirAll("new dir", when), v.WriteFile("new dir/x", fresh, when))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			old := files(t, openSmall(t, crashdisk.New(before, 0)))
			next := maps.Clone(old)
			if next[test.file] = test.want; test.want == nil {
				delete(next, test.file)
			}
			for writes := 0; ; writes++ {
				d := crashdisk.New(before, writes)
				err := test.edit(openSmall(t, d))
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("writes=%d: %v", writes, err)
				}
				for seed := range uint64(64) {
					where := fmt.Sprintf("writes=%d seed=%d", writes, seed)
					afterCut(t, where, d.AfterCut(seed), old, next, err == nil, test.edit)
				}
				if err == nil {
					t.Logf("%d writes", writes)
					return
				}
			}
		})
	}
}

func afterCut(t *testing.T, where string, cut []byte, old, next map[string][]byte, done bool, edit func(*Volume) error) {
	t.Helper()
	d := crashdisk.New(cut, 1000)
	v := openSmall(t, d)
	got := files(t, v)
	if done && !same(got, next) || !same(got, old) && !same(got, next) {
		t.Fatalf("%s: got %v, old %v, new %v", where, sizes(got), sizes(old), sizes(next))
	}
	if report, err := v.Repair(); err != nil || len(report.Damage) > 0 || report.BadCopy != "" {
		t.Fatalf("%s: %v, %v", where, report, err)
	}
	repaired := d.AfterCut(0)
	// The second copy of the FAT is as good as the first, should that be lost now.
	second := badFAT(t, cut, 0, 1000)
	v = openDevice(t, second)
	if got2 := files(t, v); !same(got, got2) {
		t.Fatalf("%s: by the second copy %v, by the first %v", where, sizes(got2), sizes(got))
	}
	if report, err := v.Repair(); err != nil || len(report.Damage) > 0 {
		t.Fatalf("%s: by the second copy: %v, %v", where, report, err)
	}
	v = openSmall(t, crashdisk.New(repaired, 1000))
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Fatalf("%s: after Repair: %v, %v", where, report, err)
	}
	if after := files(t, v); !same(got, after) {
		t.Fatalf("%s: Repair made %v of %v", where, sizes(after), sizes(got))
	}
	if err := edit(v); err != nil && !errors.Is(err, ErrNotExist) {
		t.Fatalf("%s: edit again: %v", where, err)
	}
	if after := files(t, v); !same(after, next) {
		t.Fatalf("%s: edit again: %v, want %v", where, sizes(after), sizes(next))
	}
}

func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

func sizes(files map[string][]byte) string {
	var s strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&s, "%s:%d ", name, len(files[name]))
	}
	return s.String()
}

// TestRepairPowerCut cuts the power at every write of Repair itself.
func TestRepairPowerCut(t *testing.T) {
	before := small(t, file("dir/node.yaml", 700), file("other", 1000))
	d := crashdisk.New(before, 5) // in the middle of a replacement: two entries
	if err := openSmall(t, d).WriteFile("dir/node.yaml", content("x", 2000), when); err == nil {
		t.Fatal("no cut")
	}
	start := d.AfterCut(0)
	start[dirtyByte] |= dirtyBit
	if report, err := openSmall(t, crashdisk.New(start, 0)).Check(); err != nil || len(report.Duplicates) != 1 {
		t.Fatalf("the cut leaves %v, %v", report, err)
	}
	want := files(t, openSmall(t, crashdisk.New(start, 0)))
	for writes := 0; ; writes++ {
		d := crashdisk.New(start, writes)
		report, err := openSmall(t, d).Repair()
		if writes == 100 {
			t.Fatal("no end")
		}
		for seed := range uint64(32) {
			d := d.Again(seed, 1000)
			v := openSmall(t, d)
			if got := files(t, v); !same(got, want) {
				t.Fatalf("writes=%d seed=%d: got %v, want %v", writes, seed, sizes(got), sizes(want))
			}
			if _, err := v.Repair(); err != nil {
				t.Fatal(err)
			}
			if report, err := openSmall(t, d).Check(); err != nil || !report.Clean() {
				t.Fatalf("writes=%d seed=%d: after a second Repair: %v, %v", writes, seed, report, err)
			}
		}
		if err == nil {
			t.Logf("%d writes; %v", writes, report)
			return
		}
	}
}
