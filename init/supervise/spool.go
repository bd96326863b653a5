package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kogge.example/init/guard"
)

// spoolSize is the size in bytes at which a log file becomes the old one.
const spoolSize = 1 << 20

// spool is a log file of bounded size: DIR/NAME.log and, before it, DIR/NAME.log.1.
//
// It is a copy for reading after a crash and never synced: after a power cut the
// newest lines may be missing and the last one torn. A cut at any point leaves at
// most these two files, each at most spoolSize and a chunk long, and the next
// spool of that name goes on with them: (1) append to .log; (2) when that is full,
// rename it to .log.1, which removes the older one; (3) create .log anew.
type spool struct {
	path   string
	size   int64 // of the open file
	file   *os.File
	broken bool // said so already
	full   int64
}

func newSpool(dir, name string) *spool {
	return &spool{path: filepath.Join(dir, name+".log"), full: spoolSize}
}

// Write appends b. After an error it opens the file anew at the next call: a
// full disk may have room again.
func (s *spool) Write(b []byte) (int, error) {
	n, err := s.write(b)
	if err != nil {
		s.Close()
		err = fmt.Errorf("keep log: %w", err)
		if !s.broken {
			guard.Kmsg(err.Error())
		}
	}
	s.broken = err != nil
	return n, err
}

func (s *spool) write(b []byte) (int, error) {
	if s.file == nil {
		if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
			return 0, err
		}
		f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return 0, err
		}
		s.file = f
		if s.size, err = f.Seek(0, 2); err != nil {
			return 0, err
		}
	}
	if s.size > 0 && s.size+int64(len(b)) > s.full {
		if err := os.Rename(s.path, s.path+".1"); err != nil {
			return 0, err
		}
		s.Close()
		return s.write(b)
	}
	n, err := s.file.Write(b)
	s.size += int64(n)
	return n, err
}

// Close closes the file; a later Write opens it again.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// leftOut is the line that stands for n bytes which were not kept.
func leftOut(n int64, now time.Time) []byte {
	return fmt.Appendf(nil, "%skogge: %d bytes left out\n", now.UTC().Format(stamp), n)
}
