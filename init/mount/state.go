package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"kogge.example/update/gpt"
	"kogge.example/update/partition"
	"kogge.example/update/superblock"
)

// StateDir is where STATE is mounted.
const StateDir = "/state"

// ErrCorrupt says that STATE is damaged, and that e2fsck could not repair it.
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
	old, errOld := d.Table.Find(partition.State)
	if len(t.Partitions) > 0 {
		d.Table = t
	}
	if err != nil {
		return fmt.Errorf("disk %s: %w", d.Path(), err)
	}
	p, err := t.Find(partition.State)
	if err := errors.Join(errOld, err); err != nil {
		return fmt.Errorf("grow STATE: %w", err)
	}
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

// growTable is what GrowState does to a disk of size bytes, and the table that is then on it,
// also if the growth is refused: the names are new all the same. A table without partitions
// is one that nobody knows.
func growTable(dev device, size int64, seed string) (gpt.Table, error) {
	t, err := gpt.Read(dev, size)
	if err != nil {
		return gpt.Table{}, fmt.Errorf("grow STATE: %w", err)
	}
	if t.DiskGUID == gpt.DeriveGUID(seed, "disk") {
		if t, err = gpt.Randomize(dev, size); err != nil {
			return gpt.Table{}, fmt.Errorf("new names for the partitions: %w", err)
		}
	}
	grown, err := gpt.Grow(dev, size, partition.State)
	if err != nil {
		return t, fmt.Errorf("grow STATE: %w", err)
	}
	return grown, nil
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

// MountState checks and mounts STATE. It returns ErrCorrupt, with what e2fsck said, if there
// is a file system whose damage the check could not repair, or the remains of one without
// any superblock; nothing was then mounted. All else may be a STATE that is well: a newer
// release's, one on a disk that cannot be written to or read, one that the partition is too
// small for. That is another error, and is left as it is. A check that was ended, by the
// kernel's want of memory above all, says nothing of STATE.
func MountState(ctx context.Context, d Disk, check Checker) error {
	dev, ok := d.Parts[partition.State]
	if !ok {
		return fmt.Errorf("mount STATE: disk %s has no such partition", d.Path())
	}
	if err := checkState(ctx, dev, check); err != nil {
		return err
	}
	if err := onDevice(dev, superblock.Save); err != nil {
		log.Printf("kogge: STATE: %v: a cut that tears it finds no copy", err)
	}
	if err := unix.Mount(dev, StateDir, "ext4", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV, stateOptions(dev)); err != nil {
		return fmt.Errorf("mount STATE from %s: %w", dev, err)
	}
	return nil
}

// checkState lets e2fsck repair the file system on dev.
func checkState(ctx context.Context, dev string, check Checker) error {
	seen, err := look(dev)
	if err != nil {
		return fmt.Errorf("check STATE: %w", err)
	}
	corrupt := false // as one of the runs said
	fsck := func(args ...string) (string, int, error) {
		out, status, err := check(ctx, "/bin/e2fsck", append(args, dev)...)
		if err == nil && status > killed {
			err = fmt.Errorf("e2fsck %s was ended by signal %d (9 may mean that memory ran out); the next boot checks again: %s", dev, status-killed, lastLines(string(out), 5))
		}
		corrupt = corrupt || damaged(status, string(out))
		return string(out), status, err
	}
	// -p repairs what needs no question: it replays the journal after a power cut.
	out, status, err := fsck("-p")
	// The superblock is two sectors, and some of its writes bypass the journal: a cut
	// between the two leaves neither the old nor the new one. A backup leads to the journal,
	// and replaying that writes it whole; the counts that the backup does not know are the
	// second run's affair, and so is the verdict. Growing writes the backups, too: the same
	// cut may have torn the first one. Where the superblock is whole, e2fsck has another
	// reason, which no backup mends and which going by one would only hide.
	for _, b := range seen.Backups {
		if err != nil || status&operational == 0 || seen.Whole {
			break
		}
		if out, _, err = fsck("-p", "-b", fmt.Sprint(b.Block), "-B", fmt.Sprint(b.BlockSize)); unsupported(out) {
			break
		}
		if err == nil {
			out, status, err = fsck("-f", "-p")
		}
	}
	if err == nil && status&operational != 0 && !seen.Whole && !unsupported(out) && fromCopy(dev) {
		out, status, err = fsck("-f", "-p")
	}
	said := fmt.Sprintf("e2fsck %s exited with %d: %s", dev, status, lastLines(out, 5))
	switch {
	case err != nil:
		return fmt.Errorf("check STATE: %w", err)
	case status&^repaired == 0:
		return nil
	case unsupported(out):
		return fmt.Errorf("check STATE: a newer release has made or changed it, and this one cannot read it: start that release again (%s)", said)
	case damaged(status, out):
		return fmt.Errorf("%w: %s", ErrCorrupt, said)
	case seen.Unread != nil:
		return fmt.Errorf("check STATE: the disk cannot be read, which does not say that it is corrupt: %w (%s)", seen.Unread, said)
	case seen.Bytes == 0 && !troubled(out):
		return fmt.Errorf("%w: it has no superblock, and no backup of one: %s", ErrCorrupt, said)
	case corrupt && !seen.Whole && !troubled(out):
		return fmt.Errorf("%w: no backup of its superblock leads anywhere: %s", ErrCorrupt, said)
	}
	return fmt.Errorf("check STATE: it could not be checked, which does not say that it is corrupt: %s", said)
}

// Bits of e2fsck's exit status. 1: repaired; 2: repaired, "reboot", which a file system that
// nobody has mounted does not need; 4: not repaired; 8: not even checked, for whatever
// reason. 16, 32 and 128 are no verdict either. Source: e2fsck(8).
const (
	repaired    = 1 | 2
	unrepaired  = 4
	operational = 8
)

// killed is what a signal that has ended a program is added to, as by a shell.
const killed = 128

// damaged says whether a run of e2fsck has found damage that it did not repair, in what it
// could read.
func damaged(status int, out string) bool {
	return status&^repaired == unrepaired && !troubled(out)
}

// troubled says whether a run of e2fsck had trouble with the disk itself, which a cable or
// another boot may end. Source: e2fsck/ehandler.c, lib/ext2fs/ext2_err.et, strerror(3).
func troubled(out string) bool {
	return says(out, "Error reading block", "Error writing block", "Input/output error", "short read", "short write", "Memory allocation failed", "Cannot allocate memory")
}

// unsupported says whether a run of e2fsck met what only a newer one knows, in the file
// system or in its journal, whose features a newer kernel sets by itself. Source:
// e2fsck/{unix,problem,super}.c, lib/ext2fs/ext2_err.et.
func unsupported(out string) bool {
	return says(out, "unsupported feature", "Get a newer version of e2fsck", "unknown incompatible feature", "unknown read-only feature", "not supported by this e2fsck", "unsupported encoding", "Unknown checksum algorithm", "revision too high")
}

func says(out string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(out, text) })
}

