package mount

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"kogge.example/update/blank"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// Reformat replaces the STATE file system of d by an empty one, out of the file from
// ([blank.File] or [blank.PlainFile]): identity and data are gone. A cut at any point leaves the old file system, an empty one, or none
// that e2fsck accepts; a caller that reformats for such a reason does it again.
func Reformat(d Disk, from string) error {
	dev, ok := d.Parts[partition.State]
	if !ok {
		return fmt.Errorf("reformat STATE: disk %s has no such partition", d.Path())
	}
	f, err := os.OpenFile(dev, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("reformat STATE: %w", err)
	}
	defer f.Close()
	template, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("reformat STATE: %w", err)
	}
	defer template.Close()
	if err := reformat(blockDevice{f}, template, blank.Size); err != nil {
		return fmt.Errorf("reformat STATE on %s: %w", dev, err)
	}
	return nil
}

// eraser is a partition that can be overwritten with zeros.
type eraser interface {
	io.WriterAt
	Zero(offset, size int64) error
	Sync() error
}

// reformat writes a blank file system of size bytes to d:
//
//  1. the first block, which has the superblock, becomes zero, sync: from here on
//     there is no file system
//  2. zeros in the whole size of the new one, so that nothing old is taken for its
//     inodes; all blocks but the first, sync
//  3. the first block, sync: now there is one
func reformat(d eraser, template io.Reader, size int64) error {
	if err := errors.Join(d.Zero(0, blank.BlockSize), d.Sync()); err != nil {
		return err
	}
	if err := d.Zero(0, size); err != nil {
		return err
	}
	var first []byte
	err := blank.Decode(template, size, func(n uint32, block []byte) error {
		if n == 0 {
			first = bytes.Clone(block)
			return nil
		}
		_, err := d.WriteAt(block, int64(n)*blank.BlockSize)
		return err
	})
	if err == nil && first == nil {
		err = errors.New("blank file system: it has no superblock")
	}
	if err := errors.Join(err, d.Sync()); err != nil {
		return err
	}
	if _, err := d.WriteAt(first, 0); err != nil {
		return err
	}
	return d.Sync()
}

// blockDevice is a partition that can be discarded.
type blockDevice struct{ *os.File }

const blkZeroOut = 0x127f // BLKZEROOUT, source: include/uapi/linux/fs.h

func (p blockDevice) Zero(offset, size int64) error {
	area := [2]uint64{uint64(offset), uint64(size)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, p.Fd(), blkZeroOut, uintptr(unsafe.Pointer(&area))); errno != 0 {
		return fmt.Errorf("overwrite with zeros: %w", errno)
	}
	return nil
}

// ext4SetUUID is EXT4_IOC_SETFSUUID. Source: fs/ext4/ext4.h
const ext4SetUUID = 0x4008662c

// NewStateUUID gives the mounted STATE a UUID of its own if it still has that of
// the image or the template, which seed names: no two nodes share one.
func NewStateUUID(d Disk, seeds ...string) error {
	f, err := os.Open(d.Parts[partition.State])
	if err != nil {
		return fmt.Errorf("name of STATE: %w", err)
	}
	defer f.Close()
	have := make([]byte, 16)
	if _, err := f.ReadAt(have, 1024+0x68); err != nil {
		return fmt.Errorf("name of STATE: %w", err)
	}
	for _, seed := range seeds {
		if formatUUID(have) == gpt.DeriveGUID(seed, "state").String() {
			return setStateUUID()
		}
	}
	return nil
}

// formatUUID writes a file system's UUID, whose bytes are in the order of its text.
func formatUUID(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func setStateUUID() error {
	root, err := os.Open(StateDir)
	if err != nil {
		return fmt.Errorf("name of STATE: %w", err)
	}
	defer root.Close()
	// struct fsuuid { __u32 len; __u32 flags; __u8 uuid[16]; }
	arg := struct {
		length, flags uint32
		uuid          [16]byte
	}{length: 16}
	if _, err := rand.Read(arg.uuid[:]); err != nil {
		return fmt.Errorf("name of STATE: %w", err)
	}
	arg.uuid[6] = arg.uuid[6]&0x0f | 0x40 // RFC 9562, version 4
	arg.uuid[8] = arg.uuid[8]&0x3f | 0x80
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), ext4SetUUID, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("name of STATE: %w", errno)
	}
	return nil
}
