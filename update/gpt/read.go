package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// maxArray bounds the memory that a table of foreign make can ask for: 128 times
// the 128 entries of the usual one.
const maxArray = 128 * maxEntries * entrySize

// ErrNone says that there is no table, neither whole nor damaged.
var ErrNone = errors.New("no signature")

// Read returns the table of a disk of size bytes. The primary copy counts; when it
// is damaged the backup does, and Damage in the answer says so. The error, when
// there is no sound copy, tells what is wrong with both; it is ErrNone where nothing is there.
func Read(r io.ReaderAt, size int64) (Table, error) {
	c := readCopies(r, size)
	switch {
	case c.primaryErr == nil:
		t := c.primary
		if c.backupErr != nil {
			t.Damage = fmt.Errorf("backup partition table: %w", c.backupErr)
		}
		return t, nil
	case c.backupErr == nil:
		t := c.backup
		t.Damage = fmt.Errorf("primary partition table: %w", c.primaryErr)
		return t, nil
	}
	if errors.Is(c.primaryErr, ErrNone) && errors.Is(c.backupErr, ErrNone) {
		return Table{}, fmt.Errorf("partition table: primary: %w; backup: %w", c.primaryErr, c.backupErr)
	}
	// One of them may be ErrNone, which the whole is not.
	return Table{}, fmt.Errorf("partition table: primary: %v; backup: %v", c.primaryErr, c.backupErr)
}

// copies is what a disk holds in both places. An error speaks of one copy, and a
// backup that is sound but not the primary's equal has one too.
type copies struct {
	primary, backup       Table
	primaryErr, backupErr error
}

func readCopies(r io.ReaderAt, size int64) copies {
	var c copies
	if size < 2*FirstUsable*SectorSize {
		c.primaryErr = fmt.Errorf("a disk of %d bytes is too small", size)
		c.backupErr = c.primaryErr
		return c
	}
	sectors := uint64(size) / SectorSize
	h, err := readHeader(r, 1, sectors)
	// Where the primary header can be believed it says where the backup is, which
	// on a disk that has grown is not the end.
	backupAt := sectors - 1
	if err == nil {
		backupAt = h.other
		c.primary, err = h.table(r)
		c.primary.Sectors = h.other + 1
	}
	c.primaryErr = err

	h, err = readHeader(r, backupAt, sectors)
	if err == nil && h.other != 1 {
		err = fmt.Errorf("its twin is said to be at sector %d, not 1", h.other)
	}
	if err == nil {
		c.backup, err = h.table(r)
		c.backup.Sectors = backupAt + 1
	}
	if err == nil && c.primaryErr == nil && !equal(c.primary, c.backup) {
		err = errors.New("differs from the primary")
	}
	c.backupErr = err
	return c
}

func equal(a, b Table) bool {
	return a.DiskGUID == b.DiskGUID && a.Sectors == b.Sectors && slices.Equal(a.Partitions, b.Partitions)
}

// header is one copy's header, its checksum right and every number within bounds.
type header struct {
	other                 uint64 // LBA of the twin
	firstUsable, lastUsed uint64
	disk                  GUID
	array                 uint64 // LBA of the entries
	count, size           int    // entries, and bytes of each
	sum                   uint32 // CRC-32 of the entries
}

func readHeader(r io.ReaderAt, at, sectors uint64) (header, error) {
	if at >= sectors {
		return header{}, fmt.Errorf("is at sector %d, the disk has %d: the table is of a larger one", at, sectors)
	}
	b := make([]byte, SectorSize)
	if _, err := r.ReadAt(b, int64(at)*SectorSize); err != nil && err != io.EOF {
		return header{}, fmt.Errorf("read sector %d: %w", at, err)
	}
	return parseHeader(b, at, sectors)
}

func parseHeader(b []byte, at, sectors uint64) (header, error) {
	if string(b[:8]) != signature {
		return header{}, fmt.Errorf("%w in sector %d", ErrNone, at)
	}
	length := binary.LittleEndian.Uint32(b[12:])
	if length < headerSize || length > SectorSize {
		return header{}, fmt.Errorf("header length %d", length)
	}
	summed := slices.Clone(b[:length])
	copy(summed[16:20], []byte{0, 0, 0, 0})
	if crc32.ChecksumIEEE(summed) != binary.LittleEndian.Uint32(b[16:]) {
		return header{}, fmt.Errorf("wrong checksum of the header in sector %d", at)
	}
	if got := binary.LittleEndian.Uint32(b[8:]); got != revision {
		return header{}, fmt.Errorf("revision %#x: only 1.0 is supported", got)
	}
	if my := binary.LittleEndian.Uint64(b[24:]); my != at {
		return header{}, fmt.Errorf("header in sector %d says that it is in %d", at, my)
	}
	h := header{
		other:       binary.LittleEndian.Uint64(b[32:]),
		firstUsable: binary.LittleEndian.Uint64(b[40:]),
		lastUsed:    binary.LittleEndian.Uint64(b[48:]),
		disk:        GUID(b[56:72]).swapped(),
		array:       binary.LittleEndian.Uint64(b[72:]),
		sum:         binary.LittleEndian.Uint32(b[88:]),
	}
	count, size := binary.LittleEndian.Uint32(b[80:]), binary.LittleEndian.Uint32(b[84:])
	if size < entrySize || size&(size-1) != 0 || count == 0 || uint64(count)*uint64(size) > maxArray {
		return header{}, fmt.Errorf("%d entries of %d bytes", count, size)
	}
	h.count, h.size = int(count), int(size)
	arrayLength := (uint64(count)*uint64(size) + SectorSize - 1) / SectorSize
	if h.array < 2 || h.array > sectors || arrayLength > sectors-h.array {
		return header{}, fmt.Errorf("entries in %d sectors from %d, the disk has %d", arrayLength, h.array, sectors)
	}
	if h.other == 0 || h.other >= maxSectors || h.other == at {
		return header{}, fmt.Errorf("its twin is said to be at sector %d", h.other)
	}
	h.lastUsed = min(h.lastUsed, sectors-1)
	return h, nil
}

// table reads the entries that h names. The caller sets Sectors.
func (h header) table(r io.ReaderAt) (Table, error) {
	array := make([]byte, h.count*h.size)
	if n, err := r.ReadAt(array, int64(h.array)*SectorSize); n < len(array) {
		return Table{}, fmt.Errorf("read entries at sector %d: %w", h.array, err)
	}
	if crc32.ChecksumIEEE(array) != h.sum {
		return Table{}, fmt.Errorf("wrong checksum of the entries at sector %d", h.array)
	}
	t := Table{DiskGUID: h.disk}
	for i := range h.count {
		if p := parseEntry(array[i*h.size:]); p.Type != (GUID{}) {
			p.Number = i + 1
			t.Partitions = append(t.Partitions, p)
		}
	}
	return t, checkPlaces(t.Partitions, h.firstUsable, h.lastUsed)
}

func parseEntry(e []byte) Partition {
	var units []uint16
	for i := range maxName {
		unit := binary.LittleEndian.Uint16(e[56+2*i:])
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return Partition{
		Name:       string(utf16.Decode(units)),
		Type:       GUID(e[0:16]).swapped(),
		GUID:       GUID(e[16:32]).swapped(),
		First:      binary.LittleEndian.Uint64(e[32:]),
		Last:       binary.LittleEndian.Uint64(e[40:]),
		Attributes: binary.LittleEndian.Uint64(e[48:]),
	}
}
