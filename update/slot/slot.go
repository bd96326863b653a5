// Package slot puts a release into the slot that does not run, and arms it.
//
// In come a release, verified, whose parts can be opened; the boot partition and the
// two root partitions; the right to do it ([Authorisation]); and what the node remembers of
// earlier updates (update/memory). Out comes a slot that the boot loader starts on trial,
// and that it gives up by itself. Whatever happens on the way, the running slot is not
// written, and a cut leaves a node that comes up with the old release or the whole of the
// new one. This is what becomes of the slot that does not run, and by whom:
//
//	empty ─Stage─▶ writing ─Stage─▶ staged ─Arm─▶ armed ─loader─▶ trial ─PID 1: good─▶ proven
//	                                                ▲               │ tries over          │
//	                                                └─────Arm────  bad ◀───marked bad─────┘
//
// Stage may begin anew in each of these places, and from its first byte until the blessing
// the loader's only other choice is the slot that runs. No variable holds the place: the
// loader's entry says armed, trial, proven and bad, and what is remembered tells the rest
// apart. Signatures are update/release's, whether a boot was good is for the agent and PID 1
// (init/trial), and verdicts on what failed are update/memory's.
package slot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// RootPart is the part that goes into the root partition. Every other one is a boot file.
const RootPart = "root"

