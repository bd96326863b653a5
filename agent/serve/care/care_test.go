package care

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/signed"
)

// serving answers from c over HTTP/2, without a door.
func serving(t *testing.T, c Care) apiv1connect.CareServiceClient {
	mux := http.NewServeMux()
	mux.Handle(Handler(c))
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return apiv1connect.NewCareServiceClient(s.Client(), s.URL)
}

// TestNothing: a node that does nothing of the kind says so.
func TestNothing(t *testing.T) {
	c := serving(t, Care{})
	_, order := c.Order(t.Context(), connect.NewRequest(&apiv1.OrderRequest{}))
	_, probe := c.Probe(t.Context(), connect.NewRequest(&apiv1.ProbeRequest{}))
	restore := c.Restore(t.Context())
	_, restored := restore.CloseAndReceive()
	relay := c.Relay(t.Context())
	_ = relay.Send(&apiv1.RelayRequest{Node: "n1"})
	_, relayed := relay.Receive()
	backup, err := c.Backup(t.Context(), connect.NewRequest(&apiv1.BackupRequest{}))
	if err == nil {
		backup.Receive()
		err = backup.Err()
	}
	for i, err := range []error{order, probe, restored, relayed, err} {
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("%d: %v", i, err)
		}
	}
	if answer, err := c.Orders(t.Context(), connect.NewRequest(&apiv1.OrdersRequest{})); err != nil || len(answer.Msg.Envelopes) != 0 {
		t.Errorf("%v", err)
	}
}

// TestOrder gives errors their codes.
func TestOrder(t *testing.T) {
	var give error
	c := serving(t, Care{Give: func(signed.Envelope) error { return give }})
	e, err := signed.Seal("kogge/test/v1", document.HashOf(nil), ledgertest.Private("n1"), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Order(t.Context(), connect.NewRequest(&apiv1.OrderRequest{Envelope: []byte("junk")})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("junk: %v", err)
	}
	for _, one := range []struct {
		err  error
		want connect.Code
	}{{fmt.Errorf("%w: x", order.ErrOrder), connect.CodePermissionDenied}, {notice.ErrOlder, connect.CodeAborted}, {ErrUnkept, connect.CodeDataLoss}, {errors.New("the disk"), connect.CodeFailedPrecondition}} {
		give = one.err
		if _, err := c.Order(t.Context(), connect.NewRequest(&apiv1.OrderRequest{Envelope: e.Bytes()})); connect.CodeOf(err) != one.want {
			t.Errorf("%v: %v", one.err, err)
		}
	}
}

// TestRestore hands on what comes, to the byte, and nothing where nothing comes.
func TestRestore(t *testing.T) {
	var brought string
	var got []byte
	var none bool
	var answer error
	c := serving(t, Care{Restore: func(_ context.Context, _ string, e signed.Envelope, snapshot io.Reader) error {
		brought, none, got = string(e.Body), snapshot == nil, nil
		if snapshot != nil {
			var err error
			if got, err = io.ReadAll(snapshot); err != nil {
				return err
			}
		}
		return answer
	}})
	send := func(parts ...string) error {
		s := c.Restore(t.Context())
		for i, p := range parts {
			m := &apiv1.RestoreRequest{Data: []byte(p)}
			if i == 0 {
				m = &apiv1.RestoreRequest{Order: []byte(p)}
			}
			if err := s.Send(m); err != nil {
				break
			}
		}
		_, err := s.CloseAndReceive()
		return err
	}
	e, err := signed.Seal("kogge/test/v1", document.HashOf(nil), ledgertest.Private("n1"), 1, []byte("leave"))
	if err != nil {
		t.Fatal(err)
	}
	leave := string(e.Bytes())
	if err := send(leave, "one, ", "two"); err != nil || brought != "leave" || string(got) != "one, two" || none {
		t.Errorf("%v, %q, %q", err, brought, got)
	}
	if err := send("junk"); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("junk: %v", err)
	}
	if err := send(leave); err != nil || !none {
		t.Errorf("%v, %q", err, got)
	}
	if err := send(); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("%v", err)
	}
	for _, answer = range []error{ledger.ErrPermit, order.ErrOrder} {
		if err := send(leave); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%v", err)
		}
	}
}

