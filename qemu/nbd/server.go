package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Server serves one disk on a unix socket, to one client at a time.
type Server struct {
	// Disk is what it serves.
	Disk *Disk

	path     string
	listener *net.UnixListener
	work     sync.WaitGroup
	cutDone  chan struct{} // closed at a power cut

	mu       sync.Mutex // guards the fields below; held while a command is carried out
	conn     net.Conn   // the client's, or nil
	closed   bool
	cutAt    int // cut after so many changes; 0: never
	cutSeed  uint64
	state    *State
	firstErr error
}

// Serve begins to serve disk on a unix socket at path. A socket that a dead
// server left there is replaced; any other file is an error.
func Serve(path string, disk *Disk) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("serve disk: %w", err)
	}
	s := &Server{Disk: disk, path: path, listener: l, cutDone: make(chan struct{})}
	s.work.Go(s.accept)
	return s, nil
}

// listen binds a socket whose path may be longer than the 107 bytes that the
// kernel takes, by way of its folder's descriptor.
func listen(path string) (*net.UnixListener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if c, err := net.Dial("unix", short); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w: a server is listening there", path, syscall.EADDRINUSE)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
			os.Remove(path)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by our path: the short one ends with the descriptor
	return l, nil
}

// CutAfter cuts the power when the disk has taken n writes and trims in all. The
// nth reaches the cache and is not answered. seed means what it means to
// [Disk.AfterCut]. Where the disk has taken n already, the next one is the last.
func (s *Server) CutAfter(n int, seed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAt, s.cutSeed = n, seed
}

// Cut cuts the power now: the client's line is dead, commands that were not
// carried out never will be, and the server serves no more. It returns what the
// disk holds. After an earlier cut it returns that one's state, whatever the seed.
func (s *Server) Cut(seed uint64) *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut(seed)
	return s.state
}

// cut is Cut with mu held.
func (s *Server) cut(seed uint64) {
	if s.state != nil {
		return
	}
	s.state = s.Disk.AfterCut(seed)
	s.shut()
	close(s.cutDone)
}

// shut ends the service. mu is held.
func (s *Server) shut() {
	s.closed = true
	s.listener.Close()
	if s.conn != nil {
		s.conn.Close()
	}
}

// WasCut is closed when the power was cut.
func (s *Server) WasCut() <-chan struct{} { return s.cutDone }

// State is what the disk holds since the power was cut, or nil before that.
func (s *Server) State() *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Close ends the service, with or without a cut before, removes the socket and
// returns the first error of a client's line. The disk keeps what it has.
func (s *Server) Close() error {
	s.mu.Lock()
	s.shut()
	s.mu.Unlock()
	s.work.Wait()
	os.Remove(s.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.firstErr
}

// accept serves clients one after the other until the listener is closed.
func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			conn.Close()
			return
		}
		s.conn = conn
		s.mu.Unlock()

		err = s.serve(conn)
		conn.Close()
		s.mu.Lock()
		s.conn = nil
		// A client that is killed hangs up in the middle: that is what we are for.
		gone := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
		if err != nil && !gone && !s.closed && s.firstErr == nil {
			s.firstErr = fmt.Errorf("serve %s: %w", s.path, err)
		}
		s.mu.Unlock()
	}
}
