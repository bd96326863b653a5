package door

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestTurns tells who is worked for and when, as turns decides it: a letter is an address,
// a capital one is familiar.
func TestTurns(t *testing.T) {
	var out strings.Builder
	for _, story := range []struct{ name, deeds string }{
		{"one comes", "a"},
		{"one after the other", "aab."},
		{"who works has its room for as long again", "ab.-"},
		{"a flood of one, and another", "aaaaaab.-.-.-"},
		{"a flood of three, and one who is new", "abcabcabc.-.-.-d.-.-"},
		{"a familiar one need not wait for strangers", "abcK"},
		{"nor the next familiar one for a rest", "abcKL.."},
		{"two familiar ones take turns", "KKKL...."},
	} {
		fmt.Fprintf(&out, "%s\n   ", story.name)
		s := turns{rooms: 1}
		var resting []*turn
		var now time.Time
		for _, d := range story.deeds {
			now = now.Add(time.Millisecond)
			switch d {
			case '.': // the first to work is done
				if len(s.working) > len(resting) {
					for _, w := range s.working {
						if rest := s.Over(w, now); rest == 0 {
							s.Leave(w)
							break
						} else if len(resting) == 0 {
							fmt.Fprintf(&out, " (%s)", rest)
							resting = append(resting, w)
							break
						}
					}
				}
			case '-': // a rest is over
				for _, r := range resting {
					s.Leave(r)
				}
				resting = nil
			default:
				a := netip.AddrFrom4([4]byte{192, 0, 2, byte(d)})
				s.Arrive(&turn{from: originOf(a, d < 'a'), familiar: d < 'a'})
			}
			for n := s.Next(now); n != nil; n = s.Next(now) {
				fmt.Fprintf(&out, " %c", n.from.host.As4()[3])
			}
		}
		fmt.Fprintf(&out, "; %d wait\n", len(s.waiting))
	}
	golden.Compare(t, "turns.txt", out.String())
}

// FuzzTurns does anything in any order: nobody works twice, and the rooms are enough.
func FuzzTurns(f *testing.F) {
	f.Add([]byte("aaaabbbb\x00\x01\x02\x03zzzz"))
	f.Fuzz(func(t *testing.T, deeds []byte) {
		s := turns{rooms: 2}
		var now time.Time
		seen := map[*turn]bool{}
		for _, d := range deeds {
			now = now.Add(time.Millisecond)
			switch {
			case d < 150:
				s.Arrive(&turn{from: originOf(netip.AddrFrom16([16]byte{0xfd, d % 3, 15: d % 7}), d%7 == 3), familiar: d%7 == 3})
			case d < 230 && len(s.working) > 0:
				w := s.working[int(d)%len(s.working)]
				if rest := s.Over(w, now); rest < 0 || rest > maxTurn {
					t.Fatalf("a rest of %s", rest)
				}
				s.Leave(w)
			default:
				if n := s.Next(now); n != nil {
					if seen[n] {
						t.Fatal("worked for twice")
					}
					seen[n] = true
				}
			}
			if len(s.working) > s.rooms+1 || len(s.waits) > len(sizes6)*len(s.waiting) {
				t.Fatalf("%d work, %d networks are remembered", len(s.working), len(s.waits))
			}
		}
	})
}

// doorOf serves behind a guard and a door until the test ends. It counts how often
// somebody's certificates are verified.
func doorOf(t *testing.T, g *Guard, node tls.Certificate, next http.Handler) (address string, verified *atomic.Int64) {
	t.Helper()
	verified = new(atomic.Int64)
	g.identify = func(genesis *fleet.Genesis, c []*x509.Certificate) (fleet.Identity, error) {
		verified.Add(1)
		return identify(genesis, c)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := NewListener(listener)
	s := &http.Server{
		Handler: g.Wrap(next), ErrorLog: log.New(io.Discard, "", 0), ConnContext: WithConn, ConnState: conns.ConnState,
		TLSConfig: TLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{node}}),
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = s.ServeTLS(conns, "", "")
	}()
	t.Cleanup(func() {
		s.Close()
		<-over
	})
	return listener.Addr().String(), verified
}

