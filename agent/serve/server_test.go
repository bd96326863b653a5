package serve

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// limit bounds waits; a busy machine may need long.
const limit = time.Minute

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func adoption(f *keyring.Keyring, name string) api.Adoption {
	return api.Adoption{Genesis: f.Genesis, Certificate: f.Certificate(), Sign: func(request, nonce, mac []byte, _ string) ([]byte, error) {
		return f.AdoptNode(request, nonce, mac, name, "", now)
	}}
}

// TestAdoption goes from a new node to one of the fleet over the network, then asks
// it as what it became.
func TestAdoption(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	address := start(t, n, nil)
	if err := api.Adopt(timeout(t), address, adoption(f, "n1")); err != nil {
		t.Fatal(err)
	}
	if !n.Adopted() || n.Name() != "n1" {
		t.Errorf("adopted %v as %q", n.Adopted(), n.Name())
	}
	if err := api.Adopt(timeout(t), address, adoption(f, "n1")); !errors.Is(err, api.ErrAdopted) {
		t.Errorf("a second time: %v", err)
	}
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	answer, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	s := answer.Msg
	if s.Fleet != f.Genesis.ID() || s.Node != "n1" || s.Boot.Slot != "A" || !s.Boot.Trial || s.Boot.Loader != "systemd-boot" || s.Boot.TriesLeft != 2 ||
		s.Boot.Assessment != "pending" || s.Boot.Why != "web is unhealthy" || s.Boot.Since.AsTime().Hour() != 12 || len(s.Links) != 2 || s.Links[0].Addresses[0] != "192.0.2.7/24" ||
		!s.Clock.Sure || s.Memory.Total == 0 || s.State.Total == 0 || s.Kernel == "" {
		t.Errorf("status: %v", s)
	}
	// PID 1 is not there: that is one degraded thing, and no reason to say nothing.
	if len(s.Degraded) != 1 || s.Degraded[0].What != "supervisor" {
		t.Errorf("degraded: %v", s.Degraded)
	}
	other := api.Dial(address, "n2", f.Genesis, f.Certificate())
	defer other.Close()
	_, err = other.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
	has(t, err, "another node answers there: n1")
}

// TestAdoptionRefused: neither side takes the other at its word.
func TestAdoptionRefused(t *testing.T) {
	f, foreign := newFleet(t, "hanse"), newFleet(t, "other")
	joined := newNode(t, f)
	address := start(t, joined, nil)

	a := adoption(foreign, "n1") // a stranger adopts our node
	has(t, api.Adopt(timeout(t), address, a), "not a certificate of this fleet")

	a = adoption(f, "n1")
	a.Certificate = operator(t, f, fleet.RoleOperator, now)
	has(t, api.Adopt(timeout(t), address, a), "this needs admin")

	// Somebody stands in between: the key of the connection is not the node's.
	between := newNode(t, f)
	relay := start(t, between, nil)
	a = adoption(f, "n1")
	a.Sign = func(request, nonce, _ []byte, _ string) ([]byte, error) {
		_, mac, err := joined.Answer(nonce) // what the node behind says
		if err != nil {
			t.Error(err)
		}
		return f.AdoptNode(request, nonce, mac, "n1", "", now)
	}
	if err := api.Adopt(timeout(t), relay, a); !errors.Is(err, keyring.ErrTokenUnknown) {
		t.Errorf("got %v, want %v", err, keyring.ErrTokenUnknown)
	}

	has(t, api.Adopt(timeout(t), start(t, newNode(t, nil), nil), adoption(f, "n1")), "no join.yaml")
	if joined.Adopted() || between.Adopted() {
		t.Error("adopted all the same")
	}
	if err := api.Adopt(timeout(t), address, adoption(f, "n1")); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// pid1 answers on a control socket as PID 1 does.
func pid1(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
}

func answer(conn net.Conn) {
	defer conn.Close()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var r control.Request
		if in.Decode(&r) != nil {
			return
		}
		switch {
		case r.Service == "nonsense":
			_ = out.Encode(control.Response{Error: `there is no service "nonsense"`, NoService: true})
		case r.Op == control.OpStatus:
			_ = out.Encode(control.Response{Status: &control.Status{UptimeSeconds: 7, Services: []control.Service{{Name: "agent", State: "running", PID: 42, Starts: 1}}}})
		case r.Op == control.OpLogs:
			for i := range 3 {
				line := fmt.Sprintf("line %d", i)
				_ = out.Encode(control.Response{Line: &line})
			}
			if !r.Follow {
				_ = out.Encode(control.Response{})
			}
		default:
			_ = out.Encode(control.Response{})
		}
	}
}

