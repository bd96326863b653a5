package supervise

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/init/guard"
)

const (
	// maxClients at once; further ones are told so and hung up on.
	maxClients = 16
	// idleTimeout is how long a client may take for its next request.
	idleTimeout = time.Minute
	// writeTimeout is how long it may take to read one answer.
	writeTimeout = 10 * time.Second
)

// server is the control socket with its clients.
type server struct {
	s        *supervisor
	listener *net.UnixListener

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

// serveControl opens the socket at path and answers clients until close is called.
func (s *supervisor) serveControl(path string) (close func(), err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return func() {}, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return func() {}, fmt.Errorf("listen for control: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // allowed asks the kernel as well
		l.Close()
		return func() {}, fmt.Errorf("listen on %s: %w", path, err)
	}
	srv := &server{s: s, listener: l, conns: map[net.Conn]bool{}}
	s.goes("control", srv.accept)
	return srv.close, nil
}

func (srv *server) accept() {
	for {
		conn, err := srv.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			guard.Kmsg("control: accept: " + err.Error())
			time.Sleep(time.Second) // out of descriptors: others may give some back
			continue
		}
		if !srv.enter(conn) {
			_ = reply(conn, control.Response{Error: "too many clients"})
			conn.Close()
			continue
		}
		srv.s.goes("control client", func() {
			defer srv.leave(conn)
			srv.serve(conn)
		})
	}
}

// enter takes a client in, if there is room.
func (srv *server) enter(conn net.Conn) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.conns == nil || len(srv.conns) >= maxClients {
		return false
	}
	srv.conns[conn] = true
	return true
}

func (srv *server) leave(conn net.Conn) {
	conn.Close()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.conns, conn)
}

func (srv *server) close() {
	srv.listener.Close()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for conn := range srv.conns {
		conn.Close()
	}
	srv.conns = nil
}

// serve answers one client, request by request.
func (srv *server) serve(conn *net.UnixConn) {
	if err := allowed(conn); err != nil {
		_ = reply(conn, control.Response{Error: err.Error()})
		return
	}
	lines := bufio.NewReaderSize(conn, control.MaxRequest)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idleTimeout))
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		r, err := control.ParseRequest(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			// The rest may be the end of the same line: no use going on.
			_ = reply(conn, control.Response{Error: err.Error()})
			return
		}
		if r.Op == control.OpLogs {
			if srv.logs(conn, r) != nil || r.Follow {
				return
			}
			continue
		}
		if answer, ours := srv.ask(r); ours {
			if reply(conn, answer) != nil {
				return
			}
			continue
		}
		answer := make(chan control.Response, 1)
		select {
		case srv.s.requests <- request{r, answer}:
		case <-srv.s.done:
			return
		}
		if reply(conn, <-answer) != nil {
			return
		}
	}
}

// ask answers what the loop knows nothing of.
func (srv *server) ask(r control.Request) (control.Response, bool) {
	switch r.Op {
	case control.OpStatus, control.OpRestart, control.OpStart, control.OpStop, control.OpReboot, control.OpPoweroff:
		return control.Response{}, false
	}
	if srv.s.cfg.Answer == nil {
		return control.Response{Error: fmt.Sprintf("unknown op %q", r.Op)}, true
	}
	return srv.s.cfg.Answer(r), true
}

// logs sends the log of one service.
func (srv *server) logs(conn *net.UnixConn, r control.Request) error {
	u := srv.s.byName[r.Service] // the map never changes
	if u == nil {
		return reply(conn, control.Response{Error: fmt.Sprintf("no service %q", r.Service), NoService: true})
	}
	gone := make(chan struct{})
	if r.Follow { // whatever the client says now, or does not, is good-bye
		_ = conn.SetReadDeadline(time.Time{})
		srv.s.goes("control client", func() {
			defer close(gone)
			_, _ = conn.Read(make([]byte, 1))
		})
	}
	for from := u.log.tail(r.Tail); ; {
		c := u.log.after(from)
		from = c.next
		for line := range bytes.Lines(c.lines) {
			text := string(bytes.TrimSuffix(line, []byte("\n")))
			if err := reply(conn, control.Response{Line: &text}); err != nil {
				return err
			}
		}
		if c.over || c.news != nil && !r.Follow {
			return reply(conn, control.Response{})
		}
		if c.news == nil {
			continue
		}
		select {
		case <-c.news:
		case <-gone:
			return net.ErrClosed
		}
	}
}

// reply sends one line.
func reply(conn net.Conn, r control.Response) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err = conn.Write(append(b, '\n'))
	return err
}

// allowed lets in root, which in a test is whoever runs it.
func allowed(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var opt error
	if err := raw.Control(func(fd uintptr) {
		cred, opt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if opt != nil {
		return opt
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not ask PID 1", cred.Uid)
	}
	return nil
}
