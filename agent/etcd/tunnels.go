package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// tunnels are the ways from this member to the others. etcd can check a peer's certificate by
// its CA and its name only, and here neither counts. So etcd is told that its peers are unix
// sockets, and behind each of them is a proxy that speaks TLS 1.3 with the seat of that name,
// wherever it is now, and with nobody else.
//
// etcd takes a socket's name from the host of its URL, which has no slash: the sockets lie in
// the process's working directory.
type tunnels struct {
	dir    string
	dial   *dialer
	mu     sync.Mutex // guards what follows
	open   map[int]*http.Server
	closed bool
	wait   sync.WaitGroup
}

// openTunnels makes dir, for root alone, the working directory of the process.
func openTunnels(dir string, d *dialer) (*tunnels, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &tunnels{dir: dir, dial: d, open: make(map[int]*http.Server)}, os.Chdir(dir)
}

// to makes sure that there is a tunnel to each of the seats.
func (t *tunnels) to(seats ...int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seat := range seats {
		if t.open[seat] != nil || t.closed || seat == 0 {
			continue
		}
		l, err := listenUnix(filepath.Join(t.dir, tunnelName(seat)))
		if err != nil {
			return fmt.Errorf("tunnel to seat %d: %w", seat, err)
		}
		s := &http.Server{Handler: t.dial.proxy(seat), ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
		t.open[seat] = s
		t.wait.Go(func() { _ = s.Serve(l) })
	}
	return nil
}

func (t *tunnels) close() {
	t.mu.Lock()
	t.closed = true
	for _, s := range t.open {
		_ = s.Close()
	}
	t.mu.Unlock()
	t.wait.Wait()
	t.dial.close()
}

// dialer makes connections to other members, and says which seat they have to be of.
type dialer struct {
	certificate func() (tls.Certificate, error)
	admit       admission
	conns       *conns
	// Streams of etcd never end, and say something every two seconds: one that is silent is
	// dead. All else is asked and answered, over connections that are kept.
	streams, calls *http.Transport

	mu        sync.Mutex // guards what follows
	addresses map[int][]netip.AddrPort
	speak     map[int]int // streams by which a seat's etcd speaks to the one here now
}

// silence is how long a stream of etcd may be silent, as etcd has it for its own.
const silence = 5 * time.Second

func newDialer(c Config, all *conns, admit admission) *dialer {
	d := &dialer{certificate: c.Certificate, admit: admit, conns: all, speak: make(map[int]int)}
	d.calls = &http.Transport{
		DialTLSContext:      func(ctx context.Context, _, host string) (net.Conn, error) { return d.connect(ctx, host, 0) },
		MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
	d.streams = &http.Transport{
		DialTLSContext:    func(ctx context.Context, _, host string) (net.Conn, error) { return d.connect(ctx, host, silence) },
		DisableKeepAlives: true, DisableCompression: true,
	}
	return d
}

// know is where the seats are.
func (d *dialer) know(addresses map[int][]netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = addresses
}

func (d *dialer) close() {
	d.calls.CloseIdleConnections()
	d.streams.CloseIdleConnections()
}

// proxy hands what etcd asks of a seat on to it.
func (d *dialer) proxy(seat int) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "https", memberName(seat)
		},
		Transport: chosen(func(r *http.Request) http.RoundTripper {
			if strings.HasPrefix(r.URL.Path, "/raft/stream/") {
				return d.streams
			}
			return d.calls
		}),
		ModifyResponse: func(answer *http.Response) error {
			if answer.StatusCode == http.StatusOK && strings.HasPrefix(answer.Request.URL.Path, "/raft/stream/") {
				d.note(seat, 1)
				context.AfterFunc(answer.Request.Context(), func() { d.note(seat, -1) }) // the stream has ended
			}
			return nil
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
}

// chosen is a transport that depends on the request.
type chosen func(*http.Request) http.RoundTripper

func (c chosen) RoundTrip(r *http.Request) (*http.Response, error) { return c(r).RoundTrip(r) }

// connect connects to the seat that host names, at the first of its addresses where it answers.
func (d *dialer) connect(ctx context.Context, host string, silence time.Duration) (net.Conn, error) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return nil, err
	}
	var seat int
	if _, err := fmt.Sscanf(name, "seat%d", &seat); err != nil {
		return nil, fmt.Errorf("%q is no seat", name)
	}
	d.mu.Lock()
	addresses := d.addresses[seat]
	d.mu.Unlock()
	if len(addresses) == 0 {
		return nil, fmt.Errorf("seat %d: no address is known", seat)
	}
	var errs []error
	for _, address := range addresses {
		conn, err := d.connectTo(ctx, seat, address, silence)
		if err == nil {
			return conn, nil
		}
		if errs = append(errs, fmt.Errorf("seat %d at %s: %w", seat, address, err)); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) connectTo(ctx context.Context, seat int, address netip.AddrPort, silence time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	own, err := d.certificate()
	if err != nil {
		raw.Close()
		return nil, err
	}
	conn := tls.Client(limited{raw, silence}, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own},
		InsecureSkipVerify: true, // VerifyConnection does: by the key's seat, not by CA and name
		VerifyConnection:   func(state tls.ConnectionState) error { return d.admit(state, seat) },
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return d.conns.add(conn, seat), nil
}

// limited is a connection on which a write may not take longer than silence, and with a limit of
// its own a read neither.
type limited struct {
	net.Conn
	read time.Duration
}

func (l limited) Read(p []byte) (int, error) {
	if l.read > 0 {
		if err := l.SetReadDeadline(time.Now().Add(l.read)); err != nil {
			return 0, err
		}
	}
	return l.Conn.Read(p)
}

func (l limited) Write(p []byte) (int, error) {
	if err := l.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return l.Conn.Write(p)
}

// admission says why a connection is not with a seat that is let in: a certain one, or for 0 any.
type admission func(state tls.ConnectionState, want int) error

// conns are the connections to and from other members that are open.
type conns struct {
	mu  sync.Mutex // guards all
	all map[*tracked]bool
}

// tracked is a connection that is cut when its seat may not be here any more.
type tracked struct {
	*tls.Conn
	of   *conns
	with int // the seat that was called; 0: somebody came
}

func (c *conns) add(conn *tls.Conn, with int) *tracked {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[*tracked]bool)
	}
	t := &tracked{conn, c, with}
	c.all[t] = true
	return t
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

func (t *tracked) Close() error {
	t.of.mu.Lock()
	delete(t.of.all, t)
	t.of.mu.Unlock()
	return t.Conn.Close()
}

// check cuts the connections that are not admitted any more.
func (c *conns) check(admit admission) (cut int) {
	c.mu.Lock()
	var bad []*tracked
	for t := range c.all {
		if admit(t.ConnectionState(), t.with) != nil {
			bad = append(bad, t)
		}
	}
	c.mu.Unlock()
	for _, t := range bad {
		_ = t.NetConn().Close() // TLS would say good-bye to who may not listen
		_ = t.Close()
	}
	return len(bad)
}
