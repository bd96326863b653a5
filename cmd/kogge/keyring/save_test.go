package keyring

import (
	"errors"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
)

// memoryDisk is a disk that loses power after so many calls. It keeps, for each file
// and folder, what was synced and what was not.
type memoryDisk struct {
	left int
	root *entry
}

// entry is a file, or a folder where kids is not nil.
type entry struct {
	data, synced     string
	kids, syncedKids map[string]*entry
}

func newFolder() *entry {
	return &entry{kids: make(map[string]*entry), syncedKids: make(map[string]*entry)}
}

func (m *memoryDisk) find(name string) *entry {
	at := m.root
	for _, part := range strings.Split(strings.Trim(name, "/"), "/") {
		if part != "" {
			at = at.kids[part]
		}
	}
	return at
}

func (m *memoryDisk) step() error {
	if m.left--; m.left < 0 {
		return errCut
	}
	return nil
}

func (m *memoryDisk) MkdirTemp(dir, pattern string) (string, error) {
	if err := m.step(); err != nil {
		return "", err
	}
	m.find(dir).kids[pattern+"1"] = newFolder()
	return path.Join(dir, pattern+"1"), nil
}

func (m *memoryDisk) Create(name string, data []byte) error {
	e := &entry{data: string(data[:len(data)/2])}
	m.find(path.Dir(name)).kids[path.Base(name)] = e
	if err := m.step(); err != nil {
		return err
	}
	e.data = string(data)
	return nil
}

func (m *memoryDisk) Sync(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	e := m.find(name)
	e.synced, e.syncedKids = e.data, maps.Clone(e.kids)
	return nil
}

func (m *memoryDisk) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	parent := m.find(path.Dir(from)).kids
	parent[path.Base(to)] = parent[path.Base(from)]
	delete(parent, path.Base(from))
	return nil
}

func (m *memoryDisk) RemoveAll(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	delete(m.find(path.Dir(name)).kids, path.Base(name))
	return nil
}

// afterCut is what a disk may have of a folder: of each thing that was not synced,
// the old or the new, as the seed decides.
func (e *entry) afterCut(r *rand.Rand) map[string]string {
	kids := e.kids
	if r.IntN(2) == 0 {
		kids = e.syncedKids
	}
	all := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(kids)) {
		kid := kids[name]
		if kid.kids != nil {
			all[name+"/"] = ""
			for below, data := range kid.afterCut(r) {
				all[name+"/"+below] = data
			}
			continue
		}
		all[name] = kid.data
		if r.IntN(2) == 0 {
			all[name] = kid.synced
		}
	}
	return all
}

// TestSavePowerCut cuts the power at every call of a save: the folder is not there, or
// it has every file, whole.
func TestSavePowerCut(t *testing.T) {
	k := newFleet(t, "dev")
	files, err := k.contents("")
	if err != nil {
		t.Fatal(err)
	}
	for calls := 0; ; calls++ {
		m := &memoryDisk{left: calls, root: newFolder()}
		err := publish(m, "/dev", files)
		for seed := range uint64(64) {
			after := m.root.afterCut(rand.New(rand.NewPCG(seed, 0)))
			_, there := after["dev/"]
			for _, want := range files {
				if got := after["dev/"+want.name]; there && got != string(want.data) {
					t.Fatalf("calls=%d seed=%d: %s has %d of %d bytes", calls, seed, want.name, len(got), len(want.data))
				}
			}
			if err == nil && !there {
				t.Fatalf("seed=%d: saved, and yet not there", seed)
			}
		}
		if err == nil {
			return // every call has been the last one once
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
}
