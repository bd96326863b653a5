// Package nbd serves a disk to a virtual machine and cuts its power.
//
// In goes a base image; out come the reads and writes of an NBD client on a unix
// socket, a [Log] of every write and flush, and, at a cut, a [State]: what a real
// disk could hold at that moment. A disk with a write cache may forget, tear or
// reorder whatever was not flushed; a seed decides which, the same way each time.
// The base image is never written to: all changes live in memory.
package nbd

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

// SectorSize is what a disk writes whole or not at all.
const SectorSize = 512

type sector = [SectorSize]byte

// zero is what a trimmed sector reads as.
var zero sector

var (
	// ErrRange means an access beyond the end of the disk or off the sector grid.
	ErrRange = errors.New("not whole sectors of the disk")
	// ErrFull means that a disk may not hold more changes in memory.
	ErrFull = errors.New("no room for more changes")
)

// DefaultLimit is how many bytes of changes a disk holds unless told otherwise.
const DefaultLimit = 1 << 30

// Disk is a disk with a volatile write cache on top of a base image. It is safe
// for use by several goroutines.
type Disk struct {
	base  io.ReaderAt
	size  int64
	limit int

	mu      sync.Mutex // guards the fields below
	flushed map[int64]*sector
	// cache has the versions of each sector that was written since the last
	// flush, oldest first.
	cache  map[int64][]version
	held   int // sectors in flushed and cache
	ops    int // changes since the last flush
	writes int // changes since the beginning
	log    *Log
}

// version is the content that one change gave to a sector.
type version struct {
	op   int // which change since the last flush, from 0
	data *sector
}

// NewDisk returns a disk of size bytes, a multiple of 512, that reads as base.
// Where base is shorter, the rest reads as zeros.
func NewDisk(base io.ReaderAt, size int64) (*Disk, error) {
	if size <= 0 || size%SectorSize != 0 {
		return nil, fmt.Errorf("disk of %d bytes: %w", size, ErrRange)
	}
	return &Disk{
		base: base, size: size, limit: DefaultLimit / SectorSize,
		flushed: map[int64]*sector{}, cache: map[int64][]version{},
	}, nil
}

// OpenDisk returns a disk on top of an image file, which is only read. If size is
// larger than the file, the disk is too.
func OpenDisk(path string, size int64) (*Disk, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil {
		var d *Disk
		if d, err = NewDisk(f, max(size, (st.Size()+SectorSize-1)/SectorSize*SectorSize)); err == nil {
			return d, f, nil
		}
	}
	f.Close()
	return nil, nil, fmt.Errorf("disk on %s: %w", path, err)
}

// SetLimit bounds the changes that the disk holds, in bytes. Beyond it writes
// fail with [ErrFull], and an NBD client is told that there is no space left.
func (d *Disk) SetLimit(bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = bytes / SectorSize
}

// Record writes every later change and flush to log as well.
func (d *Disk) Record(log *Log) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = log
}

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// Writes is how many writes and trims the disk has taken.
func (d *Disk) Writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

func (d *Disk) check(off, n int64) error {
	if off < 0 || n < 0 || off > d.size-n || off%SectorSize != 0 || n%SectorSize != 0 {
		return fmt.Errorf("%d bytes at %d of a disk of %d: %w", n, off, d.size, ErrRange)
	}
	return nil
}

// ReadAt reads whole sectors as the running machine sees them: with all changes.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := readBase(d.base, p, off); err != nil {
		return 0, err
	}
	for i := 0; i < len(p); i += SectorSize {
		s := (off + int64(i)) / SectorSize
		if versions := d.cache[s]; len(versions) > 0 {
			copy(p[i:], versions[len(versions)-1].data[:])
		} else if data := d.flushed[s]; data != nil {
			copy(p[i:], data[:])
		}
	}
	return len(p), nil
}

// readBase fills p from base, with zeros beyond its end.
func readBase(base io.ReaderAt, p []byte, off int64) error {
	n, err := base.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("base image: %w", err)
	}
	clear(p[n:])
	return nil
}

// Write changes whole sectors. With fua they are durable at once, though nothing
// else is that was written before them.
func (d *Disk) Write(p []byte, off int64, fua bool) error {
	return d.change(Entry{Op: OpWrite, FUA: fua, Offset: off, Length: int64(len(p)), Data: p})
}

// MaxTrim is the longest trim that changes anything: trimming is a hint, and a
// longer one is left alone to bound memory.
const MaxTrim = 32 << 20

// Trim gives sectors up: they read as zeros. A power cut may undo it.
func (d *Disk) Trim(off, n int64, fua bool) error {
	return d.change(Entry{Op: OpTrim, FUA: fua, Offset: off, Length: n})
}

// Flush makes everything durable that was written before.
func (d *Disk) Flush() error { return d.change(Entry{Op: OpFlush}) }

// change carries out and records one entry.
func (d *Disk) change(e Entry) error {
	if err := d.check(e.Offset, e.Length); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	count := int(e.Length / SectorSize)
	if e.Op == OpTrim && e.Length > MaxTrim {
		count = 0
	}
	if e.Op != OpFlush && d.held+count > d.limit {
		return ErrFull
	}
	if d.log != nil {
		if err := d.log.Append(e); err != nil {
			return err
		}
	}
	d.apply(e, count)
	return nil
}

