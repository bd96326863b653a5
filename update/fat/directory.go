package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// directory is one directory in memory. A change is made in slots and written by
// Volume.writeSlots.
type directory struct {
	first uint32
	chain []uint32
	slots []byte
}

// entry is a file or directory in its directory.
type entry struct {
	name  string // the long one, or else the short one; empty when nobody could open it
	short shortName
	attr  byte
	first uint32
	size  uint32
	when  stamp
	at    int // first slot: of the long name, where there is one
	last  int // slot of the short name
}

func (e entry) isDir() bool { return e.attr&attrDir != 0 }

func (v *Volume) readDirectory(first uint32) (*directory, error) {
	if first == 0 {
		first = v.root
	}
	most := v.clustersFor(maxDirSlots * entrySize)
	chain, err := v.chain(first, most+1)
	if len(chain) == 0 {
		return nil, err
	}
	if int64(len(chain)) > most {
		return nil, fmt.Errorf("is longer than %d entries, or a circle", maxDirSlots)
	}
	// A link into nowhere is the end: a cut while the directory got a cluster more. All
	// that matters is in front of it.
	d := &directory{first: first, chain: chain}
	d.slots = make([]byte, int64(len(chain))*v.clusterBytes())
	if n, err := (chainReader{v, chain}).ReadAt(d.slots, 0); n < len(d.slots) {
		return nil, err
	}
	return d, nil
}

func (d *directory) count() int             { return len(d.slots) / entrySize }
func (d *directory) slot(i int) []byte      { return d.slots[i*entrySize:][:entrySize] }
func (d *directory) isLong(i int) bool      { return d.slot(i)[11]&0x3f == attrLong }
func (d *directory) isDeleted(i int) bool   { return d.slot(i)[0] == deleted }
func (d *directory) isEnd(i int) bool       { return i >= d.count() || d.slot(i)[0] == dirEnd }
func (d *directory) entries() []entry       { entries, _ := d.scan(); return entries }
func (d *directory) volumeLabel(i int) bool { return d.slot(i)[11]&attrVolume != 0 }

// scan returns the entries, without . and .. and the label, and the slots of long
// names that belong to none.
func (d *directory) scan() (entries []entry, orphans []int) {
	var long longName
	for i := 0; !d.isEnd(i); i++ {
		switch {
		case d.isDeleted(i):
			orphans = append(orphans, long.drop()...)
		case d.isLong(i):
			orphans = append(orphans, long.add(i, d.slot(i))...)
		case d.volumeLabel(i):
			orphans = append(orphans, long.drop()...)
		default:
			e := parseEntry(d.slot(i))
			e.at, e.last = i, i
			if name, ok := long.ends(e.short); ok {
				e.name, e.at = name, i-len(long.slots)
				long = longName{}
			}
			orphans = append(orphans, long.drop()...)
			if checkName(e.name) != nil {
				e.name = ""
			}
			if e.short != dotName && e.short != dotDotName {
				entries = append(entries, e)
			}
		}
	}
	return entries, append(orphans, long.drop()...)
}

// find returns the first entry of that name. Between the two halves of a replacement
// there are two: either is whole.
func (d *directory) find(name string) (entry, bool) {
	if name == "" {
		return entry{}, false
	}
	want := folded(name)
	entries := d.entries()
	for _, e := range entries {
		if folded(e.name) == want {
			return e, true
		}
	}
	for _, e := range entries {
		if e.name != "" && e.short.String() == want {
			return e, true
		}
	}
	return entry{}, false
}

func parseEntry(s []byte) entry {
	e := entry{
		short: shortName(s[:11]),
		attr:  s[11],
		first: uint32(binary.LittleEndian.Uint16(s[20:]))<<16 | uint32(binary.LittleEndian.Uint16(s[26:])),
		size:  binary.LittleEndian.Uint32(s[28:]),
		when:  stamp{date: binary.LittleEndian.Uint16(s[24:]), time: binary.LittleEndian.Uint16(s[22:])},
	}
	if e.isDir() {
		e.size = 0
	}
	base, ext, dot := strings.Cut(e.short.String(), ".")
	if s[12]&0x08 != 0 { // how Windows NT keeps a name that is all lower case
		base = strings.ToLower(base)
	}
	if s[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if e.name = base; dot {
		e.name = base + "." + ext
	}
	return e
}

// longName gathers the slots of a long name on the way through a directory.
type longName struct {
	slots []int
	units []uint16
	left  int // slots to come in front of the short entry
	sum   byte
}

// add takes one more slot, and returns those that turn out to belong to no name.
func (l *longName) add(i int, s []byte) (orphans []int) {
	number := int(s[0] & 0x3f)
	switch {
	case s[0]&0x40 != 0:
		orphans = l.drop()
		l.left, l.sum = number, s[13]
	case l.left == 0 || number != l.left-1 || s[13] != l.sum:
		return append(l.drop(), i)
	default:
		l.left = number
	}
	if number == 0 || number > (maxName+longUnits-1)/longUnits {
		return append(append(orphans, l.drop()...), i)
	}
	units := make([]uint16, 0, longUnits+len(l.units))
	for _, at := range unitAt {
		units = append(units, binary.LittleEndian.Uint16(s[at:]))
	}
	l.units = append(units, l.units...)
	l.slots = append(l.slots, i)
	return orphans
}

// ends returns the name if all of it was there and short is the entry it belongs to.
func (l *longName) ends(short shortName) (string, bool) {
	if l.left != 1 || l.sum != short.sum() {
		return "", false
	}
	units := l.units
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units)), true
}

// drop forgets the slots and returns them.
func (l *longName) drop() []int {
	slots := l.slots
	*l = longName{}
	return slots
}

// freeRun returns the first of so many free slots in a row, or where a run at the end
// of the directory would begin, and whether the directory is long enough for it.
func (d *directory) freeRun(count int) (at int, fits bool) {
	run, end := 0, false
	for i := range d.count() {
		end = end || d.isEnd(i)
		if !end && !d.isDeleted(i) {
			run = 0
			continue
		}
		if run++; run == count {
			return i + 1 - count, true
		}
	}
	return d.count() - run, false
}

// writeSlots writes slots at to end, exclusive, one write for each cluster.
func (v *Volume) writeSlots(d *directory, at, end int) error {
	for from := int64(at) * entrySize; from < int64(end)*entrySize; {
		i := from / v.clusterBytes()
		to := min(int64(end)*entrySize, (i+1)*v.clusterBytes())
		offset := v.offset(d.chain[i]) + from%v.clusterBytes()
		if err := v.write(d.slots[from:to], offset); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (v *Volume) syncSlots(d *directory, at, end int) error {
	if err := v.writeSlots(d, at, end); err != nil {
		return err
	}
	return v.sync()
}
