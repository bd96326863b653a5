package gossip

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// Protocol is what is spoken, as TLS negotiates it (ALPN): on the port of the API, where one
// door bounds what strangers can use up, and no other port has to be open. A call of the API
// would cost more than gossip itself: HTTP/2 asks each minute whether the caller is there.
const Protocol = "kogge-gossip/1"

// TLS reaches peers by TLS 1.3. Which seat the other end has is not for certificates to say,
// whose CA any member can use: each side sends its seat's word for its own TLS key, by which
// the handshake was made. So a certificate that is over, or of a CA that is no more, does not
// matter, and one of a key that no seat calls its own is worth nothing.
type TLS struct {
	// Certificate is what this node shows. It is asked for each session.
	Certificate func() tls.Certificate
	// Word is the envelope of this seat's word for its TLS key.
	Word func() (signed.Envelope, error)
	// Admit says whose seat a TLS key is by an envelope, as [Engine.Admit].
	Admit func(envelope []byte, tlsKey document.Hash) (roster.Seat, error)
	// Addresses are where the API of a seat may answer, the likeliest first.
	Addresses func(roster.Seat) []netip.AddrPort
	// Find looks for a seat where nobody has said that it is. It is asked once the likeliest
	// addresses have not answered, and returns soon. nil: there is no way.
	Find func(context.Context, roster.Seat) []netip.AddrPort
	// Speaks is the protocol, as TLS negotiates it. Default: [Protocol].
	Speaks string

	once  sync.Once
	inbox chan Session
}

// Limits of a session's beginning, and of its life.
const (
	maxHello   = 1 << 10 // bytes
	helloLimit = 5 * time.Second
	reachLimit = 5 * time.Second  // for one address
	maxReach   = 4                // addresses
	likely     = 2                // of them, before the seat is looked for elsewhere
	writeLimit = 20 * time.Second // for each writeSize bytes
	writeSize  = 64 << 10
	// keepAliveIdle is after how long of silence the machine that opened a session asks whether
	// the other one is there: routers forget a connection after five minutes. The other one does
	// not ask: a digest comes, or the engine ends the session.
	keepAliveIdle = 4 * time.Minute
)

// ErrHello is of a peer that does not begin as it should.
var ErrHello = errors.New("not a peer of this fleet")

// Dial opens a session with a seat, at the first of its addresses that answers.
func (t *TLS) Dial(ctx context.Context, seat roster.Seat) (Session, error) {
	addresses := slices.Clone(t.Addresses(seat))
	addresses = addresses[:min(len(addresses), maxReach)]
	var all error
	for i, find := 0, t.Find; ; i++ {
		if find != nil && i == min(likely, len(addresses)) {
			at := i
			for _, a := range find(ctx, seat) {
				if !slices.Contains(addresses, a) && len(addresses) < 2*maxReach {
					addresses = slices.Insert(addresses, at, a)
					at++
				}
			}
			find = nil
		}
		if i == len(addresses) {
			break
		}
		s, err := t.reach(ctx, seat, addresses[i])
		if err == nil {
			return s, nil
		}
		all = errors.Join(all, fmt.Errorf("gossip: %s at %s: %w", seat.Name, addresses[i], err))
	}
	if all == nil {
		all = fmt.Errorf("gossip: %s: no address of it is known", seat.Name)
	}
	return nil, all
}

func (t *TLS) reach(ctx context.Context, seat roster.Seat, address netip.AddrPort) (Session, error) {
	ctx, cancel := context.WithTimeout(ctx, reachLimit+helloLimit)
	defer cancel()
	dialer := net.Dialer{Timeout: reachLimit, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: 15 * time.Second, Count: 4}}
	raw, err := dialer.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{t.speaks()}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		InsecureSkipVerify: true, // the hello proves more than a certificate could
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate := t.Certificate()
			return &certificate, nil
		},
	})
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	s, err := t.greet(ctx, conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && s.peer != seat.Key {
		err = errNoPeer
	}
	if err != nil {
		conn.NetConn().Close()
		return nil, err
	}
	return s, nil
}

// greet says hello first, and wants an answer.
func (t *TLS) greet(ctx context.Context, conn *tls.Conn) (*stream, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	word, err := t.Word()
	if err != nil {
		return nil, err
	}
	s := newStream(conn)
	if err := s.Send([][]byte{word.Bytes()}); err != nil {
		return nil, err
	}
	return s, t.admit(s)
}

// admit reads the peer's hello.
func (t *TLS) admit(s *stream) error {
	if err := s.conn.SetReadDeadline(time.Now().Add(helloLimit)); err != nil {
		return err
	}
	hello, err := s.receive(maxHello)
	if err != nil {
		return fmt.Errorf("%w: no hello: %w", ErrHello, err)
	}
	key, err := tlsKey(s.conn, t.speaks())
	if err != nil {
		return err
	}
	seat, err := t.Admit(hello, key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHello, err)
	}
	s.peer, s.key = seat.Key, key
	return s.conn.SetReadDeadline(time.Time{})
}

// tlsKey is the fingerprint of the key by which the other end made the handshake.
func tlsKey(conn *tls.Conn, protocol string) (document.Hash, error) {
	state := conn.ConnectionState()
	switch {
	case state.NegotiatedProtocol != protocol:
		return document.Hash{}, fmt.Errorf("%w: it speaks %.40q", ErrHello, state.NegotiatedProtocol)
	case len(state.PeerCertificates) == 0:
		return document.Hash{}, fmt.Errorf("%w: it shows no certificate", ErrHello)
	}
	return document.HashOf(state.PeerCertificates[0].RawSubjectPublicKeyInfo), nil
}

