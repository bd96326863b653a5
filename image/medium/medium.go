// Package medium puts images on SD cards, USB sticks and disks, and settings on
// the boot partition of what was written: an image and a device in, a medium that
// boots out, every byte read back. What it may write to is decided from facts that
// the kernel shows, by a function that looks at nothing else.
//
// The partition table is written last: a medium whose writing was cut short, by a
// power cut as by Ctrl-C, has none and does not look as if it could boot. Parts of
// the image that no node reads before it has written them are left out: see plan.
package medium

import (
	"errors"
	"fmt"
	"strings"
)

// Use is one thing that a device, or a part of it, is used for.
type Use struct {
	Device string // kernel's name: "sda2", "dm-0"
	What   string // "mounted", "swap" or "part of"
	Where  string // mount point, or the device that is built on it
}

func (u Use) String() string {
	switch u.What {
	case mounted:
		return fmt.Sprintf("%s is mounted at %s", u.Device, u.Where)
	case swap:
		return fmt.Sprintf("%s is used as swap", u.Device)
	}
	return fmt.Sprintf("%s is part of %s", u.Device, u.Where)
}

const (
	mounted = "mounted"
	swap    = "swap"
	partOf  = "part of"
)

// Kind is what is at the path of a target.
type Kind string

const (
	Block   Kind = "block device"
	Regular Kind = "file"
	Other   Kind = "neither a device nor a file"
)

// Facts is all that counts when the question is whether to write to a target.
type Facts struct {
	Path string // as the operator gave it
	Kind Kind
	// Name is the kernel's name of a device, and Whole that of the whole disk that
	// it is a partition of, "" for a whole disk.
	Name, Whole string
	Size        int64 // bytes
	Sector      int64 // bytes of a logical sector; 0 for a file
	ReadOnly    bool
	Removable   bool
	Model       string // with the vendor, as the hardware says
	Bus         string // "USB", "SD card", "NVMe" …
	Uses        []Use
	// Holds is what is on it now, for people.
	Holds string
}

// Sentinels of Decide, for hints.
var (
	ErrBusy     = errors.New("the device is in use")
	ErrSystem   = errors.New("the device holds the running system")
	ErrTooSmall = errors.New("the device is too small")
	ErrKind     = errors.New("this is not a whole disk")
	ErrReadOnly = errors.New("the device is write-protected")
)

// Decide says whether an image of need bytes may be written to the target: nil, or
// why not. File says that the operator wants an ordinary file.
func Decide(f Facts, need int64, file bool) error {
	switch {
	case f.Kind == Other:
		return fmt.Errorf("%s: %w: it is %s", f.Path, ErrKind, f.Kind)
	case f.Kind == Regular && !file:
		return fmt.Errorf("%s: %w: it is an ordinary file; --file writes to one", f.Path, ErrKind)
	case f.Kind == Block && file:
		return fmt.Errorf("%s: %w: --file is for ordinary files", f.Path, ErrKind)
	case f.Whole != "":
		return fmt.Errorf("%s: %w: it is a partition of /dev/%s", f.Path, ErrKind, f.Whole)
	}
	if err := Free(f); err != nil {
		return err
	}
	switch {
	case f.ReadOnly:
		return fmt.Errorf("%s: %w", f.Path, ErrReadOnly)
	case f.Kind == Block && f.Size == 0:
		return fmt.Errorf("%s: %w: there is no medium in the drive", f.Path, ErrTooSmall)
	case f.Sector > 512:
		return fmt.Errorf("%s: %w: its sectors are %d bytes, an image needs 512", f.Path, ErrKind, f.Sector)
	case f.Size < need:
		return fmt.Errorf("%s: %w: it has %s, the image needs %s", f.Path, ErrTooSmall, bytesText(f.Size), bytesText(need))
	}
	return nil
}

// Free says whether nobody uses the target: nil, or who does.
func Free(f Facts) error {
	var uses []string
	system := false
	for _, u := range f.Uses {
		uses = append(uses, u.String())
		system = system || u.What == mounted && isSystem(u.Where)
	}
	switch {
	case system:
		return fmt.Errorf("%s: %w: %s", f.Path, ErrSystem, strings.Join(uses, ", "))
	case len(uses) > 0:
		return fmt.Errorf("%s: %w: %s", f.Path, ErrBusy, strings.Join(uses, ", "))
	}
	return nil
}

// isSystem says whether a computer lives on what is mounted there.
func isSystem(mountPoint string) bool {
	if mountPoint == "/" {
		return true
	}
	for _, dir := range []string{"/boot", "/usr", "/etc", "/var", "/nix"} {
		if mountPoint == dir || strings.HasPrefix(mountPoint, dir+"/") {
			return true
		}
	}
	return false
}

// bytesText writes a size as people compare sizes of media: exact, and in GB.
func bytesText(n int64) string {
	return fmt.Sprintf("%d bytes (%.2f GB)", n, float64(n)/1e9)
}

// Describe is what an operator wants to see before everything on a medium is lost.
func (f Facts) Describe() string {
	var words []string
	for _, w := range []string{f.Model, bytesText(f.Size), f.Bus} {
		if w != "" {
			words = append(words, w)
		}
	}
	if f.Removable {
		words = append(words, "removable")
	}
	text := f.Path + ": " + strings.Join(words, ", ")
	if f.Holds != "" {
		text += "\n  holds " + f.Holds
	}
	return text
}
