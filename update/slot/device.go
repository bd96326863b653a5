package slot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Partition is a root partition of this machine, open for writing. While it is open no
// other process can open it by OpenPartition.
type Partition struct {
	f    *os.File
	size int64
}

// OpenPartition opens the device of a root partition for an update. It returns ErrBusy
// where another update has it.
func OpenPartition(path string) (*Partition, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("root partition: %w", err)
	}
	p := &Partition{f: f}
	if err := p.claim(); err != nil {
		return nil, errors.Join(fmt.Errorf("root partition %s: %w", path, err), f.Close())
	}
	return p, nil
}

func (p *Partition) claim() error {
	// The lock goes with the open file, so a process that dies leaves none behind.
	if err := unix.Flock(int(p.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return ErrBusy
	} else if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	var err error
	p.size, err = p.f.Seek(0, 2) // of a block device too
	return err
}

// Root is the partition as Disk wants it.
func (p *Partition) Root() Root { return Root{Device: p, Size: p.size} }

// ReadAt reads from the partition.
func (p *Partition) ReadAt(b []byte, offset int64) (int, error) { return p.f.ReadAt(b, offset) }

// WriteAt writes into the partition, never behind its end.
func (p *Partition) WriteAt(b []byte, offset int64) (int, error) {
	if offset < 0 || offset > p.size-int64(len(b)) {
		return 0, fmt.Errorf("write %d bytes at %d: the partition has %d", len(b), offset, p.size)
	}
	return p.f.WriteAt(b, offset)
}

// Sync waits until all that was written is on the disk, and lets go of the memory that
// holds it: an update must not push what runs out of memory.
func (p *Partition) Sync() error {
	if err := p.f.Sync(); err != nil {
		return err
	}
	_ = unix.Fadvise(int(p.f.Fd()), 0, 0, unix.FADV_DONTNEED) // what stays costs memory and nothing else
	return nil
}

// DropCaches has the next read come from the disk.
func (p *Partition) DropCaches() error { return dropCaches(p.f) }

func dropCaches(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	// Only a block device knows this; a file in a test does not.
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("drop caches: %w", err)
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// Close lets other processes have the partition.
func (p *Partition) Close() error { return p.f.Close() }
