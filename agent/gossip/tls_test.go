package gossip

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/door"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// machine is a node as its peers meet it: an engine behind the door of an HTTP server, on a
// port of loopback.
type machine struct {
	*TLS
	seat    int
	engine  *Engine
	at      netip.AddrPort
	cert    tls.Certificate
	word    signed.Envelope
	numbers uint64

	server *http.Server
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	refused []string
}

// certificate is one of a key that nobody has signed, and that is over since long: gossip does
// not ask.
func certificate(t testing.TB) (tls.Certificate, document.Hash) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, document.HashOf(spki)
}

func wordOf(t testing.TB, id document.Hash, seat int, number uint64, key document.Hash) signed.Envelope {
	e, err := signed.Seal(notice.TLSKeyKind, id, private(seat), number, notice.TLSKey{Version: 1, Seat: seat, Key: key}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// machines start nodes that reach each other by TLS.
func machines(t *testing.T, state ledger.State) (all []*machine) {
	where := make(map[int]netip.AddrPort)
	for _, seat := range state.Roster.Seats {
		cert, key := certificate(t)
		m := &machine{seat: seat.Number, cert: cert, word: wordOf(t, state.Fleet(), seat.Number, 1, key), numbers: 1}
		m.TLS = &TLS{
			Certificate: func() tls.Certificate { return m.cert }, Word: func() (signed.Envelope, error) { return m.word, nil },
			Admit: func(raw []byte, key document.Hash) (roster.Seat, error) {
				seat, err := m.engine.Admit(raw, key)
				if err != nil {
					m.mu.Lock()
					defer m.mu.Unlock()
					m.refused = append(m.refused, err.Error())
				}
				return seat, err
			},
			Addresses: func(seat roster.Seat) []netip.AddrPort { return []netip.AddrPort{where[seat.Number]} },
		}
		m.engine = New(Config{Self: seat.Key, Ledger: still{state}, Kinds: notice.Kinds(), Transport: m.TLS, Logf: func(string, ...any) {}})
		listener, err := door.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m.at = listener.Addr().(*net.TCPAddr).AddrPort()
		where[m.seat] = m.at
		ctx, stop := context.WithCancel(context.Background())
		m.stop = stop
		m.serve(ctx, listener)
		all = append(all, m)
	}
	for _, m := range all {
		ctx, stop := context.WithCancel(context.Background())
		before := m.stop
		m.stop = func() { stop(); before() }
		m.all.Go(func() { m.engine.Run(ctx) })
	}
	t.Cleanup(func() {
		for _, m := range all {
			m.stop()
			m.server.Close()
		}
		for _, m := range all {
			m.all.Wait()
		}
	})
	return all
}

// serve answers as the API's server does.
func (m *machine) serve(ctx context.Context, listener net.Listener) {
	conns := door.NewListener(listener)
	m.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), ConnState: conns.ConnState, ConnContext: door.WithConn,
		TLSConfig: door.TLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{m.cert}}),
	}
	door.Speak(m.server, map[string]func(*tls.Conn){
		Protocol: func(conn *tls.Conn) { _ = m.Serve(ctx, conn, func() { door.LetGo(conn.NetConn()) }) },
	})
	m.all.Go(func() { _ = m.server.ServeTLS(conns, "", "") })
}

