// Package volume is a folder on STATE that outlives containers: it is made, given what an
// image has at its place, and counted.
//
// In come folders; after a power cut at any point each is there as a whole, or not there. Who
// mounts a volume, what it is called and when it goes is package engine's.
package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"kogge.example/agent/removal"
)

// Make makes an empty volume, root's and not to be written by others, as Docker does;
// where the image has a folder, fill makes it like that. After a power cut the volume is
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
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	return os.Rename(fresh, folder)
}

// Beside are the places beside a volume where something of it may lie.
func Beside(volume string) []string {
	return []string{newOf(volume), partOf(volume), wholeOf(volume)}
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

// Fill copies what is at target below root into an empty volume; a folder that is not there
// is uid's and gid's. After a power cut the volume is empty, or [Resume] makes it whole:
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
	if err := removal.All(ctx, part); err != nil {
		return err
	}
	err = continuity.CopyDir(part, from)
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
		return errors.Join(err, removal.All(context.WithoutCancel(ctx), part))
	}
	return Resume(volume)
}

// Resume finishes what [Fill] began, if there is anything.
func Resume(volume string) error {
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
