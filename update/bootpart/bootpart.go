// Package bootpart is the one door to the boot partition of a running node. PID 1 and
// the agent both change it, and nobody has it mounted: so each of them takes a lock on
// its device for the whole of a change, and reads the volume anew, with what the other
// one has written.
//
// Of PID 1, init/trial writes counts of boots and blessings, and init itself what belongs
// to a reset (resetstate.go) and to joining a fleet (state.go), and the mark of a slot whose
// root does not open (stage0.go). Of the agent, update/slot writes a release and its arming
// (stage.go, arm.go), by a Partition that agent/install opens (disk.go). Nobody else does;
// cmd/kogge/imports_test.go holds who imports this package, and that nobody writes past it.
//
// In come the device and a function; the function gets the volume, repaired of what a
// power cut left. What it does with the files is the caller's.
package bootpart

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/update/fat"
)

// Wait is how long Edit and Read wait for another process to be done.
const Wait = time.Minute

// ErrBusy says that another process had the boot partition for all of Wait.
var ErrBusy = errors.New("another process is changing the boot partition")

// Partition is a boot partition: its device file, and how many bytes it has.
type Partition struct {
	Device string
	Size   int64
}

// Edit lends edit the volume. What is lost or half done on it after a power cut is
// repaired first. Edit waits, at most for Wait, until no other Edit or Read is under way;
// edit must not call either. What no Repair can mend is no reason for Edit to fail, the
// volume tells of it, see fat.Volume.Found; but it may be why the volume is full, so a
// fat.ErrFull comes with it.
func (p Partition) Edit(edit func(*fat.Volume) error) error {
	return p.locked(os.O_RDWR, unix.LOCK_EX, func(f *os.File) error {
		v, err := fat.Open(f, 0, p.Size)
		if err != nil {
			return err
		}
		if _, err := v.Repair(); err != nil {
			return err
		}
		err = edit(v)
		if damage := v.Found().Damage; errors.Is(err, fat.ErrFull) && len(damage) > 0 {
			return fmt.Errorf("%w; deleting files frees no space on a damaged volume: %s", err, strings.Join(damage, "; "))
		}
		return err
	})
}

// Read lends read the volume, which it must not change. It writes nothing: what a power
// cut left is still there.
func (p Partition) Read(read func(*fat.Volume) error) error {
	return p.locked(os.O_RDONLY, unix.LOCK_SH, func(f *os.File) error {
		v, err := fat.Open(f, 0, p.Size)
		if err != nil {
			return err
		}
		return read(v)
	})
}

// DropCaches has the next read of the device come from the disk. What is written by then
// is on it.
func (p Partition) DropCaches() error {
	return p.locked(os.O_RDONLY, unix.LOCK_EX, func(f *os.File) error {
		if err := f.Sync(); err != nil {
			return err
		}
		// Only a block device knows this call; a file in a test does not.
		err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
		if err != nil && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop caches: %w", err)
		}
		return nil
	})
}

// locked opens the device and calls use while it has the lock, which belongs to the
// open file and goes with it.
func (p Partition) locked(mode, lock int, use func(*os.File) error) error {
	f, err := os.OpenFile(p.Device, mode, 0)
	if err == nil {
		if err = acquire(f, lock, time.Now().Add(Wait)); err == nil {
			err = use(f)
		}
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("boot partition %s: %w", p.Device, err)
	}
	return nil
}

// acquire asks again and again: a thread that waits in the kernel could not be called
// back, and PID 1 has none to lose.
func acquire(f *os.File, lock int, until time.Time) error {
	for {
		err := unix.Flock(int(f.Fd()), lock|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock: %w", err)
		case time.Now().After(until):
			return ErrBusy
		}
		time.Sleep(10 * time.Millisecond)
	}
}
