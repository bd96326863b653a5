// Package mount finds and mounts what a node stands on: early file systems, the
// slot whose verity tree leads to the root hash of the kernel command line, and
// STATE. Kernel command line and partition names come in; mounted file systems go
// out. It decides nothing about releases and writes to no slot.
package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fileSystem is one mount without a device.
type fileSystem struct {
	target, fstype string
	flags          uintptr
	options        string
}

const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

var stage0 = []fileSystem{
	{"/proc", "proc", plain, ""},
	{"/sys", "sysfs", plain, ""},
	{"/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
}

var pid1 = []fileSystem{
	{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
	{"/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"/dev/mqueue", "mqueue", plain, ""},
	{"/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	// What a group is guaranteed holds for the groups below it too.
	{"/sys/fs/cgroup", "cgroup2", plain, "nsdelegate,memory_recursiveprot"},
	{"/sys/kernel/security", "securityfs", plain, ""},
}

// optional are file systems that not every kernel or firmware has. One for eBPF is not
// among them: nobody keeps programs there, runc needs none for its device rules, and the
// kernel would run modprobe for a module of its own with the mount.
var optional = []fileSystem{
	{"/sys/firmware/efi/efivars", "efivarfs", plain, ""},
	{"/sys/fs/pstore", "pstore", plain, ""},
}

// Stage0 mounts what the initramfs needs. PID 1 inherits these mounts.
func Stage0() error { return mountAll(stage0) }

// Early mounts the rest of what every program expects, in the root file system.
func Early() error {
	if err := mountAll(pid1); err != nil {
		return err
	}
	for _, fs := range optional {
		if _, err := os.Stat(fs.target); err == nil {
			// Absent firmware variables or an old kernel are no reason to stop.
			_ = unix.Mount(fs.fstype, fs.target, fs.fstype, fs.flags, fs.options)
		}
	}
	return nil
}

func mountAll(all []fileSystem) error {
	for _, fs := range all {
		// Folders of the root exist; those in tmpfs and the initramfs may not.
		if err := os.MkdirAll(fs.target, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("mount %s: %w", fs.target, err)
		}
		err := unix.Mount(fs.fstype, fs.target, fs.fstype, fs.flags, fs.options)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", fs.fstype, fs.target, err)
		}
	}
	return nil
}
