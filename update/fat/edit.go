package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// WriteFile makes a file with the given content, or replaces one; its directory has
// to be there. At every point of it a cut leaves the old content or the new one under
// the name (where the file is new: none, or all of it), and every other file alone:
//
//  1. a longer directory, where its slots do not suffice: see extend
//  2. content, its chain in the FAT, an entry marked deleted, sync: lost clusters so far
//  3. the mark taken away, sync: the file is there, for the moment twice, and whoever
//     looks finds the first of the two
//  4. the old entry marked deleted, sync
//  5. its long name and its chain freed, the free-space summary, sync
//
// After a cut Repair frees what is lost, and removes the second of the two. On a volume
// where Repair found damage no chain is freed: see drop.
func (v *Volume) WriteFile(name string, content []byte, when time.Time) error {
	return v.Write(name, int64(len(content)), bytes.NewReader(content), when)
}

// Write is WriteFile for a file that memory should not hold: it makes a file of exactly
// size bytes of content, and keeps no more than chunkSize of them. Space is looked for
// before the first byte is read. Where content ends early, is longer or fails, nothing
// on the volume has changed, but for what lies in free clusters.
func (v *Volume) Write(name string, size int64, content io.Reader, when time.Time) error {
	if err := v.writeFile(name, size, content, newStamp(when)); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

func (v *Volume) writeFile(name string, size int64, content io.Reader, when stamp) error {
	if size < 0 || size > maxFileSize {
		return fmt.Errorf("%d bytes: FAT holds at most 4 GiB - 1", size)
	}
	d, old, err := v.lookup(name)
	exists := err == nil
	switch {
	case d == nil || err != nil && !errors.Is(err, ErrNotExist):
		return err
	case exists && old.isDir():
		return fmt.Errorf("%w: a directory", ErrExist)
	}
	_, last := split(name)
	var before *entry
	if exists {
		before = &old
	}
	place, err := v.reserve(d, last, before)
	if err != nil {
		return err
	}
	e := entry{attr: attrArchive, size: uint32(size), when: when}
	chain, err := v.allocate(v.clustersFor(size))
	if err != nil {
		return err
	}
	if err := v.writeContent(chain, size, content); err != nil {
		return err
	}
	if size > 0 {
		e.first = chain[0]
	}
	if err := v.link(chain); err != nil {
		return err
	}
	if err := v.publish(d, place, e); err != nil {
		return err
	}
	if exists {
		return v.drop(d, old)
	}
	return v.finish()
}

// Remove deletes a file or an empty directory. A cut leaves it whole, or gone with its
// clusters lost: Repair frees them.
func (v *Volume) Remove(name string) error {
	if err := v.remove(name); err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return nil
}

func (v *Volume) remove(name string) error {
	d, e, err := v.lookup(name)
	if err != nil {
		return err
	}
	if e.isDir() {
		sub, err := v.readDirectory(e.first)
		if err != nil {
			return err
		}
		if len(sub.entries()) > 0 {
			return errors.New("directory is not empty")
		}
	}
	return v.drop(d, e)
}

// MkdirAll makes a directory, and those above it that are missing. A cut leaves each
// whole, empty, or not there.
func (v *Volume) MkdirAll(name string, when time.Time) error {
	if err := v.mkdirAll(name, newStamp(when)); err != nil {
		return fmt.Errorf("make directory %q: %w", name, err)
	}
	return nil
}

func (v *Volume) mkdirAll(name string, when stamp) error {
	name = strings.Trim(name, "/")
	if name == "" {
		return nil
	}
	parent, last := split(name)
	if err := v.mkdirAll(parent, when); err != nil {
		return err
	}
	d, err := v.lookupDir(parent)
	if err != nil {
		return err
	}
	if e, found := d.find(last); found {
		if !e.isDir() {
			return fmt.Errorf("%q: %w", last, ErrExist)
		}
		return nil
	}
	place, err := v.reserve(d, last, nil)
	if err != nil {
		return err
	}
	chain, err := v.allocate(1)
	if err != nil {
		return err
	}
	up := d.first
	if up == v.root {
		up = 0
	}
	content := make([]byte, v.clusterBytes())
	copy(content, newEntry(dotName, attrDir, chain[0], 0, when))
	copy(content[entrySize:], newEntry(dotDotName, attrDir, up, 0, when))
	if err := v.writeContent(chain, int64(len(content)), bytes.NewReader(content)); err != nil {
		return err
	}
	if err := v.link(chain); err != nil {
		return err
	}
	if err := v.publish(d, place, entry{attr: attrDir, first: chain[0], when: when}); err != nil {
		return err
	}
	return v.finish()
}

// allocate chooses free clusters, and writes nothing.
func (v *Volume) allocate(count int64) ([]uint32, error) {
	var chain []uint32
	for i := uint32(0); i < v.clusters && int64(len(chain)) < count; i++ {
		c := rootCluster + (v.search-rootCluster+i)%v.clusters
		if v.fat[c]&entryMask == 0 {
			chain = append(chain, c)
		}
	}
	if int64(len(chain)) < count {
		return nil, fmt.Errorf("%w: %d clusters wanted, %d free", ErrFull, count, len(chain))
	}
	if len(chain) > 0 {
		v.search = chain[len(chain)-1]
	}
	return chain, nil
}

// chunkSize is how much of a file is in memory while it is written: whole clusters of
// every size.
const chunkSize = 256 << 10

// writeContent fills free clusters with exactly size bytes. The caller links them, and
// syncs before anything leads to them.
func (v *Volume) writeContent(chain []uint32, size int64, content io.Reader) error {
	chunk := make([]byte, min(chunkSize, int64(len(chain))*v.clusterBytes()))
	for done := int64(0); done < size; {
		run := 1
		for run < len(chain) && int64(run+1)*v.clusterBytes() <= int64(len(chunk)) && chain[run] == chain[0]+uint32(run) {
			run++
		}
		part := chunk[:int64(run)*v.clusterBytes()]
		wanted := min(int64(len(part)), size-done)
		if n, err := io.ReadFull(content, part[:wanted]); err != nil {
			return fmt.Errorf("content of %d bytes, after %d: %w", size, done+int64(n), unexpected(err))
		}
		clear(part[wanted:]) // no stranger's bytes in the last cluster
		if err := v.write(part, v.offset(chain[0])); err != nil {
			return err
		}
		chain, done = chain[run:], done+wanted
	}
	switch n, err := io.ReadFull(content, make([]byte, 1)); {
	case n > 0:
		return fmt.Errorf("content is longer than the %d bytes announced", size)
	case err != io.EOF:
		return fmt.Errorf("content of %d bytes, at its end: %w", size, err)
	}
	return nil
}

// unexpected says that an end came too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// link makes one chain of the clusters.
func (v *Volume) link(chain []uint32) error {
	for i, c := range chain {
		next := uint32(endOfChain)
		if i+1 < len(chain) {
			next = chain[i+1]
		}
		v.fat[c] = v.fat[c]&^entryMask | next
	}
	return v.writeFATOf(chain)
}

// release frees clusters.
func (v *Volume) release(chain []uint32) error {
	for _, c := range chain {
		v.fat[c] &^= entryMask
	}
	return v.writeFATOf(chain)
}

// writeFATOf writes what memory holds of these clusters to every copy on disk, a sector
// at a time.
func (v *Volume) writeFATOf(clusters []uint32) error {
	const perSector = sectorSize / 4
	sectors := make([]uint32, 0, len(clusters)/perSector+1)
	for _, c := range clusters {
		if s := c / perSector; len(sectors) == 0 || sectors[len(sectors)-1] != s {
			sectors = append(sectors, s)
		}
	}
	slices.Sort(sectors)
	for _, s := range slices.Compact(sectors) {
		if err := v.writeFATSector(s); err != nil {
			return err
		}
	}
	return nil
}

// place is where a new entry goes, and the names it will have.
type place struct {
	at    int // first slot
	short shortName
	long  []byte // slots of the long name, where one is needed
}

func (p place) last() int { return p.at + len(p.long)/entrySize }

// reserve finds slots for an entry of that name, in a longer directory if need be. It
// takes over the names of the entry that it is to replace, if there is one.
func (v *Volume) reserve(d *directory, name string, old *entry) (place, error) {
	var p place
	if old != nil {
		if p.short = old.short; old.name != old.short.String() {
			p.long = longSlots(old.name, old.short)
		}
	} else {
		if err := checkName(name); err != nil {
			return p, err
		}
		taken := map[shortName]bool{}
		for _, other := range d.entries() {
			taken[other.short] = true
		}
		short, long, err := newShortName(name, taken)
		if err != nil {
			return p, err
		}
		if p.short = short; long {
			p.long = longSlots(name, short)
		}
	}
	count := len(p.long)/entrySize + 1
	at, fits := d.freeRun(count)
	p.at = at
	if !fits {
		return p, v.extend(d, at+count)
	}
	return p, nil
}

// publish writes an entry marked deleted, syncs all that was written for it, and takes
// the mark away: one byte, which no disk tears. The slots of its long name mean nothing
// without it.
func (v *Volume) publish(d *directory, p place, e entry) error {
	slots := slices.Concat(p.long, newEntry(p.short, e.attr, e.first, e.size, e.when))
	end := p.last() + 1
	if err := v.moveEnd(d, end); err != nil {
		return err
	}
	copy(d.slots[p.at*entrySize:], slots)
	d.slot(p.last())[0] = deleted
	if err := v.syncSlots(d, p.at, end); err != nil {
		return err
	}
	d.slot(p.last())[0] = p.short[0]
	return v.syncSlots(d, p.last(), end)
}

// moveEnd sees to it that slots up to end can be written in any order, and that end
// itself is the end of the directory then, if its end is in front of that now: what
// some other driver left behind the end must not come back to life.
func (v *Volume) moveEnd(d *directory, end int) error {
	old := 0
	for !d.isEnd(old) {
		old++
	}
	stale := false
	for i := old + 1; i <= min(end, d.count()-1); i++ {
		stale = stale || !d.isEnd(i)
		clear(d.slot(i))
	}
	if !stale {
		return nil
	}
	return v.syncSlots(d, old+1, min(end+1, d.count()))
}

// extend gives the directory clusters until it has so many slots. A cut leaves it as it
// was, or longer, or with a link into nowhere behind its last entry, which every reader
// takes for its end and Repair makes one:
//
//  1. zeros in the new clusters and their chain, sync
//  2. the link from the last cluster, synced with the entry that it is for
func (v *Volume) extend(d *directory, slots int) error {
	if slots > maxDirSlots {
		return fmt.Errorf("%w: the directory has %d entries", ErrFull, d.count())
	}
	grown := make([]byte, int64(slots)*entrySize-int64(len(d.slots)))
	chain, err := v.allocate(v.clustersFor(int64(len(grown))))
	if err != nil {
		return err
	}
	grown = make([]byte, int64(len(chain))*v.clusterBytes())
	if err := v.writeContent(chain, int64(len(grown)), bytes.NewReader(grown)); err != nil {
		return err
	}
	if err := v.link(chain); err != nil {
		return err
	}
	if err := v.sync(); err != nil {
		return err
	}
	if err := v.setFAT(map[uint32]uint32{d.chain[len(d.chain)-1]: chain[0]}); err != nil {
		return err
	}
	d.chain, d.slots = append(d.chain, chain...), append(d.slots, grown...)
	return nil
}

// drop removes an entry and frees its clusters: the last two steps of WriteFile. On a
// damaged volume they become lost clusters instead, for they may belong to a file that
// stays as well. The first Repair that finds no damage any more frees them.
func (v *Volume) drop(d *directory, e entry) error {
	d.slot(e.last)[0] = deleted
	if err := v.syncSlots(d, e.last, e.last+1); err != nil {
		return err
	}
	for i := e.at; i < e.last; i++ { // the long name alone is nothing to any reader
		d.slot(i)[0] = deleted
	}
	if err := v.writeSlots(d, e.at, e.last); err != nil {
		return err
	}
	if e.first != 0 && !v.damaged() {
		chain, _ := v.chain(e.first, int64(v.clusters)) // of a broken chain, what there is
		if err := v.release(chain); err != nil {
			return err
		}
	}
	return v.finish()
}

// setFAT changes entries in memory and in every copy on disk.
func (v *Volume) setFAT(changes map[uint32]uint32) error {
	for c, next := range changes {
		v.fat[c] = v.fat[c]&^entryMask | next
	}
	return v.writeFATOf(slices.Collect(maps.Keys(changes)))
}

func (v *Volume) writeFATSector(s uint32) error {
	for i := range v.fats {
		if err := v.writeFATSectors(i, s, s+1); err != nil {
			return err
		}
	}
	return nil
}

// writeFATSectors writes sectors of one copy, to excluded, in one piece.
func (v *Volume) writeFATSectors(copy int64, from, to uint32) error {
	const perSector = sectorSize / 4
	part := v.fat[from*perSector : min(to*perSector, uint32(len(v.fat)))]
	b := make([]byte, 0, 4*len(part))
	for _, next := range part {
		b = binary.LittleEndian.AppendUint32(b, next)
	}
	return v.write(b, (v.reserved+copy*v.fatSectors+int64(from))*sectorSize)
}

// finish brings the free-space summary up to date and syncs.
func (v *Volume) finish() error {
	if _, err := v.writeSummary(); err != nil {
		return err
	}
	return v.sync()
}

// free counts the clusters that nothing uses.
func (v *Volume) free() uint32 {
	var free uint32
	for _, next := range v.fat[rootCluster:] {
		if next&entryMask == 0 {
			free++
		}
	}
	return free
}

// writeSummary writes the summary if it is wrong, and tells whether it was. The hint
// where to look for free clusters is never wrong.
func (v *Volume) writeSummary() (bool, error) {
	b, wrong, err := v.summary()
	if err != nil || !wrong {
		return wrong, err
	}
	binary.LittleEndian.PutUint32(b[488:], v.free())
	binary.LittleEndian.PutUint32(b[492:], v.search)
	return true, v.write(b, v.info*sectorSize)
}

// summary reads the free-space summary and tells whether it is wrong. A volume may
// have none.
func (v *Volume) summary() (b []byte, wrong bool, err error) {
	if v.info == 0 {
		return nil, false, nil
	}
	b = make([]byte, sectorSize)
	if n, err := v.d.ReadAt(b, v.base+v.info*sectorSize); n < len(b) {
		return nil, false, fmt.Errorf("read free-space summary: %w", err)
	}
	if string(b[:4]) != "RRaA" || string(b[484:488]) != "rrAa" {
		return nil, false, nil
	}
	return b, binary.LittleEndian.Uint32(b[488:]) != v.free(), nil
}

// write writes at an offset in the volume. After the first error nothing is written
// any more: what is in memory need not be what is on disk.
func (v *Volume) write(b []byte, offset int64) error {
	if v.failed != nil {
		return v.failed
	}
	if len(b) == 0 {
		return nil
	}
	if _, err := v.d.WriteAt(b, v.base+offset); err != nil {
		v.failed = fmt.Errorf("write %d bytes at %d: %w", len(b), offset, err)
	}
	return v.failed
}

func (v *Volume) sync() error {
	if v.failed != nil {
		return v.failed
	}
	if err := v.d.Sync(); err != nil {
		v.failed = fmt.Errorf("sync: %w", err)
	}
	return v.failed
}
