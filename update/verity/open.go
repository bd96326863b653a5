package verity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OnCorruption is what the kernel does about a block that does not match its hash.
type OnCorruption int

const (
	// EIO fails the read. For a proven slot: one bad block is no boot loop.
	EIO OnCorruption = iota
	// Restart reboots at once. For a slot on trial: it uses up the try.
	Restart
)

// mapper is where device-mapper nodes lie; the kernel makes mapper/control itself.
const mapper = "/dev/mapper"

// Open maps the block device as a read-only one of that name, on which the kernel
// checks every block it reads, and returns its path, /dev/mapper/NAME. device holds
// p.Blocks blocks of data, then their tree. A block that does not match its hash fails
// its read with EIO, or restarts the machine; a tree that does not lead to the root
// hash fails Open with ErrTree. Kernel modules dm_mod and dm_verity have to be loaded
// and devtmpfs mounted. When Open fails it leaves no mapping behind.
func Open(name, device string, p Params, onCorruption OnCorruption) (path string, err error) {
	path, err = open(name, device, p, onCorruption)
	if err != nil {
		return "", fmt.Errorf("open %s through verity: %w", device, err)
	}
	return path, nil
}

func open(name, device string, p Params, onCorruption OnCorruption) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	dev, err := blockDevice(device, p)
	if err != nil {
		return "", err
	}
	control, err := openControl()
	if err != nil {
		return "", err
	}
	defer unix.Close(control)

	created := encodeRequest(name)
	if err := ioctl(control, devCreate, created); err != nil {
		return "", fmt.Errorf("create mapping %q: %w", name, err)
	}
	var path string
	for _, digest := range readDigests() {
		table := encodeTable(name, p, digest, dev, onCorruption)
		if path, err = start(control, name, table, binary.NativeEndian.Uint64(created[headerDev:])); err == nil {
			break
		}
	}
	if err != nil {
		if undone := ioctl(control, devRemove, encodeRequest(name)); undone != nil {
			err = errors.Join(err, fmt.Errorf("remove mapping %q: %w", name, undone))
		}
		return "", err
	}
	return path, nil
}

// start gives the mapping its table and a node.
func start(control int, name string, table []byte, dev uint64) (string, error) {
	if err := ioctl(control, tableLoad, table); err != nil {
		return "", fmt.Errorf("load table of mapping %q: %w", name, err)
	}
	if err := ioctl(control, devSuspend, encodeRequest(name)); err != nil { // without the flag: resume
		return "", fmt.Errorf("resume mapping %q: %w", name, err)
	}
	path := filepath.Join(mapper, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("remove old node: %w", err)
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o400, int(dev)); err != nil {
		return "", fmt.Errorf("make node %s: %w", path, err)
	}
	return path, nil
}

// blockDevice returns the number of the device after a look at its tree.
func blockDevice(device string, p Params) (dev uint64, err error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, errors.New("not a block device")
	}
	leads, err := Leads(f, p)
	if err != nil {
		return 0, err
	}
	if !leads {
		return 0, ErrTree
	}
	return uint64(stat.Rdev), nil
}

func openControl() (int, error) {
	control, err := unix.Open(filepath.Join(mapper, "control"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s/control (module dm_mod): %w", mapper, err)
	}
	return control, nil
}

// Numbers and layout of the device-mapper calls.
//
// Source: include/uapi/linux/dm-ioctl.h.
const (
	devCreate  = 3
	devRemove  = 4
	devSuspend = 6
	tableLoad  = 9

	headerSize  = 312 // struct dm_ioctl
	headerFlags = 28
	headerDev   = 40
	headerName  = 48
	nameSize    = 128
	specSize    = 40 // struct dm_target_spec
	readOnly    = 1 << 0
	callBase    = 3<<30 | headerSize<<16 | 0xfd<<8 // _IOWR(0xfd, n, struct dm_ioctl)
	kernelUnit  = 512                              // device-mapper counts in sectors
)

// checkName wants what fits the call and, below /dev/mapper, one path element.
func checkName(name string) error {
	if len(name) >= nameSize || strings.Trim(name, ".") == "" || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a name for a mapping", name)
	}
	return nil
}

// encodeRequest is a call about the mapping of that name, without a table.
func encodeRequest(name string) []byte {
	b := make([]byte, headerSize)
	binary.NativeEndian.PutUint32(b[0:], 4) // version 4.0.0 of the interface
	binary.NativeEndian.PutUint32(b[12:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[16:], headerSize) // where the table begins
	copy(b[headerName:headerName+nameSize-1], name)
	return b
}

// encodeTable is the call that gives the mapping its one target: all of dev.
func encodeTable(name string, p Params, digest string, dev uint64, onCorruption OnCorruption) []byte {
	line := fmt.Sprintf("1 %[1]d:%[2]d %[1]d:%[2]d %[3]d %[3]d %[4]d %[4]d %[7]s %[5]x %[6]x",
		unix.Major(dev), unix.Minor(dev), BlockSize, p.Blocks, p.Root, p.Salt, digest)
	if onCorruption == Restart {
		line += " 1 restart_on_corruption"
	}
	spec := make([]byte, (specSize+len(line)+1+7)&^7) // the line ends in a zero, the spec at 8 bytes
	binary.NativeEndian.PutUint64(spec[8:], p.Blocks*BlockSize/kernelUnit)
	binary.NativeEndian.PutUint32(spec[20:], uint32(len(spec)))
	copy(spec[24:40], "verity")
	copy(spec[specSize:], line)

	b := append(encodeRequest(name), spec...)
	binary.NativeEndian.PutUint32(b[12:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[20:], 1) // target
	binary.NativeEndian.PutUint32(b[headerFlags:], readOnly)
	return b
}

// ioctl makes one call; the kernel writes its answer over the request.
func ioctl(control int, call uintptr, request []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(control), callBase|call, uintptr(unsafe.Pointer(&request[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
