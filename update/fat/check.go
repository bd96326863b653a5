package fat

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// maxDamage is how many findings a Report names; a broken volume may have millions.
const maxDamage = 20

// Report is what Check found. What a power cut leaves, and Repair repairs, is in the
// fields in front of Damage.
type Report struct {
	Lost       int      // clusters that are in use and belong to no file
	Long       int      // files and directories whose chain of clusters is longer than they are
	Orphans    int      // slots of long names that belong to no entry
	Duplicates []string // paths of files that are in their directory twice
	Copies     bool     // the two copies of the FAT differ, or one cannot be read
	BadCopy    string   // what is wrong with the one, where the other may be whole
	Summary    bool     // the free-space summary is wrong
	Dirty      bool     // a driver had the volume mounted and did not say goodbye
	Damage     []string // what nobody can repair without a loss, the first 20 in words
}

// Clean tells whether there is nothing to repair and no damage.
func (r Report) Clean() bool {
	return r.Lost == 0 && r.Long == 0 && r.Orphans == 0 && len(r.Duplicates) == 0 &&
		!r.Copies && !r.Summary && !r.Dirty && len(r.Damage) == 0
}

// String says it on one line.
func (r Report) String() string {
	var found []string
	say := func(is bool, format string, args ...any) {
		if is {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	say(r.Lost > 0, "%d lost clusters", r.Lost)
	say(r.Long > 0, "%d chains too long", r.Long)
	say(r.Orphans > 0, "%d orphaned slots of long names", r.Orphans)
	say(len(r.Duplicates) > 0, "twice: %s", strings.Join(r.Duplicates, ", "))
	say(r.Copies && r.BadCopy == "", "copies of the FAT differ")
	say(r.BadCopy != "", "%s", r.BadCopy)
	say(r.Summary, "free-space summary wrong")
	say(r.Dirty, "not unmounted")
	say(len(r.Damage) > 0, "damage: %s", strings.Join(r.Damage, "; "))
	if len(found) == 0 {
		return "clean"
	}
	return strings.Join(found, ", ")
}

// Check walks the whole tree and writes nothing. It needs one bit of memory for each
// cluster, beside the FAT, and ends on whatever a broken volume has for a tree. The
// error is one of reading.
func (v *Volume) Check() (Report, error) {
	c, err := v.check()
	if err != nil {
		return Report{}, fmt.Errorf("check FAT volume: %w", err)
	}
	return c.Report, nil
}

// Repair does what Check says can be done: lost clusters and the ends of long chains
// are freed, of two equal names the second goes, the second copy of the FAT is made
// equal to the first. It is the other way round where the first cannot be read, or shows
// damage while the second shows none: edits write both without a sync between them, but
// in an order that leaves no damage in either after a cut. Where both show damage and
// differ, Repair leaves both as they are.
//
// Where there is damage nothing is freed, by Repair or by a later edit of v: the lost
// clusters may be all that is left of a file, and those of one file may be another's too.
// Repair returns what it found. A cut leaves a volume on which another Repair finishes:
//
//  1. directory entries, and then the long names of those that went, a sync for each
//  2. where the copies of the FAT differ, the one that goes by the other, sync
//  3. the FAT, both copies, sync
//  4. the free-space summary and, where there is no damage, the dirty mark, sync
func (v *Volume) Repair() (Report, error) {
	c, err := v.check()
	if err == nil {
		v.fat, v.copy, v.found = c.fat, c.copy, c.Report
	}
	if err == nil && !c.Clean() {
		err = v.repair(c)
	}
	if err != nil {
		return Report{}, fmt.Errorf("repair FAT volume: %w", err)
	}
	return c.Report, nil
}

// Found is what the last Repair of v has found: nothing before one.
func (v *Volume) Found() Report { return v.found }

func (v *Volume) damaged() bool { return len(v.found.Damage) > 0 }

func (v *Volume) repair(c *checker) error {
	// The second of two names goes; then its long name, which belongs to nothing any
	// more, and only now are its clusters lost.
	for round := 0; round < 3 && len(c.slots) > 0; round++ {
		for _, fix := range c.slots {
			if err := v.write(fix.bytes, fix.offset); err != nil {
				return err
			}
		}
		if err := v.sync(); err != nil {
			return err
		}
		again, err := v.check()
		if err != nil {
			return err
		}
		c.slots, c.used, c.ends = again.slots, again.used, again.ends
	}
	if err := v.repairFAT(c); err != nil {
		return err
	}
	if err := v.clearDirty(!v.damaged()); err != nil {
		return err
	}
	return v.finish()
}

// repairFAT leaves it alone where there is damage and the copies differ: each may hold
// what is left of a file in the other.
func (v *Volume) repairFAT(c *checker) error {
	if v.damaged() && c.Copies {
		return nil
	}
	if c.Copies {
		if err := v.equalCopies(); err != nil {
			return err
		}
		if err := v.sync(); err != nil {
			return err
		}
	}
	changes := map[uint32]uint32{}
	for _, end := range c.ends {
		// On a damaged volume a link that leads on may be that of another file, whose
		// chain this one has run into. One that leads nowhere is of no use to anybody.
		if _, err := v.next(end); err != nil || !v.damaged() {
			changes[end] = endOfChain
		}
	}
	for n := range v.clusters {
		if cluster := n + rootCluster; c.lost(cluster) && !v.damaged() {
			changes[cluster] = 0
		}
	}
	if err := v.setFAT(changes); err != nil {
		return err
	}
	return v.sync()
}

// equalCopies writes those sectors of the other copy of the FAT that differ from what is
// in memory. One that cannot be read is written in one piece: a disk puts a new sector
// for a bad one when it is written, and Linux reads what a write has only a part of.
func (v *Volume) equalCopies() error {
	const perSector = sectorSize / 4
	copy := 1 - v.copy
	other, err := v.readFAT(copy)
	if err != nil {
		return v.writeFATSectors(copy, 0, (uint32(len(v.fat))+perSector-1)/perSector)
	}
	for c := uint32(0); c < uint32(len(other)); c++ {
		if other[c] != v.fat[c] {
			if err := v.writeFATSectors(copy, c/perSector, c/perSector+1); err != nil {
				return err
			}
			c |= perSector - 1 // on to the next sector
		}
	}
	return nil
}

// The marks of a volume that was not unmounted: a bit of the boot sector for Linux, one
// of the FAT for Windows, which is 1 when all is well.
const (
	dirtyByte = 65
	dirtyBit  = 1
	cleanBit  = 1 << 27
)

func (v *Volume) dirtyMark() ([]byte, error) {
	b := make([]byte, 1)
	if _, err := v.d.ReadAt(b, v.base+dirtyByte); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	return b, nil
}

func (v *Volume) clearDirty(sound bool) error {
	b, err := v.dirtyMark()
	if err != nil || !sound {
		return err
	}
	if b[0]&dirtyBit != 0 {
		b[0] &^= dirtyBit
		if err := v.write(b, dirtyByte); err != nil {
			return err
		}
	}
	if v.fat[1]&cleanBit == 0 {
		v.fat[1] |= cleanBit
		return v.writeFATSector(0)
	}
	return nil
}

// checker is one walk over the tree.
type checker struct {
	*Volume
	Report
	used  []uint64 // a bit for each cluster that a file or directory holds
	ends  []uint32 // clusters that have to become the end of their chain
	slots []slotFix
}

// slotFix is a change of a directory, at an offset in the volume.
type slotFix struct {
	offset int64
	bytes  []byte
}

// todo is a directory still to be walked.
type todo struct {
	path  string
	chain []uint32
}

// check walks the tree by the FAT in memory, and by the other copy on disk where that one
// shows damage: the checker that it returns has the FAT to go by, and v the old one.
func (v *Volume) check() (*checker, error) {
	c, err := v.checkTree()
	if err != nil || v.fats < 2 {
		return c, err
	}
	names := [2]string{"first copy of the FAT", "second copy of the FAT"}
	other := *v
	other.copy = 1 - v.copy
	if other.fat, err = v.readFAT(other.copy); err != nil {
		c.Copies, c.BadCopy = true, fmt.Sprintf("%s: %v", names[other.copy], err)
		return c, nil
	}
	if slices.Equal(v.fat, other.fat) {
		return c, nil
	}
	c.Copies = true
	if len(c.Damage) == 0 {
		return c, nil
	}
	if second, err := other.checkTree(); err == nil && len(second.Damage) == 0 {
		second.Copies, second.BadCopy = true, fmt.Sprintf("%s: %s", names[v.copy], strings.Join(c.Damage, "; "))
		return second, nil
	}
	return c, nil
}

// checkTree looks at all but the other copy of the FAT.
func (v *Volume) checkTree() (*checker, error) {
	c := &checker{Volume: v, used: make([]uint64, (v.clusters+rootCluster+63)/64)}
	dirs := c.directory(nil, "/", v.root)
	for len(dirs) > 0 { // each has clusters of its own, so there is an end to them
		last := dirs[len(dirs)-1]
		below, err := c.walk(last)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs[:len(dirs)-1], below...)
	}
	for n := range v.clusters {
		if c.lost(n + rootCluster) {
			c.Lost++
		}
	}
	_, wrong, err := v.summary()
	if err != nil {
		return nil, err
	}
	c.Summary = wrong
	mark, err := v.dirtyMark()
	c.Dirty = err == nil && (mark[0]&dirtyBit != 0 || v.fat[1]&cleanBit == 0)
	return c, err
}

func (c *checker) isUsed(cluster uint32) bool { return c.used[cluster/64]&(1<<(cluster%64)) != 0 }

// lost tells whether a cluster is in use for nothing. 0x0ffffff7 marks a bad one.
func (c *checker) lost(cluster uint32) bool {
	next := c.fat[cluster] & entryMask
	return next != 0 && next != maxClusters+2 && !c.isUsed(cluster)
}

func (c *checker) damage(format string, args ...any) {
	if len(c.Damage) < maxDamage {
		c.Damage = append(c.Damage, fmt.Sprintf(format, args...))
	}
}

// claim marks the clusters of a chain, at most so many, and returns them. It ends in
// front of one that somebody else, or the chain itself, has already.
func (c *checker) claim(name string, first uint32, most int64) []uint32 {
	if !c.valid(first) {
		c.damage("%q begins at cluster %d of %d", name, first, c.clusters)
		return nil
	}
	var chain []uint32
	for at := first; at != 0 && int64(len(chain)) < most; {
		if c.isUsed(at) {
			c.damage("%q shares cluster %d", name, at)
			return chain
		}
		c.used[at/64] |= 1 << (at % 64)
		chain = append(chain, at)
		next, err := c.next(at)
		if err != nil {
			break // the caller knows what that means
		}
		at = next
	}
	return chain
}

// directory claims a directory and adds it to those to be walked.
func (c *checker) directory(dirs []todo, name string, first uint32) []todo {
	most := c.clustersFor(maxDirSlots * entrySize)
	chain := c.claim(name, first, most)
	if len(chain) == 0 {
		return dirs
	}
	last := chain[len(chain)-1]
	next, err := c.next(last)
	if err != nil && c.fat[last]>>24&0x0f == 0x0f { // cut while its end became a link: see extend
		c.Long++
		c.ends = append(c.ends, last)
	} else if err != nil {
		c.damage("%q: %v", name, err)
	} else if next != 0 && int64(len(chain)) == most {
		c.damage("%q has more than %d entries", name, maxDirSlots)
	}
	return append(dirs, todo{name, chain})
}

// walk looks at each entry of a directory and returns the directories in it.
func (c *checker) walk(t todo) ([]todo, error) {
	d := &directory{chain: t.chain, slots: make([]byte, int64(len(t.chain))*c.clusterBytes())}
	if n, err := (chainReader{c.Volume, t.chain}).ReadAt(d.slots, 0); n < len(d.slots) {
		return nil, fmt.Errorf("%q: %w", t.path, err)
	}
	entries, orphans := d.scan()
	c.Orphans += len(orphans)
	for _, i := range orphans {
		c.hide(d, i)
	}
	type names struct {
		long  string
		short shortName
	}
	seen := map[names]bool{}
	var dirs []todo
	for _, e := range entries {
		name := path.Join(t.path, e.name)
		both := names{e.name, e.short}
		if seen[both] && !e.isDir() && e.name != "" {
			c.Duplicates = append(c.Duplicates, name)
			c.hide(d, e.last)
			continue
		}
		seen[both] = true
		if e.isDir() {
			dirs = c.directory(dirs, name, e.first)
		} else {
			c.file(d, e, name)
		}
	}
	return dirs, nil
}

func (c *checker) file(d *directory, e entry, name string) {
	if e.size == 0 {
		if e.first != 0 { // cut before the size was written
			c.Long++
			fixed := newEntry(e.short, e.attr, 0, 0, e.when)
			copy(fixed, d.slot(e.last)[:20])
			c.fix(d, e.last, fixed)
		}
		return
	}
	need := c.clustersFor(int64(e.size))
	chain := c.claim(name, e.first, need)
	if int64(len(chain)) < need {
		c.damage("%q has %d of %d clusters", name, len(chain), need)
		return
	}
	last := chain[need-1]
	if next, err := c.next(last); err != nil || next != 0 {
		c.Long++
		c.ends = append(c.ends, last)
	}
}

// hide marks a slot deleted.
func (c *checker) hide(d *directory, i int) { c.fix(d, i, []byte{deleted}) }

// fix remembers to write bytes to the front of a slot.
func (c *checker) fix(d *directory, i int, bytes []byte) {
	at := int64(i) * entrySize
	offset := c.offset(d.chain[at/c.clusterBytes()]) + at%c.clusterBytes()
	c.slots = append(c.slots, slotFix{offset, bytes})
}
