// Package volumes makes the folders of named volumes, and fills new ones.
//
// In come paths of volumes and, where a volume is new, the root of an image; out go folders
// that are there as a whole or not at all, also after a power cut. Who mounts a volume, and
// when it is removed, is package engine's. One at a time works on a volume.
package volumes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"kogge.example/agent/quota"
	"kogge.example/agent/trees"
)

// volumeMode is the mode of a new volume.
const volumeMode = 0o755

// Make makes an empty volume, root's and not to be written by others, as Docker does; where
// an image has a folder, [Fill] makes it like that. After a power cut the volume is
// there as a whole or not there:
//
//  1. make a folder under another name, which a cut may leave
//  2. open it to read
//  3. give it its name
func Make(folder string) error {
	fresh := newOf(folder)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := os.MkdirAll(fresh, 0o700); err != nil {
		return err
	}
	if err := Count(fresh); err != nil {
		return err
	}
	if err := os.Chmod(fresh, volumeMode); err != nil {
		return err
	}
	return os.Rename(fresh, folder)
}

// Count has what is in a folder count as containers'.
func Count(folder string) error {
	if err := quota.Tag(folder); err != nil && !errors.Is(err, quota.ErrNone) {
		return err
	}
	return nil
}

// Fresh says of a volume that it is as [Make] made it: nothing has been put there, and
// nobody changed its owner or mode. First it finishes what [Fill] began, if there is anything.
func Fresh(volume string) (bool, error) {
	if err := resume(volume); err != nil {
		return false, err
	}
	entries, err := os.ReadDir(volume)
	return err == nil && len(entries) == 0 && untouched(volume), nil
}

// untouched says that folder still has the owner and the mode that [Make] gave it.
// Another container may have changed them: a job that runs before a service, to give it the
// folder, has nothing else to do.
func untouched(folder string) bool {
	info, err := os.Stat(folder)
	if err != nil || info.Mode() != fs.ModeDir|volumeMode {
		return false
	}
	owner := info.Sys().(*syscall.Stat_t)
	return owner.Uid == 0 && owner.Gid == 0
}

// What is to become a volume, or is copied into one, lies beside it under these names; no
// volume's begins with a dot. Under the first two it is of no use after a power cut, under
// the third it is whole.
func newOf(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".new")
}
func partOf(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".part")
}
func wholeOf(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".whole")
}

// Beside are the places where making and filling a volume may have left something.
func Beside(volume string) []string { return []string{newOf(volume), partOf(volume), wholeOf(volume)} }

// Fill copies what is at target below root into a [Fresh] volume, with the owner and the mode
// of the folder; if there is none, the volume becomes the user's. After a power cut the
// volume is empty, or [Fresh] makes it whole:
//
//  1. copy into another folder
//  2. sync it, and give it the name that says so
//  3. move its entries, and remove it
func Fill(ctx context.Context, volume, root, target string, uid, gid int) error {
	from, err := continuity.RootPath(root, target) // a link of the image leads nowhere else
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return os.Chown(volume, uid, gid)
	}
	if err != nil {
		return err
	}
	part := partOf(volume)
	if err := trees.All(ctx, part); err != nil {
		return err
	}
	// Made before it is filled, so that all in it counts as the volume's.
	err = os.Mkdir(part, 0o700)
	if err == nil {
		err = Count(part)
	}
	if err == nil {
		err = copyTree(ctx, part, from)
	}
	if err == nil {
		err = syncFS(part)
	}
	if err == nil {
		err = os.Rename(part, wholeOf(volume))
	}
	if err == nil {
		err = syncFS(filepath.Dir(volume))
	}
	if err != nil {
		return errors.Join(err, trees.All(context.WithoutCancel(ctx), part))
	}
	return resume(volume)
}

// resume finishes what Fill began, if there is anything.
func resume(volume string) error {
	whole := wholeOf(volume)
	entries, err := os.ReadDir(whole)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(whole)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(whole, entry.Name()), filepath.Join(volume, entry.Name())); err != nil {
			return err
		}
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := errors.Join(os.Chown(volume, int(owner.Uid), int(owner.Gid)), os.Chmod(volume, info.Mode())); err != nil {
		return err
	}
	return os.Remove(whole)
}

// syncFS writes out the file system that path is on.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