// apply changes the maps for an entry whose first count sectors count.
func (d *Disk) apply(e Entry, count int) {
	if e.Op == OpFlush {
		for s, versions := range d.cache {
			d.settle(s, versions[len(versions)-1].data)
		}
		clear(d.cache)
		d.ops = 0
		return
	}
	for i := range count {
		s := e.Offset/SectorSize + int64(i)
		data := &zero
		if e.Op == OpWrite {
			data = new(sector)
			copy(data[:], e.Data[i*SectorSize:])
		}
		if e.FUA {
			// What the cache held for this sector is older and must not come back.
			d.settle(s, data)
			delete(d.cache, s)
			continue
		}
		d.cache[s] = append(d.cache[s], version{d.ops, data})
		d.held++
	}
	d.ops++
	d.writes++
}

// settle makes data the durable content of a sector.
func (d *Disk) settle(s int64, data *sector) {
	if d.flushed[s] == nil {
		d.held++
	}
	d.held -= len(d.cache[s])
	d.flushed[s] = data
}

// AfterCut returns what the disk holds after a power cut at this moment:
// everything flushed, and of the rest what seed decides. Seed 0 loses all that was
// not flushed and seed 1 keeps it; any other seed picks one of three ways:
// a prefix of the writes whose last one is torn between two sectors, any writes
// without the others, or any version of each sector for itself. The disk itself
// is left as it is.
func (d *Disk) AfterCut(seed uint64) *State {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := &State{base: d.base, size: d.size, sectors: make(map[int64]*sector, len(d.flushed)+len(d.cache))}
	for s, data := range d.flushed {
		st.sectors[s] = data
	}
	// In the order of sectors, so that the same seed asks for the same luck.
	dirty := make([]int64, 0, len(d.cache))
	for s := range d.cache {
		dirty = append(dirty, s)
	}
	slices.Sort(dirty)
	survives := fate(seed, d.ops)
	for _, s := range dirty {
		for _, v := range slices.Backward(d.cache[s]) {
			if survives(v.op, s) {
				st.sectors[s] = v.data
				break
			}
		}
	}
	return st
}

// fate says which of ops changes reached the disk, sector by sector. The newest
// survivor of a sector wins.
func fate(seed uint64, ops int) func(op int, s int64) bool {
	rng := rand.New(rand.NewPCG(seed, 0x6b6f676765)) // any constant; it is part of what a seed means
	switch {
	case seed == 0 || ops == 0:
		return func(int, int64) bool { return false }
	case seed == 1:
		return func(int, int64) bool { return true }
	}
	switch seed % 3 {
	case 0: // in order; the last one is torn
		last := rng.IntN(ops + 1)
		return func(op int, s int64) bool {
			return op < last || op == last && luck(seed, 0, s/8) // a tear keeps 4 KiB together
		}
	case 1: // any writes, whole
		kept := make([]bool, ops)
		for i := range kept {
			kept[i] = rng.IntN(2) == 0
		}
		return func(op int, _ int64) bool { return kept[op] }
	default: // any version of each sector
		return func(op int, s int64) bool { return luck(seed, op, s) }
	}
}

// luck tosses a coin that always falls the same way for the same arguments.
func luck(seed uint64, op int, s int64) bool {
	return rand.NewPCG(seed, uint64(op)<<40^uint64(s)).Uint64()>>63 == 1
}

// State is what a disk holds after a power cut. It does not change, and may be
// the base of the next disk.
type State struct {
	base    io.ReaderAt
	size    int64
	sectors map[int64]*sector
}

// Size is the disk's size in bytes.
func (st *State) Size() int64 { return st.size }

// ReadAt implements [io.ReaderAt].
func (st *State) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrRange
	}
	if off >= st.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > st.size-off {
		p, end = p[:st.size-off], io.EOF
	}
	if err := readBase(st.base, p, off); err != nil {
		return 0, err
	}
	for s := off / SectorSize; s*SectorSize < off+int64(len(p)); s++ {
		data := st.sectors[s]
		if data == nil {
			continue
		}
		if at := s*SectorSize - off; at >= 0 {
			copy(p[at:], data[:])
		} else {
			copy(p, data[-at:])
		}
	}
	return len(p), end
}

// Save writes the state to a new file, sparse where it is zero, for tools that
// judge file systems. An error leaves no file.
func (st *State) Save(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("save disk: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(path)
			err = fmt.Errorf("save disk: %w", err)
		}
	}()
	if err := f.Truncate(st.size); err != nil {
		return err
	}
	buf, zeros := make([]byte, 1<<20), make([]byte, 64<<10)
	for off := int64(0); off < st.size; off += int64(len(buf)) {
		n, err := st.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := 0; i < n; i += len(zeros) {
			if part := buf[i:min(i+len(zeros), n)]; !slices.Equal(part, zeros[:len(part)]) {
				if _, err := f.WriteAt(part, off+int64(i)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
