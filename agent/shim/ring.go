package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

const (
	// ringScheme marks an output that goes into a ring.
	ringScheme = "ring://"
	// ringSize is how large a file of a container's ring gets, and execSize one of a
	// process beside it; there are two of each.
	ringSize = 1 << 20
	execSize = 64 << 10
)

// ringPath returns the file of a ring:// output.
func ringPath(uri string) (string, bool) {
	path, ok := strings.CutPrefix(uri, ringScheme)
	return path, ok && filepath.IsAbs(path)
}

// ring keeps the newest output of a container: it writes to a file until that is
// full, makes it the old one (PATH.1) in place of the one before, and goes on in
// an empty one. So between one and two times its size are kept.
//
// Output is diagnostics, not data: a file that cannot be written (a full /run)
// loses it, and neither blocks nor ends the container.
type ring struct {
	path string
	size int64 // of one file, in bytes
	f    *os.File
	used int64
}

// Write takes all of p whatever happens to it; the error is always nil.
func (r *ring) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		if r.f == nil || r.used >= r.size {
			if err := r.turn(); err != nil {
				return all, nil
			}
		}
		n, err := r.f.Write(p[:min(int64(len(p)), r.size-r.used)])
		r.used += int64(n)
		p = p[n:]
		if err != nil {
			return all, nil
		}
	}
	return all, nil
}

func (r *ring) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// turn opens the file, at its end if an earlier run of the container left one
// with room, else empty after the full one has moved.
func (r *ring) turn() error {
	r.close()
	if st, err := os.Stat(r.path); err == nil && st.Size() >= r.size {
		if err := os.Rename(r.path, r.path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	r.f, r.used = f, st.Size()
	return nil
}

// output is what connects a process with its ring: a FIFO, which the task service
// writes, and a goroutine that reads it.
type output struct {
	path string   // of the FIFO
	hold *os.File // a writer of our own: until it is closed, the FIFO does not end
	done chan struct{}
}

// collect makes the FIFO and reads it into a ring at path, of files of size bytes,
// until [output.end].
func collect(fifo, path string, size int64) (*output, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log folder: %w", err)
	}
	o := &output{path: fifo, done: make(chan struct{})}
	if err := unix.Mkfifo(o.path, 0o600); err != nil {
		return nil, fmt.Errorf("output fifo %s: %w", o.path, err)
	}
	// Opened for both, a FIFO waits for nobody; and then there is a writer, so
	// the reader does not see its end before the task service has come.
	hold, err := os.OpenFile(o.path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("output fifo: %w", err)
	}
	in, err := os.OpenFile(o.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		hold.Close()
		return nil, fmt.Errorf("output fifo: %w", err)
	}
	o.hold = hold
	go func() {
		defer close(o.done)
		defer in.Close()
		r := &ring{path: path, size: size}
		defer r.close()
		// ReadFrom and WriteTo, which io.Copy prefers, would splice: the ring
		// counts bytes.
		if _, err := io.CopyBuffer(struct{ io.Writer }{r}, struct{ io.Reader }{in}, make([]byte, 16<<10)); err != nil {
			log.L.WithError(err).Warn("container output ends early")
		}
	}()
	return o, nil
}

// end returns when all output that was written so far is in the ring. Writers
// that are still there keep the goroutine, not the caller.
func (o *output) end() {
	o.hold.Close()
	select {
	case <-o.done:
	case <-time.After(endLimit):
	}
}

// endLimit is for processes that have left the container's cgroup and still hold
// its output.
const endLimit = 2 * time.Second
