// Package crashdisk is, for tests, a disk in memory that loses power on demand.
//
// In comes the content of a disk and the number of writes it lives through; out
// comes what such a disk may hold afterwards: all that was synced, and of the
// rest what a seed decides. It has two faces: Disk knows sectors only, no partition
// and no file; Files are those of one folder on a file system with a journal. Both may
// hang on one Power, and nothing but its number of writes decides when it fails.
package crashdisk

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
)

// SectorSize is the unit, in bytes, in which a disk keeps or loses a write. A
// sector that is written at the moment of the cut may end up half new.
const SectorSize = 512

// ErrPowerCut is what every call returns once the power is gone.
var ErrPowerCut = errors.New("power cut")

// Disk is a disk with a write cache that nothing but Sync empties. It is not
// safe for concurrent use: a test that cuts power needs one order of writes.
type Disk struct {
	synced  image   // survives the cut
	current image   // what a reader sees before it
	cache   []write // since the last Sync, oldest first
	power   *Power
}

// Power is what disks and files share: all of them lose it at the same instant.
type Power struct {
	left int // writes until the cut
	cut  bool
	used int
}

// NewPower lasts for so many writes; the one after them is under way when it fails.
func NewPower(writes int) *Power { return &Power{left: writes} }

// Used is how many writes there have been, the one that was cut included.
func (p *Power) Used() int { return p.used }

// write uses up one write, and tells whether the power lasts to its end.
func (p *Power) write() bool {
	p.used++
	if p.left == 0 {
		p.cut = true
		return false
	}
	p.left--
	return true
}

// write is one WriteAt that no Sync has followed yet.
type write struct {
	offset int64
	data   []byte
}

// New returns a disk that holds content, which nobody may change any more, and loses
// power at the write after the given number of writes. That last write is under way when
// the power fails: it returns ErrPowerCut, and yet some of it may be on the disk.
func New(content []byte, writes int) *Disk { return NewOn(content, NewPower(writes)) }

// NewOn is New with the power shared.
func NewOn(content []byte, power *Power) *Disk {
	return &Disk{synced: newImage(content), current: newImage(content), power: power}
}

// ReadAt reads what was written last, synced or not.
func (d *Disk) ReadAt(p []byte, offset int64) (int, error) {
	if d.power.cut {
		return 0, ErrPowerCut
	}
	if offset < 0 {
		return 0, fmt.Errorf("read at %d: negative offset", offset)
	}
	n := d.current.read(p, offset)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes into the cache. A write past the end of the disk is refused
// whole and counts as none.
func (d *Disk) WriteAt(p []byte, offset int64) (int, error) {
	if d.power.cut {
		return 0, ErrPowerCut
	}
	if size := d.current.size(); offset < 0 || offset > size || int64(len(p)) > size-offset {
		return 0, fmt.Errorf("write %d bytes at %d: disk has %d", len(p), offset, size)
	}
	d.cache = append(d.cache, write{offset, slices.Clone(p)})
	if !d.power.write() {
		return 0, ErrPowerCut
	}
	d.current.write(p, offset)
	return len(p), nil
}

// Sync makes every write so far survive the cut.
func (d *Disk) Sync() error {
	if d.power.cut {
		return ErrPowerCut
	}
	for _, w := range d.cache {
		d.synced.write(w.data, w.offset)
	}
	d.cache = nil
	return nil
}

// AfterCut returns what the disk holds when the power is back; the caller owns
// the bytes. It may be called for many seeds, before the cut as well as after.
// Seed 0 loses all that was not synced and seed 1 keeps it all. The others take
// turns: the cache was emptied in order until the cut; or in any order, one write
// at a time; or sector by sector, each with its last content, an older one, or the
// front of the one over the rest of the other.
func (d *Disk) AfterCut(seed uint64) []byte { return d.after(seed).bytes() }

// Again is the disk when the power is back, for so many writes more: AfterCut without a
// copy of all that nobody wrote to.
func (d *Disk) Again(seed uint64, writes int) *Disk {
	after := d.after(seed)
	return &Disk{synced: after, current: after.clone(), power: NewPower(writes)}
}

func (d *Disk) after(seed uint64) image {
	after := d.synced.clone()
	random := rand.New(rand.NewPCG(seed, uint64(len(d.cache))))
	switch {
	case seed == 0:
	case seed == 1:
		for _, w := range d.cache {
			after.write(w.data, w.offset)
		}
	case seed%3 == 0:
		d.inOrder(after, random)
	case seed%3 == 1:
		for _, i := range random.Perm(len(d.cache)) {
			if w := d.cache[i]; random.IntN(2) == 0 {
				after.write(w.data, w.offset)
			}
		}
	default:
		d.bySector(after, random)
	}
	return after
}

// inOrder applies the first writes whole and the next one up to some byte.
func (d *Disk) inOrder(after image, random *rand.Rand) {
	whole := random.IntN(len(d.cache) + 1)
	for _, w := range d.cache[:whole] {
		after.write(w.data, w.offset)
	}
	if whole < len(d.cache) {
		w := d.cache[whole]
		after.write(w.data[:random.IntN(len(w.data)+1)], w.offset)
	}
}

// bySector chooses for each written sector alone.
func (d *Disk) bySector(after image, random *rand.Rand) {
	content := d.synced.clone()
	versions := map[int64][][]byte{}
	for _, w := range d.cache {
		content.write(w.data, w.offset)
		for s := w.offset / SectorSize; s*SectorSize < w.offset+int64(len(w.data)); s++ {
			versions[s] = append(versions[s], content.sector(s))
		}
	}
	for _, s := range slices.Sorted(maps.Keys(versions)) {
		kept := random.IntN(len(versions[s]) + 1) // of so many writes the last one counts
		if kept == 0 {
			continue
		}
		newer := versions[s][kept-1]
		if kept > 1 {
			after.write(versions[s][kept-2], s*SectorSize)
		}
		if random.IntN(4) == 0 {
			newer = newer[:random.IntN(len(newer))]
		}
		after.write(newer, s*SectorSize)
	}
}
