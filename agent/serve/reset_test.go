package serve

import (
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// TestReset asks for the end of all that a node has: only by its name, and with a
// join.yaml that is one.
func TestReset(t *testing.T) {
	pid1 := &settings{}
	address, f, _ := ready(t, func(c *Config) {
		pid1.dir, c.Machine.Control = c.Machine.Run, filepath.Join(c.Machine.Run, "settings.sock")
	})
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	reset := func(r *apiv1.ResetRequest) error {
		_, err := c.UpkeepServiceClient.Reset(timeout(t), connect.NewRequest(r))
		return err
	}
	has(t, reset(&apiv1.ResetRequest{Node: "n1"}), "unavailable", "connect to PID 1")
	pid1.serve(t)
	has(t, reset(&apiv1.ResetRequest{}), "invalid_argument", `this is node n1, not ""`)
	has(t, reset(&apiv1.ResetRequest{Node: "n2"}), "invalid_argument", `this is node n1, not "n2"`)
	has(t, reset(&apiv1.ResetRequest{Node: "n1", Join: "nonsense: 1\n"}), "invalid_argument", "join.yaml:1:1")
	if len(pid1.asked) > 0 {
		t.Fatalf("PID 1 was asked %+v", pid1.asked)
	}
	token, err := f.NewToken(keyring.Terms{}, now)
	if err != nil {
		t.Fatal(err)
	}
	join := fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token})
	if err := reset(&apiv1.ResetRequest{Node: "n1", KeepConfig: true, Join: string(join)}); err != nil {
		t.Fatal(err)
	}
	pid1.mu.Lock()
	defer pid1.mu.Unlock()
	if a := pid1.asked; len(a) != 2 || a[0].Op != control.OpReset || !a[0].KeepConfig || a[0].SHA256 != Revision(join) || a[1].Op != control.OpReboot {
		t.Errorf("PID 1 was asked %+v", a)
	}
	if _, err := os.Stat(filepath.Join(pid1.dir, pid1.asked[0].File)); !os.IsNotExist(err) {
		t.Errorf("the token lies about: %v", err)
	}
}
