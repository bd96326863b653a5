package disk

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"kogge.example/boards"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
	"kogge.example/update/verity"
)

var (
	// ErrNoImage says that there is something else in a file or on a medium.
	ErrNoImage = errors.New("this is not a Kogge image")
	// ErrQcow2 says that an image is in QEMU's format: its bytes are not those of a disk.
	ErrQcow2 = errors.New("this is a qcow2 file, not a raw image")
	// ErrDamaged says that an image is not what was built.
	ErrDamaged = errors.New("the image is damaged or cut short")
)

// Device is an image file or a medium. [os.File] fits, and so does crashdisk.Disk.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Contents is what an image or a medium says about itself.
type Contents struct {
	Table   gpt.Table
	Board   string
	Arch    string // Go's name
	Version string
	// Marks are in which ways it is not what its commit and its lock say; "" for none.
	Marks string
	// Slot is the slot that the release was found in: "a" or "b".
	Slot string
	// Verity leads to the root file system of that slot.
	Verity verity.Params
}

// Inspect reads what is in the image of size bytes on d. It writes nothing, and
// looks at names only: that the content is whole is for Verify to say. The error
// wraps ErrNoImage or ErrQcow2 where it is something else.
func Inspect(d Device, size int64) (Contents, error) {
	t, err := Table(d, size)
	if err != nil {
		return Contents{}, err
	}
	c := Contents{Table: t}
	v, err := Boot(d, t)
	if err != nil {
		return c, err
	}
	for _, slot := range []bootloader.Slot{bootloader.A, bootloader.B} {
		for _, name := range boards.Bootloaders {
			l, err := bootloader.For(name)
			if err != nil {
				return c, err
			}
			if _, err := l.Open(v, slot, l.BootFiles()[0]); errors.Is(err, fat.ErrNotExist) {
				continue
			}
			c.Slot = strings.ToLower(string(slot))
			k, err := bootloader.KernelOf(l, v, slot)
			if err != nil {
				return c, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if err := c.read(k); err != nil {
				return c, fmt.Errorf("%w: kernel of slot %s: %w", ErrDamaged, slot, err)
			}
			return c, nil
		}
	}
	return c, fmt.Errorf("%w: there is no kernel on the boot partition", ErrDamaged)
}

// Table returns the partition table of an image or a medium, which has to be one
// of ours. The error wraps ErrNoImage or ErrQcow2.
func Table(r io.ReaderAt, size int64) (gpt.Table, error) {
	magic := make([]byte, 4)
	if _, err := r.ReadAt(magic, 0); err != nil && err != io.EOF {
		return gpt.Table{}, err
	}
	if string(magic) == "QFI\xfb" {
		return gpt.Table{}, ErrQcow2
	}
	t, err := gpt.Read(r, size)
	if err != nil {
		return gpt.Table{}, fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	for _, name := range partition.All() {
		if _, err := t.Find(name); err != nil {
			return gpt.Table{}, fmt.Errorf("%w: %w", ErrNoImage, err)
		}
	}
	return t, nil
}

// Boot opens the boot partition of a disk with table t.
func Boot(d Device, t gpt.Table) (*fat.Volume, error) {
	p, err := t.Find(partition.ESP)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	v, err := fat.Open(d, p.Offset(), p.Size())
	if err != nil {
		return nil, fmt.Errorf("%w: boot partition: %w", ErrDamaged, err)
	}
	return v, nil
}

// read learns what a kernel says: its architecture, and board, version and root hash on
// its command line.
func (c *Contents) read(k bootloader.Kernel) error {
	if c.Arch = k.Arch; c.Arch == "" {
		return errors.New("it is for no architecture that is known here")
	}
	return c.readCmdline(k.Cmdline)
}

// readCmdline learns board, version and root hash from a kernel command line.
func (c *Contents) readCmdline(line string) error {
	words, err := cmdline.Parse(line)
	if err != nil && !errors.Is(err, cmdline.ErrNoRoot) {
		return err
	}
	if err != nil || words.Board == "" || words.Version == "" {
		return errors.New("its command line names no board, version or root hash")
	}
	c.Board, c.Version, c.Marks, c.Verity = words.Board, words.Version, words.Marks, words.Verity
	return nil
}

// String is "Kogge 1.0 for board pc-x86_64", with its marks, as people are told.
func (c Contents) String() string {
	s := fmt.Sprintf("Kogge %s for board %s", c.Version, c.Board)
	if c.Marks != "" {
		s += " (" + strings.ReplaceAll(c.Marks, ",", ", ") + ")"
	}
	return s
}

// Root returns the partition of the slot that the release is in.
func (c Contents) Root() (gpt.Partition, error) {
	return c.Table.Find(partition.Root(c.Slot))
}

// Verify reads everything that has to be right for the first boot: both copies of
// the partition table, the boot partition, each block of the root file system, and
// that STATE is an ext4 file system. The error wraps ErrDamaged.
func (c Contents) Verify(d Device) error {
	if c.Table.Damage != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, c.Table.Damage)
	}
	v, err := Boot(d, c.Table)
	if err != nil {
		return err
	}
	report, err := v.Check()
	if err != nil {
		return err
	}
	if !report.Clean() {
		return fmt.Errorf("%w: boot partition: %s", ErrDamaged, report)
	}
	root, err := c.Root()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	if err := verity.Verify(io.NewSectionReader(d, root.Offset(), root.Size()), c.Verity); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, root.Name, err)
	}
	state, err := c.Table.Find(partition.State)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	magic := make([]byte, 2)
	if _, err := d.ReadAt(magic, state.Offset()+extMagic); err != nil {
		return fmt.Errorf("%w: STATE: %w", ErrDamaged, err)
	}
	if magic[0] != 0x53 || magic[1] != 0xef {
		return fmt.Errorf("%w: STATE holds no ext4 file system", ErrDamaged)
	}
	return nil
}

// extMagic is where an ext4 file system has its magic number, in bytes.
//
// Source: Documentation/filesystems/ext4/globals.rst, superblock at 1024, s_magic at 0x38.
const extMagic = 1024 + 0x38