// ready is a server of an adopted node, and its fleet.
func ready(t *testing.T, edit func(*Config)) (string, *keyring.Keyring, *Config) {
	t.Helper()
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	var config Config
	address := start(t, n, func(c *Config) {
		pid1(t, c.Machine.Control)
		if edit != nil {
			edit(c)
		}
		config = *c
	})
	return address, f, &config
}

func all(t *testing.T, stream *connect.ServerStreamForClient[apiv1.LogLines], err error) (string, error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var lines []string
	for stream.Receive() {
		lines = append(lines, stream.Msg().Lines...)
	}
	return strings.Join(lines, " "), stream.Err()
}

// TestCalls asks a node everything once.
func TestCalls(t *testing.T) {
	k := &keeper{}
	address, f, config := ready(t, func(c *Config) { c.Containers = func() Containers { return k } })
	write(t, filepath.Join(config.LogDir, "db.log"), "one\ntwo\n")
	write(t, config.Machine.Kmsg, "6,1,1500000,-;the kernel speaks\n")
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()

	status, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil || status.Msg.UptimeSeconds != 7 || len(status.Msg.Services) != 1 || len(status.Msg.Degraded) != 0 {
		t.Errorf("status: %v, %v", status, err)
	}
	stream, err := c.ServiceLogs(timeout(t), connect.NewRequest(&apiv1.ServiceLogsRequest{Service: "agent"}))
	if text, err := all(t, stream, err); text != "line 0 line 1 line 2" || err != nil {
		t.Errorf("service logs: %q, %v", text, err)
	}
	stream, err = c.ServiceLogs(timeout(t), connect.NewRequest(&apiv1.ServiceLogsRequest{Service: "nonsense"}))
	_, err = all(t, stream, err)
	has(t, err, "not_found", "there is no service")
	stream, err = c.KernelLog(timeout(t), connect.NewRequest(&apiv1.KernelLogRequest{}))
	if text, err := all(t, stream, err); text != "[    1.500000] the kernel speaks" || err != nil {
		t.Errorf("kernel log: %q, %v", text, err)
	}
	stream, err = c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "db", Tail: 1}))
	if text, err := all(t, stream, err); text != "two" || err != nil {
		t.Errorf("logs: %q, %v", text, err)
	}
	stream, err = c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: "web"}))
	if text, err := all(t, stream, err); text != "" || err != nil {
		t.Errorf("logs of a container that said nothing: %q, %v", text, err)
	}
	for name, want := range map[string]string{"cache": "there is no container cache", "../../etc/passwd": "not the name of a container", "": "not the name"} {
		stream, err = c.Logs(timeout(t), connect.NewRequest(&apiv1.LogsRequest{Container: name}))
		_, err = all(t, stream, err)
		has(t, err, want)
	}
	list, err := c.List(timeout(t), connect.NewRequest(&apiv1.ListRequest{}))
	if err != nil || len(list.Msg.Containers) != 3 || list.Msg.Containers[1].Reason != "exit status 1" {
		t.Errorf("list: %v, %v", list, err)
	}
	if _, err := c.Run(timeout(t), connect.NewRequest(&apiv1.RunRequest{Container: "db", Action: apiv1.Action_ACTION_STOP})); err != nil {
		t.Error(err)
	}
	_, err = c.Run(timeout(t), connect.NewRequest(&apiv1.RunRequest{Container: "x", Action: apiv1.Action_ACTION_STOP}))
	has(t, err, "not_found")
	_, err = c.Run(timeout(t), connect.NewRequest(&apiv1.RunRequest{Container: "db"}))
	has(t, err, "invalid_argument")
	if len(k.asked) != 1 || k.asked[0] != "stopped db" {
		t.Errorf("asked %v", k.asked)
	}
	if _, err := c.RestartService(timeout(t), connect.NewRequest(&apiv1.RestartServiceRequest{Service: "agent"})); err != nil {
		t.Error(err)
	}
	if _, err := c.Reboot(timeout(t), connect.NewRequest(&apiv1.RebootRequest{})); err != nil {
		t.Error(err)
	}
}

