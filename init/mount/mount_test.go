package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"kogge.example/update/golden"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// variable is a text as efivarfs shows it.
func variable(text string) []byte {
	data := []byte{7, 0, 0, 0}
	for _, u := range append(utf16.Encode([]rune(text)), 0) {
		data = append(data, byte(u), byte(u>>8))
	}
	return data
}

func TestDecodeEFI(t *testing.T) {
	for _, c := range []struct {
		data []byte
		want string
		err  bool
	}{
		{data: variable(`\EFI\Linux\kogge+3.efi`), want: `\EFI\Linux\kogge+3.efi`},
		{data: variable("größe 𝄞"), want: "größe 𝄞"},
		{data: []byte{7, 0, 0, 0, 'a', 0}, want: "a"}, // without a final zero
		{data: []byte{7, 0, 0, 0, 'a', 0, 0, 0, 0, 0}, want: "a"},
		{data: []byte{7, 0, 0, 0, 'a', 0, 0, 0, 'b', 0}, want: "a\x00b"},
		{data: []byte{7, 0, 0, 0, 0x00, 0xd8}, want: "\ufffd"}, // half a character
		{data: []byte{7, 0, 0, 0}},
		{data: []byte{7, 0, 0, 0, 'a'}, err: true},
		{data: []byte{7, 0}, err: true},
		{err: true},
	} {
		if got, err := decodeEFI(c.data); got != c.want || (err != nil) != c.err {
			t.Errorf("%v: %q, %v", c.data, got, err)
		}
	}
}

func FuzzDecodeEFI(f *testing.F) {
	f.Add(variable("7F5A1C2E-0000-4000-8000-000000000001"))
	f.Add([]byte{7, 0, 0, 0, 0x00, 0xd8, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := decodeEFI(data)
		if err == nil && (strings.HasSuffix(text, "\x00") || len(text) > 3*len(data)) {
			t.Errorf("%q", text)
		}
	})
}

// TestLoader reads the variables of firmware that says all, some, nothing or nonsense.
func TestLoader(t *testing.T) {
	const id, path = "7F5A1C2E-0000-4000-8000-00000000000A", `\EFI\Linux\kogge-1.0+2-1.efi`
	for _, c := range []struct {
		name             string
		id, path         []byte
		wantID, wantPath string
		err              string
	}{
		{name: "none"},
		{name: "both", id: variable(id), path: variable(path), wantID: strings.ToLower(id), wantPath: "/EFI/Linux/kogge-1.0+2-1.efi"},
		{name: "a proven slot", id: variable(id), wantID: strings.ToLower(id)},
		{name: "empty", id: variable(""), path: variable("")},
		// A partition that makes no sense must not make a trial look proven.
		{name: "no GUID", id: variable("x"), path: variable(path), wantPath: "/EFI/Linux/kogge-1.0+2-1.efi", err: "LoaderDevicePartUUID"},
		{name: "odd", id: variable(id)[:9], path: variable(path), wantPath: "/EFI/Linux/kogge-1.0+2-1.efi", err: "LoaderDevicePartUUID: 9 bytes"},
		{name: "odd path", id: variable(id), path: []byte{1}, wantID: strings.ToLower(id), err: "LoaderBootCountPath"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range map[string][]byte{"LoaderDevicePartUUID": c.id, "LoaderBootCountPath": c.path} {
				if data == nil {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name+"-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			l, err := loaderIn(dir)
			got := ""
			if l.Partition != nil {
				got = l.Partition.String()
			}
			if got != c.wantID || l.CountPath != c.wantPath || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("partition %q, path %q, %v", got, l.CountPath, err)
			}
		})
	}
}

// imageTable is the table of an image: small, with a STATE that can grow. Without
// partitions of that name, where some are left out.
func imageTable(seed string, without ...string) gpt.Table {
	const MiB = 1 << 20 / gpt.SectorSize
	t := gpt.Table{DiskGUID: gpt.DeriveGUID(seed, "disk"), Sectors: 6 * MiB}
	for i, name := range partition.All() {
		if strings.Contains(strings.Join(without, " "), name) {
			continue
		}
		first := uint64(1+i) * MiB
		t.Partitions = append(t.Partitions, gpt.Partition{
			Number: i + 1, Name: name, Type: gpt.LinuxData, GUID: gpt.DeriveGUID(seed, name), First: first, Last: first + MiB - 1,
		})
	}
	return t
}

// content is a disk of sectors with table t.
func content(t testing.TB, table gpt.Table, sectors uint64) []byte {
	t.Helper()
	front, back, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, sectors*gpt.SectorSize)
	copy(data, front)
	copy(data[table.Sectors*gpt.SectorSize-uint64(len(back)):], back)
	return data
}

