package operate

import (
	"cmp"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/care"
	"kogge.example/cmd/kogge/keyring"
)

// TestVia calls a node through another one, also one that this computer does not know, and renews
// its certificate so.
func TestVia(t *testing.T) {
	k, err := keyring.Create("hanse", "ada", time.Now())
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards hidden
	hidden := ""      // n3's address, which this computer does not know
	reach := func(ctx context.Context, node string) (net.Conn, error) {
		nodes, err := Nodes(k)
		mu.Lock()
		address := cmp.Or(nodes[node].Address, map[string]string{"n3": hidden}[node])
		mu.Unlock()
		if err != nil || address == "" {
			return nil, errors.Join(care.ErrNoNode, err)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	serving(t, k, 3, nil, func(_ int, c *serve.Config) { c.Care.Reach = reach }).found(t, k, 3)
	quiet := func(Notice) {}
	status := func(r Remote) (string, error) {
		var node string
		err := r.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
			answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
			if err == nil {
				node = answer.Msg.Node
			}
			return err
		})
		return node, err
	}
	r := Remote{Keys: k, Name: "n2", Address: "192.0.2.1:1", Via: "n1", Tell: quiet} // where nobody is
	if node, err := status(r); err != nil || node != "n2" {
		t.Errorf("%q, %v", node, err)
	}
	if _, err := r.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	r.Via, r.Name = "n9", "n2"
	if _, err := status(r); !errors.Is(err, keyring.ErrNoNode) {
		t.Errorf("through a node that nobody knows: %v", err)
	}
	r.Via, r.Name = "n1", "n7"
	if _, err := status(r); err == nil {
		t.Error("a node that has no seat answers")
	}
	// The way to a node that this computer does not know: n1 does.
	if err := ChangeNodes(k, func(nodes map[string]Node) {
		mu.Lock()
		defer mu.Unlock()
		hidden = nodes["n3"].Address
		delete(nodes, "n3")
	}); err != nil {
		t.Fatal(err)
	}
	r.Name = "n3"
	if node, err := status(r); err != nil || node != "n3" {
		t.Errorf("%q, %v", node, err)
	}
	// Whoever has the seat's key of a node that was revoked is not called under another TLS key.
	if _, err := k.RevokeNode("n3", []string{strings.Repeat("0", 64)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := status(r); !errors.Is(err, api.ErrNodeRevoked) {
		t.Errorf("a revoked node by another key: %v", err)
	}
}