// TestFollowEndsWithTheCaller leaves nothing behind in the server.
func TestFollowEndsWithTheCaller(t *testing.T) {
	address, f, config := ready(t, nil)
	write(t, filepath.Join(config.LogDir, "db.log"), "one\n")
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	for name, follow := range map[string]func(context.Context) (*connect.ServerStreamForClient[apiv1.LogLines], error){
		"container": func(ctx context.Context) (*connect.ServerStreamForClient[apiv1.LogLines], error) {
			return c.Logs(ctx, connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
		},
		"service": func(ctx context.Context) (*connect.ServerStreamForClient[apiv1.LogLines], error) {
			return c.ServiceLogs(ctx, connect.NewRequest(&apiv1.ServiceLogsRequest{Service: "agent", Follow: true}))
		},
	} {
		ctx, cancel := context.WithCancel(timeout(t))
		stream, err := follow(ctx)
		if err != nil {
			t.Fatal(name, err)
		}
		if !stream.Receive() {
			t.Fatal(name, stream.Err())
		}
		cancel()
		for stream.Receive() {
		}
		if err := stream.Err(); connect.CodeOf(err) != connect.CodeCanceled {
			t.Errorf("%s: %v", name, err)
		}
		stream.Close()
	}
}

// TestPlainHTTP is what somebody with curl sees.
func TestPlainHTTP(t *testing.T) {
	address, f, _ := ready(t, nil)
	client := func(certificates ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}}
	}
	for _, test := range []struct {
		name   string
		client *http.Client
		path   string
		status int
		text   string
	}{
		{"status", client(f.Certificate()), "/kogge.v1.NodeService/Status", 200, `"node":"n1"`},
		{"no certificate", client(), "/kogge.v1.NodeService/Status", 401, "a client certificate is required"},
		{"too little a role", client(operator(t, f, fleet.RoleReader, now)), "/kogge.v1.NodeService/Reboot", 403, "this needs operator"},
		{"no such method", client(f.Certificate()), "/kogge.v1.NodeService/Destroy", 501, "there is no method"},
		{"no method at all", client(f.Certificate()), "/", 501, "there is no method /"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := test.client.Post("https://"+address+test.path, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != test.status || !strings.Contains(strings.ReplaceAll(string(body), `": "`, `":"`), test.text) {
				t.Errorf("%d %s, %v", r.StatusCode, body, err)
			}
		})
	}
	r, err := client().Get("https://" + address + "/") // a browser
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); r.StatusCode != 501 || !strings.Contains(string(body), "there is no method /") {
		t.Errorf("%d %s", r.StatusCode, body)
	}
}

// TestLargeRequest is refused by its size, whatever is in it.
func TestLargeRequest(t *testing.T) {
	address, f, _ := ready(t, nil)
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	_, err := c.RestartService(timeout(t), connect.NewRequest(&apiv1.RestartServiceRequest{Service: strings.Repeat("x", door.MaxRequest+1)}))
	has(t, err, "resource_exhausted")
}

// TestNoServer says where nobody answers.
func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	f := newFleet(t, "hanse")
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	_, err = c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
	if connect.CodeOf(err) != connect.CodeUnavailable || !errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), address) {
		t.Errorf("%v", err)
	}
}