// TestBootDisk shows which disk is booted from, by what the loader says and which
// disks there are.
func TestBootDisk(t *testing.T) {
	image := func(name string) Disk { return Disk{Name: name, Table: imageTable("image")} }
	written := func(name string) Disk { return Disk{Name: name, Table: imageTable(name)} }
	esp := func(seed string) *gpt.GUID { g := gpt.DeriveGUID(seed, partition.ESP); return &g }
	var out strings.Builder
	for _, loader := range []struct {
		name string
		guid *gpt.GUID
	}{{"names none", nil}, {"names the image's", esp("image")}, {"names sda's own", esp("sda")}, {"names one not here", esp("gone")}} {
		fmt.Fprintf(&out, "loader %s\n", loader.name)
		for _, c := range []struct {
			name  string
			disks []Disk
		}{
			{"no disk", nil},
			{"sda fresh from the image", []Disk{image("sda")}},
			{"sda with GUIDs of its own", []Disk{written("sda")}},
			{"sda and sdb with GUIDs of their own", []Disk{written("sda"), written("sdb")}},
			{"sda fresh, sdb with GUIDs of its own", []Disk{image("sda"), written("sdb")}},
			{"sda and sdb fresh from one image", []Disk{image("sda"), image("sdb")}},
			{"sda and a bit copy of it, sdb", []Disk{written("sda"), {Name: "sdb", Table: imageTable("sda")}}},
		} {
			d, err := BootDisk(c.disks, loader.guid)
			kind := ""
			for text, sentinel := range map[string]error{"ErrNoDisk": ErrNoDisk, "ErrTwoDisks": ErrTwoDisks} {
				if errors.Is(err, sentinel) {
					kind = text
				}
			}
			if err != nil && kind == "" {
				t.Errorf("%s: %v is no error that stage 0 knows", c.name, err)
			}
			fmt.Fprintln(&out, strings.TrimRight(fmt.Sprintf("  %-37s → %-4s %s", c.name, d.Name, kind), " "))
			if err != nil {
				fmt.Fprintf(&out, "  %37s   %v\n", "", err)
			}
		}
	}
	golden.Compare(t, "bootdisk.txt", out.String())
}

// TestDisks finds the Kogge disks of a machine in a made-up sysfs.
func TestDisks(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	add := func(name string, table *gpt.Table, number func(int) int, separator string) {
		t.Helper()
		const sectors = 7 << 20 / gpt.SectorSize
		data := make([]byte, sectors*gpt.SectorSize)
		if table != nil {
			data = content(t, *table, sectors)
			for _, p := range table.Partitions {
				part := filepath.Join(class, name, fmt.Sprintf("%s%s%d", name, separator, number(p.Number)))
				write(filepath.Join(part, "partition"), fmt.Sprintln(number(p.Number)))
				write(filepath.Join(part, "start"), fmt.Sprintln(p.First))
			}
		}
		write(filepath.Join(class, name, "size"), fmt.Sprintln(sectors))
		write(filepath.Join(dev, name), string(data))
	}
	same := func(n int) int { return n }
	whole, noState, noRootB := imageTable("x"), imageTable("x", partition.State), imageTable("x", partition.RootB)
	add("vda", &whole, same, "")
	add("mmcblk0", &whole, same, "p")
	add("sdb", &noState, same, "")
	add("sdc", &noRootB, same, "")
	add("sdd", nil, same, "")
	add("sde", &whole, func(n int) int { return n + 4 }, "") // the kernel still has another table
	add("loop0", &whole, same, "p")
	add("dm-0", &whole, same, "p")
	add("zram0", nil, same, "")
	write(filepath.Join(class, "sdf", "size"), "0\n") // an empty card reader
	write(filepath.Join(class, "sdg", "size"), "many\n")
	write(filepath.Join(class, "sdh", "size"), "99999\n") // gone from /dev
	write(filepath.Join(class, "vda1", "partition"), "1\n")
	write(filepath.Join(class, "vda1", "size"), "99999\n")

	// Written to a larger disk, and copied to this one with what fits.
	larger := content(t, func() gpt.Table {
		table := imageTable("x")
		table.Partitions[3].Last += 4 << 20 / gpt.SectorSize
		table.Sectors += 4 << 20 / gpt.SectorSize
		return table
	}(), 11<<20/gpt.SectorSize)
	write(filepath.Join(class, "sdi", "size"), fmt.Sprintln(7<<20/gpt.SectorSize))
	write(filepath.Join(dev, "sdi"), string(larger[:7<<20]))
	damaged := content(t, whole, 7<<20/gpt.SectorSize)
	damaged[gpt.SectorSize+20]++
	copy(damaged[6<<20-gpt.SectorSize:], make([]byte, gpt.SectorSize))
	write(filepath.Join(class, "sdj", "size"), fmt.Sprintln(7<<20/gpt.SectorSize))
	write(filepath.Join(dev, "sdj"), string(damaged))
	windows := imageTable("x")
	for i := range windows.Partitions {
		windows.Partitions[i].Name = fmt.Sprintf("Basic data partition %d", i)
	}
	add("sdk", &windows, same, "")

	disks, unusable, err := disksIn(class, dev)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, d := range disks {
		fmt.Fprintf(&out, "%s: %d bytes", d.Path(), d.Size)
		for _, name := range partition.All() {
			fmt.Fprintf(&out, ", %s %s", name, d.Parts[name])
		}
		fmt.Fprintln(&out)
	}
	fmt.Fprintf(&out, "%v\n", unusable)
	golden.Compare(t, "disks.txt", out.String())
	if _, _, err := disksIn(filepath.Join(class, "gone"), dev); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without sysfs: %v", err)
	}
}

func TestCountedOther(t *testing.T) {
	for _, c := range []struct {
		path, slot string
		other      bool
	}{
		{"", "A", false},
		{"/loader/entries/kogge-b+2-1.conf", "B", false},
		{"/loader/entries/kogge-b+2-1.conf", "A", true},
		{"/loader/entries/KOGGE-A+0-3.CONF", "A", false},
		{"/loader/entries/KOGGE-A+0-3.CONF", "B", true},
		{"/EFI/Linux/somebody+2-1.efi", "A", false}, // no entry of ours: it says what it says
	} {
		if got := (Loader{CountPath: c.path}).CountedOther(c.slot); got != c.other {
			t.Errorf("%q, slot %s runs: %v", c.path, c.slot, got)
		}
	}
}
