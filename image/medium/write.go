package medium

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"kogge.example/image/disk"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
)

// ErrUnusable says that a medium has lost what it held and is no Kogge medium either.
var ErrUnusable = errors.New("the medium is unusable now: write the image again")

// ErrReadBack says that a medium does not give back what was written to it.
var ErrReadBack = errors.New("the medium returns other bytes than were written: it is worn out, badly plugged in or a fake")

// target is a medium. *Device fits, and so does a crashdisk.Disk that is told how
// to be read afresh.
type target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	// Zero makes n bytes read as zero, faster than writing them where it can.
	Zero(at, n int64) error
	// Fresh returns a reader of what the medium holds, not of what the kernel has
	// in memory. Whoever calls it closes what they read from.
	Fresh() (io.ReaderAt, func() error, error)
}

// Options say how to write.
type Options struct {
	// Config is a node.yaml for the boot partition, checked already; nil for the
	// image's own.
	Config []byte
	// When is the time that the file gets.
	When time.Time
	// Progress, where it is not nil, hears of each step: how many of total bytes are done.
	Progress func(step Step, done, total int64)
}

// Step is a part of the work.
type Step string

const (
	Writing Step = "write"
	Reading Step = "verify"
)

// Report is what was done.
type Report struct {
	Written int64 // bytes
	Zeroed  int64 // bytes that only had to read as zero
	Table   gpt.Table
}

// Write puts the image on a medium of size bytes, and checks it by reading it back.
// The medium gets GUIDs of its own and the second copy of the partition table at its
// end; STATE grows at the first boot. The numbers are the order:
//
//  1. both places of the partition table become zero, sync: nothing boots from here on
//  2. all of the image but the partition table, sync
//  3. that is read back and compared
//  4. node.yaml, where there is one, as fat.WriteFile does it
//  5. the partition table, as gpt.Write does it, read back
//
// A cut before step 1 is synced leaves the old content with or without its table; a
// cut from then on until 5 a medium without a partition table; a cut in 5 that, or
// the whole new one. Every error from step 1 on wraps ErrUnusable, and so does what
// ends it when ctx does.
func Write(ctx context.Context, image io.ReaderAt, c disk.Contents, to target, size int64, o Options) (Report, error) {
	if o.Progress == nil {
		o.Progress = func(Step, int64, int64) {}
	}
	src := masked{image}
	chunks, err := plan(src, c)
	if err != nil {
		return Report{}, fmt.Errorf("read image: %w", err)
	}
	t := c.Table
	t.Sectors = uint64(size) / gpt.SectorSize
	t.DiskGUID = gpt.RandomGUID()
	t.Partitions = append([]gpt.Partition(nil), t.Partitions...)
	for i := range t.Partitions {
		t.Partitions[i].GUID = gpt.RandomGUID()
	}
	if _, _, err := t.Encode(); err != nil {
		return Report{}, err // before anything is written
	}
	r := Report{Table: t}
	if err := r.write(ctx, src, chunks, to, size, o); err != nil {
		return r, fmt.Errorf("%w: %w", err, ErrUnusable)
	}
	return r, nil
}

func (r *Report) write(ctx context.Context, src io.ReaderAt, chunks []chunk, to target, size int64, o Options) error {
	for _, at := range []int64{0, size - disk.MiB} {
		if err := to.Zero(at, disk.MiB); err != nil {
			return fmt.Errorf("remove the old partition table: %w", err)
		}
	}
	if err := to.Sync(); err != nil {
		return fmt.Errorf("remove the old partition table: sync: %w", err)
	}
	if err := r.copy(ctx, src, chunks, to, o.Progress); err != nil {
		return err
	}
	if err := readBack(ctx, chunks, to, o.Progress); err != nil {
		return err
	}
	if o.Config != nil {
		if err := writeConfig(to, r.Table, o.Config, o.When); err != nil {
			return err
		}
	}
	if err := gpt.Write(to, r.Table); err != nil {
		return err
	}
	return r.readBackTable(to, size, o.Config)
}

// syncEvery is after how many bytes the medium has to catch up: the progress that
// is shown is then that of the medium and not of the kernel's memory.
const syncEvery = 32 * disk.MiB

