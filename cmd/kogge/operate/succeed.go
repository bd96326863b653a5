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

// Succeed takes nodes from a fleet of version 1 into the one that it has become, a few at a
// time, and remembers them in its folder. It returns how it went, in the order of the names; a
// node that is in the new fleet already is only remembered.
func Succeed(ctx context.Context, old, next *keyring.Keyring, names []string, tell func(Notice)) ([]Told, error) {
	proof, err := next.Succession()
	if err != nil {
		return nil, fmt.Errorf("fleet %s: its proof that it follows on another: %w", next.Genesis.Name, err)
	}
	nodes, err := Nodes(old)
	if err != nil {
		return nil, err
	}
	all := make([]Told, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		n, known := nodes[names[i]]
		if all[i].Node = names[i]; !known {
			all[i].Err = keyring.ErrNoNode
			return
		}
		all[i].Err = succeed(limited, old, next, Remote{Keys: old, Name: names[i], Address: n.Address, Tell: tell}, proof)
	})
	return all, nil
}

func succeed(ctx context.Context, old, next *keyring.Keyring, r Remote, proof []byte) error {
	chain, err := api.PeerCertificates(ctx, r.Address)
	if err != nil {
		return err
	}
	if is, ours := nodeOf(next.Genesis, chain); ours && is.Name == r.Name {
		return recordAddress(next, r.Address, r.Name, chain[0])
	}
	err = r.Call(ctx, func(ctx context.Context, c *api.Client) error {
		if _, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{})); err != nil { // who is it?
			return err
		}
		der, err := next.TakeOver(old.Genesis, c.Shown(), time.Now())
		if err != nil {
			return err
		}
		_, err = c.Succeed(ctx, connect.NewRequest(&apiv1.SucceedRequest{Succession: proof, Certificate: der}))
		return err
	})
	if err != nil {
		return err
	}
	if chain, err = api.PeerCertificates(ctx, r.Address); err != nil {
		return err
	}
	if is, ours := nodeOf(next.Genesis, chain); !ours || is.Name != r.Name {
		return errors.New("it has taken the succession, and does not show a certificate of fleet " + fleet.Short(next.Genesis.ID()))
	}
	return recordAddress(next, r.Address, r.Name, chain[0])
}
