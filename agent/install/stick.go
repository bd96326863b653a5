package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kogge.example/update/fat"
	"kogge.example/update/release"
)

// StickFolder is where a stick has its release: an OCI layout.
const StickFolder = "kogge-release"

// Sticks are the USB sticks in the machine. The kernel mounts none of them: their FAT
// file system is read here, as bytes that anybody may have written, and a release on it
// is believed no more than one from anywhere else.
type Sticks struct {
	Sys string // /sys
	Dev string // /dev
}

var (
	errNoStick = errors.New("the node has no USB stick")
	errNoUSB   = errors.New("the kernel of this node's board does not support USB")
)

// Open finds the one stick with a release.
func (s Sticks) Open() (release.Stored, error) {
	devices, err := s.devices()
	if err != nil {
		return nil, err
	}
	if len(devices) == 0 {
		if _, err := os.Stat(filepath.Join(s.Sys, "bus", "usb")); errors.Is(err, fs.ErrNotExist) {
			return nil, errNoUSB
		}
		return nil, errNoStick
	}
	var found *stick
	var reasons []string
	for _, name := range devices {
		one, err := openStick(filepath.Join(s.Dev, name))
		if err != nil {
			reasons = append(reasons, name+": "+err.Error())
			continue
		}
		if found == nil {
			found = one
			continue
		}
		// No more are opened: each holds a table of its file system in memory.
		first := filepath.Base(found.file.Name())
		return nil, errors.Join(fmt.Errorf("expected one stick with a folder %s: %s has a release, and %s has one too", StickFolder, first, name), found.Close(), one.Close())
	}
	if found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("expected one stick with a folder %s on a FAT32 file system: %s", StickFolder, strings.Join(reasons, "; "))
}

// devices are the partitions of USB disks, and those disks that have none, by name.
// A USB disk that the node runs from has partitions in use, whose folder is another; it
// is never written here.
func (s Sticks) devices() ([]string, error) {
	class := filepath.Join(s.Sys, "class", "block")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	parents := map[string]bool{}
	var all []string
	for _, e := range entries {
		path, err := filepath.EvalSymlinks(filepath.Join(class, e.Name()))
		if err != nil || !strings.Contains(path, "/usb") {
			continue // it has just gone, or is something else
		}
		if size, err := os.ReadFile(filepath.Join(path, "size")); err != nil || strings.TrimSpace(string(size)) == "0" {
			continue // a reader without a card
		}
		if _, err := os.Stat(filepath.Join(path, "partition")); err == nil {
			parents[filepath.Base(filepath.Dir(path))] = true
		}
		all = append(all, e.Name())
	}
	all = slices.DeleteFunc(all, func(name string) bool { return parents[name] })
	slices.Sort(all)
	return all, nil
}

// stick is a release on a FAT file system.
type stick struct {
	release.Source
	file *os.File
}

func (s *stick) Close() error { return s.file.Close() }

func openStick(device string) (*stick, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	v, err := openVolume(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &stick{release.Layout(func(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
		r, err := v.Reader(StickFolder + "/" + name)
		if errors.Is(err, fat.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		if err != nil {
			return nil, fmt.Errorf("stick: %w", err)
		}
		if offset > r.Size() {
			return nil, fmt.Errorf("stick: %s has %d bytes: nothing is at %d", name, r.Size(), offset)
		}
		return io.NopCloser(io.NewSectionReader(r, offset, r.Size()-offset)), nil
	}), f}, nil
}

// openVolume wants a file system with the folder on it.
func openVolume(f *os.File) (*fat.Volume, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	v, err := fat.Open(f, 0, size)
	if err != nil {
		return nil, err
	}
	if _, err := v.ReadDir(StickFolder); err != nil {
		return nil, fmt.Errorf("folder %s: %w", StickFolder, err)
	}
	return v, nil
}