func (m *machine) say(t *testing.T, deeds int64) signed.Envelope {
	m.numbers++
	e, err := signed.Seal(notice.StatusKind, m.engine.state.Fleet(), private(m.seat), m.numbers, statusOf(deeds))
	if err == nil {
		err = m.engine.Publish(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// eventually waits on the machine's clock, with a generous limit.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestTLS has four nodes gossip over TLS 1.3 on loopback, behind the door of the API's port.
func TestTLS(t *testing.T) {
	state := large(t, 4)
	all := machines(t, state)
	for i, m := range all {
		e := m.say(t, int64(i+1))
		eventually(t, fmt.Sprintf("news of n%d", m.seat), func() bool {
			for _, o := range all {
				if got, ok := o.engine.Object(e.Kind, e.By); !ok || got.Sequence < e.Sequence {
					return false
				}
			}
			return true
		})
	}
	for _, m := range all {
		eventually(t, "the words for TLS keys", func() bool { return len(m.engine.Objects(notice.TLSKeyKind)) >= 3 })
		if s := m.engine.Stats(); s.Sessions < 1 || s.Away > 0 || s.Refused > 0 {
			t.Errorf("n%d: %+v", m.seat, s)
		}
	}
	// A session ends, and another one begins.
	all[0].engine.do(func() {
		for _, s := range all[0].engine.sessions {
			s.conn.Close()
		}
	})
	e := all[0].say(t, 99)
	eventually(t, "news after all sessions have ended", func() bool {
		got, _ := all[3].engine.Object(e.Kind, e.By)
		return got.Sequence >= e.Sequence
	})
}

// TestWhoComesIn has callers with all kinds of keys open a session: whose seat it is, its own
// word says, whatever the certificate.
func TestWhoComesIn(t *testing.T) {
	state := large(t, 4)
	all := machines(t, state)
	id := state.Fleet()
	victim := all[0]
	seat := state.Roster.Seats[0]
	cert, key := certificate(t)
	other, otherKey := certificate(t)
	stolen, _ := signed.Seal(notice.StatusKind, id, private(2), 50, statusOf(1))
	forged := append([]byte{}, wordOf(t, id, 2, 60, key).Bytes()...)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		what  string
		cert  tls.Certificate
		hello []byte
		in    bool
		why   string
	}{
		{"a seat, its certificate signed by nobody and over since 1970", cert, wordOf(t, id, 2, 60, key).Bytes(), true, ""},
		{"no seat", cert, wordOf(t, id, 9, 1, key).Bytes(), false, "has no seat"},
		{"a seat's word, and another TLS key", other, wordOf(t, id, 2, 61, key).Bytes(), false, "this one is"},
		{"an older word of the seat", other, wordOf(t, id, 2, 59, otherKey).Bytes(), false, "older"},
		{"another fleet", cert, wordOf(t, document.HashOf(nil), 2, 62, key).Bytes(), false, "of fleet"},
		{"another kind", cert, stolen.Bytes(), false, "kind"},
		{"a forged word", cert, forged, false, "signature"},
		{"junk", cert, []byte("junk"), false, "not an envelope"},
		{"a newer word of the seat", other, wordOf(t, id, 2, 63, otherKey).Bytes(), true, ""},
		{"no certificate", tls.Certificate{}, wordOf(t, id, 2, 64, key).Bytes(), false, ""},
		{"a hello without end", cert, make([]byte, maxHello+1), false, ""},
	} {
		hello, err := signed.Parse(c.hello)
		if err != nil {
			hello = signed.Envelope{}
		}
		caller := &TLS{
			Certificate: func() tls.Certificate { return c.cert }, Word: func() (signed.Envelope, error) { return hello, nil },
			Admit:     func([]byte, document.Hash) (roster.Seat, error) { return seat, nil },
			Addresses: func(roster.Seat) []netip.AddrPort { return []netip.AddrPort{victim.at} },
		}
		s, err := caller.Dial(t.Context(), seat)
		if (err == nil) != c.in {
			t.Errorf("%s: %v", c.what, err)
		}
		if err == nil {
			s.Close()
		}
		if c.why == "" || hello.Bytes() == nil {
			continue
		}
		victim.mu.Lock()
		if n := len(victim.refused); n == 0 || !strings.Contains(victim.refused[n-1], c.why) {
			t.Errorf("%s: refused as %q", c.what, victim.refused)
		}
		victim.mu.Unlock()
	}
	// Of two words under one number the shelf's first one counts, whatever comes first.
	one, two := wordOf(t, id, 2, 70, key), wordOf(t, id, 2, 70, otherKey)
	_, _ = victim.engine.Admit(one.Bytes(), key)
	_, _ = victim.engine.Admit(two.Bytes(), otherKey)
	first, _ := victim.engine.Object(notice.TLSKeyKind, one.By)
	for key, word := range map[document.Hash]signed.Envelope{key: one, otherKey: two} {
		_, err := victim.engine.Admit(word.Bytes(), key)
		if counts := bytes.Equal(word.Bytes(), first.Bytes()); (err == nil) != counts || err != nil && !errors.Is(err, notice.ErrTLSKey) {
			t.Errorf("two words under one number: %v, and it is the first: %v", err, counts)
		}
	}
	// Another seat than the one that was dialled, and one that nobody can be reached at.
	dialler := &TLS{
		Certificate: func() tls.Certificate { return all[1].cert }, Word: func() (signed.Envelope, error) { return all[1].word, nil },
		Admit: all[1].engine.Admit, Addresses: func(roster.Seat) []netip.AddrPort { return []netip.AddrPort{victim.at} },
	}
	if _, err := dialler.Dial(t.Context(), state.Roster.Seats[2]); err == nil {
		t.Error("another seat answers, and is taken for the one that was dialled")
	}
	dialler.Addresses = func(roster.Seat) []netip.AddrPort { return nil }
	if _, err := dialler.Dial(t.Context(), seat); err == nil {
		t.Error("a seat without an address is reached")
	}
}

// pair is both ends of a TLS connection in memory.
func pair(t *testing.T, server, client tls.Certificate, protocol string) (*tls.Conn, *tls.Conn) {
	a, b := net.Pipe()
	s := tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{server}, NextProtos: []string{Protocol, "h2"}, SessionTicketsDisabled: true})
	c := tls.Client(b, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{client}, NextProtos: []string{protocol}})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// TestSilentCaller gives up a caller that says nothing after the handshake, or half of a hello,
