package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"kogge.example/update/gpt"
	"kogge.example/update/partition"
	"kogge.example/update/superblock"
)

// StateDir is where STATE is mounted.
const StateDir = "/state"

// ErrCorrupt says that e2fsck could not repair STATE.
var ErrCorrupt = errors.New("STATE is corrupt")

// Checker runs the file system check and returns its output and exit status, as
// e2fsck(8) defines it. PID 1 has one way to run programs, which it passes in.
type Checker func(ctx context.Context, path string, args ...string) (output []byte, status int, err error)

// GrowState extends STATE to the end of the disk, and gives the disk and its
// partitions GUIDs of their own if they still have those of the image, which seed
// names. The kernel learns of the new size; the file system grows after it is
// mounted. All that is safe to repeat, and a power cut at any point leaves a disk
// that boots (see [gpt.Grow], [gpt.Randomize]).
func GrowState(d *Disk, seed string) error {
	f, err := os.OpenFile(d.Path(), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("grow STATE: %w", err)
	}
	defer f.Close()
	t, err := growTable(f, d.Size, seed)
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.Path(), err)
	}
	old, errOld := d.Table.Find(partition.State)
	p, err := t.Find(partition.State)
	if err := errors.Join(errOld, err); err != nil {
		return fmt.Errorf("grow STATE: %w", err)
	}
	d.Table = t
	if p.Last == old.Last {
		return nil
	}
	if err := resizePartition(f, p); err != nil {
		return fmt.Errorf("grow STATE: tell the kernel: %w", err)
	}
	return nil
}

// device is a whole disk. [os.File] fits, and so does crashdisk.Disk.
type device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// growTable is what GrowState does to a disk of size bytes, and the table that is
// then on it.
func growTable(dev device, size int64, seed string) (gpt.Table, error) {
	t, err := gpt.Grow(dev, size, partition.State)
	if err != nil {
		return gpt.Table{}, fmt.Errorf("grow STATE: %w", err)
	}
	if t.DiskGUID != gpt.DeriveGUID(seed, "disk") {
		return t, nil
	}
	if t, err = gpt.Randomize(dev, size); err != nil {
		return gpt.Table{}, fmt.Errorf("new names for the partitions: %w", err)
	}
	return t, nil
}

// blkpg is the kernel's struct blkpg_ioctl_arg, blkpgPartition its payload.
//
// Source: include/uapi/linux/blkpg.h
type blkpg struct {
	op, flags, length int32
	_                 int32
	data              unsafe.Pointer
}

type blkpgPartition struct {
	start, length int64 // bytes
	number        int32
	_             [128]byte
	_             int32
}

const (
	blkpgIoctl  = 0x1269
	blkpgResize = 3
)

