// Package trees removes and counts trees of files that containers made: of any depth and
// width, with any names, whole or as far as a bound goes.
//
// In comes a folder; out of the file system goes what is in it, or out comes what it takes
// of the disk. The usual way of removal, which
// [os.RemoveAll] goes too, holds a descriptor for each level, and a container makes half a
// million levels in seconds. Here what lies deeper is moved up beside the top, a folder at
// a time, so a few descriptors and one batch of names are all that it takes. Nothing has to
// be remembered: who is interrupted begins again. Links are removed and never followed, and
// nothing below a mount point is touched.
package trees

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrMountPoint says that something is mounted below the folder, which has to stay.
var ErrMountPoint = errors.New("is a mount point")

// All removes folder and all that is in it. None there is no error.
func All(ctx context.Context, folder string) error {
	if _, err := Some(ctx, folder, math.MaxInt); err != nil {
		return err
	}
	// unlink first, as it may be no folder.
	if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// Some removes what is in folder, and says whether that is all gone. It stops after most
// entries. What is no folder, or is not there, has nothing in it.
func Some(ctx context.Context, folder string, most int) (gone bool, err error) {
	top, err := os.OpenFile(folder, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("remove: %w", err)
	}
	defer top.Close()
	p := pit{ctx: ctx, top: top, most: most, prefix: rand.Text()}
	switch err := p.drain(top, 0); {
	case errors.Is(err, errMost):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("remove what is in %s: %w", folder, err)
	}
	return true, nil
}

// batch is how many names are read at a time.
const batch = 256

// maxDepth is how far down we go where a folder cannot be moved up, because the disk is
// full: what is removed there makes the room.
const maxDepth = 32

// errMost is the end of a bounded removal.
var errMost = errors.New("enough for now")

// pit is a folder into which all that lies below it comes up.
type pit struct {
	ctx    context.Context
	top    *os.File
	most   int    // entries that may still go
	prefix string // of the names that folders get on their way, which nobody could foresee
	moved  int
}

// drain removes all that is in folder, which is the top or lies depth levels below it.
func (p *pit) drain(folder *os.File, depth int) error {
	for {
		if _, err := folder.Seek(0, io.SeekStart); err != nil {
			return err
		}
		seen, before := false, p.most
		var failed error
		for {
			names, err := folder.Readdirnames(batch)
			if err != nil && err != io.EOF {
				return err
			}
			for _, name := range names {
				seen = true
				if err := p.remove(folder, name, depth); errors.Is(err, errMost) || p.ctx.Err() != nil {
					return errors.Join(err, p.ctx.Err())
				} else if failed == nil {
					failed = err
				}
			}
			if len(names) == 0 {
				break
			}
		}
		switch {
		case !seen:
			return nil
		case failed != nil && p.most == before:
			return failed // of all that is left, nothing goes
		}
	}
}

// remove removes one entry of a folder. A folder with folders in it loses them to the top.
func (p *pit) remove(folder *os.File, name string, depth int) error {
	if p.most <= 0 {
		return errMost
	}
	err := unlink(folder, name, 0)
	if err == unix.EISDIR || err == unix.EPERM {
		if err = unlink(folder, name, unix.AT_REMOVEDIR); err == unix.ENOTEMPTY || err == unix.EEXIST {
			return p.sink(folder, name, depth)
		}
	}
	switch err {
	case nil, unix.ENOENT:
		p.most--
		return nil
	case unix.EBUSY:
		return fmt.Errorf("%s: %w", strconv.Quote(name), ErrMountPoint)
	}
	return fmt.Errorf("%s: %w", strconv.Quote(name), err)
}

// sink removes a folder that is not empty: at the top what is in it goes first, with its
// own folders moved up; from further down it is moved up as it is.
func (p *pit) sink(folder *os.File, name string, depth int) error {
	if folder != p.top {
		err := p.lift(folder, name)
		switch {
		case err == nil:
			return nil
		case !stays(err) || depth == maxDepth:
			return fmt.Errorf("%s: %w", strconv.Quote(name), err)
		}
	}
	// One name, no link, the same mount: nobody leads us elsewhere.
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(int(folder.Fd()), name, &how)
	if err == unix.EXDEV {
		err = ErrMountPoint
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strconv.Quote(name), err)
	}
	inner := os.NewFile(uintptr(fd), filepath.Base(name))
	defer inner.Close()
	if err := p.drain(inner, depth+1); err != nil {
		return err
	}
	if err := unlink(folder, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return fmt.Errorf("%s: %w", strconv.Quote(name), err)
	}
	p.most--
	return nil
}

// stays says that a folder cannot be moved up and can be emptied where it is: there is no
// room at the top, or the two belong to different projects of ext4's quotas.
func stays(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EXDEV)
}

// lift moves a folder up to the top.
func (p *pit) lift(folder *os.File, name string) error {
	for {
		p.moved++
		up := p.prefix + "." + strconv.Itoa(p.moved)
		err := unix.Renameat2(int(folder.Fd()), name, int(p.top.Fd()), up, unix.RENAME_NOREPLACE)
		switch err {
		case unix.EEXIST:
			continue
		case unix.EBUSY:
			return ErrMountPoint
		}
		return err
	}
}

func unlink(folder *os.File, name string, flags int) error {
	for {
		if err := unix.Unlinkat(int(folder.Fd()), name, flags); err != unix.EINTR {
			return err
		}
	}
}
