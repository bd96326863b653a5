package ledger

import (
	"errors"
	"fmt"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// ErrUnlisted is of a key that a CA of the fleet has signed, and that the ledger does not have
// among its operators: the CA makes connections, and the fleet gives rights.
var ErrUnlisted = errors.New("the fleet's ledger does not list the key")

// Known is what the fleet makes of an operator whose certificate is in order: his name is the
// ledger's, and his role the lower one of the ledger's and the certificate's. Before the
// founding, and for a node, it is what the certificate says. The error wraps [ErrUnlisted].
func (s State) Known(p fleet.Peer) (fleet.Peer, error) {
	if s.Height == 0 || p.Kind != fleet.KindOperator {
		return p, nil
	}
	o, ok := Operator{}, false
	if key, err := document.ParseHash(p.Key); err == nil {
		o, ok = s.Operator(key)
	}
	if !ok {
		return fleet.Peer{}, fmt.Errorf("%s: %w %s among the fleet's operators at height %d", p, ErrUnlisted, fleet.Short(p.Key), s.Height)
	}
	p.Name = o.Name
	if p.Role.AtLeast(o.Role) {
		p.Role = o.Role
	}
	return p, nil
}
