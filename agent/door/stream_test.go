package door

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
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
			g := NewGuard(n, func() bool { return true })
			var late atomic.Int64
			g.Now = func() time.Time { return now.Add(time.Duration(late.Load())) }
			g.lookAgain = 10 * time.Millisecond
			f := &followed{loud: loud, ended: make(chan error, 1)}
			mux := http.NewServeMux()
			mux.Handle(apiv1connect.NewWorkloadServiceHandler(f))
			server := httptest.NewUnstartedServer(g.Wrap(mux))
			server.EnableHTTP2 = true
			server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{n.Certificate()}}
			server.StartTLS()
			defer server.Close()
			c := api.Dial(server.Listener.Addr().String(), "n1", ring.Genesis, operator(t, ring, fleet.RoleReader, now))
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

// TestRoomForAdmins: whatever readers and operators hold, streams or calls that never end,
// an admin's stream and call begin.
func TestRoomForAdmins(t *testing.T) {
	g := NewGuard(newNode(t, nil), func() bool { return true })
	peer := func(role fleet.Role, i int) fleet.Peer {
		return fleet.Peer{Role: role, Key: string(role) + string(rune('a'+i))}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	streams, calls := 0, 0
	for i := range 26 {
		role := fleet.RoleReader
		if i%2 == 1 {
			role = fleet.RoleOperator
		}
		for range maxStreamsOfKey {
			if _, _, err := g.calls.begin(t.Context(), peer(role, i), true); err == nil {
				streams++
			}
		}
		for range MaxCallsOfKey {
			ctx := t.Context()
			if calls == MaxCalls {
				ctx = over // who does not wait has no turn
			}
			if _, _, err := g.calls.begin(ctx, peer(role, i), false); err == nil {
				calls++
			}
		}
	}
	if streams != MaxStreamsOfAll || calls != MaxCalls {
		t.Fatalf("%d streams, %d calls", streams, calls)
	}
	for range adminStreams {
		if _, _, err := g.calls.begin(t.Context(), peer(fleet.RoleAdmin, 0), true); err != nil {
			t.Fatalf("an admin's stream: %v", err)
		}
	}
	for range adminCalls {
		if _, _, err := g.calls.begin(timeout(t), peer(fleet.RoleAdmin, 0), false); err != nil {
			t.Fatalf("an admin's call: %v", err)
		}
	}
	if _, _, err := g.calls.begin(t.Context(), peer(fleet.RoleAdmin, 1), true); err == nil {
		t.Error("streams have no end")
	}
}
