package crashdisk

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
)

// Files are the files of folders on a file system with a journal: what was done to
// names reaches the disk in the order in which it was done, some of it or all, and
// surely with a Sync of the folder; the content of a file surely with a Sync of the
// file, and until then none of it, the front of it or all; of what is appended to a
// synced file also its length without its bytes. It is not safe for concurrent use.
type Files struct {
	power *Power
	disk  map[string]*content // names that survive the cut
	names map[string]*content // names that a reader sees
	log   []change            // of names, since the last Sync of a folder
}

// content is a file without its name.
type content struct{ synced, now []byte }

// change gives a name to a file, or takes it from one. A rename is two in one.
type change struct {
	remove, add string // "" for neither
	file        *content
}

// NewFiles returns folders with these files, by path, all of them synced.
func NewFiles(files map[string][]byte, power *Power) *Files {
	f := &Files{power: power, disk: map[string]*content{}, names: map[string]*content{}}
	for name, data := range files {
		c := &content{synced: slices.Clone(data), now: slices.Clone(data)}
		f.disk[name], f.names[name] = c, c
	}
	return f
}

// ReadFile returns what was written last, synced or not.
func (f *Files) ReadFile(name string) ([]byte, error) {
	if f.power.cut {
		return nil, ErrPowerCut
	}
	c, ok := f.names[name]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", name, fs.ErrNotExist)
	}
	return slices.Clone(c.now), nil
}

// Create makes a file, or a new one in the place of an old one.
func (f *Files) Create(name string, data []byte, _ fs.FileMode) error {
	return f.change(change{add: name, file: &content{now: slices.Clone(data)}})
}

// Append writes behind the end of a file. What was synced of it stays, whatever becomes of this.
func (f *Files) Append(name string, data []byte) error {
	if f.power.cut {
		return ErrPowerCut
	}
	c, ok := f.names[name]
	if !ok {
		return fmt.Errorf("append to %s: %w", name, fs.ErrNotExist)
	}
	c.now = append(c.now, data...)
	if !f.power.write() {
		return ErrPowerCut
	}
	return nil
}

// Rename moves a file, over another one if there is one of that name.
func (f *Files) Rename(from, to string) error {
	c, ok := f.names[from]
	if !ok && !f.power.cut {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	return f.change(change{remove: from, add: to, file: c})
}

// Remove removes a file.
func (f *Files) Remove(name string) error {
	if _, ok := f.names[name]; !ok && !f.power.cut {
		return fmt.Errorf("remove %s: %w", name, fs.ErrNotExist)
	}
	return f.change(change{remove: name})
}

func (f *Files) change(c change) error {
	if f.power.cut {
		return ErrPowerCut
	}
	f.log = append(f.log, c)
	c.apply(f.names)
	if !f.power.write() {
		return ErrPowerCut
	}
	return nil
}

func (c change) apply(names map[string]*content) {
	delete(names, c.remove)
	if c.add != "" {
		names[c.add] = c.file
	}
}

// Sync makes the content of a file survive the cut, or all that was done to names if
// name is a folder's. It counts as a write: a cut may come before it does anything.
func (f *Files) Sync(name string) error {
	if f.power.cut || !f.power.write() {
		return ErrPowerCut
	}
	if c, ok := f.names[name]; ok {
		c.synced = slices.Clone(c.now)
		return nil
	}
	f.disk, f.log = maps.Clone(f.names), nil
	return nil
}

// AfterCut returns the files, by path, that are there when the power is back. Seed 0
// loses all that was not synced and seed 1 keeps it all.
func (f *Files) AfterCut(seed uint64) map[string][]byte {
	random := rand.New(rand.NewPCG(seed, uint64(len(f.log))))
	names := maps.Clone(f.disk)
	done := len(f.log)
	switch {
	case seed == 0:
		done = 0
	case seed > 1:
		done = random.IntN(done + 1)
	}
	for _, c := range f.log[:done] {
		c.apply(names)
	}
	after := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c := names[name]
		data := c.synced
		if unsynced := !slices.Equal(c.synced, c.now); seed == 1 || unsynced && seed > 1 && random.IntN(2) == 0 {
			data = c.now
		} else if unsynced && seed > 1 {
			data = c.torn(random)
		}
		after[name] = slices.Clone(data)
	}
	return after
}

// torn is what may be left of a file that was not synced since it was written.
func (c *content) torn(random *rand.Rand) []byte {
	if len(c.synced) == 0 || !bytes.HasPrefix(c.now, c.synced) {
		return c.now[:random.IntN(len(c.now)+1)]
	}
	more := len(c.now) - len(c.synced)
	data := slices.Clone(c.now[:len(c.synced)+random.IntN(more+1)])
	if random.IntN(2) == 0 { // blocks that were not written before the length was
		clear(data[min(len(data), len(c.synced)+random.IntN(more+1)):])
	}
	return data
}
