package pinned

import (
	"errors"
	"maps"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// disk is the folder on a disk that loses power.
type disk struct{ *crashdisk.Files }

func (d disk) Read(name string) ([]byte, error) { return d.ReadFile("ledger/" + name) }

func (d disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "ledger/"+name, data, 0o600)
}

func onDisk(files map[string][]byte, writes int) disk {
	return disk{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

// TestPowerCut cuts the power at every write while records come: what Take returned nil for is
// there, and the rest is taken again.
func TestPowerCut(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		l := open(d, f.Genesis)
		taken := int64(0)
		var err error
		for i, e := range f.Entries {
			if err = l.Take(int64(i+1), e); err != nil {
				break
			}
			taken++
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := open(onDisk(d.AfterCut(seed), 1000), f.Genesis)
			if got := after.State().Height; after.Damaged() != nil || got < taken || got > taken+1 {
				t.Fatalf("writes=%d seed=%d: height %d after %d were taken: %v", writes, seed, got, taken, after.Damaged())
			}
			for i, e := range f.Entries {
				if err := after.Take(int64(i+1), e); err != nil {
					t.Fatalf("writes=%d seed=%d: record %d again: %v", writes, seed, i+1, err)
				}
			}
			if after.State().Tree != f.Log.State().Tree {
				t.Fatalf("writes=%d seed=%d: another ledger", writes, seed)
			}
		}
		if err == nil {
			return
		}
	}
}

// TestFork keeps the first record 1 that it took, whatever comes later; a stranger's word is
// no second history.
func TestFork(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	d := onDisk(nil, 1000)
	l := open(d, f.Genesis)
	if err := l.Take(1, f.Entries[0]); err != nil {
		t.Fatal(err)
	}
	other := f.Again(t) // the same owners found it with another operator
	if err := l.Take(1, other); !errors.Is(err, ErrFork) {
		t.Errorf("a second founding: %v", err)
	}
	forged := other
	forged.Certificate = f.Entries[0].Certificate
	if err := l.Take(1, forged); err == nil || errors.Is(err, ErrFork) {
		t.Errorf("a forged second founding: %v", err)
	}
	if err := l.Take(3, f.Entries[1]); !errors.Is(err, ledger.ErrHeight) {
		t.Errorf("a height too high: %v", err)
	}
	if err := l.Take(2, f.Entries[1]); err != nil || l.State().Height != 2 {
		t.Errorf("%v", err)
	}
	if e, err := l.Entry(1); err != nil || string(e.Record) != string(f.Entries[0].Record) {
		t.Errorf("%v", err)
	}
	if _, err := l.Entry(3); !errors.Is(err, ledger.ErrHeight) {
		t.Errorf("%v", err)
	}
}

// TestDamaged loses a record to decay, and takes it again from others: the same one.
func TestDamaged(t *testing.T) {
	f := ledgertest.Founded(t, 4, 3)
	d := onDisk(nil, 1000)
	l := open(d, f.Genesis)
	for i, e := range f.Entries {
		if err := l.Take(int64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	files := d.AfterCut(1)
	for height := int64(1); height <= 3; height++ {
		bad := maps.Clone(files)
		raw := append([]byte{}, bad["ledger/"+fileName(height)]...)
		raw[len(raw)/2] ^= 1
		bad["ledger/"+fileName(height)] = raw
		l := open(onDisk(bad, 1000), f.Genesis)
		if err := l.Damaged(); !errors.Is(err, ErrDamaged) || l.State().Height != height-1 {
			t.Fatalf("record %d is damaged: height %d, %v", height, l.State().Height, err)
		}
		if height == 1 {
			if err := l.Take(1, f.Again(t)); !errors.Is(err, ErrFork) {
				t.Errorf("another record in its place: %v", err)
			}
		}
		if err := l.Take(height, f.Entries[height-1]); err != nil || l.State().Height != 3 || l.Damaged() != nil {
			t.Errorf("record %d again: height %d, %v, %v", height, l.State().Height, err, l.Damaged())
		}
	}
}