// copy writes the chunks, and remembers the SHA-256 of each.
func (r *Report) copy(ctx context.Context, src io.ReaderAt, chunks []chunk, to target, progress func(Step, int64, int64)) error {
	buf := aligned(disk.MiB)
	defer buf.free()
	total := sum(chunks)
	var done, unsynced int64
	for i := range chunks {
		c := &chunks[i]
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped at %d %%", percent(done, total))
		}
		b := buf.b[:c.size]
		if n, err := src.ReadAt(b, c.at); n < len(b) {
			return fmt.Errorf("read image at byte %d: %w", c.at, err)
		}
		c.sum = sha256.Sum256(b)
		if c.zero {
			if err := to.Zero(c.at, c.size); err != nil {
				return fmt.Errorf("zero %d bytes at byte %d: %w", c.size, c.at, err)
			}
			r.Zeroed += c.size
		} else {
			if _, err := to.WriteAt(b, c.at); err != nil {
				return fmt.Errorf("write %d bytes at byte %d: %w", c.size, c.at, err)
			}
			r.Written += c.size
		}
		if unsynced += c.size; unsynced >= syncEvery {
			if err := to.Sync(); err != nil {
				return fmt.Errorf("sync: %w", err)
			}
			unsynced = 0
		}
		done += c.size
		progress(Writing, done, total)
	}
	if err := to.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// readBack compares the medium with what copy has written.
func readBack(ctx context.Context, chunks []chunk, to target, progress func(Step, int64, int64)) error {
	fresh, closeFresh, err := to.Fresh()
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer closeFresh()
	buf := aligned(disk.MiB)
	defer buf.free()
	total := sum(chunks)
	var done, bad int64
	first := int64(-1)
	for _, c := range chunks {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped after %d %% was read back", percent(done, total))
		}
		b := buf.b[:c.size]
		if n, err := fresh.ReadAt(b, c.at); n < len(b) {
			return fmt.Errorf("%w: byte %d cannot be read: %w", ErrReadBack, c.at, err)
		}
		if sha256.Sum256(b) != c.sum {
			if bad += c.size; first < 0 {
				first = c.at
			}
		}
		done += c.size
		progress(Reading, done, total)
	}
	if bad > 0 {
		return fmt.Errorf("%w (%d of %d MiB differ, the first at MiB %d)", ErrReadBack, bad/disk.MiB, total/disk.MiB, first/disk.MiB)
	}
	return nil
}

// readBackTable checks what step 4 and 5 have written.
func (r *Report) readBackTable(to target, size int64, config []byte) error {
	fresh, closeFresh, err := to.Fresh()
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer closeFresh()
	t, err := gpt.Read(fresh, size)
	if err == nil {
		err = t.Damage
	}
	if err == nil && t.DiskGUID != r.Table.DiskGUID {
		err = errors.New("it is a different partition table")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReadBack, err)
	}
	if config == nil {
		return nil
	}
	v, err := disk.Boot(readOnly{fresh}, t)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReadBack, err)
	}
	if got, err := v.ReadFile(nodeYAML); err != nil || !bytes.Equal(got, config) {
		return fmt.Errorf("%w: %s: %v", ErrReadBack, nodeYAML, err)
	}
	return nil
}

// Where PID 1 looks on the boot partition.
const (
	nodeYAML = "kogge/node.yaml"
	joinYAML = "kogge/join.yaml"
)

// writeConfig puts node.yaml on the boot partition of a disk with table t.
func writeConfig(to disk.Device, t gpt.Table, config []byte, when time.Time) error {
	v, err := disk.Boot(to, t)
	if err != nil {
		return err
	}
	return putFile(v, nodeYAML, config, when)
}

func putFile(v *fat.Volume, name string, data []byte, when time.Time) error {
	if err := v.MkdirAll("kogge", when); err != nil {
		return err
	}
	return v.WriteFile(name, data, when)
}

// readOnly is a reader that pretends to be a device.
type readOnly struct{ io.ReaderAt }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, errors.New("opened for reading") }
func (readOnly) Sync() error                        { return nil }

func percent(done, total int64) int64 { return done * 100 / max(total, 1) }
