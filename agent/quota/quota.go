// Package quota bounds what containers together take of STATE, in bytes and in files, so
// that the node can always write down what operators tell it, and start a container.
//
// In come the folders that containers write to, and how full the file system is; out goes
// the limit of one project of ext4's quotas, to which all those folders belong. Root with
// CAP_SYS_RESOURCE, as the node's own programs are, is not bound by it. A file system
// without such quotas, as one of an older release, has no bound.
//
// Source: fs/quota/, fs/ext4/ioctl.c and include/uapi/linux/{quota,fs}.h in the kernel tree.
package quota

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNone says that the file system has no project quotas.
var ErrNone = errors.New("the file system has no project quotas")

// Project is the number of what containers have written.
const Project = 1

// Space is how full a file system is.
type Space struct {
	Bytes, Files         uint64 // in all
	FreeBytes, FreeFiles uint64 // for everybody
}

// Use is what a project has.
type Use struct{ Bytes, Files uint64 }

// Reserve is what containers leave: a part of all, but no less than what a node writes
// down and a few starts need, and no more than many starts need.
func Reserve(s Space) Use {
	return Use{
		Bytes: min(max(s.Bytes/32, 16<<20), 512<<20, s.Bytes/4),
		Files: min(max(s.Files/16, 512), 65536, s.Files/4),
	}
}

// Limit is how much a project that has used may have by now: what it has, and what of the
// free space is not reserved. It is never 0, which would mean no limit.
func Limit(s Space, used Use) Use {
	r := Reserve(s)
	return Use{
		Bytes: max(used.Bytes+s.FreeBytes-min(r.Bytes, s.FreeBytes), 1),
		Files: max(used.Files+s.FreeFiles-min(r.Files, s.FreeFiles), 1),
	}
}

// Bind sets the limit for the file system that folder is on, as full as it is now. It is
// to be called again and again, as images come and go. The error is [ErrNone] where there
// are no quotas.
func Bind(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("quota: free space of %s: %w", folder, err)
	}
	block := uint64(st.Bsize)
	s := Space{Bytes: st.Blocks * block, Files: st.Files, FreeBytes: st.Bavail * block, FreeFiles: st.Ffree}
	var q dqblk
	if err := control(f, getQuota, &q); err != nil {
		return fmt.Errorf("quota of %s: %w", folder, err)
	}
	l := Limit(s, Use{Bytes: q.curSpace, Files: q.curInodes})
	next := dqblk{hardBlocks: (l.Bytes + quotaBlock - 1) / quotaBlock, hardInodes: l.Files, valid: limitBlocks | limitInodes}
	if next.hardBlocks == q.hardBlocks && next.hardInodes == q.hardInodes {
		return nil // set again it would be written to the disk again
	}
	if err := control(f, setQuota, &next); err != nil {
		return fmt.Errorf("quota of %s: %w", folder, err)
	}
	return nil
}

// Has says whether the file system that folder is on has project quotas. One that cannot be
// asked may have them.
func Has(folder string) bool {
	f, err := os.Open(folder)
	if err != nil {
		return true
	}
	defer f.Close()
	var q dqblk
	return !errors.Is(control(f, getQuota, &q), ErrNone)
}

// Tag has folder, and all that will be made in it, belong to the project. The error is
// [ErrNone] where there are no quotas.
func Tag(folder string) error {
	f, err := os.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	defer f.Close()
	if err := tag(f); err != nil {
		return fmt.Errorf("quota of %s: %w", folder, err)
	}
	return nil
}

// maxFolders bounds TagTree.
const maxFolders = 4096

// TagTree tags folder and the folders in it, of which there are few by now, and which
// nobody else changes. Files that are there already stay nobody's.
func TagTree(folder string) error {
	n := 0
	return filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if n++; err != nil || n > maxFolders {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		return Tag(path)
	})
}

// fsxattr is the kernel's struct fsxattr.
type fsxattr struct {
	xflags, extsize, nextents, project, cowextsize uint32
	_                                              [8]byte
}

const (
	fsGetXattr = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit    = 0x200      // FS_XFLAG_PROJINHERIT
)

func tag(f *os.File) error {
	var x fsxattr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsGetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return none(errno)
	}
	x.xflags |= inherit
	x.project = Project
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsSetXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		return none(errno)
	}
	return nil
}

// dqblk is the kernel's struct if_dqblk.
type dqblk struct {
	hardBlocks, softBlocks, curSpace, hardInodes, softInodes, curInodes, blockTime, inodeTime uint64

	valid uint32
	_     uint32
}

const (
	getQuota    = 0x800007<<8 | projects // QCMD(Q_GETQUOTA, PRJQUOTA)
	setQuota    = 0x800008<<8 | projects
	projects    = 2
	quotaBlock  = 1024 // bytes; QIF_DQBLKSIZE
	limitBlocks = 1    // QIF_BLIMITS
	limitInodes = 4    // QIF_ILIMITS
)

func control(f *os.File, command uintptr, q *dqblk) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), command, Project, uintptr(unsafe.Pointer(q)), 0, 0)
	if errno != 0 {
		return none(errno)
	}
	return nil
}

// none is err, or [ErrNone] for the ways in which kernels say that.
func none(err unix.Errno) error {
	switch err {
	case unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.ESRCH, unix.EINVAL:
		return ErrNone
	}
	return err
}