// TestBackup sends what is written, in parts, and the error at its end.
func TestBackup(t *testing.T) {
	var failed error
	want := bytes.Repeat([]byte("etcd"), api.PartSize)
	c := serving(t, Care{Backup: func(_ context.Context, w io.Writer) error {
		_, err := w.Write(want)
		return errors.Join(err, failed)
	}})
	for _, failed = range []error{nil, errors.New("etcd has gone")} {
		s, err := c.Backup(t.Context(), connect.NewRequest(&apiv1.BackupRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for s.Receive() {
			got.Write(s.Msg().Data)
		}
		if !bytes.Equal(got.Bytes(), want) || (s.Err() == nil) != (failed == nil) {
			t.Errorf("%d bytes, %v", got.Len(), s.Err())
		}
	}
}

// TestProbe measures for one caller at a time.
func TestProbe(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	c := serving(t, Care{Probe: func() Disk {
		close(begun)
		<-end
		return Disk{Writes: 64, Median: time.Millisecond, P99: 2 * time.Millisecond, Most: time.Second, Unfit: "slow"}
	}})
	got := make(chan error, 1)
	go func() {
		answer, err := c.Probe(t.Context(), connect.NewRequest(&apiv1.ProbeRequest{}))
		if err == nil && (answer.Msg.Writes != 64 || answer.Msg.P99.AsDuration() != 2*time.Millisecond || answer.Msg.Unfit != "slow") {
			err = fmt.Errorf("%v", answer.Msg)
		}
		got <- err
	}()
	<-begun
	if _, err := c.Probe(t.Context(), connect.NewRequest(&apiv1.ProbeRequest{})); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("%v", err)
	}
	close(end)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// tunnel is a way through a node to whatever reach opens.
func tunnel(t *testing.T, c apiv1connect.CareServiceClient, node string) (*connect.BidiStreamForClient[apiv1.RelayRequest, apiv1.RelayResponse], error) {
	t.Helper()
	s := c.Relay(t.Context())
	t.Cleanup(func() { // which no context does while it is waited for more to send
		_ = s.CloseRequest()
		_ = s.CloseResponse()
	})
	if err := s.Send(&apiv1.RelayRequest{Node: node}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	_, err := s.Receive()
	return s, err
}

// echo answers what it hears.
func echo(t *testing.T) func(context.Context, string) (net.Conn, error) {
	return func(context.Context, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			_, _ = io.Copy(far, far)
		}()
		return near, nil
	}
}

// TestRelay carries bytes there and back, and nothing that does not begin as TLS.
func TestRelay(t *testing.T) {
	c := serving(t, Care{Reach: echo(t)})
	s, err := tunnel(t, c, "n2")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"\x16first", "then", strings.Repeat("x", api.MaxInput)} {
		if err := s.Send(&apiv1.RelayRequest{Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		got := ""
		for len(got) < len(text) {
			m, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			got += string(m.Data)
		}
		if got != text {
			t.Errorf("%q came back", got)
		}
	}
	_ = s.CloseRequest()
	if _, err := s.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	for what, m := range map[string]*apiv1.RelayRequest{
		"HTTP": {Data: []byte("GET / HTTP/1.1")}, "nothing": {}, "another node": {Node: "n3"}, "too much": {Data: append([]byte{22}, make([]byte, api.MaxInput)...)},
	} {
		s, err := tunnel(t, c, "n2")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(m)
		if _, err := s.Receive(); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestWhoseRelays has callers open as many ways as they can: those who may less never keep out
// those who may more, and none keeps out all others of his role.
func TestWhoseRelays(t *testing.T) {
	for _, c := range []struct {
		who  string   // the first letter is the role's
		want []string // how many ways each of them has, who come one after the other
	}{
		{"r1 r2 r3 o1 o2 o3 a1 a2 a3", []string{"4", "4", "0", "4", "0", "0", "4", "0", "0"}},
		{"o1 o2 o3 r1 a1 a2", []string{"6", "6", "0", "0", "4", "0"}},
		{"a1 a2 a3 r1 o1", []string{"8", "8", "0", "0", "0"}},
		{"a1 r1 r2 o1", []string{"8", "4", "4", "0"}},
	} {
		r, got := relays{byKey: make(map[string]int), byRole: make(map[fleet.Role]int)}, []string(nil)
		all := strings.Fields(c.who)
		of := func(who string) fleet.Peer {
			return fleet.Peer{Key: who, Role: map[byte]fleet.Role{'r': fleet.RoleReader, 'o': fleet.RoleOperator, 'a': fleet.RoleAdmin}[who[0]]}
		}
		for _, who := range all {
			for r.enter(of(who)) == nil {
			}
			got = append(got, fmt.Sprint(r.byKey[who]))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %s, not %s", c.who, got, c.want)
		}
		for i, who := range all {
			for range ledgertest.Must[int](t)(strconv.Atoi(got[i])) {
				r.leave(of(who))
			}
		}
		if len(r.byKey) != 0 || r.enter(of("r1")) != nil {
			t.Errorf("%s: they have left, and %v are here", c.who, r.byKey)
		}
	}
}

// TestRelays are bounded, and their places are free again when they end.
func TestRelays(t *testing.T) {
	c := serving(t, Care{Reach: func(ctx context.Context, node string) (net.Conn, error) {
		switch node {
		case "n8":
			return nil, errors.New("no route")
		case "n9":
			return nil, ErrNoNode
		}
		return echo(t)(ctx, node)
	}})
	for name, want := range map[string]connect.Code{"n8": connect.CodeUnavailable, "n9": connect.CodeNotFound, "../n": connect.CodeInvalidArgument, "": connect.CodeInvalidArgument} {
		if _, err := tunnel(t, c, name); connect.CodeOf(err) != want {
			t.Errorf("to %q: %v", name, err)
		}
	}
	var open []*connect.BidiStreamForClient[apiv1.RelayRequest, apiv1.RelayResponse]
	_, most := relaysOf("")
	for range most {
		s, err := tunnel(t, c, "n2")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if _, err := tunnel(t, c, "n2"); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	for _, s := range open {
		_ = s.CloseRequest()
		if _, err := s.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}
	}
	if _, err := tunnel(t, c, "n2"); err != nil {
		t.Errorf("after the others: %v", err)
	}
}
