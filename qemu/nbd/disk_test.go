package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/golden"
)

// blank is a base image of so many sectors, each full of dots.
func blank(sectors int) *bytes.Reader {
	return bytes.NewReader(bytes.Repeat([]byte("."), sectors*SectorSize))
}

// put writes sectors beginning with s, each full of one letter of text.
func put(t testing.TB, d *Disk, s int64, text string, fua bool) {
	t.Helper()
	var data []byte
	for _, letter := range []byte(text) {
		data = append(data, bytes.Repeat([]byte{letter}, SectorSize)...)
	}
	if err := d.Write(data, s*SectorSize, fua); err != nil {
		t.Fatal(err)
	}
}

// text reads a disk back as one letter per sector; a mixed sector is '?'.
func text(t testing.TB, r io.ReaderAt, sectors int) string {
	t.Helper()
	data := make([]byte, sectors*SectorSize)
	if _, err := r.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for ; len(data) > 0; data = data[SectorSize:] {
		letter := data[0]
		for _, x := range data[:SectorSize] {
			if x != letter {
				letter = '?'
			}
		}
		if letter == 0 {
			letter = '0'
		}
		b.WriteByte(letter)
	}
	return b.String()
}

func newDisk(t testing.TB, sectors int) *Disk {
	t.Helper()
	d, err := NewDisk(blank(sectors), int64(sectors)*SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// story writes what the golden table cuts.
func story(t testing.TB, d *Disk) {
	put(t, d, 0, "AAAAAAAA", false)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	put(t, d, 0, "BBBBBBBBBBBB", false)
	put(t, d, 4, "CCCC", false)
	put(t, d, 14, "F", true)
	if err := d.Trim(8*SectorSize, 2*SectorSize, false); err != nil {
		t.Fatal(err)
	}
	put(t, d, 14, "G", false)
}

// TestAfterCut shows what each seed leaves of one story. The table is part of
// what a seed means: a failure report names one.
func TestAfterCut(t *testing.T) {
	const sectors = 16
	d := newDisk(t, sectors)
	story(t, d)
	var got strings.Builder
	fmt.Fprintf(&got, "running  %s\n", text(t, d, sectors))
	for seed := range uint64(24) {
		fmt.Fprintf(&got, "seed %-3d %s\n", seed, text(t, d.AfterCut(seed), sectors))
	}
	golden.Compare(t, "cuts.txt", got.String())
}

// TestPromises holds for every seed: what was flushed or FUA is there, a sector
// is never torn within, and holds nothing older than its last flushed content.
// Over all seeds every sector shows each of its versions.
func TestPromises(t *testing.T) {
	const sectors = 16
	// By sector: what may be there after story.
	may := []string{"AB", "AB", "AB", "AB", "ABC", "ABC", "ABC", "ABC", ".B0", ".B0", ".B", ".B", ".", ".", "FG", "."}
	seen := make([]map[byte]bool, sectors)
	for seed := range uint64(300) {
		d := newDisk(t, sectors)
		story(t, d)
		for i, letter := range []byte(text(t, d.AfterCut(seed), sectors)) {
			if strings.IndexByte(may[i], letter) < 0 {
				t.Fatalf("seed %d: sector %d holds %c, want one of %q", seed, i, letter, may[i])
			}
			if seen[i] == nil {
				seen[i] = map[byte]bool{}
			}
			seen[i][letter] = true
		}
	}
	for i := range may {
		if len(seen[i]) != len(may[i]) {
			t.Errorf("sector %d showed %d of %q", i, len(seen[i]), may[i])
		}
	}
	d := newDisk(t, sectors)
	story(t, d)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		if got, want := text(t, d.AfterCut(seed), sectors), text(t, d, sectors); got != want {
			t.Fatalf("seed %d after a flush: %s, want %s", seed, got, want)
		}
	}
}

// TestMissingFlush is what the package is for: a journal that forgets one flush
// is found by some seed, one that does not by none.
func TestMissingFlush(t *testing.T) {
	for _, forget := range []bool{false, true} {
		found := false
		for seed := range uint64(64) {
			d := newDisk(t, 4)
			put(t, d, 0, "D", false) // data
			if !forget {
				d.Flush()
			}
			put(t, d, 1, "C", false) // commit
			disk := text(t, d.AfterCut(seed), 4)
			found = found || disk[1] == 'C' && disk[0] != 'D'
		}
		if found != forget {
			t.Errorf("flush forgotten: %v, found: %v", forget, found)
		}
	}
}

func TestStateIsABase(t *testing.T) {
	d := newDisk(t, 4)
	put(t, d, 0, "AB", false)
	st := d.AfterCut(1)
	put(t, d, 0, "X", false) // the state does not change with its disk
	next, err := NewDisk(st, st.Size()+2*SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	put(t, next, 1, "C", false)
	if got := text(t, next, 6); got != "AC..00" {
		t.Errorf("disk on a state: %s", got)
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := next.AfterCut(1).Save(path); err != nil {
		t.Fatal(err)
	}
	saved, f, err := OpenDisk(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := text(t, saved, 6); got != "AC..00" {
		t.Errorf("saved: %s", got)
	}
	if err := st.Save(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("save over a file: %v", err)
	}
	odd := make([]byte, 700)
	if n, err := st.ReadAt(odd, 300); n != 700 || err != nil || odd[0] != 'A' || odd[212] != 'B' || odd[699] != 'B' {
		t.Errorf("unaligned read: %d, %v", n, err)
	}
	if n, err := st.ReadAt(odd, st.Size()-100); n != 100 || !errors.Is(err, io.EOF) {
		t.Errorf("read beyond the end: %d, %v", n, err)
	}
}

func TestRefusals(t *testing.T) {
	d := newDisk(t, 4)
	sector := make([]byte, SectorSize)
	for _, off := range []int64{-SectorSize, 1, 4 * SectorSize, 1 << 62} {
		if err := d.Write(sector, off, false); !errors.Is(err, ErrRange) {
			t.Errorf("write at %d: %v", off, err)
		}
		if _, err := d.ReadAt(sector, off); !errors.Is(err, ErrRange) {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	if err := d.Trim(0, 1, false); !errors.Is(err, ErrRange) {
		t.Errorf("trim a byte: %v", err)
	}
	if _, err := NewDisk(blank(1), 100); !errors.Is(err, ErrRange) {
		t.Errorf("disk of 100 bytes: %v", err)
	}
	d.SetLimit(2 * SectorSize)
	put(t, d, 0, "AB", false)
	if err := d.Write(sector, 0, false); !errors.Is(err, ErrFull) {
		t.Errorf("write to a full disk: %v", err)
	}
	if err := d.Flush(); err != nil {
		t.Error(err)
	}
	put(t, newDisk(t, 4), 0, "AB", true)
}

// TestLimitCountsOnce rewrites one sector for ever: only what is held counts.
func TestLimitCountsOnce(t *testing.T) {
	d := newDisk(t, 4)
	d.SetLimit(2 * SectorSize)
	for i := range 100 {
		put(t, d, 0, "A", i%2 == 0)
		if err := d.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if d.held != 1 || d.Writes() != 100 {
		t.Errorf("%d sectors held after %d writes", d.held, d.Writes())
	}
}
