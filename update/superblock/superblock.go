// Package superblock keeps what an ext4 file system says of itself from being lost when a
// cut tears it.
//
// In comes a device that nobody has mounted; out goes a copy of its superblock in the 1024
// bytes before it, which ext4 leaves to boot loaders, or the superblock, from that copy. The
// kernel writes the block that holds both from its cache: a write that is torn has the
// copy's bytes as they were. [Look] says what superblocks there are. The package checks
// nothing else; that is e2fsck's.
//
// Source: Documentation/filesystems/ext4/super.rst and fs/ext4/super.c in the kernel tree.
package superblock

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
)

const (
	size       = 1024 // of a superblock, in bytes
	copyAt     = 0    // of the copy, in bytes from the beginning
	offset     = 1024 // of the superblock
	blocksAt   = 0x04
	logSizeAt  = 0x18 // of a block: 1024 << this
	magicAt    = 0x38
	magic      = 0xEF53
	incompatAt = 0x60
	recover    = 0x4  // INCOMPAT_RECOVER: the journal is to be replayed
	wide       = 0x80 // INCOMPAT_64BIT
	blocksHiAt = 0x150
	roCompatAt = 0x64
	checksums  = 0x400 // RO_COMPAT_METADATA_CSUM
	sumKindAt  = 0x175 // how checksums are made
	crc32c     = 1
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

// isOne says whether it is a superblock, torn perhaps.
func isOne(super []byte) bool {
	return len(super) == size && binary.LittleEndian.Uint16(super[magicAt:]) == magic
}

func summed(super []byte) bool { return binary.LittleEndian.Uint32(super[roCompatAt:])&checksums != 0 }

// whole says whether a superblock is one, and not half of one and half of another.
func whole(super []byte) bool {
	return isOne(super) && summed(super) && binary.LittleEndian.Uint32(super[checksumAt:]) == checksum(super)
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

// Sight is what there is of superblocks.
type Sight struct {
	// Whole says that the superblock is one and nothing shows that it is torn. Its
	// features may be unknown to everybody.
	Whole bool
	// Bytes is the size of the file system by the superblock or, where that is not whole,
	// by the copy or a backup; 0 where none is.
	Bytes int64
	// Backups are the places that have a backup, or what is left of one, from the front.
	// Nobody has looked for them where the superblock is whole.
	Backups []Backup
	// Unread is why not all could be read; nil if all could.
	Unread error
}

// Backup is the place of a backup: its block, and the size of one in bytes.
type Backup struct{ Block, BlockSize int64 }

// Look reads the superblock of a device of so many bytes, and if that is not whole the copy
// and all backups. They are found in groups of the size that mke2fs gives them, with blocks
// of 1, 2 and 4 KiB. What cannot be read is as if it were not there, but for Unread.
//
// Source: Documentation/filesystems/ext4/{super,blockgroup}.rst in the kernel tree.
func Look(d io.ReaderAt, bytes int64) (s Sight) {
	super := make([]byte, size)
	// see reads what is at a place, if it is a superblock with blocks of a size, or of any.
	see := func(at, block int64) (one, whole bool) {
		if at > bytes-size {
			return false, false
		}
		if _, err := d.ReadAt(super, at); err != nil {
			if s.Unread == nil {
				s.Unread = fmt.Errorf("superblock at byte %d: %w", at, err)
			}
			return false, false
		}
		if !isOne(super) || blockSize(super) == 0 || block != 0 && blockSize(super) != block {
			return false, false
		}
		if whole = !torn(super); whole && s.Bytes == 0 {
			s.Bytes = length(super)
		}
		return true, whole
	}
	if _, s.Whole = see(offset, 0); s.Whole {
		return s
	}
	see(copyAt, 0)
	for _, block := range []int64{1024, 2048, 4096} {
		first := int64(0)
		if block == 1024 {
			first = 1 // the superblock's own
		}
		perGroup := 8 * block
		for _, group := range sparse(bytes / block / perGroup) {
			at := (first + group*perGroup) * block
			if one, _ := see(at, block); one {
				s.Backups = append(s.Backups, Backup{at / block, block})
			}
		}
	}
	return s
}

// torn says whether it shows that a superblock is half of one and half of another. Without
// checksums, or with those of a kind that only a newer release knows, nothing does.
func torn(super []byte) bool {
	return summed(super) && super[sumKindAt] == crc32c && !whole(super)
}

// blockSize is what a superblock says of blocks; 0 where no kernel believes it.
func blockSize(super []byte) int64 {
	log := binary.LittleEndian.Uint32(super[logSizeAt:])
	if log > 6 {
		return 0
	}
	return 1024 << log
}

// length is the size in bytes of the file system of a superblock; what is more than
// anything has is the most that there is.
func length(super []byte) int64 {
	blocks := uint64(binary.LittleEndian.Uint32(super[blocksAt:]))
	if binary.LittleEndian.Uint32(super[incompatAt:])&wide != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(super[blocksHiAt:])) << 32
	}
	block := uint64(blockSize(super))
	return int64(min(blocks, math.MaxInt64/block) * block)
}

// sparse are the groups up to last that have a backup: 1 and the powers of 3, 5 and 7.
func sparse(last int64) []int64 {
	var all []int64
	for _, base := range []int64{3, 5, 7} {
		for g := base; g <= last; g *= base {
			all = append(all, g)
		}
	}
	if last >= 1 {
		all = append(all, 1)
	}
	slices.Sort(all)
	return all
}
