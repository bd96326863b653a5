package crashdisk

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// fill returns so many bytes of one value.
func fill(value byte, size int) []byte { return bytes.Repeat([]byte{value}, size) }

func put(t *testing.T, d *Disk, value byte, sector, sectors int) {
	t.Helper()
	if n, err := d.WriteAt(fill(value, sectors*SectorSize), int64(sector)*SectorSize); err != nil || n != sectors*SectorSize {
		t.Fatal(n, err)
	}
}

func TestReadsWhatWasWritten(t *testing.T) {
	d := New(fill(1, 3*SectorSize+100), 2)
	put(t, d, 2, 1, 1)
	got := make([]byte, 2*SectorSize)
	if n, err := d.ReadAt(got, SectorSize/2); n != len(got) || err != nil {
		t.Fatal(n, err)
	}
	if want := append(append(fill(1, SectorSize/2), fill(2, SectorSize)...), fill(1, SectorSize/2)...); !bytes.Equal(got, want) {
		t.Error("not what was written")
	}
	if n, err := d.ReadAt(got, 3*SectorSize); n != 100 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := d.ReadAt(got, 4*SectorSize); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
	for _, offset := range []int64{-1, 3 * SectorSize, 1 << 62} {
		if _, err := d.WriteAt(got, offset); err == nil || errors.Is(err, ErrPowerCut) {
			t.Errorf("write at %d: %v", offset, err)
		}
	}
	if _, err := d.ReadAt(got, -1); err == nil {
		t.Error("read at -1")
	}
	put(t, d, 3, 0, 1) // a write that was refused is none
	if _, err := d.WriteAt(nil, 0); !errors.Is(err, ErrPowerCut) {
		t.Errorf("third write: %v", err)
	}
	_, readErr := d.ReadAt(got, 0)
	_, writeErr := d.WriteAt(got, 0)
	for _, err := range []error{readErr, writeErr, d.Sync()} {
		if !errors.Is(err, ErrPowerCut) {
			t.Errorf("after the cut: %v", err)
		}
	}
}

// TestAfterCut wants each kind of loss from some seed, and none that a disk has not.
func TestAfterCut(t *testing.T) {
	const sectors = 4
	before := fill(1, sectors*SectorSize)
	d := New(before, 4)
	put(t, d, 2, 0, 1)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	put(t, d, 3, 1, 1)
	put(t, d, 4, 2, 2)
	put(t, d, 5, 2, 1)
	if _, err := d.WriteAt(fill(6, SectorSize), 3*SectorSize); !errors.Is(err, ErrPowerCut) {
		t.Fatal(err)
	}
	// What each sector may hold, the synced content first.
	versions := [sectors][]byte{{2}, {1, 3}, {1, 4, 5}, {1, 4, 6}}
	seen := map[string]bool{}
	for seed := range uint64(500) {
		after := d.AfterCut(seed)
		if again := d.AfterCut(seed); !bytes.Equal(after, again) {
			t.Fatalf("seed %d: two outcomes", seed)
		}
		for s, allowed := range versions {
			b := after[s*SectorSize:][:SectorSize]
			for _, value := range b {
				if !bytes.Contains(allowed, []byte{value}) {
					t.Fatalf("seed %d: sector %d holds %d", seed, s, value)
				}
			}
			if torn := b[0] != b[SectorSize-1]; torn {
				seen["torn"] = true
				continue
			}
			switch i := bytes.IndexByte(allowed, b[0]); {
			case i == 0 && s > 0:
				seen["lost"] = true
			case i == len(allowed)-1 && s > 0:
				seen["kept"] = true
			case i == 1:
				seen["older"] = true
			}
		}
		if after[SectorSize] == 1 && after[2*SectorSize] == 5 {
			seen["out of order"] = true
		}
	}
	for _, kind := range []string{"kept", "lost", "older", "torn", "out of order"} {
		if !seen[kind] {
			t.Errorf("no seed gives: %s", kind)
		}
	}
	if got := d.AfterCut(0); got[0] != 2 || !bytes.Equal(got[SectorSize:], before[SectorSize:]) {
		t.Error("seed 0 keeps more than was synced")
	}
	if got := d.AfterCut(1); got[2*SectorSize] != 5 || got[3*SectorSize] != 6 {
		t.Error("seed 1 loses something")
	}
}
