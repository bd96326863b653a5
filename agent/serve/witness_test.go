package serve

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// TestOverByTheFloor: an admin whose certificate ended before the node's floor is turned
// away though its clock is not sure, so that he cannot revoke those who came after him. The
// clock service hears of certificates that were verified, and of no others.
func TestOverByTheFloor(t *testing.T) {
	f := newFleet(t, "hanse")
	n := newNode(t, f)
	adoptNode(t, f, n, "n1")
	floor := now.AddDate(0, -1, 0)
	heard := make(chan time.Time, 16)
	address := start(t, n, func(c *Config) {
		if err := (control.Clock{Floor: floor}).Write(c.Machine.Run); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(c.Machine.Run, "clock.sock"))
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
				line, _ := bufio.NewReader(conn).ReadSlice('\n')
				said, err := control.ParseSetClock(line)
				if err == nil {
					heard <- said.Passed
				}
				_ = json.NewEncoder(conn).Encode(control.ClockSet{})
				conn.Close()
			}
		}()
	})
	// The node's own certificate begins a day before today.
	if at := <-heard; !at.Equal(n.Certificate().Leaf.NotBefore) {
		t.Errorf("heard %s at first", at)
	}
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
	if at, want := <-heard, now.AddDate(0, 3, 0).Add(-fleet.Backdate); at.Sub(want).Abs() > time.Minute {
		t.Errorf("heard %s, want %s", at, want)
	}
}
