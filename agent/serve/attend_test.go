package serve

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/machine"
	"kogge.example/update/fleet"
)

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
		Node: n, ClockSure: func() bool { return true }, Machine: machine.Machine{Run: dir, State: dir}, LogDir: dir,
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
	c := api.Dial(between.Addr().String(), "n1", f.Genesis, operator(t, f, fleet.RoleReader, now))
	stream, err := c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	connections := s.listener.Connections
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
