package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// device is the file or device that holds a volume. [os.File] fits, and so does
// crashdisk.Disk.
type device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// maxOpen bounds the memory that a volume can ask for: its FAT then has 32 MiB, enough
// for 32 GiB in clusters of 4 KiB, and for 128 GiB in those that mkfs.fat would take.
const maxOpen = 1 << 23

// MaxReadFile is the size in bytes up to which ReadFile reads a file. Reader has no limit.
const MaxReadFile = 64 << 20

// ErrNotExist and ErrExist tell of a name that is not there, or is and is in the way.
var (
	ErrNotExist = errors.New("no such file or directory")
	ErrExist    = errors.New("a file or directory of that name exists")
)

// Volume is an open FAT32 volume. It holds the FAT in memory, so nobody else may
// write to the volume meanwhile, and it is not safe for concurrent use.
type Volume struct {
	geometry
	d      device
	base   int64    // of the volume on d, in bytes
	fat    []uint32 // with the two entries in front of cluster 2
	copy   int64    // that fat was read from: 0, or 1 where that one is bad
	search uint32   // where to look for a free cluster
	failed error    // of a write: what is in memory may not be what is on disk

	// found is what Repair has found. Damage keeps what is removed from being freed: its
	// clusters may be those of another file.
	found Report
}

// Open reads the layout and the FAT of the volume in the size bytes of d from offset
// on: the second copy of the FAT, where the first cannot be read. It writes nothing, and
// finds no fault but those in the boot sector: see Check.
func Open(d device, offset, size int64) (*Volume, error) {
	v, err := open(d, offset, size)
	if err != nil {
		return nil, fmt.Errorf("open FAT volume: %w", err)
	}
	return v, nil
}

func open(d device, offset, size int64) (*Volume, error) {
	boot := make([]byte, sectorSize)
	if size < sectorSize || offset < 0 {
		return nil, fmt.Errorf("%d bytes at %d hold none", size, offset)
	}
	if n, err := d.ReadAt(boot, offset); n < len(boot) {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	g, err := parseBoot(boot, size)
	if err != nil {
		return nil, err
	}
	if g.clusters > maxOpen {
		return nil, fmt.Errorf("%d clusters: at most %d are read", g.clusters, maxOpen)
	}
	v := &Volume{geometry: g, d: d, base: offset, search: rootCluster}
	if v.fat, err = v.readFAT(0); err != nil && v.fats == 2 {
		if second, e := v.readFAT(1); e == nil {
			v.fat, v.copy, err = second, 1, nil
		}
	}
	return v, err
}

// readFAT reads copy 0 or 1.
func (v *Volume) readFAT(copy int64) ([]uint32, error) {
	fat := make([]uint32, 0, v.clusters+rootCluster)
	b := make([]byte, 64<<10)
	at := v.base + (v.reserved+copy*v.fatSectors)*sectorSize
	for len(fat) < cap(fat) {
		b = b[:min(len(b), 4*(cap(fat)-len(fat)))]
		if n, err := v.d.ReadAt(b, at); n < len(b) {
			return nil, fmt.Errorf("read FAT: %w", err)
		}
		for i := 0; i < len(b); i += 4 {
			fat = append(fat, binary.LittleEndian.Uint32(b[i:]))
		}
		at += int64(len(b))
	}
	return fat, nil
}

// next returns the cluster behind c, or 0 at the end of the chain. A link that leaves
// the volume is an error.
func (v *Volume) next(c uint32) (uint32, error) {
	n := v.fat[c] & entryMask
	if n > maxClusters+2 { // from 0x0ffffff8
		return 0, nil
	}
	if !v.valid(n) {
		return 0, fmt.Errorf("cluster %d is followed by %#x", c, n)
	}
	return n, nil
}

// chain returns at most the given number of clusters from first on, so that a chain in
// a circle ends too. An error comes with the clusters in front of it.
func (v *Volume) chain(first uint32, most int64) ([]uint32, error) {
	if !v.valid(first) {
		return nil, fmt.Errorf("begins at cluster %d of %d", first, v.clusters)
	}
	var chain []uint32
	for c := first; c != 0 && int64(len(chain)) < most; {
		chain = append(chain, c)
		next, err := v.next(c)
		if err != nil {
			return chain, err
		}
		c = next
	}
	return chain, nil
}

// content returns the clusters that hold so many bytes from first on.
func (v *Volume) content(first, size uint32) ([]uint32, error) {
	if size == 0 {
		return nil, nil
	}
	need := v.clustersFor(int64(size))
	if need > int64(v.clusters) { // a chain in a circle would have so many
		return nil, fmt.Errorf("%d bytes need %d clusters, the volume has %d", size, need, v.clusters)
	}
	chain, err := v.chain(first, need)
	if int64(len(chain)) == need {
		return chain, nil // what the last one is followed by does not matter
	}
	if err == nil {
		err = fmt.Errorf("ends after %d of %d clusters", len(chain), need)
	}
	return nil, err
}

func (g geometry) clustersFor(size int64) int64 {
	return (size + g.clusterBytes() - 1) / g.clusterBytes()
}

// chainReader reads the clusters of a chain as one piece.
type chainReader struct {
	v     *Volume
	chain []uint32
}

func (r chainReader) ReadAt(p []byte, offset int64) (int, error) {
	done := 0
	for done < len(p) {
		i, within := (offset+int64(done))/r.v.clusterBytes(), (offset+int64(done))%r.v.clusterBytes()
		if offset < 0 || i >= int64(len(r.chain)) {
			return done, io.EOF
		}
		run := int64(1) // of clusters that follow each other on the disk
		for i+run < int64(len(r.chain)) && r.chain[i+run] == r.chain[i]+uint32(run) {
			run++
		}
		part := p[done:][:min(int64(len(p)-done), run*r.v.clusterBytes()-within)]
		n, err := r.v.d.ReadAt(part, r.v.base+r.v.offset(r.chain[i])+within)
		done += n
		if n < len(part) {
			return done, fmt.Errorf("read cluster %d: %w", r.chain[i], err)
		}
	}
	return done, nil
}

// Entry is one file or directory, as ReadDir lists it.
type Entry struct {
	Name     string
	Dir      bool
	Size     int64
	Modified time.Time // in UTC
}

// ReadDir lists a directory in its order on disk; "" or "/" is the root. Names that
// nobody could open (they hold a slash, say, or come after another of that name) are
// left out.
func (v *Volume) ReadDir(name string) ([]Entry, error) {
	d, err := v.lookupDir(name)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", name, err)
	}
	var list []Entry
	seen := map[string]bool{"": true}
	for _, e := range d.entries() {
		if name := folded(e.name); !seen[name] {
			seen[name] = true
			list = append(list, Entry{Name: e.name, Dir: e.isDir(), Size: int64(e.size), Modified: e.when.Time()})
		}
	}
	return list, nil
}

