package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Spec is what a new volume is like apart from its files.
type Spec struct {
	Size   int64     // in bytes; from 33 MiB (fewer clusters would be FAT16) to 2 TiB
	Label  string    // at most 11 of A-Z, 0-9, -, _ and space; empty: none
	Serial uint32    // the volume id; blkid shows it as XXXX-XXXX
	When   time.Time // of every file and directory, in UTC
	// Tiny allows fewer clusters than FAT32 has to have, for tests that copy a volume
	// many times. This package reads it; others take it for FAT16.
	Tiny bool
}

// File is one file of a new volume.
type File struct {
	Path string    // slash-separated, from the root; its directories are made. A path that ends in / is a directory
	Size int64     // bytes that Data gives
	Data io.Reader // read once, by Format; nil for a directory or an empty file
}

// Format writes a new FAT32 volume with the given files to w. What it does not
// write has to be zero already, and only what is not zero is written: a sparse file
// stays sparse. The same spec and files, in whatever order, make the same bytes.
func Format(w io.WriterAt, spec Spec, files []File) error {
	g, err := newGeometry(spec.Size, clusterSectors(spec.Size))
	if err == nil && g.clusters < minClusters && !spec.Tiny {
		err = fmt.Errorf("%d bytes are too few for FAT32", spec.Size)
	}
	if err != nil {
		return fmt.Errorf("format FAT volume: %w", err)
	}
	return format(w, g, spec, files)
}

// format is Format with the layout chosen; tests want smaller volumes.
func format(w io.WriterAt, g geometry, spec Spec, files []File) error {
	if err := checkLabel(spec.Label); err != nil {
		return fmt.Errorf("format FAT volume: %w", err)
	}
	root, err := tree(files)
	if err != nil {
		return fmt.Errorf("format FAT volume: %w", err)
	}
	b := &builder{w: w, geometry: g, when: newStamp(spec.When), next: g.root, chunk: make([]byte, 1<<20)}
	if err := b.directory(root, nil, spec.Label); err != nil {
		return fmt.Errorf("format FAT volume: %w", err)
	}
	if err := b.finish(spec); err != nil {
		return fmt.Errorf("format FAT volume: %w", err)
	}
	return nil
}

// node is a file or directory of the tree to be written.
type node struct {
	name     string
	file     File
	dir      bool
	children []*node // by name, as FAT compares names
	short    shortName
	long     bool
	first    uint32 // cluster; 0 for an empty file
}

// tree arranges files by directory, and gives each its short name.
func tree(files []File) (*node, error) {
	root := &node{dir: true}
	for _, f := range files {
		dir := strings.HasSuffix(f.Path, "/")
		switch {
		case f.Size < 0 || f.Size > maxFileSize:
			return nil, fmt.Errorf("%s: %d bytes: FAT holds at most 4 GiB - 1", f.Path, f.Size)
		case dir && (f.Size != 0 || f.Data != nil):
			return nil, fmt.Errorf("%s: a directory with content", f.Path)
		}
		parts := strings.Split(strings.Trim(f.Path, "/"), "/")
		at := root
		for i, name := range parts {
			if err := checkName(name); err != nil {
				return nil, fmt.Errorf("%s: %w", f.Path, err)
			}
			last := i == len(parts)-1
			child := at.child(name)
			switch {
			case child == nil:
				child = &node{name: name, dir: !last || dir, file: f}
				at.children = append(at.children, child)
			case !child.dir || last && !dir:
				return nil, fmt.Errorf("%s: a file or directory %q exists already", f.Path, child.name)
			case child.name != name:
				return nil, fmt.Errorf("%s: %q is spelled %q elsewhere", f.Path, name, child.name)
			}
			at = child
		}
	}
	return root, root.arrange()
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if folded(c.name) == folded(name) {
			return c
		}
	}
	return nil
}

