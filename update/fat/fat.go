// Package fat makes, reads and edits FAT32 volumes: the boot partition of an image.
//
// In come files for a new volume, or a volume that exists, in an image file or on a
// device that nobody has mounted; out come its bytes. No root, no mount and no tool
// of the host is needed, and the same files make the same bytes every time. Edits are
// written in an order that lets every file survive a power cut, old or new; Check
// finds, and Repair frees, what the cut left over. It leaves alone the boot code, what
// lies outside the volume, and FAT12 and FAT16.
//
// Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03 (2000).
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	sectorSize  = 512
	entrySize   = 32 // of a directory
	rootCluster = 2  // where we put the root; it may be elsewhere in a foreign volume
	infoSector  = 1
	bootBackup  = 6
	minClusters = 65525      // fewer, and other readers take the volume for FAT16
	maxClusters = 0x0ffffff5 // the numbers above mean something else
	endOfChain  = 0x0fffffff
	entryMask   = 0x0fffffff // the upper four bits of a FAT entry are not ours

	attrVolume  = 0x08
	attrDir     = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f // of the slots of a long name

	deleted = 0xe5 // first byte of a slot that is free
	dirEnd  = 0x00 // the same, and all behind it are free too

	maxFileSize = 1<<32 - 1
	maxDirSlots = 1 << 16 // 2 MiB, the most that the format allows
)

// ErrFull says that no cluster is free, or no slot of a directory.
var ErrFull = errors.New("no space left on the volume")

// geometry says what lies where. All but total are facts of the boot sector.
type geometry struct {
	perCluster int64 // sectors
	reserved   int64 // sectors in front of the first FAT
	fats       int64
	fatSectors int64 // of each FAT
	total      int64 // sectors
	clusters   uint32
	root       uint32
	info       int64 // sector of the free-space summary; 0: none
}

// newGeometry lays out a volume of size bytes with so many sectors per cluster.
// The first cluster begins at a multiple of the cluster size, so that a volume at a
// whole MiB of a disk writes whole flash pages.
func newGeometry(size, perCluster int64) (geometry, error) {
	g := geometry{
		perCluster: perCluster, reserved: 32, fats: 2, fatSectors: 1,
		total: size / sectorSize, root: rootCluster, info: infoSector,
	}
	for {
		g.reserved = 32 + (perCluster-(32+g.fats*g.fatSectors)%perCluster)%perCluster
		clusters := (g.total - g.dataStart()) / perCluster
		if clusters < 1 || g.total > 1<<32-1 || clusters >= maxClusters-rootCluster {
			return g, fmt.Errorf("%d bytes do not make a FAT32 volume", size)
		}
		g.clusters = uint32(clusters)
		// A longer FAT leaves fewer clusters, so this comes to an end.
		need := ((clusters+rootCluster)*4 + sectorSize - 1) / sectorSize
		if need <= g.fatSectors {
			return g, nil
		}
		g.fatSectors = need
	}
}

// clusterSectors is the usual cluster size for a volume of size bytes, in sectors.
//
// Source: mkfs.fat(8), -s.
func clusterSectors(size int64) int64 {
	const mib = 1 << 20
	switch {
	case size <= 260*mib:
		return 1
	case size <= 8<<30:
		return 8
	case size <= 16<<30:
		return 16
	case size <= 32<<30:
		return 32
	}
	return 64
}

func (g geometry) dataStart() int64    { return g.reserved + g.fats*g.fatSectors }
func (g geometry) clusterBytes() int64 { return g.perCluster * sectorSize }

// offset is where a cluster begins, in bytes.
func (g geometry) offset(cluster uint32) int64 {
	return (g.dataStart() + int64(cluster-rootCluster)*g.perCluster) * sectorSize
}

// valid tells whether the number names a cluster of the volume.
func (g geometry) valid(cluster uint32) bool {
	return cluster >= rootCluster && cluster-rootCluster < g.clusters
}

// bootSector encodes the first sector; its copy at sector 6 is the same.
func (g geometry) bootSector(label string, serial uint32) []byte {
	b := make([]byte, sectorSize)
	copy(b, []byte{0xeb, 0x58, 0x90})
	copy(b[3:], "KOGGE   ")
	binary.LittleEndian.PutUint16(b[11:], sectorSize)
	b[13] = byte(g.perCluster)
	binary.LittleEndian.PutUint16(b[14:], uint16(g.reserved))
	b[16] = byte(g.fats)
	b[21] = 0xf8                              // a disk that is not a floppy
	binary.LittleEndian.PutUint16(b[24:], 63) // sectors per track and heads: nobody
	binary.LittleEndian.PutUint16(b[26:], 255)
	binary.LittleEndian.PutUint32(b[32:], uint32(g.total))
	binary.LittleEndian.PutUint32(b[36:], uint32(g.fatSectors))
	binary.LittleEndian.PutUint32(b[44:], g.root)
	binary.LittleEndian.PutUint16(b[48:], uint16(g.info))
	binary.LittleEndian.PutUint16(b[50:], bootBackup)
	b[64] = 0x80
	b[66] = 0x29
	binary.LittleEndian.PutUint32(b[67:], serial)
	copy(b[71:82], padded(label))
	copy(b[82:], "FAT32   ")
	copy(b[90:], []byte{0xcd, 0x18, 0xf4, 0xeb, 0xfd}) // "no boot": INT 18h, then halt
	b[510], b[511] = 0x55, 0xaa
	return b
}

