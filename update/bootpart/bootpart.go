// Package bootpart is the one door to the boot partition of a running node. PID 1 and
// the agent both change it, and nobody has it mounted: so each of them takes a lock on
// its device for the whole of a change, and reads the volume anew, with what the other
// one has written.
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

// Edit lends edit the volume in size bytes of the device from offset on. What is lost
// or half done on it after a power cut is repaired first. Edit waits, at most for Wait,
// until no other Edit or Read is under way; edit must not call either. What no Repair can
// mend is no reason for Edit to fail, the volume tells of it, see fat.Volume.Found; but it may be why the volume is
// full, so a fat.ErrFull comes with it.
func Edit(dev string, offset, size int64, edit func(*fat.Volume) error) error {
	err := locked(dev, os.O_RDWR, unix.LOCK_EX, func(f *os.File) error {
		v, err := fat.Open(f, offset, size)
		if err != nil {
			return err
		}
		report, err := v.Repair()
		if err != nil {
			return err
		}
		err = edit(v)
		if errors.Is(err, fat.ErrFull) && len(report.Damage) > 0 {
			return fmt.Errorf("%w; the volume is damaged, and what is removed from such a one frees nothing: %s", err, strings.Join(report.Damage, "; "))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("boot partition %s: %w", dev, err)
	}
	return nil
}

// Read lends read the volume, which it must not change. It writes nothing: what a power
// cut left is still there.
func Read(dev string, offset, size int64, read func(*fat.Volume) error) error {
	err := locked(dev, os.O_RDONLY, unix.LOCK_SH, func(f *os.File) error {
		v, err := fat.Open(f, offset, size)
		if err != nil {
			return err
		}
		return read(v)
	})
	if err != nil {
		return fmt.Errorf("boot partition %s: %w", dev, err)
	}
	return nil
}

// locked opens the device and calls use while it has the lock, which belongs to the
// open file and goes with it.
func locked(dev string, mode, lock int, use func(*os.File) error) error {
	f, err := os.OpenFile(dev, mode, 0)
	if err != nil {
		return err
	}
	if err := acquire(f, lock, time.Now().Add(Wait)); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(use(f), f.Close())
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

// DropCaches has the next read of the device come from the disk. What is written by then
// is on it.
func (p Partition) DropCaches() error {
	err := locked(p.Device, os.O_RDONLY, unix.LOCK_EX, func(f *os.File) error {
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
	if err != nil {
		return fmt.Errorf("boot partition %s: %w", p.Device, err)
	}
	return nil
}

// Partition is a boot partition as a value, for whoever hands it on.
type Partition struct {
	Device       string
	Offset, Size int64 // in bytes
}

// Edit is the function of that name.
func (p Partition) Edit(edit func(*fat.Volume) error) error {
	return Edit(p.Device, p.Offset, p.Size, edit)
}

// Read is the function of that name.
func (p Partition) Read(read func(*fat.Volume) error) error {
	return Read(p.Device, p.Offset, p.Size, read)
}
