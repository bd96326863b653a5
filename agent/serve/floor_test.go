package serve

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// TestOverByTheFloor: an admin whose certificate ended before the node's floor is turned
// away though its clock is not sure, so that he cannot revoke those who came after him; whose
// certificate begins later is let in, and is a witness of the time.
func TestOverByTheFloor(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	floor := now.AddDate(0, -1, 0)
	var seen []time.Time
	address := start(t, n, func(c *Config) {
		if err := (control.Clock{Floor: floor}).Write(c.Machine.Run); err != nil {
			t.Fatal(err)
		}
		c.Seen = func(at time.Time) { seen = append(seen, at) }
	})
	old := api.Dial(address, "n1", f.Genesis, operator(t, f, fleet.RoleAdmin, now.AddDate(-3, 0, 0)))
	defer old.Close()
	_, err := old.Revoke(timeout(t), connect.NewRequest(&apiv1.RevokeRequest{Keys: []string{f.Operator().Key}}))
	has(t, err, "unauthenticated", "not valid now")
	if n.Revoked(f.Operator().Key) {
		t.Error("the founder is revoked")
	}
	next := operator(t, f, fleet.RoleReader, now.AddDate(0, 3, 0)) // which begins in three months
	c := api.Dial(address, "n1", f.Genesis, next)
	defer c.Close()
	if _, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{})); err != nil {
		t.Error(err)
	}
	if want := now.AddDate(0, 3, 0).Add(-fleet.Backdate); len(seen) != 1 || seen[0].Sub(want).Abs() > time.Minute {
		t.Errorf("seen %v, want %s", seen, want)
	}
}
