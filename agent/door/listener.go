package door

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Listener is a listener that takes every connection at once and hands them on as
// [places] says, so that strangers who say nothing do not keep operators out.
type Listener struct {
	net.Listener
	mu     sync.Mutex // guards what follows
	places places
	conns  map[*place]*guest
	timer  *time.Timer // the next look, when nothing else happens

	next   chan *guest // room for all that can have a place
	failed chan error  // of the listener, once
	once   sync.Once
}

// guest is a connection of the door.
type guest struct {
	net.Conn
	door  *Listener
	place *place
}

func NewListener(l net.Listener) *Listener {
	d := &Listener{Listener: l, conns: map[*place]*guest{}, next: make(chan *guest, MaxConnections), failed: make(chan error, 1)}
	d.timer = time.AfterFunc(time.Hour, d.look)
	d.timer.Stop()
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
		g := &guest{conn, d, &place{address: turnOf(address)}}
		d.mu.Lock()
		d.conns[g.place] = g
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
	for _, p := range append([]*place(nil), d.places.waiting...) {
		d.drop(p)
	}
}

func (d *Listener) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fill()
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
		_ = g.Conn.Close()
	}
}

// Connections is how many there are, those that still wait included.
func (d *Listener) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// Close ends the connection and gives its place to the next.
func (g *guest) Close() error {
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

// keepPlace notes that the caller is one of the fleet, and by which certificate.
func keepPlace(ctx context.Context, key string) error {
	g, _ := ctx.Value(guestKey{}).(*guest)
	if g == nil {
		return nil
	}
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	if g.place.known || g.door.conns[g.place] == nil {
		return nil
	}
	yield, ok := g.door.places.Know(g.place, key, time.Now())
	if !ok {
		return fmt.Errorf("%d connections are busy with your certificate: end one of them", maxOfKey)
	}
	if yield != nil {
		g.door.drop(yield)
	}
	g.door.fill()
	return nil
}
