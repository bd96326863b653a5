// Package gpt reads, writes, grows and renames the partition table of a disk.
//
// In comes a Table, or a disk with one; out go the protective MBR and both copies
// of a GUID Partition Table, written so that a power cut leaves the old table or
// the new one. It leaves alone what lies in the partitions, the first 446 bytes of
// the disk (boot code), and the kernel, which has to be told of a change by its
// own call. It knows 512-byte sectors only.
//
// The code is our own, and not that of go-diskfs, because PID 1 links it: go-diskfs
// brings database/sql/driver and a UUID library along, wants a file that it can stat
// and seek, writes the only sound copy of a damaged table before the other one is
// repaired, and does not look for overlaps or for partitions outside the disk.
//
// Source: UEFI specification 2.10, chapter 5.
package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// SectorSize is the size of an LBA in bytes.
const SectorSize = 512

// FirstUsable is the first LBA that a partition may have.
const FirstUsable = 34

const (
	entrySize    = 128
	maxEntries   = 128
	arraySectors = maxEntries * entrySize / SectorSize
	headerSize   = 92
	revision     = 0x00010000
	signature    = "EFI PART"
	maxSectors   = 1 << 54 // so that every offset in bytes fits an int64
	maxName      = 36      // UTF-16 units
	bootCode     = 446     // bytes of the MBR in front of its partition entries
	protective   = 0xee    // type of the entry that covers the table
)

// Partition is one entry of the table.
type Partition struct {
	Number     int    // from 1, as the kernel counts; 0 in a new table means its place in Partitions
	Name       string // at most 36 UTF-16 units; PARTNAME in sysfs
	Type       GUID   // EFISystem, LinuxData …
	GUID       GUID   // PARTUUID, unique on the disk
	First      uint64 // LBA of the first sector
	Last       uint64 // LBA of the last sector, inclusive
	Attributes uint64 // UEFI table 5.8; 0 for all of ours
}

// Offset is where the partition begins, in bytes from the start of the disk.
func (p Partition) Offset() int64 { return int64(p.First) * SectorSize }

// Size is the length of the partition in bytes.
func (p Partition) Size() int64 { return int64(p.Last-p.First+1) * SectorSize }

// Table is the partition table of a disk of so many sectors. The disk may have
// grown since: then Sectors is what it had when the table was written.
type Table struct {
	DiskGUID   GUID
	Sectors    uint64
	Partitions []Partition // those in use, by Number

	// Damage says what Read found wrong and worked around; nil when both copies
	// are sound and equal. Nothing else looks at it.
	Damage error
}

// Find returns the partition of that name, which has to be the only one.
func (t Table) Find(name string) (Partition, error) {
	i, err := t.index(name)
	if err != nil {
		return Partition{}, err
	}
	return t.Partitions[i], nil
}

func (t Table) index(name string) (int, error) {
	found := -1
	for i, p := range t.Partitions {
		if p.Name != name {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("partition %q: two have this name, number %d and %d", name, t.Partitions[found].Number, p.Number)
		}
		found = i
	}
	if found < 0 {
		return 0, fmt.Errorf("partition %q: not in the table", name)
	}
	return found, nil
}

// LastUsable is the last LBA that a partition may have on a disk of so many
// sectors; the backup lies behind it. It is 0 for a disk too small for a table.
func LastUsable(sectors uint64) uint64 {
	if sectors < 2*FirstUsable {
		return 0
	}
	return sectors - arraySectors - 2
}

// Encode returns the first 34 sectors of the disk (protective MBR, primary header
// and entries) and its last 33 (backup entries and header), or what is wrong with
// the table.
func (t Table) Encode() (front, back []byte, err error) {
	partitions, err := t.numbered()
	if err != nil {
		return nil, nil, fmt.Errorf("partition table: %w", err)
	}
	array := make([]byte, arraySectors*SectorSize)
	for _, p := range partitions {
		p.encode(array[(p.Number-1)*entrySize:][:entrySize])
	}
	last := t.Sectors - 1
	front = slices.Concat(protectiveMBR(t.Sectors), t.header(array, 1, last, 2), array)
	back = slices.Concat(array, t.header(array, last, 1, last-arraySectors))
	return front, back, nil
}