// resizePartition changes the kernel's idea of one partition, also while it is used.
func resizePartition(disk *os.File, p gpt.Partition) error {
	part := blkpgPartition{start: p.Offset(), length: p.Size(), number: int32(p.Number)}
	arg := blkpg{op: blkpgResize, length: int32(unsafe.Sizeof(part)), data: unsafe.Pointer(&part)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), blkpgIoctl, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// operational is the bit of e2fsck's exit status for a file system that it could not
// even open. Source: e2fsck(8).
const operational = 8

// killed is what the status of a program begins at that a signal has ended, as of a shell.
const killed = 128

// backups are the blocks of the superblock's first two backups, those of groups 1 and 3. A
// small STATE has the first alone.
var backups = []string{"32768", "98304"}

// MountState checks and mounts STATE. It returns ErrCorrupt, with what e2fsck said, if
// the check could not repair it; nothing was then mounted or changed by us. A check that
// was ended, by the kernel's want of memory above all, says nothing of STATE.
func MountState(ctx context.Context, d Disk, check Checker) error {
	dev, ok := d.Parts[partition.State]
	if !ok {
		return fmt.Errorf("mount STATE: disk %s has no such partition", d.Path())
	}
	fsck := func(args ...string) ([]byte, int, error) {
		out, status, err := check(ctx, "/bin/e2fsck", append(args, dev)...)
		if err == nil && status >= killed {
			err = fmt.Errorf("e2fsck %s was ended by signal %d (9 may mean that memory ran out); the next boot checks again: %s", dev, status-killed, lastLines(string(out), 5))
		}
		return out, status, err
	}
	// -p repairs what needs no question: it replays the journal after a power cut.
	out, status, err := fsck("-p")
	for _, backup := range backups {
		if err != nil || status&operational == 0 {
			break
		}
		// The superblock is two sectors, and some of its writes bypass the journal: a
		// cut between the two leaves neither the old nor the new one. A backup leads to
		// the journal, and replaying that writes it whole; the counts that the backup
		// does not know are the second run's affair, and so is the verdict. Growing writes
		// the backups, too: the same cut may have torn the first one.
		if _, _, err = fsck("-p", "-b", backup, "-B", "4096"); err == nil {
			out, status, err = fsck("-f", "-p")
		}
	}
	if err == nil && status&operational != 0 && fromCopy(dev) {
		out, status, err = fsck("-f", "-p")
	}
	if err != nil {
		return fmt.Errorf("check STATE: %w", err)
	}
	// 0: clean; 1: repaired; 2: repaired, "reboot", which a file system that nobody
	// has mounted does not need. Source: e2fsck(8).
	if status >= 4 {
		return fmt.Errorf("%w: e2fsck %s exited with %d: %s", ErrCorrupt, dev, status, lastLines(string(out), 5))
	}
	if err := onDevice(dev, superblock.Save); err != nil {
		log.Printf("kogge: STATE: %v: a cut that tears it finds no copy", err)
	}
	if err := unix.Mount(dev, StateDir, "ext4", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV, stateOptions(dev)); err != nil {
		return fmt.Errorf("mount STATE from %s: %w", dev, err)
	}
	return nil
}

// fromCopy makes a superblock whole that is torn as all backups are, which only a cut at the
// end of growing does: everything else that was written then is in the journal.
func fromCopy(dev string) (done bool) {
	err := onDevice(dev, func(d superblock.Device) (err error) {
		done, err = superblock.Restore(d)
		return err
	})
	if err != nil {
		log.Printf("kogge: STATE: %v", err)
	}
	return done
}

func onDevice(dev string, do func(superblock.Device) error) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// GrowFileSystem lets the file system of STATE, which is mounted, grow to the size of its
// partition. STATE is as good as before if that fails.
func GrowFileSystem(d Disk) error {
	if err := growFileSystem(d.Parts[partition.State]); err != nil {
		return fmt.Errorf("grow STATE: %w", err)
	}
	return nil
}

// Volatile mounts a file system in memory where STATE would be, for a node that
// must not or cannot use its own.
func Volatile() error {
	if err := unix.Mount("tmpfs", StateDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=25%"); err != nil {
		return fmt.Errorf("mount STATE in memory: %w", err)
	}
	return nil
}

// ext4Block is the block size that STATE is made with.
const ext4Block = 4096

// ext4ResizeFS is EXT4_IOC_RESIZE_FS. Source: fs/ext4/ext4.h
const ext4ResizeFS = 0x40086610

// growFileSystem extends the mounted file system to its device.
func growFileSystem(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	have, err := ext4Blocks(f)
	if err != nil {
		return err
	}
	want := uint64(size / ext4Block)
	if want <= have {
		return nil
	}
	root, err := os.Open(StateDir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 {
		return fmt.Errorf("from %d to %d blocks: %w", have, want, errno)
	}
	return nil
}

// stateOptions are the options to mount STATE with: where it keeps the quotas of projects,
// their limits count. An older release made it without. What is wrong with a disk that
// cannot be read, the mount says.
//
// Source: Documentation/filesystems/ext4/super.rst and fs/ext4/ext4.h in the kernel tree.
func stateOptions(dev string) string {
	f, err := os.Open(dev)
	if err != nil {
		return ""
	}
	defer f.Close()
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return ""
	}
	const both = 0x100 | 0x2000 // RO_COMPAT_QUOTA, RO_COMPAT_PROJECT
	if binary.LittleEndian.Uint32(super[0x64:])&both == both {
		return "prjquota"
	}
	return ""
}

// ext4Blocks reads the number of blocks from the superblock.
//
// Source: Documentation/filesystems/ext4/super.rst in the kernel tree.
func ext4Blocks(r io.ReaderAt) (uint64, error) {
	super := make([]byte, 1024)
	if _, err := r.ReadAt(super, 1024); err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(super[0x38:]) != 0xef53 || le.Uint32(super[0x18:]) != 2 {
		return 0, errors.New("not ext4 with blocks of 4096 bytes")
	}
	return uint64(le.Uint32(super[0x150:]))<<32 | uint64(le.Uint32(super[0x4:])), nil
}

// lastLines is the end of a program's output on one line.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
