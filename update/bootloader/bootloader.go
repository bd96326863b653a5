// Package bootloader reads and changes what a boot loader stores about the two slots:
// which one it starts next, how many tries that one has left, and which ones are
// proven. A file per boot loader, the same verbs.
//
// In come the files of the boot partition, which nobody has mounted; out comes a State,
// or a changed boot partition that a power cut at any write leaves with a slot that
// starts. It knows nothing of the root file systems, of signatures, and of why a slot
// is armed (update/slot says so) or blessed (init/trial).
package bootloader

import (
	"errors"
	"fmt"
	"io"
	"time"

	"kogge.example/boards"
	"kogge.example/update/fat"
)

// Slot is "A" or "B".
type Slot string

// The two slots of every disk.
const (
	A Slot = "A"
	B Slot = "B"
)

// ParseSlot reads what a Slot writes.
func ParseSlot(text string) (Slot, error) {
	if s := Slot(text); s == A || s == B {
		return s, nil
	}
	return "", fmt.Errorf("slot %q: want A or B", text)
}

// Other returns the other slot.
func (s Slot) Other() Slot {
	if s == A {
		return B
	}
	return A
}

// Files is the boot partition. [fat.Volume] fits: each of its writes leaves, at a cut,
// the old file or the new one, and every other file alone.
type Files interface {
	ReadFile(name string) ([]byte, error)
	ReadDir(name string) ([]fat.Entry, error)
	Reader(name string) (*io.SectionReader, error)
	WriteFile(name string, content []byte, when time.Time) error
	Write(name string, size int64, content io.Reader, when time.Time) error
	Remove(name string) error
	MkdirAll(name string, when time.Time) error
}

// Entry is what the boot loader knows of one slot.
type Entry struct {
	Present bool   // the loader can start it
	Version string // of the release, as Arm got it; "" where nothing says it
	Number  int    // of its arming: the highest one was armed last
	Counted bool   // on trial, or failed: Left boots to go, Done behind it
	Left    int
	Done    int
}

// Proven tells whether the slot was blessed and not armed or marked bad since.
func (e Entry) Proven() bool { return e.Present && !e.Counted }

// String is an entry in a few words.
func (e Entry) String() string {
	switch {
	case !e.Present:
		return "empty"
	case !e.Counted:
		return fmt.Sprintf("release %s, proven, arming %d", e.Version, e.Number)
	case e.Left == 0:
		return fmt.Sprintf("release %s, bad after %d tries, arming %d", e.Version, e.Done, e.Number)
	}
	return fmt.Sprintf("release %s, on trial, %d tries left, %d done, arming %d", e.Version, e.Left, e.Done, e.Number)
}

// State is what the boot loader knows of both.
type State struct {
	A, B Entry
	// Starts is the slot that the loader starts at the next boot; "" means neither.
	Starts Slot
}

// Of returns the entry of a slot.
func (s State) Of(slot Slot) Entry {
	if slot == B {
		return s.B
	}
	return s.A
}

// Next returns the slot that the loader starts at the next boot, if there is one.
func (s State) Next() (Slot, bool) { return s.Starts, s.Starts != "" }

// Tries is how often an armed slot is started before the loader gives it up.
const Tries = 3

var (
	// ErrEmpty tells of a slot without what the verb needs: an entry, or boot files.
	ErrEmpty = errors.New("the slot is empty")
	// ErrLast says that the slot is the only one that the loader can start.
	ErrLast = errors.New("the other slot is empty: this is the only one that starts")
	// ErrInUse tells of boot files of a slot that the loader may start: it has to be
	// retired first.
	ErrInUse = errors.New("the loader may start this slot: retire it first")
	// ErrNoTry tells of a slot that is not on trial, or whose tries are used up.
	ErrNoTry = errors.New("the slot has no try to count")
)

