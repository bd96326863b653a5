// Package superblock keeps what an ext4 file system says of itself from being lost when a
// cut tears it.
//
// In comes a device that nobody has mounted; out goes a copy of its superblock in the 1024
// bytes before it, which ext4 leaves to boot loaders, or the superblock, from that copy. The
// kernel writes the block that holds both from its cache: a write that is torn has the
// copy's bytes as they were. The package checks nothing else; that is e2fsck's.
//
// Source: Documentation/filesystems/ext4/super.rst and fs/ext4/super.c in the kernel tree.
package superblock

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	size       = 1024 // of a superblock, in bytes
	copyAt     = 0    // of the copy, in bytes from the beginning
	offset     = 1024 // of the superblock
	magicAt    = 0x38
	magic      = 0xEF53
	incompatAt = 0x60
	recover    = 0x4 // INCOMPAT_RECOVER: the journal is to be replayed
	roCompatAt = 0x64
	checksums  = 0x400 // RO_COMPAT_METADATA_CSUM
	checksumAt = 0x3FC
)

// Device is what a file system lies on. *os.File is one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is that of a superblock: a CRC-32C that is not inverted at its end.
func checksum(super []byte) uint32 { return ^crc32.Checksum(super[:checksumAt], castagnoli) }

// whole says whether a superblock is one, and not half of one and half of another.
func whole(super []byte) bool {
	return len(super) == size && binary.LittleEndian.Uint16(super[magicAt:]) == magic &&
		binary.LittleEndian.Uint32(super[roCompatAt:])&checksums != 0 &&
		binary.LittleEndian.Uint32(super[checksumAt:]) == checksum(super)
}

// Save copies the superblock of d, if it is whole and the copy is another. A cut in between
// tears the copy at most.
func Save(d Device) error {
	both := make([]byte, copyAt+2*size)
	if _, err := d.ReadAt(both, copyAt); err != nil {
		return fmt.Errorf("copy of the superblock: %w", err)
	}
	super := both[offset:]
	if !whole(super) || bytes.Equal(super, both[:size]) {
		return nil
	}
	_, err := d.WriteAt(super, copyAt)
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return fmt.Errorf("copy of the superblock: %w", err)
	}
	return nil
}

// Restore writes the copy over the superblock of d, if the one is whole and the other is not.
// The journal, which has what the copy does not know, is to be replayed then. done says
// whether it wrote.
func Restore(d Device) (done bool, err error) {
	both := make([]byte, copyAt+2*size)
	if _, err := d.ReadAt(both, copyAt); err != nil {
		return false, fmt.Errorf("superblock from its copy: %w", err)
	}
	super := both[:size]
	if !whole(super) || whole(both[offset:]) {
		return false, nil
	}
	binary.LittleEndian.PutUint32(super[incompatAt:], binary.LittleEndian.Uint32(super[incompatAt:])|recover)
	binary.LittleEndian.PutUint32(super[checksumAt:], checksum(super))
	_, err = d.WriteAt(super, offset)
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return false, fmt.Errorf("superblock from its copy: %w", err)
	}
	return true, nil
}
