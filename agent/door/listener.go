package door

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/update/fleet"
)

// Listener is a listener that takes every connection at once and hands them on as
// [places] says, so that strangers who say nothing do not keep operators out.
type Listener struct {
	net.Listener
	gate   *gate
	mu     sync.Mutex // guards what follows
	places places
	conns  map[*place]*guest
	timer  *time.Timer // the next look, when nothing else happens
	tidies *time.Timer // the next look for those who do nothing, while there are connections

	next   chan *guest // room for all that can have a place
	failed chan error  // of the listener, once
	once   sync.Once
}

// guest is a connection of the door. Until its caller is known to be one of the fleet, what
// it sends is bounded, and is worked on when it is its turn: from a Read that brings bytes
// to whatever the server does with the connection next.
type guest struct {
	net.Conn
	door  *Listener
	place *place
	gone  chan struct{} // closed when the connection is

	known   atomic.Bool          // as in place
	free    atomic.Bool          // it is the door's no more
	spoken  atomic.Bool          // the handshake is over
	early   atomic.Int64         // bytes before that
	refused atomic.Int32         // requests in vain, while it is not known
	turn    atomic.Pointer[turn] // that works

	identity verdict
}

// errEarly is of a stranger who sends more than a handshake has.
var errEarly = fmt.Errorf("more than %d bytes before the end of the handshake", maxEarly)

func (g *guest) Read(p []byte) (int, error) {
	g.over()
	n, err := g.Conn.Read(p)
	if n == 0 || g.known.Load() {
		return n, err
	}
	if !g.spoken.Load() && g.early.Add(int64(n)) > maxEarly {
		return 0, errEarly
	}
	t := g.door.gate.enter(g.place.from, g.place.familiar, g.gone)
	if t == nil {
		return 0, net.ErrClosed
	}
	g.turn.Store(t)
	return n, err
}

func (g *guest) Write(p []byte) (int, error) {
	g.over()
	return g.Conn.Write(p)
}

// TLS is base for the connections of a door, which learns from it when a stranger's
// handshake is over but for its last words.
func TLS(base *tls.Config) *tls.Config {
	base.NextProtos = []string{"h2", "http/1.1"}
	outer := base.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		g := guestOf(hello.Conn)
		if g == nil {
			return nil, nil
		}
		own := base.Clone()
		own.VerifyConnection = func(tls.ConnectionState) error {
			g.spoken.Store(true)
			g.door.mu.Lock()
			defer g.door.mu.Unlock()
			g.place.greet(time.Now())
			return nil
		}
		return own, nil
	}
	return outer
}

// Speak has a server whose TLSConfig is of [TLS] speak other protocols, too, by the names that
// TLS negotiates (ALPN). Each function takes a connection after the handshake, and returns when
// it is over.
func Speak(s *http.Server, others map[string]func(*tls.Conn)) {
	s.Protocols = new(http.Protocols) // those of HTTP, whatever TLSNextProto has
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler), len(others))
	for name, take := range others {
		s.TLSNextProto[name] = func(_ *http.Server, conn *tls.Conn, _ http.Handler) { take(conn) }
	}
	outer := s.TLSConfig
	names := slices.Concat(outer.NextProtos, slices.Sorted(maps.Keys(others)))
	inner := outer.GetConfigForClient
	outer.NextProtos = names
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own, err := inner(hello)
		if own != nil {
			own.NextProtos = names
		}
		return own, err
	}
}

// over ends the turn of the connection.
func (g *guest) over() {
	if t := g.turn.Swap(nil); t != nil {
		g.door.gate.over(t)
	}
}

// Listen opens an address for a door. Who comes costs few system calls: whether a caller's
// machine is still there is asked once he is known.
func Listen(address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	return config.Listen(context.Background(), "tcp", address)
}

func NewListener(l net.Listener) *Listener {
	d := &Listener{Listener: l, gate: newGate(), conns: map[*place]*guest{}, next: make(chan *guest, MaxConnections), failed: make(chan error, 1)}
	d.timer = time.AfterFunc(time.Hour, d.look)
	d.timer.Stop()
	d.tidies = time.AfterFunc(time.Hour, d.tidy)
	d.tidies.Stop()
	return d
}

// Accept returns the next connection that has a place.
func (d *Listener) Accept() (net.Conn, error) {
	d.once.Do(func() { go d.take() })
	for {
		select {
		case g := <-d.next:
			return g, nil
		case err := <-d.failed:
			d.failed <- err
			return nil, err
		}
	}
}

// take takes connections until the listener is closed.
func (d *Listener) take() {
	for {
		conn, err := d.Listener.Accept()
		if temporary, ok := err.(interface{ Temporary() bool }); ok && temporary.Temporary() {
			time.Sleep(50 * time.Millisecond) // no descriptor is left: those that end give theirs back
			continue
		}
		if err != nil {
			d.failed <- err
			d.close()
			return
		}
		var address netip.Addr
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			address = tcp.AddrPort().Addr()
		}
		g := &guest{Conn: conn, door: d, place: &place{}, gone: make(chan struct{})}
		d.mu.Lock()
		g.place.familiar = d.places.Familiar(address)
		g.place.from = originOf(address, g.place.familiar)
		if d.conns[g.place] = g; len(d.conns) == 1 {
			d.tidies.Reset(idleLimit / 8)
		}
		if p := d.places.Arrive(g.place); p != nil {
			d.drop(p)
		}
		d.fill()
		d.mu.Unlock()
	}
}

