package api

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/update/fleet"
)

// followed is a log that goes on for ever, or as loudly as can be.
type followed struct {
	apiv1connect.UnimplementedWorkloadServiceHandler
	loud  bool
	ended chan error
}

func (f *followed) Logs(ctx context.Context, _ *connect.Request[apiv1.LogsRequest], out *connect.ServerStream[apiv1.LogLines]) error {
	line := make([]byte, 64<<10)
	for i := range line {
		line[i] = 'a' + byte(i*i%23)
	}
	err := out.Send(&apiv1.LogLines{Lines: []string{"one"}})
	for f.loud && err == nil {
		err = out.Send(&apiv1.LogLines{Lines: []string{string(line)}})
	}
	if err == nil {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	f.ended <- err
	return err
}

// TestStreamOutlivesNobody ends streams whose caller's certificate is over meanwhile,
// and cuts those off whose caller does not even read any more.
func TestStreamOutlivesNobody(t *testing.T) {
	ring := newFleet(t, "hanse")
	n := newNode(t, ring)
	adoptNode(t, ring, n, "n1")
	for name, loud := range map[string]bool{"quiet": false, "stuck": true} {
		t.Run(name, func(t *testing.T) {
			g := newGuard(n, func() bool { return true })
			var late atomic.Int64
			g.now = func() time.Time { return now.Add(time.Duration(late.Load())) }
			g.lookAgain = 10 * time.Millisecond
			f := &followed{loud: loud, ended: make(chan error, 1)}
			mux := http.NewServeMux()
			mux.Handle(apiv1connect.NewWorkloadServiceHandler(f))
			server := httptest.NewUnstartedServer(g.wrap(mux))
			server.EnableHTTP2 = true
			server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{n.Certificate()}}
			server.StartTLS()
			defer server.Close()
			c := Dial(server.Listener.Addr().String(), "n1", ring.Genesis, operator(t, ring, fleet.RoleReader, now))
			defer c.Close()
			stream, err := c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
			if err != nil || !stream.Receive() {
				t.Fatal(err, stream.Err())
			}
			defer stream.Close()
			select {
			case err := <-f.ended:
				t.Fatalf("it ended though the certificate is good: %v", err)
			case <-time.After(20 * g.lookAgain):
			}
			late.Store(int64(3 * 365 * 24 * time.Hour))
			if err := <-f.ended; err == nil {
				t.Error("it ended by itself")
			}
			if !loud {
				for stream.Receive() {
				}
				has(t, stream.Err(), "unauthenticated", "your certificate: ", "not valid now")
			}
		})
	}
}

// wire leads from a caller to a server until it is cut: then nothing comes through,
// and neither side is told.
type wire struct {
	net.Listener
	to       string
	cut, end chan struct{} // closed when it is, and when it is over
	passing  sync.WaitGroup
}

func (w *wire) lead() {
	for {
		caller, err := w.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.to)
		if err != nil {
			caller.Close()
			return
		}
		for _, ends := range [][2]net.Conn{{caller, server}, {server, caller}} {
			w.passing.Go(func() {
				buffer := make([]byte, 4096)
				for {
					n, err := ends[0].Read(buffer)
					select {
					case <-w.cut:
						<-w.end
						err = io.ErrClosedPipe
					default:
					}
					if err == nil {
						_, err = ends[1].Write(buffer[:n])
					}
					if err != nil {
						ends[1].Close()
						return
					}
				}
			})
		}
	}
}

// TestVanished has a caller follow a log that says nothing, longer than a silence may
// last, and then vanish without a word: the node lets go of the call.
func TestVanished(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "db.log"), "one\n")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(listener, Config{
		Node: n, ClockSure: func() bool { return true }, Machine: Machine{Run: dir, State: dir}, LogDir: dir,
		Containers: func() Containers { return &keeper{} },
	})
	const silence = 300 * time.Millisecond
	s.http.HTTP2.SendPingTimeout, s.http.HTTP2.PingTimeout = silence, 5*time.Second
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- s.Serve(ctx) }()
	between, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: between, to: listener.Addr().String(), cut: make(chan struct{}), end: make(chan struct{})}
	w.passing.Go(w.lead)
	c := Dial(between.Addr().String(), "n1", f.Genesis, operator(t, f, fleet.RoleReader, now))
	stream, err := c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	connections := func() int {
		s.listener.mu.Lock()
		defer s.listener.mu.Unlock()
		return len(s.listener.conns)
	}
	time.Sleep(5 * silence) // which is no condition to wait for: that nothing happens
	if connections() != 1 {
		t.Fatal("a caller who listens was hung up on")
	}
	close(w.cut)
	for limit := time.Now().Add(time.Minute); connections() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the node still waits for a caller who has vanished")
		}
	}
	close(w.end)
	between.Close()
	stream.Close()
	c.Close()
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	w.passing.Wait()
}