// and a peer that does not read.
func TestSilentCaller(t *testing.T) {
	cert, key := certificate(t)
	id := document.HashOf(nil)
	for what, says := range map[string][]byte{"nothing": nil, "half of a hello": {200, 2, 1}} {
		synctest.Test(t, func(t *testing.T) {
			server, client := pair(t, cert, cert, Protocol)
			transport := &TLS{Admit: func([]byte, document.Hash) (roster.Seat, error) { return roster.Seat{}, nil }}
			done := make(chan error)
			go func() { done <- transport.Serve(t.Context(), server, func() { t.Errorf("%s: it is known", what) }) }()
			if says != nil {
				if _, err := client.Write(says); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			if err := <-done; !errors.Is(err, ErrHello) || time.Since(began) > helloLimit {
				t.Errorf("%s: %v after %s", what, err, time.Since(began))
			}
			client.NetConn().Close()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		server, client := pair(t, cert, cert, Protocol)
		transport := &TLS{
			Admit: func([]byte, document.Hash) (roster.Seat, error) {
				return roster.Seat{Key: wordOf(t, id, 2, 1, key).By}, nil
			},
			Word: func() (signed.Envelope, error) { return wordOf(t, id, 1, 1, key), nil },
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- transport.Serve(ctx, server, func() {}) }()
		go func() { _ = newStream(client).Send([][]byte{wordOf(t, id, 2, 1, key).Bytes()}) }()
		reader := newStream(client)
		go func() { _, _ = reader.Receive() }() // the hello, and nothing more
		s, err := transport.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for err == nil {
			err = s.Send([][]byte{make([]byte, 64<<10)})
		}
		if took := time.Since(began); took > 2*writeLimit {
			t.Errorf("given up after %s", took)
		}
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		stop()
		client.NetConn().Close()
	})
}

// TestSlowLine sends much on a slow line: it takes a while, and the session does not end for it.
func TestSlowLine(t *testing.T) {
	cert, _ := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		server, client := pair(t, cert, cert, Protocol)
		var reading sync.WaitGroup
		reading.Go(func() {
			for some := make([]byte, 16<<10); ; time.Sleep(4 * time.Second) {
				if _, err := io.ReadFull(client, some); err != nil {
					return
				}
			}
		})
		began := time.Now()
		if err := newStream(server).Send([][]byte{make([]byte, 256<<10)}); err != nil {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		server.NetConn().Close()
		reading.Wait()
	})
}

// TestCost compares what the tests in memory count for a session with what the kernel counts
// for one over TLS and TCP.
func TestCost(t *testing.T) {
	state := large(t, 2)
	cert, key := certificate(t)
	listener, err := door.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := func(seat int) *TLS {
		return &TLS{
			Certificate: func() tls.Certificate { return cert }, Word: func() (signed.Envelope, error) { return wordOf(t, state.Fleet(), seat, 1, key), nil },
			Admit: func(raw []byte, _ document.Hash) (roster.Seat, error) {
				e, err := signed.Open(raw)
				seat, _ := state.Roster.ByKey(e.By)
				return seat, err
			},
			Addresses: func(roster.Seat) []netip.AddrPort { return []netip.AddrPort{listener.Addr().(*net.TCPAddr).AddrPort()} },
		}
	}
	server := end(1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var serving sync.WaitGroup
	serving.Go(func() {
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(raw, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{cert}, NextProtos: []string{Protocol}, SessionTicketsDisabled: true})
		if err := conn.Handshake(); err == nil {
			_ = server.Serve(ctx, conn, func() {})
		}
	})
	client, err := end(2).Dial(ctx, state.Roster.Seats[0])
	if err != nil {
		t.Fatal(err)
	}
	there, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	soFar := func() int { // bytes on the wire so far, as the kernel of this end counts them
		raw, err := tcpOf(client.(*stream).conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		err = raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				t.Error(err)
				return
			}
			total = int(info.Bytes_acked) + int(info.Bytes_received) + packet*int(info.Segs_out+info.Segs_in)
		})
		if err != nil {
			t.Fatal(err)
		}
		return total
	}
	begin := soFar()
	t.Logf("a session's beginning: %d bytes, and %d are counted with its end", begin, handshake)
	if begin+4*packet > handshake {
		t.Errorf("a session's beginning and end cost %d bytes, and %d are counted", begin+4*packet, handshake)
	}
	counted := 0
	for i := range 40 {
		frame := make([]byte, 20+i*20)
		if err := client.Send([][]byte{frame}); err != nil {
			t.Fatal(err)
		}
		counted += wired(len(frame) + len(binary.AppendUvarint(nil, uint64(len(frame)))))
		if _, err := there.Receive(); err != nil {
			t.Fatal(err)
		}
		if err := there.Send([][]byte{frame}); err != nil {
			t.Fatal(err)
		}
		counted += wired(len(frame) + len(binary.AppendUvarint(nil, uint64(len(frame)))))
		if _, err := client.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	got := soFar() - begin
	t.Logf("80 frames: %d bytes, and %d are counted", got, counted)
	if got > counted || got < counted/2 {
		t.Errorf("80 frames cost %d bytes, and %d are counted", got, counted)
	}
	client.Close()
	there.Close()
	stop()
	listener.Close()
	serving.Wait()
}

