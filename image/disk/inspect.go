package disk

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"kogge.example/update/fat"
	"kogge.example/update/gpt"
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
	// Slot is the slot that the release was found in: "a" or "b".
	Slot string
	// Verity leads to the root file system of that slot.
	Verity verity.Params
}

// partitions are the names that make a disk one of ours.
var partitions = []string{"ESP", "ROOT-A", "ROOT-B", "STATE"}

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
	for _, slot := range []string{"a", "b"} {
		c.Slot = slot
		for _, read := range []func(*fat.Volume) error{c.readUKI, c.readFolder} {
			err := read(v)
			if err == nil {
				return c, nil
			}
			if !errors.Is(err, fat.ErrNotExist) {
				return c, fmt.Errorf("%w: kernel of slot %s: %w", ErrDamaged, slot, err)
			}
		}
	}
	c.Slot = ""
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
	for _, name := range partitions {
		if _, err := t.Find(name); err != nil {
			return gpt.Table{}, fmt.Errorf("%w: %w", ErrNoImage, err)
		}
	}
	return t, nil
}

// Boot opens the boot partition of a disk with table t.
func Boot(d Device, t gpt.Table) (*fat.Volume, error) {
	p, err := t.Find("ESP")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	v, err := fat.Open(d, p.Offset(), p.Size())
	if err != nil {
		return nil, fmt.Errorf("%w: boot partition: %w", ErrDamaged, err)
	}
	return v, nil
}

// maxCmdline is more than any kernel takes.
const maxCmdline = 64 << 10

// readFolder learns board, version and root hash from a slot whose kernel and command
// line are files of their own, which is how U-Boot has them. The error wraps
// fat.ErrNotExist where there is no such slot.
func (c *Contents) readFolder(v *fat.Volume) error {
	folder := strings.ToUpper(c.Slot)
	kernel, err := v.Reader(path.Join(folder, "kernel"))
	if err != nil {
		return err
	}
	text, err := v.Reader(path.Join(folder, "cmdline"))
	if err != nil {
		return fmt.Errorf("command line: %v", err) // there is a slot, so this is damage
	}
	return c.readKernel(kernel, text)
}

// readKernel learns the same from the content of the two files.
//
// Source: Documentation/arch/arm64/booting.rst in the kernel tree.
func (c *Contents) readKernel(kernel io.ReaderAt, cmdline io.Reader) error {
	magic := make([]byte, 4)
	if _, err := kernel.ReadAt(magic, 0x38); err != nil && err != io.EOF {
		return err
	}
	if string(magic) != "ARM\x64" {
		return errors.New("it is not for arm64")
	}
	c.Arch = "arm64"
	line, err := io.ReadAll(io.LimitReader(cmdline, maxCmdline))
	if err != nil {
		return err
	}
	return c.readCmdline(strings.TrimPrefix(string(line), "bootargs="))
}

// readUKI learns board, version and root hash from the unified kernel image of the
// slot. The error wraps fat.ErrNotExist where there is none.
func (c *Contents) readUKI(v *fat.Volume) error {
	r, err := v.Reader(path.Join("EFI/kogge", c.Slot+".efi"))
	if err != nil {
		return err
	}
	return c.readPE(r)
}

// readPE learns the same from the content of the file.
func (c *Contents) readPE(r io.ReaderAt) error {
	f, err := pe.NewFile(r)
	if err != nil {
		return err
	}
	defer f.Close()
	archs := map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}
	if c.Arch = archs[f.Machine]; c.Arch == "" {
		return fmt.Errorf("it is for another processor (machine type %#x)", f.Machine)
	}
	s := f.Section(".cmdline")
	if s == nil || s.VirtualSize > maxCmdline {
		return errors.New("it has no kernel command line")
	}
	text, err := s.Data()
	if err != nil {
		return err
	}
	return c.readCmdline(string(bytes.TrimRight(text, "\x00")))
}

// readCmdline learns board, version and root hash from a kernel command line.
func (c *Contents) readCmdline(line string) (err error) {
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "kogge.board":
			c.Board = value
		case "kogge.version":
			c.Version = value
		case "kogge.verity":
			if c.Verity, err = verity.ParseParams(value); err != nil {
				return err
			}
		}
	}
	if c.Board == "" || c.Version == "" || c.Verity.Blocks == 0 {
		return errors.New("its command line names no board, version or root hash")
	}
	return nil
}

// Root returns the partition of the slot that the release is in.
func (c Contents) Root() (gpt.Partition, error) {
	return c.Table.Find("ROOT-" + strings.ToUpper(c.Slot))
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
	state, err := c.Table.Find("STATE")
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
