package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/door"
	"kogge.example/update/fleet/ledger"
)

// liar is a node that answers with as many bytes as it likes.
type liar struct {
	apiv1connect.UnimplementedFleetServiceHandler
	bytes int
}

func (l liar) Seat(context.Context, *connect.Request[apiv1.SeatRequest]) (*connect.Response[apiv1.SeatResponse], error) {
	return connect.NewResponse(&apiv1.SeatResponse{Envelope: bytes.Repeat([]byte("x"), l.bytes)}), nil
}

// TestLargeAnswers: who asks a node takes no more than a node has to say, packed or not.
func TestLargeAnswers(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	for size, want := range map[int]connect.Code{api.MaxEntry - 1000: 0, api.MaxEntry + 1: connect.CodeResourceExhausted, 64 << 20: connect.CodeResourceExhausted} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		mux.Handle(apiv1connect.NewFleetServiceHandler(liar{bytes: size}))
		s := &http.Server{Handler: mux, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{n.Certificate()}, NextProtos: []string{"h2"}}}
		over := make(chan error, 1)
		go func() { over <- s.ServeTLS(listener, "", "") }()
		c := api.Dial(listener.Addr().String(), "n1", f.Genesis, f.Certificate())
		_, err = c.Seat(timeout(t), connect.NewRequest(&apiv1.SeatRequest{}))
		if got := connect.CodeOf(err); err == nil && want != 0 || err != nil && got != want {
			t.Errorf("%d bytes: %v", size, err)
		}
		c.Close()
		s.Close()
		<-over
	}
	if door.MaxRequest != api.MaxEntry || ledger.MaxEntry*4/3 > door.MaxRequest-1000 {
		t.Errorf("an entry of %d bytes does not go into a request of %d", ledger.MaxEntry, door.MaxRequest)
	}
}
