package door

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/order"
)

// TestIsolated: a node that is isolated is told so, whatever it asks, and operators come in.
func TestIsolated(t *testing.T) {
	f := newFleet(t, "hanse")
	n, outcast := newNode(t, f), newNode(t, f)
	adoptNode(t, f, n, "n1")
	adoptNode(t, f, outcast, "n2")
	g := NewGuard(n, func() bool { return true })
	g.Known = func(who fleet.Peer) (fleet.Peer, error) {
		if who.Key == outcast.Key() {
			return who, fmt.Errorf("%s: %w", who, order.ErrIsolated)
		}
		return who, nil
	}
	certificate, admin := outcast.Certificate(), operator(t, f, fleet.RoleAdmin, now)
	for path := range g.methods {
		_, err := g.admit(nil, path, stateOf(t, &certificate))
		if connect.CodeOf(err) != connect.CodePermissionDenied || api.ReasonOf(err) != apiv1.Reason_REASON_ISOLATED {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := g.admit(nil, path, stateOf(t, &admin)); err != nil {
			t.Errorf("%s: an admin: %v", path, err)
		}
	}
}