// TestAnotherKey: a session ends when its seat calls another TLS key its own, or when the key is
// withdrawn on this node, and none begins by it any more.
func TestAnotherKey(t *testing.T) {
	state := large(t, 3)
	all := machines(t, state)
	sessions := func(m *machine, seat int) (n int) {
		m.engine.do(func() {
			if m.engine.sessions[state.Roster.Seats[seat-1].Key] != nil {
				n++
			}
		})
		return n
	}
	whole := func() bool {
		return sessions(all[0], 2)+sessions(all[0], 3)+sessions(all[1], 1)+sessions(all[2], 1) == 4
	}
	eventually(t, "sessions", whole)
	_, stolen := certificate(t)
	if err := all[1].engine.Publish(wordOf(t, state.Fleet(), 1, 2, stolen)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n2 and n3 end theirs with n1", func() bool { return sessions(all[1], 1)+sessions(all[2], 1) == 0 })
	_, err := all[1].engine.Admit(all[0].word.Bytes(), keyOf(t, all[0].cert))
	if !errors.Is(err, notice.ErrTLSKey) {
		t.Errorf("the old key again: %v", err)
	}
	eventually(t, "n2 and n3 have a session", func() bool { return sessions(all[1], 3)+sessions(all[2], 2) == 2 })
	withdrawn := keyOf(t, all[2].cert)
	all[1].engine.do(func() { all[1].engine.config.Revoked = func(key document.Hash) bool { return key == withdrawn } })
	all[1].engine.Advanced()
	eventually(t, "n2 ends its session with n3", func() bool { return sessions(all[1], 3) == 0 })
	if _, err := all[1].engine.Admit(all[2].word.Bytes(), withdrawn); !errors.Is(err, notice.ErrTLSKey) || !strings.Contains(err.Error(), "withdrawn") {
		t.Errorf("a key that was withdrawn: %v", err)
	}
	// One that was dialled and came while the key was withdrawn is not dialled again at once.
	end, _ := pair(t, all[2].cert, all[2].cert, Protocol)
	stale := newStream(end)
	stale.peer, stale.key = all[2].word.By, withdrawn
	all[1].engine.do(func() {
		p := all[1].engine.peer(stale.peer)
		p.reached()
		all[1].engine.opened(stale, true)
		if time.Until(p.again) <= 0 {
			t.Error("a session that was dialled and is refused: it is dialled again at once")
		}
	})
	// Whoever has the seat's key as well gets rid of that by no other TLS key, under whichever number.
	_, fresh := certificate(t)
	was, ok := all[1].engine.Object(notice.TLSKeyKind, all[2].word.By)
	if !ok {
		t.Fatal("n2 does not know the word of n3")
	}
	for _, number := range []uint64{was.Sequence, was.Sequence + 1} {
		word := wordOf(t, state.Fleet(), 3, number, fresh)
		if err := all[1].engine.Publish(word); err == nil || !strings.Contains(err.Error(), "by a key that was revoked") {
			t.Errorf("number %d: another word in the place of one for a key that was withdrawn: %v", number, err)
		}
		if _, err := all[1].engine.Admit(word.Bytes(), fresh); !errors.Is(err, notice.ErrTLSKey) {
			t.Errorf("number %d: another key of a seat whose key was withdrawn: %v", number, err)
		}
	}
}

// keyOf is the fingerprint of a certificate's key.
func keyOf(t *testing.T, cert tls.Certificate) document.Hash {
	parsed, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return document.HashOf(parsed.RawSubjectPublicKeyInfo)
}

// TestFind: a seat that is not where it was is looked for, once, after the likeliest addresses.
func TestFind(t *testing.T) {
	state := large(t, 2)
	all := machines(t, state)
	dead := func(n int) (all []netip.AddrPort) {
		for i := range n {
			all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)}), 1)) // nobody listens there
		}
		return all
	}
	for name, c := range map[string]struct {
		known, found []netip.AddrPort
		reached      bool
		asked        int
	}{
		"nothing is known":        {nil, []netip.AddrPort{all[1].at}, true, 1},
		"it has moved":            {dead(1), []netip.AddrPort{all[1].at}, true, 1},
		"it has many addresses":   {dead(9), []netip.AddrPort{all[1].at}, true, 1},
		"it is not found":         {dead(3), nil, false, 1},
		"nobody knows":            {nil, nil, false, 1},
		"it is where it was":      {[]netip.AddrPort{all[1].at}, nil, true, 0},
		"only others are found":   {dead(3), dead(9), false, 1},
		"it is in the last place": {append(dead(3), all[1].at), dead(1), true, 1},
	} {
		asked := 0
		tr := &TLS{
			Certificate: all[0].Certificate, Word: all[0].Word, Admit: all[0].Admit,
			Addresses: func(roster.Seat) []netip.AddrPort { return c.known },
			Find:      func(context.Context, roster.Seat) []netip.AddrPort { asked++; return c.found },
		}
		s, err := tr.Dial(t.Context(), state.Roster.Seats[1])
		if (err == nil) != c.reached || asked != c.asked {
			t.Errorf("%s: %v; looked for %d times", name, err, asked)
		}
		if err == nil {
			s.Close()
		}
	}
}
