// Package memfile makes files that lie in memory and are gone with their last use: for
// what has to be whole before it is used, and that no disk is to be written for.
package memfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Copy is a file with all of content, open for reading and writing, at its beginning. name
// shows in /proc. Its memory is the kernel's, not the Go heap's.
func Copy(name string, content io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for the %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(f, content)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the %s: %w", name, err), f.Close())
	}
	return f, nil
}
