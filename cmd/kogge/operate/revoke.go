package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// Revocation is what the fleet's folder says of an operator who was revoked.
type Revocation struct {
	Keys      int // of theirs that are revoked; 0: nobody had used their invitation
	Withdrawn int // invitations that nobody had used
}

// Revoke revokes every key of an operator in the fleet's folder, durably, and withdraws
// their open invitations. No node knows it yet: see [TellRevoked]. The error wraps
// [keyring.ErrNoKey] where another computer signs the fleet's operators, and
// [keyring.ErrNoOperator] if there is none of that name, invited or signed.
func Revoke(k *keyring.Keyring, name string, now time.Time) (Revocation, error) {
	if k.HoldsCA(fleet.KindOperator) == keyring.Elsewhere {
		return Revocation{}, fmt.Errorf("operator CA of fleet %s: %w", k.Genesis.Name, keyring.ErrNoKey)
	}
	withdrawn, err := k.Withdraw(name)
	if err != nil {
		return Revocation{}, err
	}
	keys, err := k.RevokeOperator(name, now)
	if errors.Is(err, keyring.ErrNoOperator) && withdrawn > 0 {
		err = nil
	}
	return Revocation{Keys: len(keys), Withdrawn: withdrawn}, err
}

// Told is how it went to tell one node which keys are revoked.
type Told struct {
	Node string
	Err  error // nil: it knows
}

// TellRevoked tells every node that this computer knows which keys the fleet has revoked so
// far, a few at a time, and returns how it went, in the order of their names. Nodes end
// what runs under those keys.
func TellRevoked(ctx context.Context, k *keyring.Keyring, tell func(Notice)) ([]Told, error) {
	keys, err := RevokedKeys(k)
	if err != nil {
		return nil, err
	}
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	names := sorted(nodes)
	all := make([]Told, len(names))
	each(len(names), func(i int) {
		all[i] = Told{names[i], tellRevoked(ctx, k, names[i], nodes[names[i]].Address, keys, tell)}
	})
	return all, nil
}

// RevokedKeys are all keys that the fleet's folder has as revoked, as in Peer.Key.
func RevokedKeys(k *keyring.Keyring) ([]string, error) {
	people, err := k.Operators()
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, o := range people {
		if o.Revoked != nil {
			keys = append(keys, o.Key)
		}
	}
	return keys, nil
}

// tellRevoked tells one node.
func tellRevoked(ctx context.Context, k *keyring.Keyring, name, address string, keys []string, tell func(Notice)) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return Call(ctx, k, name, address, tell, func(ctx context.Context, c *api.Client) error {
		_, err := c.Revoke(ctx, connect.NewRequest(&apiv1.RevokeRequest{Keys: keys}))
		return err
	})
}
