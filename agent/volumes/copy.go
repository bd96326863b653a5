package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// copying is a copy of a tree that nobody changes meanwhile.
type copying struct {
	ctx context.Context
	// links are where files lie that have more names than one, by device and inode.
	links map[[2]uint64]string
}

// copyTree copies what is in the folder src, and what it is itself, to the folder dst, which
// is there: files with all their names, links, devices and pipes, with owners, modes,
// attributes and times. It ends with ctx.
func copyTree(ctx context.Context, dst, src string) error {
	c := &copying{ctx: ctx, links: make(map[[2]uint64]string)}
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	if err := c.folder(dst, src); err != nil {
		return err
	}
	return attributes(dst, src, &st)
}

// part is how much is copied until ctx is asked, in bytes, and in entries of a folder.
const (
	part  = 4 << 20
	batch = 512
)

func (c *copying) folder(dst, src string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			if err := c.entry(filepath.Join(dst, name), filepath.Join(src, name)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copying) entry(dst, src string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	var err error
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFDIR:
		if err = os.Mkdir(dst, 0o700); err == nil {
			err = c.folder(dst, src)
		}
	case unix.S_IFLNK:
		var to string
		if to, err = os.Readlink(src); err == nil {
			err = os.Symlink(to, dst)
		}
	default:
		inode := [2]uint64{st.Dev, st.Ino}
		if first, known := c.links[inode]; known {
			return os.Link(first, dst)
		}
		if st.Nlink > 1 {
			c.links[inode] = dst
		}
		if kind == unix.S_IFREG {
			err = c.file(dst, src)
		} else if err = unix.Mknod(dst, st.Mode, int(st.Rdev)); err != nil {
			err = &os.PathError{Op: "mknod", Path: dst, Err: err}
		}
	}
	if err != nil {
		return err
	}
	return attributes(dst, src, &st)
}

func (c *copying) file(dst, src string) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for err == nil {
		if err = c.ctx.Err(); err == nil {
			_, err = io.CopyN(to, from, part)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, to.Close())
}

// attributes gives dst the owner, mode, attributes and times of src: the owner first, as a
// change of it takes away bits of the mode and the capabilities of a file.
func attributes(dst, src string, st *unix.Stat_t) error {
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(dst, st.Mode&^unix.S_IFMT); err != nil {
			return &os.PathError{Op: "chmod", Path: dst, Err: err}
		}
	}
	if err := xattrs(dst, src); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: dst, Err: err}
	}
	return nil
}

// maxXattrs is what the kernel lists at most, and the most that one has.
//
// Source: XATTR_LIST_MAX and XATTR_SIZE_MAX in include/uapi/linux/limits.h.
const maxXattrs = 64 << 10

func xattrs(dst, src string) error {
	size, err := unix.Llistxattr(src, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	list, value := make([]byte, maxXattrs), make([]byte, maxXattrs)
	if err == nil {
		size, err = unix.Llistxattr(src, list)
	}
	if err != nil {
		return fmt.Errorf("%s: attributes: %w", src, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(src, name, value)
		if err == nil {
			err = unix.Lsetxattr(dst, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("%s: attribute %s: %w", dst, name, err)
		}
	}
	return nil
}
