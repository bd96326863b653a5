package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/verity"
)

func file(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// sum is the SHA-256 of a whole file.
func sum(t *testing.T, f *os.File) [32]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// TestWrite makes an image of small parts: each lies where the table says, and what
// is zero takes no room.
func TestWrite(t *testing.T) {
	root := bytes.Repeat([]byte("root"), 100_000)
	copy(root[100_000:], make([]byte, 150_000))
	state := make([]byte, 2*MiB)
	copy(state[MiB+3:], "state")
	s := Spec{Seed: "seed", When: time.Unix(1_700_000_000, 0), Root: file(t, "root", root), State: file(t, "state", state), SlotSize: 4 * MiB}
	write := func() *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := Write(f, s); err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := write()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := Table(f, st.Size())
	if err != nil || table.Damage != nil {
		t.Fatal(err, table.Damage)
	}
	for name, want := range map[string][]byte{"ROOT-A": root, "STATE": state, "ROOT-B": make([]byte, 4*MiB)} {
		p, err := table.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, p.Size())
		if _, err := f.ReadAt(got, p.Offset()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:len(want)], want) || !zero(got[len(want):]) {
			t.Errorf("partition %s does not hold what it should", name)
		}
		if p.GUID != gpt.DeriveGUID("seed", name) || p.First%(MiB/gpt.SectorSize) != 0 {
			t.Errorf("partition %s: GUID %s, first sector %d", name, p.GUID, p.First)
		}
	}
	if sum(t, f) != sum(t, write()) {
		t.Error("the second image has other bytes")
	}
	// There is a boot partition and no kernel on it.
	if _, err := Inspect(f, st.Size()); !errors.Is(err, ErrDamaged) {
		t.Errorf("an image without a kernel: %v", err)
	}
	s.SlotSize = MiB / 4
	if err := Write(f, s); err == nil {
		t.Error("a root larger than its slot was written")
	}
}

// TestFirmware makes an image of which a board's ROM reads the beginning: the programs lie
// where they have to, the partitions behind them, and what overlaps is refused.
func TestFirmware(t *testing.T) {
	blob := func(name string, offset, size, most int64) Blob {
		return Blob{Name: name, Offset: offset, Max: most, Data: bytes.Repeat([]byte(name[:1]), int(size))}
	}
	spl, itb := blob("spl", 64*gpt.SectorSize, 1000, 0), blob("itb", 16384*gpt.SectorSize, MiB, 2*MiB)
	for _, c := range []struct {
		name  string
		first int64
		blobs []Blob
		want  string
	}{
		{"as Rockchip has it", 16 * MiB, []Blob{itb, spl}, ""},
		{"up to the partition", 2 * MiB, []Blob{blob("spl", MiB, MiB, MiB)}, ""},
		{"the default leaves room behind the table", 0, []Blob{blob("spl", 34*gpt.SectorSize, MiB-34*gpt.SectorSize, 0)}, ""},
		{"into the partition", 2 * MiB, []Blob{blob("spl", MiB, MiB+1, 0)}, "spl ends at byte 2097153, behind the beginning of the first partition at byte 2097152"},
		{"the default has no room", 0, []Blob{spl, itb}, "itb ends at byte"},
		{"over the table", 16 * MiB, []Blob{blob("spl", 16*gpt.SectorSize, 10, 0)}, "spl begins at byte 8192, within the partition table, which ends at byte 17408"},
		{"over each other", 16 * MiB, []Blob{blob("b", 68*gpt.SectorSize, 10, 0), blob("a", 64*gpt.SectorSize, 2049, 0)}, "b begins at byte 34816, within a, which ends at byte 34817"},
		{"too large", 16 * MiB, []Blob{blob("spl", MiB, 1001, 1000)}, "spl has 1001 bytes, at most 1000 have room"},
		{"empty", 16 * MiB, []Blob{blob("spl", MiB, 0, 0)}, "spl is empty"},
		{"within a sector", 16 * MiB, []Blob{blob("spl", MiB+1, 1, 0)}, "want whole sectors"},
		{"an odd partition", MiB + 512, nil, "want whole MiB"},
		{"a partition in the table", -MiB, nil, "want whole MiB"},
	} {
		s := Spec{
			Seed: "seed", When: time.Unix(1_700_000_000, 0), Root: file(t, "root", []byte("root")), State: file(t, "state", make([]byte, MiB)),
			SlotSize: MiB, FirstPartition: c.first, Blobs: c.blobs,
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := Write(f, s); c.want != "" || err != nil {
			if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		table, err := Table(f, st.Size())
		if err != nil || table.Damage != nil {
			t.Fatal(err, table.Damage)
		}
		if got := table.Partitions[0].Offset(); got != max(c.first, MiB) {
			t.Errorf("%s: the first partition begins at byte %d", c.name, got)
		}
		if _, err := Boot(f, table); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, b := range c.blobs {
			got := make([]byte, len(b.Data))
			if _, err := f.ReadAt(got, b.Offset); err != nil || !bytes.Equal(got, b.Data) {
				t.Errorf("%s: %s is not where it has to be (%v)", c.name, b.Name, err)
			}
		}
	}
}

// FuzzInspect reads command lines that somebody else has made.
func FuzzInspect(f *testing.F) {
	f.Add("amd64", "quiet kogge.board=b kogge.version=1 kogge.verity=1")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, arch, line string) {
		var c Contents
		if err := c.read(bootloader.Kernel{Arch: arch, Cmdline: line}); err == nil && (c.Arch == "" || c.Board == "" || c.Version == "" || c.Verity.Blocks == 0) {
			t.Errorf("taken as whole: %+v", c)
		}
	})
}

