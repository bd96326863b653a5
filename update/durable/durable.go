// Package durable replaces, removes and reads small files of a node so that a power cut leaves
// the old content or the new one, whole. In come a name and bytes; the file on the disk
// goes out. What the bytes mean, and when to write them, is the caller's.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Files is a file system that can lose power. The real one is the machine's;
// crashdisk.Files is one in memory.
type Files interface {
	Create(name string, data []byte, mode fs.FileMode) error // a new file, not synced
	Sync(name string) error                                  // a file, or a folder
	Rename(from, to string) error
}

// Replace puts a file of that content and mode in the place of name, which may not
// exist yet; its folder does. Beside it lies name + ".new" for a moment, or from a
// cut until the next Replace. After a cut at any point name has its old content or
// the new one; once Replace returns nil, it has the new one for good:
//
//  1. write the new content to a file of another name
//  2. sync it, so that the name never stands for an empty file
//  3. rename it over the old one
//  4. sync the folder, so that the new content counts from now on
func Replace(name string, data []byte, mode fs.FileMode) error {
	return ReplaceIn(disk{}, name, data, mode)
}

// ReplaceIn is Replace in another file system than the machine's.
func ReplaceIn(fsys Files, name string, data []byte, mode fs.FileMode) error {
	temp := name + ".new"
	if err := fsys.Create(temp, data, mode); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.Sync(temp); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.Rename(temp, name); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.Sync(filepath.Dir(name)); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}

// Remove removes a file for good: once it returns nil, no power cut brings the file back.
// After a cut before that the file is there, whole, or is not. What is missing is an error
// that is [fs.ErrNotExist].
func Remove(name string) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	if err := (disk{}).Sync(filepath.Dir(name)); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// asideSuffix is behind the name of a file that lies aside. MaxAside is how many lie aside of one
// name: a disk that decays is not to be filled with them.
const (
	asideSuffix = ".damaged"
	MaxAside    = 9
)

// AsideName is under which name a file lies aside: NAME.damaged, and where another one of that name lies
// there already NAME.damaged.2, and so on.
func AsideName(name string, n int) string {
	if n == 1 {
		return name + asideSuffix
	}
	return fmt.Sprintf("%s%s.%d", name, asideSuffix, n)
}

// aside is under which name a file is to lie aside. kept says that it does.
func aside(name string) (as string, kept bool, err error) {
	own, err := os.Lstat(name)
	if err != nil {
		return "", false, err
	}
	for n := 1; n <= MaxAside; n++ {
		as = AsideName(name, n)
		there, err := os.Lstat(as)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return as, false, nil
		case err != nil:
			return "", false, err
		case os.SameFile(own, there):
			return as, true, nil
		}
	}
	return as, false, nil
}

// Keep has a file lie aside, too, as [AsideName]. Nothing of it is read: it may be one that cannot be.
// What lies aside already stays; of more than nine the ninth makes room. After a cut at any point name is
// as it was; once Keep returns nil, the file lies aside for good, whatever takes the place of name. What
// is missing is an error that is [fs.ErrNotExist].
func Keep(name string) error {
	as, kept, err := aside(name)
	if err != nil {
		return err
	}
	temp := as + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !kept {
		if err := os.Link(name, temp); err != nil {
			return err
		}
		if err := os.Rename(temp, as); err != nil {
			return err
		}
	}
	return disk{}.Sync(filepath.Dir(as))
}

// Aside has a file lie beside its place, as [AsideName], and nothing in its place. What lies aside
// already stays, as with [Keep]. After a cut before that returns it is at the one or the other.
func Aside(name string) error {
	as, kept, err := aside(name)
	switch {
	case err != nil:
	case kept:
		err = os.Remove(name) // to rename one file to itself leaves both names
	default:
		err = os.Rename(name, as)
	}
	if err != nil {
		return err
	}
	return disk{}.Sync(filepath.Dir(name))
}

// ErrTooLarge is of a file that is not what was written.
var ErrTooLarge = errors.New("too large")

// Read is the content of a file that has so many bytes, at most. More is [ErrTooLarge]: where the disk
// has decayed a file may have any size, and to read it would take all memory.
func Read(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("read %s: %w: it has more than %d bytes", name, ErrTooLarge, most)
	}
	if err != nil {
		return nil, err
	}
	return raw, nil
}

// SyncFolder makes the names in a folder last: those that were made, and those that were
// removed.
func SyncFolder(name string) error { return disk{}.Sync(name) }

// disk is the file system of the machine.
type disk struct{}

func (disk) Create(name string, data []byte, mode fs.FileMode) error {
	// A left-over of a power cut may have any mode, or be a link to elsewhere.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (disk) Rename(from, to string) error { return os.Rename(from, to) }

func (disk) Sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