// close hangs up on those who still wait.
func (d *Listener) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer.Stop()
	d.tidies.Stop()
	for _, p := range append([]*place(nil), d.places.waiting...) {
		d.drop(p)
	}
}

func (d *Listener) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fill()
}

// tidy ends the connections that do nothing. The server does not: what net/http keeps of a
// connection until its IdleTimeout it keeps also of one that has ended amid a call, some 20 KiB.
func (d *Listener) tidy() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.places.Done(time.Now()) {
		d.drop(p)
	}
	d.fill()
	if len(d.conns) > 0 {
		d.tidies.Reset(idleLimit / 8)
	}
}

// fill hands on all that can be served now. The caller holds mu.
func (d *Listener) fill() {
	for {
		now := time.Now()
		next, yield, again := d.places.Next(now)
		if yield != nil {
			d.drop(yield)
		}
		if next == nil {
			if !again.IsZero() {
				d.timer.Reset(again.Sub(now))
			}
			return
		}
		select {
		case d.next <- d.conns[next]:
		default: // those before it were dropped and are not taken out of the channel yet
			d.drop(next)
		}
	}
}

// drop ends a connection. The caller holds mu.
func (d *Listener) drop(p *place) {
	if g := d.conns[p]; g != nil {
		delete(d.conns, p)
		d.places.Leave(p)
		close(g.gone)
		g.over()
		_ = g.Conn.Close()
	}
}

// Connections is how many there are, those that still wait included.
func (d *Listener) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// LetGo has a connection be the door's no more, because its caller has proved to be somebody
// whom others bound, as nodes that gossip are. Its place is the next one's. His address is no
// more familiar than before: many nodes would have that of an operator be forgotten. A
// connection of no door is let be.
func LetGo(conn net.Conn) {
	g := guestOf(conn)
	if g == nil || g.free.Load() {
		return
	}
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	if g.door.conns[g.place] == nil {
		return // it had to go
	}
	g.free.Store(true)
	g.known.Store(true)
	g.over()
	delete(g.door.conns, g.place)
	g.door.places.Leave(g.place)
	g.door.fill()
}

// NetConn is the connection below.
func (g *guest) NetConn() net.Conn { return g.Conn }

// Close ends the connection and gives its place to the next.
func (g *guest) Close() error {
	if g.free.Load() {
		return g.Conn.Close()
	}
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	if g.door.conns[g.place] == nil {
		return net.ErrClosed
	}
	g.door.drop(g.place)
	g.door.fill()
	return nil
}

// ConnState hears from the server whether a connection has calls that run.
func (d *Listener) ConnState(conn net.Conn, state http.ConnState) {
	if g := guestOf(conn); g != nil && (state == http.StateActive || state == http.StateIdle) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if g.place.busy = state == http.StateActive; g.place.known {
			g.place.since = time.Now()
			d.fill()
		}
	}
}

func guestOf(conn net.Conn) *guest {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	g, _ := conn.(*guest)
	return g
}

// guestKey finds the connection of a call in its context.
type guestKey struct{}

// WithConn puts a connection of the door into the context of its calls.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, guestOf(conn))
}

// connOf is the connection of the door in a call's context; nil in one that has none.
func connOf(ctx context.Context) *guest {
	g, _ := ctx.Value(guestKey{}).(*guest)
	return g
}

// keepPlace notes that the caller is one of the fleet, by which certificate, and whether he
// is an admin.
func (g *guest) keepPlace(key string, admin bool) error {
	if g == nil || g.known.Load() {
		return nil
	}
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	if g.place.known || g.door.conns[g.place] == nil {
		return nil
	}
	yield, ok := g.door.places.Know(g.place, key, admin, time.Now())
	if !ok {
		return errBusy
	}
	g.known.Store(true)
	g.over()
	if tcp, ok := g.Conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) // a connection that ended meanwhile needs none
	}
	if yield != nil {
		g.door.drop(yield)
	}
	g.door.fill()
	return nil
}

// refuse counts a request in vain. last says that it is the last one on the connection,
// whose caller is to be told so; after that the connection is gone.
func (g *guest) refuse() (last bool) {
	if g == nil || g.known.Load() {
		return false
	}
	n := g.refused.Add(1)
	if n > maxRefused {
		_ = g.Close()
	}
	return n == maxRefused
}

// verdict is whom the certificates of a connection are of: TLS binds them to it, so that it
// is found out once.
type verdict struct {
	mu       sync.Mutex // guards what follows, and is held while it is found out
	genesis  *fleet.Genesis
	identity fleet.Identity
	err      error
}

// ask returns what identify says, which it asks once for a genesis.
func (v *verdict) ask(genesis *fleet.Genesis, identify func() (fleet.Identity, error)) (fleet.Identity, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.genesis != genesis {
		v.identity, v.err = identify()
		v.genesis = genesis
	}
	return v.identity, v.err
}