// padded is a label as boot sector and root directory hold it.
func padded(label string) []byte {
	if label == "" {
		label = "NO NAME"
	}
	return fmt.Appendf(nil, "%-11s", label)[:11]
}

// checkLabel wants upper-case letters, digits and a few signs, at most 11.
func checkLabel(label string) error {
	for _, r := range label {
		if !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == ' ') {
			return fmt.Errorf("label %q: only A-Z, 0-9, -, _ and space", label)
		}
	}
	if len(label) > 11 {
		return fmt.Errorf("label %q is longer than 11 bytes", label)
	}
	return nil
}

// freeSummary encodes the sector in which drivers look for free space first.
func freeSummary(free, next uint32) []byte {
	b := make([]byte, sectorSize)
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	binary.LittleEndian.PutUint32(b[488:], free)
	binary.LittleEndian.PutUint32(b[492:], next)
	b[510], b[511] = 0x55, 0xaa
	return b
}

// parseBoot reads the boot sector of a volume in size bytes.
func parseBoot(b []byte, size int64) (geometry, error) {
	g := geometry{
		perCluster: int64(b[13]),
		reserved:   int64(binary.LittleEndian.Uint16(b[14:])),
		fats:       int64(b[16]),
		fatSectors: int64(binary.LittleEndian.Uint32(b[36:])),
		total:      int64(binary.LittleEndian.Uint32(b[32:])),
		root:       binary.LittleEndian.Uint32(b[44:]),
		info:       int64(binary.LittleEndian.Uint16(b[48:])),
	}
	switch {
	case b[510] != 0x55 || b[511] != 0xaa:
		return g, errors.New("not a FAT32 volume: no boot signature")
	case binary.LittleEndian.Uint16(b[11:]) != sectorSize:
		return g, fmt.Errorf("sectors of %d bytes: only %d are supported", binary.LittleEndian.Uint16(b[11:]), sectorSize)
	case binary.LittleEndian.Uint16(b[22:]) != 0 || g.fatSectors == 0:
		return g, errors.New("not a FAT32 volume: FAT12, FAT16 or something else")
	case binary.LittleEndian.Uint16(b[40:])&0x80 != 0:
		return g, errors.New("FAT mirroring is off, which is not supported")
	case g.perCluster == 0 || g.perCluster&(g.perCluster-1) != 0:
		return g, fmt.Errorf("%d sectors per cluster", g.perCluster)
	case g.reserved == 0 || g.fats < 1 || g.fats > 2:
		return g, fmt.Errorf("%d reserved sectors, %d FATs", g.reserved, g.fats)
	case g.total*sectorSize > size || g.dataStart() >= g.total:
		return g, fmt.Errorf("%d sectors, the first cluster at %d, in %d bytes", g.total, g.dataStart(), size)
	}
	if g.info >= g.reserved {
		g.info = 0
	}
	clusters := min((g.total-g.dataStart())/g.perCluster, g.fatSectors*sectorSize/4-rootCluster, maxClusters-rootCluster)
	g.clusters = uint32(max(clusters, 0))
	if !g.valid(g.root) {
		return g, fmt.Errorf("root directory at cluster %d of %d", g.root, g.clusters)
	}
	return g, nil
}

// stamp is a time as FAT keeps it: two seconds exact, without a zone (ours is UTC),
// from 1980 to 2107.
type stamp struct{ date, time uint16 }

func newStamp(t time.Time) stamp {
	t = t.UTC()
	switch {
	case t.Year() < 1980:
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	case t.Year() > 2107:
		t = time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
	}
	return stamp{
		date: uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day()),
		time: uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2),
	}
}

func (s stamp) Time() time.Time {
	return time.Date(1980+int(s.date>>9), time.Month(s.date>>5&15), int(s.date&31),
		int(s.time>>11), int(s.time>>5&63), int(s.time&31)*2, 0, time.UTC)
}

// writeSparse leaves out the pages of zeros, which a sparse file need not hold.
func writeSparse(w io.WriterAt, b []byte, offset int64) error {
	const page = 4096
	for len(b) > 0 {
		n := min(len(b), page-int(offset%page))
		if !allZero(b[:n]) {
			if _, err := w.WriteAt(b[:n], offset); err != nil {
				return err
			}
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