// Loader is one boot loader. After an error of a verb the slot is as it was, or on the
// way: calling the verb again is always right. A cut may leave a slot on trial without its
// entry, which is ErrEmpty to Count and MarkBad. The other slot is never touched.
type Loader interface {
	// State never fails over what somebody wrote there, only over a volume that cannot
	// be read. What makes no sense to the loader is not Present.
	State(Files) (State, error)
	// Retire makes the loader forget the slot, and then removes its boot files. It
	// refuses with ErrLast where nothing else starts.
	Retire(Files, Slot) error
	// Install writes one boot file of a retired slot: exactly size bytes of r.
	Install(f Files, slot Slot, name string, size int64, r io.Reader, when time.Time) error
	// Open returns one boot file of a slot.
	Open(f Files, slot Slot, name string) (*io.SectionReader, error)
	// Arm makes the slot the one to be started next, counted, so many times. From then
	// on it is not proven, even if it was.
	Arm(f Files, slot Slot, version string, tries int, when time.Time) error
	// Count takes one try off a slot on trial, as the loader itself does before it starts
	// that: for whoever starts the slot without it. With none left it refuses with
	// ErrNoTry.
	Count(f Files, slot Slot, when time.Time) error
	// Bless makes the slot the one to be started from now on, uncounted.
	Bless(f Files, slot Slot, when time.Time) error
	// MarkBad has the slot never started by itself while the other one can be.
	MarkBad(f Files, slot Slot, when time.Time) error
	// BootFiles are the names of the boot files that a release must have.
	BootFiles() []string
	// Path is where a boot file of a slot lies on the boot partition.
	Path(slot Slot, name string) (string, error)
	// TellsByEFI says whether the loader tells by EFI variables which partition it was
	// started from and which entry it started.
	//
	// Source: systemd.io/BOOT_LOADER_INTERFACE
	TellsByEFI() bool
	// Direct is the boot file of a slot that UEFI firmware can start without the loader;
	// "" where there is none.
	Direct() string
	// Fresh are the files that say, on a new boot partition, that slot A is proven: all
	// but its boot files and the loader itself.
	Fresh(version string) []fat.File
}

// For returns the boot loader of that name.
func For(b boards.Bootloader) (Loader, error) {
	switch b {
	case boards.SystemdBoot:
		return systemdBoot{}, nil
	case boards.UBoot:
		return uBoot{}, nil
	}
	return nil, fmt.Errorf("boot loader %q is unknown here", b)
}

// maxVersion is the longest name of a release, in bytes.
const maxVersion = 128

// CheckVersion wants a release's name as every loader can store it: up to 128 printable
// ASCII characters without spaces.
func CheckVersion(version string) error {
	if version == "" || len(version) > maxVersion {
		return fmt.Errorf("release name %q: want 1 to %d characters", version, maxVersion)
	}
	for _, r := range version {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("release name %q: only printable ASCII without spaces", version)
		}
	}
	return nil
}

func checkArming(version string, tries int) error {
	if err := CheckVersion(version); err != nil {
		return err
	}
	if tries < 1 || tries > Tries {
		return fmt.Errorf("%d tries: want 1 to %d", tries, Tries)
	}
	return nil
}

// Starts says whether anybody could start the slot: the loader knows it, or one of its boot
// files is there, which firmware may start without the loader.
func Starts(l Loader, f Files, slot Slot) (bool, error) {
	state, err := l.State(f)
	if err != nil || state.Of(slot).Present {
		return true, err
	}
	for _, name := range l.BootFiles() {
		if path, err := l.Path(slot, name); err == nil && exists(f, path) {
			return true, nil
		}
	}
	return false, nil
}

// remove removes a file that may be gone already.
func remove(f Files, name string) error {
	if err := f.Remove(name); err != nil && !errors.Is(err, fat.ErrNotExist) {
		return err
	}
	return nil
}

// exists tells whether a file is there and its clusters can be followed.
func exists(f Files, name string) bool {
	_, err := f.Reader(name)
	return err == nil
}

// list is a directory's entries; one that is not there has none.
func list(f Files, name string) ([]fat.Entry, error) {
	entries, err := f.ReadDir(name)
	if errors.Is(err, fat.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
