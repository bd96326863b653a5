package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// entrance is where other members come in. Whoever finds the port may make a handshake, few at
// a time and not for long; only members get further.
type entrance struct {
	net.Listener
	config  *tls.Config
	conns   *conns
	ready   chan net.Conn
	pending chan struct{} // room for those who have not shown who they are
	done    chan struct{}
	http    *http.Server
	wait    sync.WaitGroup

	mu   sync.Mutex // guards from
	from map[netip.Addr]int
}

// What strangers can have of a door.
const (
	maxPending        = 64 // handshakes at a time
	maxPendingAddress = 8  // of one address
	handshakeLimit    = 5 * time.Second
	// maxConns is how many connections there are to and from members. Four others have some ten
	// each.
	maxConns = 256
)

// openEntrance opens the door; handler answers the members.
func openEntrance(c Config, all *conns, admit admission, handler http.Handler) (*entrance, error) {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	e := &entrance{
		Listener: l, conns: all, ready: make(chan net.Conn), pending: make(chan struct{}, maxPending), done: make(chan struct{}), from: make(map[netip.Addr]int),
		config: &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				own, err := c.Certificate()
				return &own, err
			},
			VerifyConnection: func(state tls.ConnectionState) error { return admit(state, 0) },
		},
	}
	e.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0),
	}
	e.wait.Go(e.take)
	e.wait.Go(func() { _ = e.http.Serve(e) })
	return e, nil
}

// take has those who come show who they are.
func (e *entrance) take() {
	for {
		raw, err := e.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is left: those that end give theirs back
			select {
			case <-time.After(50 * time.Millisecond):
			case <-e.done:
				return
			}
			continue
		}
		from := raw.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !e.enter(from) {
			raw.Close()
			continue
		}
		e.wait.Go(func() {
			defer e.leave(from)
			e.greet(raw)
		})
	}
}

func (e *entrance) enter(from netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.from[from] >= maxPendingAddress {
		return false
	}
	select {
	case e.pending <- struct{}{}:
		e.from[from]++
		return true
	default:
		return false
	}
}

func (e *entrance) leave(from netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	<-e.pending
	if e.from[from]--; e.from[from] == 0 {
		delete(e.from, from)
	}
}

// greet makes the handshake, and hands members on.
func (e *entrance) greet(raw net.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeLimit)
	defer cancel()
	conn := tls.Server(limited{raw, 0}, e.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return
	}
	if e.conns.count() >= maxConns {
		raw.Close()
		return
	}
	member := e.conns.add(conn, 0)
	select {
	case e.ready <- member:
	case <-e.done:
		_ = member.Close()
	}
}

// Accept is for the HTTP server.
func (e *entrance) Accept() (net.Conn, error) {
	select {
	case conn := <-e.ready:
		return conn, nil
	case <-e.done:
		return nil, net.ErrClosed
	}
}

func (e *entrance) close() {
	close(e.done)
	_ = e.Listener.Close()
	_ = e.http.Close()
	e.wait.Wait()
}
