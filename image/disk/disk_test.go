package disk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/update/gpt"
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

// FuzzKernel reads boot files that somebody else has made.
func FuzzKernel(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(append([]byte("MZ"), make([]byte, 1000)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Contents
		if err := c.readPE(bytes.NewReader(data)); err == nil && (c.Board == "" || c.Verity.Blocks == 0) {
			t.Errorf("taken as whole: %+v", c)
		}
		c = Contents{}
		half := len(data) / 2
		if err := c.readKernel(bytes.NewReader(data[:half]), bytes.NewReader(data[half:])); err == nil && (c.Board == "" || c.Verity.Blocks == 0) {
			t.Errorf("taken as whole: %+v", c)
		}
	})
}
