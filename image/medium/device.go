package medium

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Device is an open medium, or a file that stands for one.
type Device struct {
	f     *os.File
	block bool
}

// Open opens a target that Decide has let pass. A device is claimed: as long as it
// is open nobody can mount it, and it does not open while somebody has.
func Open(f Facts) (*Device, error) {
	flags := os.O_RDWR
	if f.Kind == Block {
		flags |= unix.O_EXCL
	}
	file, err := os.OpenFile(f.Path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open %s: %w", f.Path, ErrBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("open medium: %w", err)
	}
	return &Device{f: file, block: f.Kind == Block}, nil
}

// ReadAt reads through the kernel's memory.
func (d *Device) ReadAt(p []byte, at int64) (int, error) { return d.f.ReadAt(p, at) }

// WriteAt writes into the kernel's memory.
func (d *Device) WriteAt(p []byte, at int64) (int, error) { return d.f.WriteAt(p, at) }

// Sync returns when everything written is on the medium.
func (d *Device) Sync() error { return d.f.Sync() }

// Zero makes n bytes read as zero. The kernel lets the hardware do it where that
// can; a file gets a hole.
func (d *Device) Zero(at, n int64) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if !d.block {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	err := unix.Fallocate(int(d.f.Fd()), mode, at, n)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		part := zeros[:min(n, int64(len(zeros)))]
		if _, err := d.f.WriteAt(part, at); err != nil {
			return err
		}
		at, n = at+int64(len(part)), n-int64(len(part))
	}
	return nil
}

// Close gives the medium free, and has the kernel look at its new partitions.
func (d *Device) Close() error {
	if d.block {
		// It is busy while a partition of the old table is still known: then the
		// operator takes the medium out and puts it in again, as always.
		_ = unix.IoctlSetInt(int(d.f.Fd()), unix.BLKRRPART, 0)
	}
	return d.f.Close()
}

// Fresh drops what the kernel remembers of the medium and returns a reader that
// goes past its memory where the file system allows that.
func (d *Device) Fresh() (io.ReaderAt, func() error, error) {
	if d.block {
		if err := unix.IoctlSetInt(int(d.f.Fd()), unix.BLKFLSBUF, 0); err != nil && !errors.Is(err, unix.EACCES) {
			return nil, nil, fmt.Errorf("drop what the kernel remembers: %w", err)
		}
	}
	if err := unix.Fadvise(int(d.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, nil, fmt.Errorf("drop what the kernel remembers: %w", err)
	}
	f, err := os.OpenFile(d.f.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // a file system in memory
		return d.f, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	r := direct{f: f, buf: aligned(directSize + 2*directAlign)}
	return r, func() error { r.buf.free(); return f.Close() }, nil
}

const (
	directAlign = 4096
	directSize  = 1 << 20
)

// direct reads a file that was opened for direct I/O, which wants memory, offset
// and length in whole blocks. It is not safe for concurrent use.
type direct struct {
	f   *os.File
	buf buffer
}

// ReadAt reads through a buffer of the right alignment.
func (d direct) ReadAt(p []byte, at int64) (int, error) {
	done := 0
	for done < len(p) {
		from := (at + int64(done)) / directAlign * directAlign
		skip := int(at + int64(done) - from)
		want := min((skip+len(p)-done+directAlign-1)/directAlign*directAlign, len(d.buf.b))
		n, err := d.f.ReadAt(d.buf.b[:want], from)
		if n <= skip {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
		done += copy(p[done:], d.buf.b[skip:n])
		if n < want && done < len(p) {
			return done, io.EOF
		}
	}
	return done, nil
}

// buffer is memory that begins at a page, outside of Go's heap.
type buffer struct {
	b      []byte
	mapped bool
}

func aligned(size int) buffer {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return buffer{b: make([]byte, size)} // works without direct I/O
	}
	return buffer{b, true}
}

func (b buffer) free() {
	if b.mapped {
		_ = unix.Munmap(b.b)
	}
}
