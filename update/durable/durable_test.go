package durable

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// memory is a file system that loses power after so many calls. What was not synced
// may be lost then, or not.
type memory struct {
	left    int
	now     map[string]string // what a reader sees before the cut
	data    map[string]string // synced content by name; the name may not be durable
	durable map[string]string // names of the last sync of the folder, with their content
}

var errCut = errors.New("power cut")

func (m *memory) step() error {
	m.left--
	if m.left < 0 {
		return errCut
	}
	return nil
}

func (m *memory) Create(name string, data []byte, _ fs.FileMode) error {
	// The cut may come with any part of the data written.
	m.now[name] = string(data[:len(data)/2])
	delete(m.data, name)
	if err := m.step(); err != nil {
		return err
	}
	m.now[name] = string(data)
	return nil
}

func (m *memory) Sync(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	if content, ok := m.now[name]; ok {
		m.data[name] = content
		return nil
	}
	m.durable = m.named()
	return nil
}

func (m *memory) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.now[to] = m.now[from]
	delete(m.data, to)
	if content, ok := m.data[from]; ok {
		m.data[to] = content
	}
	delete(m.now, from)
	delete(m.data, from)
	return nil
}

// named is every present name with what of its content was synced: nothing, as it
// may be, of a file that nobody synced.
func (m *memory) named() map[string]string {
	all := map[string]string{}
	for name := range m.now {
		all[name] = m.data[name]
	}
	return all
}

// afterCut returns what the disk may have: the names of the last sync of the folder,
// or those of the moment of the cut, for the journal may have written them already,
// with the synced content or all of it.
func (m *memory) afterCut() []map[string]string {
	return []map[string]string{m.durable, m.named(), m.now}
}

// TestReplacePowerCut cuts the power at every call, over an old file and over none,
// with the left-over of an earlier cut beside it: the old content or the new, whole.
func TestReplacePowerCut(t *testing.T) {
	const name, old, fresh = "/state/kogge/node.yaml", "old", "new content"
	for _, before := range []map[string]string{{}, {name: old}, {name: old, name + ".new": "half"}} {
		for calls := 0; ; calls++ {
			m := &memory{left: calls, now: maps.Clone(before), data: maps.Clone(before), durable: maps.Clone(before)}
			err := ReplaceIn(m, name, []byte(fresh), 0o600)
			for _, after := range m.afterCut() {
				got, there := after[name]
				if there && got != old && got != fresh || !there && before[name] != "" {
					t.Fatalf("before %v, cut after %d calls: %q, there %v", before, calls, got, there)
				}
				if err == nil && got != fresh {
					t.Fatalf("before %v: replaced, and yet the disk has %q", before, got)
				}
			}
			if err == nil {
				break // every call has been the last one once
			}
			if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
		}
	}
}

// TestReplace writes real files.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	name, elsewhere := filepath.Join(dir, "file"), filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("kept"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, name+".new"); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"first", "second", ""} {
		if err := Replace(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		info, statErr := os.Lstat(name)
		if err != nil || statErr != nil || string(got) != content || info.Mode() != 0o600 {
			t.Errorf("%q with mode %v, %v, %v", got, info.Mode(), err, statErr)
		}
	}
	if _, err := os.Lstat(name + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is left over: %v", err)
	}
	if kept, err := os.ReadFile(elsewhere); err != nil || string(kept) != "kept" {
		t.Errorf("the target of a left-over link has %q, %v", kept, err)
	}
	if err := Replace(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

// TestKeep: what is kept stays when another file takes its place, and when that is kept, too.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := Keep(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	contents := []string{"first", "second", "third"}
	for i, content := range contents {
		if err := Replace(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a cut comes before the other one
			if err := Keep(name); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 { // it lies there already
			if err := Aside(name); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is in its place, too: %v", err)
			}
		}
	}
	if err := Replace(name, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Aside(name); err != nil {
		t.Fatal(err)
	}
	for i, content := range append(contents, "another") {
		if got, err := os.ReadFile(AsideName(name, i+1)); err != nil || string(got) != content {
			t.Errorf("%q is kept as %q, %v", content, got, err)
		}
	}
	for i := range 2 * MaxAside {
		if err := Replace(name, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Aside(name); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != MaxAside {
		t.Errorf("in the folder lie %v, %v", all, err)
	}
	if got, err := os.ReadFile(AsideName(name, 1)); err != nil || string(got) != "first" {
		t.Errorf("the first one is %q, %v", got, err)
	}
}

// TestRemove: what is removed is gone, and what is missing is said to be.
func TestRemove(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := Replace(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(name); err != nil {
		t.Error(err)
	}
	if err := Remove(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
}

// TestRead reads no more than it may.
func TestRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if _, err := Read(name, 3); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for content, most := range map[string]int64{"": 0, "abc": 3, "abcd": 9} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if raw, err := Read(name, most); err != nil || string(raw) != content {
			t.Errorf("%q of at most %d: %q, %v", content, most, raw, err)
		}
		if raw, err := Read(name, int64(len(content))-1); err == nil || raw != nil {
			t.Errorf("%q: more than it may: %q", content, raw)
		}
	}
}