func (t *TLS) speaks() string { return cmp.Or(t.Speaks, Protocol) }

func (t *TLS) begin() {
	t.once.Do(func() { t.inbox = make(chan Session) })
}

// Serve takes a connection that a peer has opened, whose handshake is over, and returns when
// its session is. known is called once the peer has proved its seat: until then it is a
// stranger, whom the listener bounds.
func (t *TLS) Serve(ctx context.Context, conn *tls.Conn, known func()) error {
	t.begin()
	defer conn.NetConn().Close()
	s, err := t.take(conn, known)
	if err != nil {
		return err
	}
	select {
	case t.inbox <- s:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(helloLimit):
		return fmt.Errorf("gossip: %s: nobody takes its session", conn.RemoteAddr())
	}
	select {
	case <-s.over:
	case <-ctx.Done():
	}
	return nil
}

// Take is [TLS.Serve] for somebody who wants the session, and closes it.
func (t *TLS) Take(conn *tls.Conn, known func()) (Session, error) {
	s, err := t.take(conn, known)
	if err != nil {
		conn.NetConn().Close()
		return nil, err
	}
	return s, nil
}

func (t *TLS) take(conn *tls.Conn, known func()) (*stream, error) {
	s := newStream(conn)
	if err := t.admit(s); err != nil {
		return nil, fmt.Errorf("gossip: %s: %w", conn.RemoteAddr(), err)
	}
	known()
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetKeepAlive(false) // the one who opened it asks
	}
	word, err := t.Word()
	if err == nil {
		err = s.Send([][]byte{word.Bytes()})
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: %s: %w", conn.RemoteAddr(), err)
	}
	return s, nil
}

// tcpOf is the connection below, if it is one of TCP.
func tcpOf(conn *tls.Conn) *net.TCPConn {
	var c net.Conn = conn.NetConn()
	for range 3 {
		switch under := c.(type) {
		case *net.TCPConn:
			return under
		case interface{ NetConn() net.Conn }:
			c = under.NetConn()
		}
	}
	return nil
}

// Accept is the next session of those that [TLS.Serve] takes.
func (t *TLS) Accept(ctx context.Context) (Session, error) {
	t.begin()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case s := <-t.inbox:
		return s, nil
	}
}

// stream is a session on a connection: frames, each behind its length.
type stream struct {
	conn *tls.Conn
	r    *bufio.Reader
	peer signed.Key
	key  document.Hash // TLS key
	once sync.Once
	over chan struct{}
}

func newStream(conn *tls.Conn) *stream {
	return &stream{conn: conn, r: bufio.NewReaderSize(conn, 1<<10), over: make(chan struct{})}
}

func (s *stream) Peer() signed.Key { return s.peer }

// TLSKey is the fingerprint of the key by which the peer made the handshake.
func (s *stream) TLSKey() document.Hash { return s.key }

func (s *stream) Send(frames [][]byte) error {
	var all []byte
	for _, f := range frames {
		all = binary.AppendUvarint(all, uint64(len(f)))
		all = append(all, f...)
	}
	for some := range slices.Chunk(all, writeSize) { // a slow line takes a while for all of it
		if err := s.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
			return err
		}
		if _, err := s.conn.Write(some); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) Receive() ([]byte, error) { return s.receive(wire.MaxFrame) }

func (s *stream) receive(most int) ([]byte, error) {
	size, err := binary.ReadUvarint(s.r)
	if err != nil {
		return nil, err
	}
	if size == 0 || size > uint64(most) {
		return nil, fmt.Errorf("%w: %d bytes", wire.ErrFrame, size)
	}
	frame := make([]byte, size)
	_, err = io.ReadFull(s.r, frame)
	return frame, err
}

// Close cuts the connection off: to say goodbye would wait for a peer that does not read.
func (s *stream) Close() error {
	s.once.Do(func() { close(s.over) })
	return s.conn.NetConn().Close()
}

// Admit says whose seat a TLS key is, by an envelope with the seat's word. An older word than
// the one that is known counts for nothing: the seat has another key by now. Of two words under one
// number the first one counts, by which a session stands, too.
func (e *Engine) Admit(envelope []byte, tlsKey document.Hash) (seat roster.Seat, err error) {
	word, err := signed.Open(envelope)
	if err != nil {
		return roster.Seat{}, err
	}
	ended := !e.do(func() {
		e.catchUp()
		if seat, err = notice.Bound(word, e.state, tlsKey); err != nil {
			return
		}
		if e.revoked(tlsKey) {
			err = fmt.Errorf("%w: key %s of %s was withdrawn on this node", notice.ErrTLSKey, tlsKey.Short(), seat.Name)
			return
		}
		v := e.shelf.Put(slices.Clone(envelope))
		if v.News() {
			e.took(word, v, nil)
		} else if v != shelf.Known {
			err = fmt.Errorf("%w: the word of %s for its TLS key is %s", notice.ErrTLSKey, seat.Name, v)
			return
		}
		if e.disowned(seat.Key, tlsKey) {
			err = fmt.Errorf("%w: %s has said two words under number %d, and the other one counts", notice.ErrTLSKey, seat.Name, word.Sequence)
		}
	})
	if ended {
		return roster.Seat{}, ErrEnded
	}
	return seat, err
}