// Part is one thing that a release puts on the disk.
type Part struct {
	Name   string // RootPart, or a boot file's name as its loader knows it
	Size   int64  // in bytes
	SHA256 [32]byte
	// Open reads the part from offset on. What it gives is believed only once it is
	// hashed: it may end early, never end, or be something else.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// Release is what goes into a slot.
type Release struct {
	Version string
	Digest  string // of the board's manifest: the name of the release everywhere
	Board   string
	Counter uint64
	Verity  verity.Params
	Schema  memory.Schema
	Parts   []Part
}

func (r Release) part(name string) (Part, bool) {
	i := slices.IndexFunc(r.Parts, func(p Part) bool { return p.Name == name })
	if i < 0 {
		return Part{}, false
	}
	return r.Parts[i], true
}

// Device is a root partition. crashdisk.Disk fits, and so does [Partition]. One that
// has DropCaches is asked to, before it is read back.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Root is a root partition and its size in bytes.
type Root struct {
	Device
	Size int64
}

// Boot is the boot partition: bootpart.Partition.
type Boot interface {
	Edit(func(*fat.Volume) error) error
	Read(func(*fat.Volume) error) error
}

// Disk is the disk that the node runs from, and what runs.
type Disk struct {
	Board   string
	Loader  bootloader.Loader
	Boot    Boot
	Roots   map[bootloader.Slot]Root
	Running bootloader.Slot
	Trial   bool          // the running slot is on trial
	Verity  verity.Params // of the running slot, as its kernel command line has it
	Counter uint64        // of the running release, where an image brought it; 0: unknown
	Schema  memory.Schema // of the running release; the zero value checks nothing
	// Refused says why a release must not be tried again, and whether that is so. nil:
	// nothing has failed.
	Refused func(version, digest string) (why string, refused bool)
}

func (d Disk) target() bootloader.Slot { return d.Running.Other() }

// These are what a caller decides on; the error says the rest.
var (
	ErrOnTrial      = errors.New("the running slot is on trial: if it fails, only the other slot is left")
	ErrWrongBoard   = errors.New("the release is for another board")
	ErrTooSmall     = errors.New("the slot is too small")
	ErrBelowFloor   = errors.New("the release is older than this node may go back to")
	ErrSameRoot     = errors.New("this root file system runs already, from the other slot")
	ErrFailedBefore = errors.New("the release has failed on this node")
	ErrSchema       = errors.New("the two releases do not read each other's state")
	ErrParts        = errors.New("the release is not whole")
	ErrNotStaged    = errors.New("the release is not in the slot")
	ErrUnauthorised = errors.New("nobody has authorised it")
	ErrBusy         = errors.New("another update is under way")
	// ErrContent says that what was read is not what the release has signed.
	ErrContent = errors.New("not what the release says it is")
	// ErrSync says that the disk did not confirm a write. What it holds is unknown.
	ErrSync = errors.New("the disk did not keep what was written")
)

// facts are what decides whether a release may go into a slot, besides the release.
type facts struct {
	board   string
	trial   bool
	size    int64 // of the target's root partition
	running verity.Params
	floor   uint64
	schema  memory.Schema
	loader  bootloader.Loader
	refused string // why it must not be tried again; "": it may
}

// admit says what is wrong with a release on a node, before a byte of it is written. It
// decides by what it is given and nothing else.
func admit(r Release, f facts) error {
	if f.trial {
		return ErrOnTrial
	}
	if err := bootloader.CheckVersion(r.Version); err != nil {
		return err
	}
	if r.Board != f.board {
		return fmt.Errorf("%w: it is for %q, this is %q", ErrWrongBoard, r.Board, f.board)
	}
	if err := whole(r, f.loader); err != nil {
		return err
	}
	if root, _ := r.part(RootPart); root.Size > f.size {
		return fmt.Errorf("%w: image is %s, slot is %s", ErrTooSmall, mebibytes(root.Size), mebibytes(f.size))
	}
	if r.Verity.Root == f.running.Root {
		return ErrSameRoot
	}
	if r.Counter < f.floor {
		return fmt.Errorf("%w: its counter is %d, the floor is %d", ErrBelowFloor, r.Counter, f.floor)
	}
	if f.refused != "" {
		return fmt.Errorf("%w: %s", ErrFailedBefore, f.refused)
	}
	return compatible(r.Schema, f.schema)
}

// compatible wants each of two releases to read what the other one writes: state never
// goes back, and either may run tomorrow.
func compatible(next, running memory.Schema) error {
	switch {
	case running == memory.Schema{} || next == memory.Schema{}: // an image that says nothing of it
		return nil
	case !understands(next, running.Writes):
		return fmt.Errorf("%w: the running one writes format %d, the new one reads %d to %d", ErrSchema, running.Writes, next.Reads[0], next.Reads[1])
	case !understands(running, next.Writes):
		return fmt.Errorf("%w: the new one writes format %d, the running one reads %d to %d", ErrSchema, next.Writes, running.Reads[0], running.Reads[1])
	}
	return nil
}

func understands(s memory.Schema, format int) bool {
	return s.Reads[0] <= format && format <= s.Reads[1]
}

// whole wants every boot file that the loader needs, none that it does not know, and a
// root whose size is that of its blocks and their tree.
func whole(r Release, l bootloader.Loader) error {
	for _, name := range append(slices.Clone(l.BootFiles()), RootPart) {
		if _, ok := r.part(name); !ok {
			return fmt.Errorf("%w: part %q is missing", ErrParts, name)
		}
	}
	for i, p := range r.Parts {
		if slices.ContainsFunc(r.Parts[:i], func(other Part) bool { return other.Name == p.Name }) {
			return fmt.Errorf("%w: part %q is there twice", ErrParts, p.Name)
		}
		if p.Name != RootPart {
			if _, err := l.Path(bootloader.A, p.Name); err != nil {
				return fmt.Errorf("%w: %w", ErrParts, err)
			}
		}
		if p.Size < 1 || p.Size > maxPart {
			return fmt.Errorf("%w: part %q has %d bytes", ErrParts, p.Name, p.Size)
		}
	}
	root, _ := r.part(RootPart)
	if blocks := r.Verity.Blocks; blocks < 1 || blocks > maxPart/verity.BlockSize ||
		uint64(root.Size) != blocks*verity.BlockSize+verity.TreeSize(blocks) {
		return fmt.Errorf("%w: a root of %d blocks and their tree does not have %d bytes", ErrParts, blocks, root.Size)
	}
	return nil
}

const maxPart = 128 << 30 // bytes; what verity has numbers for

func mebibytes(n int64) string {
	if n%(1<<20) == 0 || n > 1<<30 {
		return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

// admit asks admit about this disk.
func (d Disk) admit(m memory.Folder, r Release) error {
	target, running := d.Roots[d.target()], d.Roots[d.Running]
	if d.Running != bootloader.A && d.Running != bootloader.B || target.Device == nil || running.Device == nil {
		return fmt.Errorf("this node does not run from a slot of its disk: no update is possible")
	}
	floor, err := memory.ReadFloor(m)
	if err != nil {
		return err
	}
	f := facts{
		board: d.Board, trial: d.Trial, size: target.Size, running: d.Verity,
		floor: floor.Lowest, schema: d.Schema, loader: d.Loader,
	}
	if d.Refused != nil {
		if why, refused := d.Refused(r.Version, r.Digest); refused {
			f.refused = why
		}
	}
	return admit(r, f)
}
