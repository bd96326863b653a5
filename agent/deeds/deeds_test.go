package deeds

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/deed"
	"kogge.example/update/fleet/document"
)

// disk is the folder on a disk that loses power.
type disk struct{ *crashdisk.Files }

func (d disk) Read(name string) ([]byte, error) { return d.ReadFile("deeds/" + name) }

func (d disk) Replace(name string, data []byte) error {
	return durable.ReplaceIn(d.Files, "deeds/"+name, data, 0o600)
}

func onDisk(files map[string][]byte, writes int) disk {
	return disk{crashdisk.NewFiles(files, crashdisk.NewPower(writes))}
}

func armed(boot string) deed.Deed {
	return deed.Deed{Time: 1796000000, Boot: boot, Kind: deed.Armed, Slot: "B", Release: "1.1", Root: document.HashOf(nil), Height: 1}
}

// TestPowerCut cuts the power at every write: what was noted is there, and nothing else is.
func TestPowerCut(t *testing.T) {
	for writes := 0; ; writes++ {
		d := onDisk(nil, writes)
		l := open(d)
		var roots []document.Hash
		var err error
		for err == nil && len(roots) < 3 {
			if err = l.Note(armed("b1")); err == nil {
				_, root := l.Head()
				roots = append(roots, root)
			}
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatal(err)
		}
		for seed := range uint64(16) {
			after := open(onDisk(d.AfterCut(seed), 1000))
			size, root := after.Head()
			if n := int64(len(roots)); after.Problem() != nil || size < n || size > n+1 || n > 0 && size == n && root != roots[n-1] {
				t.Fatalf("writes=%d seed=%d: %d deeds after %d, %v", writes, seed, size, n, after.Problem())
			}
			if err := after.Note(armed("b2")); err != nil {
				t.Fatalf("writes=%d seed=%d: %v", writes, seed, err)
			}
		}
		if err == nil {
			return
		}
	}
}

// TestDamaged: a log that has lost something is not gone on with, and says so.
func TestDamaged(t *testing.T) {
	d := onDisk(nil, 1000)
	l := open(d)
	for range 3 {
		if err := l.Note(armed("b1")); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(map[string][]byte){
		"gone":      func(files map[string][]byte) { delete(files, "deeds/2") },
		"decayed":   func(files map[string][]byte) { files["deeds/2"][70] ^= 1 },
		"exchanged": func(files map[string][]byte) { files["deeds/2"] = files["deeds/3"] },
		"empty":     func(files map[string][]byte) { files["deeds/2"] = nil },
	} {
		files := maps.Clone(d.AfterCut(0))
		files["deeds/2"] = append([]byte{}, files["deeds/2"]...)
		change(files)
		l := open(onDisk(files, 1000))
		if size, _ := l.Head(); size != 1 || !errors.Is(l.Problem(), ErrDamaged) || !errors.Is(l.Note(armed("b2")), ErrDamaged) {
			t.Errorf("deed 2 is %s: %d deeds, %v", what, size, l.Problem())
		}
	}
}

// TestSettle notes once what became of an arming.
func TestSettle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deeds")
	l := Open(dir)
	same, other := document.HashOf(nil), document.HashOf([]byte("x"))
	settle := func(boot string, root document.Hash, trial bool, want int64) {
		t.Helper()
		err := l.Settle(deed.Now{Boot: boot, Slot: "A", Root: root, Trial: trial}, 1796000001, 1)
		if size, _ := l.Head(); err != nil || size != want {
			t.Errorf("%d deeds, %v: want %d", size, err, want)
		}
	}
	settle("b1", same, false, 0)
	if err := l.Note(armed("b1")); err != nil {
		t.Fatal(err)
	}
	settle("b1", other, false, 1)
	settle("b2", same, true, 1)
	settle("b2", same, false, 2)
	settle("b3", same, false, 2)
	if err := l.Note(armed("b3")); err != nil {
		t.Fatal(err)
	}
	settle("b4", other, false, 4)
	again := Open(dir)
	size, root := again.Head()
	if _, want := l.Head(); size != 4 || root != want {
		t.Errorf("after a restart: %d deeds", size)
	}
	raw, err := again.Read(4)
	if d, bad := deed.Parse(raw); err != nil || bad != nil || d.Kind != deed.WentBack || d.Release != "" {
		t.Errorf("%+v, %v, %v", d, err, bad)
	}
	for _, number := range []int64{0, 5, -1} {
		if _, err := again.Read(number); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("deed %d: %v", number, err)
		}
	}
}