// look says what there is on dev to be checked, or why e2fsck is not to touch it.
func look(dev string) (seen superblock.Sight, err error) {
	f, err := os.Open(dev)
	if err != nil {
		return seen, err
	}
	defer f.Close()
	if on, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err == nil && on != 0 { // a file of a test has none
		return seen, fmt.Errorf("%s is write-protected: a switch on the card, a setting of the host, or a card that is worn out and now refuses writes", dev)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return seen, err
	}
	if seen = superblock.Look(f, size); !seen.Whole {
		if what := foreign(f); what != "" {
			return seen, fmt.Errorf("%s has no ext4, but %s, which this release does not read: a newer release, or somebody else, has made it", dev, what)
		}
	}
	if seen.Bytes > size {
		return seen, fmt.Errorf("the file system on %s has %d MiB, and its partition %d MiB: it was copied to a smaller disk, or the partition table was changed or could not be grown", dev, seen.Bytes>>20, size>>20)
	}
	return seen, nil
}

// strangers are file systems and the like by a text at an offset that says what they are.
//
// Source: util-linux, libblkid/src/superblocks.
var strangers = []struct {
	what  string
	at    int64
	magic string
}{
	{"encryption by LUKS", 0, "LUKS\xba\xbe"},
	{"XFS", 0, "XFSB"},
	{"squashfs", 0, "hsqs"},
	{"a volume of BitLocker", 3, "-FVE-FS-"},
	{"NTFS", 3, "NTFS    "},
	{"exFAT", 3, "EXFAT   "},
	{"FAT", 0x36, "FAT1"},
	{"FAT", 0x52, "FAT32   "},
	{"LVM", 512, "LABELONE"},
	{"F2FS", 1024, "\x10\x20\xf5\xf2"},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0"},
	{"swap", 4086, "SWAPSPACE2"},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"btrfs", 0x10040, "_BHRfS_M"},
}

// foreign names what is there in place of ext4; "" where nothing says so.
func foreign(r io.ReaderAt) string {
	for _, s := range strangers {
		got := make([]byte, len(s.magic))
		if n, _ := r.ReadAt(got, s.at); string(got[:n]) == s.magic {
			return s.what
		}
	}
	return ""
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