func (n *node) arrange() error {
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(folded(a.name), folded(b.name)) })
	taken := map[shortName]bool{}
	for _, c := range n.children {
		var err error
		if c.short, c.long, err = newShortName(c.name, taken); err != nil {
			return err
		}
		taken[c.short] = true
		if err := c.arrange(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// slots is how many entries the directory has, with . and .. or the label.
func (n *node) slots(extra int) int {
	for _, c := range n.children {
		extra++
		if c.long {
			extra += len(longSlots(c.name, c.short)) / entrySize
		}
	}
	return extra
}

// builder lays the tree out from the first cluster on, each file in one piece.
type builder struct {
	geometry
	w    io.WriterAt
	when stamp
	next uint32   // first cluster that is free
	fat  []uint32 // of the clusters so far, from number 2

	chunk []byte // for copying
}

// allocate takes the clusters for so many bytes and returns the first, or 0 for none.
func (b *builder) allocate(bytes int64) (uint32, error) {
	count := (bytes + b.clusterBytes() - 1) / b.clusterBytes()
	if count == 0 {
		return 0, nil
	}
	if count > int64(b.clusters)-int64(b.next-rootCluster) {
		return 0, fmt.Errorf("%w: %d bytes more than fit", ErrFull, bytes)
	}
	first := b.next
	b.next += uint32(count)
	for c := first + 1; c < b.next; c++ {
		b.fat = append(b.fat, c)
	}
	b.fat = append(b.fat, endOfChain)
	return first, nil
}

// directory writes n and all below it. A parent comes before its children, whose
// .. names it.
func (b *builder) directory(n, parent *node, label string) error {
	extra := 2
	if parent == nil {
		extra = 0
		if label != "" {
			extra = 1
		}
	}
	slots := n.slots(extra)
	if slots > maxDirSlots {
		return fmt.Errorf("%s: more than %d entries", n.name, maxDirSlots)
	}
	var err error
	if n.first, err = b.allocate(max(int64(slots)*entrySize, 1)); err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	var content []byte
	switch {
	case parent != nil:
		up := parent.first
		if up == b.root {
			up = 0 // the root is 0 there, wherever it lies
		}
		content = append(content, newEntry(dotName, attrDir, n.first, 0, b.when)...)
		content = append(content, newEntry(dotDotName, attrDir, up, 0, b.when)...)
	case label != "":
		content = append(content, newEntry(shortName(padded(label)), attrVolume, 0, 0, b.when)...)
	}
	for _, c := range n.children {
		if err := b.child(c, n); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if c.long {
			content = append(content, longSlots(c.name, c.short)...)
		}
		attr, size := byte(attrArchive), c.file.Size
		if c.dir {
			attr, size = attrDir, 0
		}
		content = append(content, newEntry(c.short, attr, c.first, uint32(size), b.when)...)
	}
	return writeSparse(b.w, content, b.offset(n.first))
}

func (b *builder) child(c, parent *node) error {
	if c.dir {
		return b.directory(c, parent, "")
	}
	var err error
	if c.first, err = b.allocate(c.file.Size); err != nil || c.file.Size == 0 {
		return err
	}
	if c.file.Data == nil {
		return fmt.Errorf("%d bytes without data", c.file.Size)
	}
	for done := int64(0); done < c.file.Size; {
		part := b.chunk[:min(int64(len(b.chunk)), c.file.Size-done)]
		if _, err := io.ReadFull(c.file.Data, part); err != nil {
			return fmt.Errorf("read byte %d of %d: %w", done, c.file.Size, err)
		}
		if err := writeSparse(b.w, part, b.offset(c.first)+done); err != nil {
			return err
		}
		done += int64(len(part))
	}
	switch _, err := io.ReadFull(c.file.Data, b.chunk[:1]); err {
	case nil:
		return fmt.Errorf("data is longer than the %d bytes announced", c.file.Size)
	case io.EOF:
		return nil
	default:
		return fmt.Errorf("read the end of the data: %w", err)
	}
}

// finish writes what comes before the clusters.
func (b *builder) finish(spec Spec) error {
	boot := b.bootSector(spec.Label, spec.Serial)
	info := freeSummary(b.clusters-uint32(len(b.fat)), b.next)
	for _, at := range []int64{0, bootBackup} {
		if err := writeSparse(b.w, boot, at*sectorSize); err != nil {
			return err
		}
		if err := writeSparse(b.w, info, (at+infoSector)*sectorSize); err != nil {
			return err
		}
	}
	fat := []byte{0xf8, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f} // media; clean, no errors
	for _, next := range b.fat {
		fat = binary.LittleEndian.AppendUint32(fat, next)
	}
	for i := range b.fats {
		if err := writeSparse(b.w, fat, (b.reserved+i*b.fatSectors)*sectorSize); err != nil {
			return err
		}
	}
	return nil
}

// The first two entries of every directory but the root.
var (
	dotName    = shortName{'.', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '}
	dotDotName = shortName{'.', '.', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '}
)

// newEntry encodes the short entry of a file or directory.
func newEntry(name shortName, attr byte, first, size uint32, when stamp) []byte {
	e := make([]byte, entrySize)
	copy(e, name[:])
	e[11] = attr
	if attr != attrVolume {
		binary.LittleEndian.PutUint16(e[14:], when.time) // made
		binary.LittleEndian.PutUint16(e[16:], when.date)
		binary.LittleEndian.PutUint16(e[18:], when.date) // read
	}
	binary.LittleEndian.PutUint16(e[20:], uint16(first>>16))
	binary.LittleEndian.PutUint16(e[22:], when.time) // written
	binary.LittleEndian.PutUint16(e[24:], when.date)
	binary.LittleEndian.PutUint16(e[26:], uint16(first))
	binary.LittleEndian.PutUint32(e[28:], size)
	return e
}
