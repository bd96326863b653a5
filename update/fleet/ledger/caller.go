package ledger

import (
	"errors"
	"fmt"
	"slices"

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

// ErrWithdrawn is of what an operator's key has signed that was revoked.
var ErrWithdrawn = errors.New("the operator's key was revoked")

// Without is the state without those operators whose keys, as in fleet.Peer.Key, were revoked. The
// record lists them until the fleet decides otherwise; whoever knows of the revocation acts by
// this state, so that nothing counts with him that such a key signs.
func (s State) Without(revoked func(key string) bool) State {
	s.revoked = revoked
	is := func(o Operator) bool { return revoked(o.Key.String()) }
	if !slices.ContainsFunc(s.Operators, is) {
		return s
	}
	all := s.Operators
	s.Operators = slices.DeleteFunc(slices.Clone(all), is)
	s.withdrawn = slices.DeleteFunc(slices.Clone(all), func(o Operator) bool { return !is(o) })
	return s
}

// Withdrawn wants that a key, by its fingerprint, is none of those that [State.Without] was told of, also
// where the record lists it no more.
// The error wraps [ErrWithdrawn].
func (s State) Withdrawn(key document.Hash) error {
	if i := slices.IndexFunc(s.withdrawn, func(o Operator) bool { return o.Key == key }); i >= 0 {
		return fmt.Errorf("%w: %s's key %s", ErrWithdrawn, s.withdrawn[i].Name, key.Short())
	}
	if s.revoked != nil && s.revoked(key.String()) {
		return fmt.Errorf("%w: key %s", ErrWithdrawn, key.Short())
	}
	return nil
}