// numbered returns the partitions, each with its number, after checking them all.
func (t Table) numbered() ([]Partition, error) {
	if t.Sectors < 2*FirstUsable || t.Sectors > maxSectors {
		return nil, fmt.Errorf("%d sectors: want %d to %d", t.Sectors, 2*FirstUsable, uint64(maxSectors))
	}
	if t.DiskGUID == (GUID{}) {
		return nil, errors.New("the disk has no GUID")
	}
	partitions := slices.Clone(t.Partitions)
	numbers, guids := map[int]bool{}, map[GUID]bool{{}: true}
	for i := range partitions {
		p := &partitions[i]
		if p.Number == 0 {
			p.Number = i + 1
		}
		switch {
		case p.Number < 1 || p.Number > maxEntries:
			return nil, fmt.Errorf("partition %q: number %d: want 1 to %d", p.Name, p.Number, maxEntries)
		case numbers[p.Number]:
			return nil, fmt.Errorf("partition %q: number %d is taken", p.Name, p.Number)
		case p.Type == GUID{}:
			return nil, fmt.Errorf("partition %q: no type", p.Name)
		case guids[p.GUID]:
			return nil, fmt.Errorf("partition %q: GUID %v is taken or zero", p.Name, p.GUID)
		case !utf8.ValidString(p.Name) || strings.ContainsRune(p.Name, 0) || len(utf16.Encode([]rune(p.Name))) > maxName:
			return nil, fmt.Errorf("partition %q: the name does not fit %d UTF-16 units", p.Name, maxName)
		}
		numbers[p.Number], guids[p.GUID] = true, true
	}
	return partitions, checkPlaces(partitions, FirstUsable, LastUsable(t.Sectors))
}

// checkPlaces reports a partition outside of first to last, and two that overlap.
func checkPlaces(partitions []Partition, first, last uint64) error {
	byPlace := slices.Clone(partitions)
	slices.SortFunc(byPlace, func(a, b Partition) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	for i, p := range byPlace {
		if p.First > p.Last || p.First < first || p.Last > last {
			return fmt.Errorf("partition %q: sectors %d to %d are not within %d to %d", p.Name, p.First, p.Last, first, last)
		}
		if i > 0 && p.First <= byPlace[i-1].Last {
			return fmt.Errorf("partition %q: begins at sector %d, within %q, which ends at %d",
				p.Name, p.First, byPlace[i-1].Name, byPlace[i-1].Last)
		}
	}
	return nil
}

// protectiveMBR says to tools that know no GPT that the disk is full.
func protectiveMBR(sectors uint64) []byte {
	mbr := make([]byte, SectorSize)
	e := mbr[bootCode:]
	copy(e[1:], []byte{0x00, 0x02, 0x00}) // CHS of LBA 1
	e[4] = protective
	copy(e[5:], []byte{0xff, 0xff, 0xff}) // CHS past its end
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa
	return mbr
}

// header encodes the header that lies at my, its twin at other and its entries at
// array.
func (t Table) header(entries []byte, my, other, array uint64) []byte {
	h := make([]byte, SectorSize)
	disk := t.DiskGUID.swapped()
	copy(h, signature)
	binary.LittleEndian.PutUint32(h[8:], revision)
	binary.LittleEndian.PutUint32(h[12:], headerSize)
	binary.LittleEndian.PutUint64(h[24:], my)
	binary.LittleEndian.PutUint64(h[32:], other)
	binary.LittleEndian.PutUint64(h[40:], FirstUsable)
	binary.LittleEndian.PutUint64(h[48:], LastUsable(t.Sectors))
	copy(h[56:], disk[:])
	binary.LittleEndian.PutUint64(h[72:], array)
	binary.LittleEndian.PutUint32(h[80:], maxEntries)
	binary.LittleEndian.PutUint32(h[84:], entrySize)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
	return h
}

func (p Partition) encode(e []byte) {
	kind, guid := p.Type.swapped(), p.GUID.swapped()
	copy(e, kind[:])
	copy(e[16:], guid[:])
	binary.LittleEndian.PutUint64(e[32:], p.First)
	binary.LittleEndian.PutUint64(e[40:], p.Last)
	binary.LittleEndian.PutUint64(e[48:], p.Attributes)
	for i, unit := range utf16.Encode([]rune(p.Name)) {
		binary.LittleEndian.PutUint16(e[56+2*i:], unit)
	}
}
