package crashdisk

import (
	"errors"
	"io/fs"
	"testing"
)

// TestFiles wants each kind of loss from some seed, and none that a journal prevents.
func TestFiles(t *testing.T) {
	f := NewFiles(map[string][]byte{"dir/a": []byte("old"), "dir/gone": []byte("x")}, NewPower(100))
	if err := f.Create("dir/a.new", []byte("new content"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync("dir/a.new"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Rename("dir/a.new", "dir/a"), f.Remove("dir/gone"), f.Create("dir/b", []byte("unsynced"), 0)); err != nil {
		t.Fatal(err)
	}
	if got, err := f.ReadFile("dir/a"); err != nil || string(got) != "new content" {
		t.Errorf("before the cut: %q, %v", got, err)
	}
	if _, err := f.ReadFile("dir/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	seen := map[string]bool{}
	for seed := range uint64(200) {
		after := f.AfterCut(seed)
		a := string(after["dir/a"])
		if a != "old" && a != "new content" {
			t.Fatalf("seed %d: a synced file renamed over another holds %q", seed, a)
		}
		_, gone := after["dir/gone"]
		b, made := after["dir/b"]
		if !gone && a == "old" || made && gone {
			t.Fatalf("seed %d: names out of order: %q", seed, after)
		}
		seen[a] = true
		if made {
			seen[map[int]string{0: "b lost", len("unsynced"): "b whole"}[len(b)]] = true
			if len(b) > 0 && len(b) < len("unsynced") {
				seen["b torn"] = true
			}
		}
	}
	for _, kind := range []string{"old", "new content", "b lost", "b whole", "b torn"} {
		if !seen[kind] {
			t.Errorf("no seed gives: %s", kind)
		}
	}
	if err := f.Sync("dir"); err != nil {
		t.Fatal(err)
	}
	if after := f.AfterCut(0); string(after["dir/a"]) != "new content" || after["dir/gone"] != nil {
		t.Errorf("after the folder was synced: %q", after)
	}
}

// TestFilesAppend wants what was synced from every seed, and each kind of loss of what was appended
// since from some.
func TestFilesAppend(t *testing.T) {
	f := NewFiles(map[string][]byte{"dir/log": []byte("synced.")}, NewPower(100))
	if err := f.Append("dir/none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("append to nothing: %v", err)
	}
	if err := f.Append("dir/log", []byte("more")); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(200) {
		log := string(f.AfterCut(seed)["dir/log"])
		if len(log) < len("synced.") || log[:len("synced.")] != "synced." || len(log) > len("synced.more") {
			t.Fatalf("seed %d: %q", seed, log)
		}
		seen[log] = true
	}
	for _, kind := range []string{"synced.", "synced.mo", "synced.more", "synced.\x00\x00\x00\x00", "synced.mo\x00\x00"} {
		if !seen[kind] {
			t.Errorf("no seed gives %q", kind)
		}
	}
	if err := f.Sync("dir/log"); err != nil {
		t.Fatal(err)
	}
	if log := string(f.AfterCut(0)["dir/log"]); log != "synced.more" {
		t.Errorf("after it was synced: %q", log)
	}
}

// TestPower cuts a disk and files at the same instant.
func TestPower(t *testing.T) {
	for writes := range 4 {
		p := NewPower(writes)
		d, f := NewOn(fill(1, SectorSize), p), NewFiles(nil, p)
		var done int
		for _, step := range []func() error{
			func() error { return f.Create("a", []byte("a"), 0) },
			func() error { _, err := d.WriteAt(fill(2, SectorSize), 0); return err },
			func() error { return f.Sync("a") },
			func() error { return f.Remove("a") },
		} {
			if err := step(); err != nil {
				if !errors.Is(err, ErrPowerCut) {
					t.Fatal(err)
				}
				break
			}
			done++
		}
		if done != writes || p.Used() != writes+1 {
			t.Errorf("%d writes: %d were done, %d used", writes, done, p.Used())
		}
		_, readErr := f.ReadFile("a")
		for _, err := range []error{readErr, f.Create("b", nil, 0), f.Append("a", nil), f.Sync("a"), f.Rename("a", "b"), f.Remove("a"), d.Sync()} {
			if !errors.Is(err, ErrPowerCut) {
				t.Errorf("%d writes: after the cut: %v", writes, err)
			}
		}
	}
	f := NewFiles(nil, NewPower(1))
	if err := f.Rename("none", "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rename nothing: %v", err)
	}
	if err := f.Remove("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove nothing: %v", err)
	}
}