// TestOneVerdict has a stranger call again and again on one connection: his certificates
// are verified once, and after a few refusals the connection is gone. An operator's are
// verified once too, and he is asked again for what may change.
func TestOneVerdict(t *testing.T) {
	ring, foreign := newFleet(t, "hanse"), newFleet(t, "other")
	n := newNode(t, ring)
	adoptNode(t, ring, n, "n1")
	reached := new(atomic.Int64)
	g := NewGuard(n, func() bool { return true })
	address, verified := doorOf(t, g, n.Certificate(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	for _, c := range []struct {
		name        string
		certificate tls.Certificate
		http2       bool
	}{
		{"stranger", operator(t, foreign, fleet.RoleAdmin, now), false},
		{"stranger, HTTP/2", operator(t, foreign, fleet.RoleAdmin, now), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := verified.Load()
			client, dialled := client(c.certificate, c.http2)
			defer client.CloseIdleConnections()
			const calls = 4 * maxRefused
			for range calls {
				answer, err := client.Post("https://"+address+"/kogge.v1.NodeService/Status", "application/json", strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(answer.Body)
				answer.Body.Close()
				if answer.StatusCode != http.StatusUnauthorized || !bytes.Contains(body, []byte("not a certificate of this fleet")) {
					t.Fatalf("%s: %s", answer.Status, body)
				}
			}
			if got, want := verified.Load()-before, int64(calls/maxRefused); got != want || dialled.Load() != want {
				t.Errorf("%d calls on %d connections, %d verdicts: want %d of both", calls, dialled.Load(), got, want)
			}
		})
	}
	t.Run("who does not wait for answers", func(t *testing.T) {
		before := reached.Load() + verified.Load()
		client, _ := client(operator(t, foreign, fleet.RoleAdmin, now), true)
		defer client.CloseIdleConnections()
		var all sync.WaitGroup
		for range 8 * maxRefused {
			all.Go(func() {
				if answer, err := client.Post("https://"+address+"/kogge.v1.NodeService/Status", "application/json", strings.NewReader("{}")); err == nil {
					answer.Body.Close()
				}
			})
		}
		all.Wait()
		if got := reached.Load() + verified.Load() - before; got > 8*maxRefused {
			t.Errorf("%d verdicts", got)
		}
	})
	admin := operator(t, ring, fleet.RoleAdmin, now)
	t.Run("operator", func(t *testing.T) {
		before := verified.Load()
		client, dialled := client(admin, true)
		defer client.CloseIdleConnections()
		for i := range 3 * maxRefused {
			if i == 2*maxRefused {
				if err := n.Revoke(keyOf(t, admin)); err != nil {
					t.Fatal(err)
				}
			}
			answer, err := client.Post("https://"+address+"/kogge.v1.NodeService/Status", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if (answer.StatusCode == http.StatusOK) != (i < 2*maxRefused) {
				t.Fatalf("call %d: %s", i, answer.Status)
			}
		}
		if got := verified.Load() - before; got != 1 || dialled.Load() != 1 {
			t.Errorf("%d verdicts on %d connections", got, dialled.Load())
		}
	})
}

// client is one with a certificate; dialled counts its connections.
func client(certificate tls.Certificate, http2 bool) (c *http.Client, dialled *atomic.Int64) {
	dialled = new(atomic.Int64)
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate}},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}, dialled
}

// TestManyCertificates ends the handshake of a stranger who sends more certificates than
// anybody needs, before they are read.
func TestManyCertificates(t *testing.T) {
	ring := newFleet(t, "hanse")
	n := newNode(t, ring)
	adoptNode(t, ring, n, "n1")
	address, verified := doorOf(t, NewGuard(n, func() bool { return true }), n.Certificate(), http.NotFoundHandler())
	eve := operator(t, ring, fleet.RoleAdmin, now)
	for len(eve.Certificate) < 100 {
		eve.Certificate = append(eve.Certificate, eve.Certificate[0])
	}
	client, _ := client(eve, false)
	defer client.CloseIdleConnections()
	if answer, err := client.Get("https://" + address + MetricsPath); err == nil {
		answer.Body.Close()
		t.Errorf("a hundred certificates: %s", answer.Status)
	}
	if verified.Load() != 0 {
		t.Errorf("%d verdicts", verified.Load())
	}
}

// TestGuardFloor: what ended before the earliest that the time can be is over, whatever
// the clock says and however sure it is; it can be renewed all the same.
func TestGuardFloor(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	sure := false
	g := NewGuard(n, func() bool { return sure })
	g.Now = func() time.Time { return time.Unix(0, 0) }
	g.Floor = func() time.Time { return now }
	var seen []time.Time
	g.Seen = func(at time.Time) { seen = append(seen, at) }
	old, fresh, next := operator(t, f, fleet.RoleAdmin, now.AddDate(-3, 0, 0)), operator(t, f, fleet.RoleAdmin, now), operator(t, f, fleet.RoleAdmin, now.AddDate(0, 1, 0))
	_, err := g.admit(nil, "/kogge.v1.NodeService/Revoke", stateOf(t, &old))
	has(t, err, "unauthenticated", "not valid now", "now is not before")
	if _, err := g.admit(nil, "/kogge.v1.NodeService/Renew", stateOf(t, &old)); err != nil {
		t.Errorf("renew: %v", err)
	}
	if len(seen) > 0 {
		t.Errorf("a certificate that is over has shown %v", seen)
	}
	for _, c := range []tls.Certificate{fresh, next} {
		if _, err := g.admit(nil, "/kogge.v1.NodeService/Revoke", stateOf(t, &c)); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != 2 || !seen[1].Equal(leaf(t, next).NotBefore) {
		t.Errorf("seen: %v", seen)
	}
	sure = true // by servers that lie
	_, err = g.admit(nil, "/kogge.v1.NodeService/Revoke", stateOf(t, &old))
	has(t, err, "unauthenticated", "not valid now")
	if _, err := g.admit(nil, "/kogge.v1.NodeService/Revoke", stateOf(t, &fresh)); err != nil {
		t.Error(err)
	}
}