// TestInspect reads what both boot loaders have on their boot partition, and says what is
// damaged.
func TestInspect(t *testing.T) {
	const sound = "quiet kogge.board=rock64 kogge.version=1.0 kogge.verity="
	params := verity.Params{Blocks: 3}.String()
	kernel := append(make([]byte, 0x38), "ARM\x64"...)
	folder := func(slot, cmdline string, kernel []byte) map[string]string {
		return map[string]string{slot + "/kernel": string(kernel), slot + "/initrd": "initrd", slot + "/cmdline": cmdline}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // slot, or a part of the error
	}{
		{"U-Boot, slot A", folder("A", "bootargs="+sound+params+"\n", kernel), "a"},
		{"U-Boot, slot B", folder("B", "bootargs="+sound+params+"\n", kernel), "b"},
		{"nothing", map[string]string{"x": "y"}, "there is no kernel on the boot partition"},
		{"another processor", folder("A", "bootargs="+sound+params+"\n", make([]byte, 100)), "kernel of slot A: it is for no architecture that is known here"},
		{"no root hash", folder("A", "bootargs="+sound[:20]+"\n", kernel), "its command line names no board, version or root hash"},
		{"no bootargs", folder("A", sound+params+"\n", kernel), "sets no bootargs"},
		{"no command line", map[string]string{"A/kernel": string(kernel)}, "kernel of slot A: "},
		{"half a unified kernel", map[string]string{"EFI/kogge/a.efi": "MZ"}, "kernel of slot A: "},
	} {
		s := Spec{Seed: "seed", When: time.Unix(1_700_000_000, 0), Root: file(t, "root", []byte("root")), State: file(t, "state", make([]byte, MiB)), SlotSize: MiB}
		for path, text := range c.files {
			s.Boot = append(s.Boot, fat.File{Path: path, Size: int64(len(text)), Data: strings.NewReader(text)})
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := Write(f, s); err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Inspect(f, st.Size())
		switch {
		case len(c.want) > 1:
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		case err != nil || got.Slot != c.want || got.Board != "rock64" || got.Version != "1.0" || got.Arch != "arm64" || got.Verity.Blocks != 3:
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}