// Reader returns the content of a file, to be read while the volume does not change.
func (v *Volume) Reader(name string) (*io.SectionReader, error) {
	r, err := v.reader(name)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return r, nil
}

func (v *Volume) reader(name string) (*io.SectionReader, error) {
	_, e, err := v.lookup(name)
	if err != nil {
		return nil, err
	}
	if e.isDir() {
		return nil, errors.New("is a directory")
	}
	chain, err := v.content(e.first, e.size)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(chainReader{v, chain}, 0, int64(e.size)), nil
}

// ReadFile returns the content of a file of at most MaxReadFile bytes.
func (v *Volume) ReadFile(name string) ([]byte, error) {
	r, err := v.Reader(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > MaxReadFile {
		return nil, fmt.Errorf("read %q: %d bytes are more than %d", name, r.Size(), MaxReadFile)
	}
	content := make([]byte, r.Size())
	if _, err := io.ReadFull(r, content); err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return content, nil
}

// lookup finds a file or directory, and the directory it is in.
func (v *Volume) lookup(name string) (*directory, entry, error) {
	parent, last := split(name)
	d, err := v.lookupDir(parent)
	if err != nil {
		return nil, entry{}, err
	}
	e, found := d.find(last)
	if !found {
		return d, entry{}, ErrNotExist
	}
	return d, e, nil
}

// split parts a path into the directory and the name in it.
func split(name string) (parent, last string) {
	name = strings.Trim(name, "/")
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

func (v *Volume) lookupDir(name string) (*directory, error) {
	d, err := v.readDirectory(v.root)
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	if name = strings.Trim(name, "/"); name == "" {
		return d, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		e, found := d.find(part)
		if !found {
			return nil, fmt.Errorf("%q: %w", part, ErrNotExist)
		}
		if !e.isDir() {
			return nil, fmt.Errorf("%q is not a directory", part)
		}
		if d, err = v.readDirectory(e.first); err != nil {
			return nil, fmt.Errorf("directory %q: %w", part, err)
		}
	}
	return d, nil
}
