package operate

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// ErrElsewhere is of a node that is in another fleet than the one that was asked for, which has
// the same node CA: another successor.
var ErrElsewhere = errors.New("it has gone over into another fleet")

// Remain asks nodes of a fleet for their certificates, a few at a time, and says whether they are
// in it still: the error of one that has gone over wraps [ErrElsewhere].
func Remain(ctx context.Context, k *keyring.Keyring, names []string) ([]Told, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	all := make([]Told, len(names))
	each(len(names), func(i int) {
		all[i].Node = names[i]
		chain, err := api.PeerCertificates(ctx, nodes[names[i]].Address)
		switch in := fleetOf(k.Genesis, names[i], chain); {
		case err != nil:
			all[i].Err = err
		case in == "":
			all[i].Err = errors.New("who answers there shows no certificate of the fleet's node CA for it")
		case in != k.Genesis.ID():
			all[i].Err = fmt.Errorf("%w: %s", ErrElsewhere, in)
		}
	})
	return all, nil
}

// fleetOf is the fleet that a certificate of a node names which a genesis' node CA has signed;
// "": it is none.
func fleetOf(g *fleet.Genesis, name string, chain []*x509.Certificate) string {
	if len(chain) == 0 || g.NodeCA.CheckSignature(chain[0].SignatureAlgorithm, chain[0].RawTBSCertificate, chain[0].Signature) != nil {
		return ""
	}
	if is, err := fleet.PeerOf(chain[0]); err == nil && is.Kind == fleet.KindNode && is.Name == name {
		return is.Fleet
	}
	return ""
}

// Succeed takes nodes from a fleet of version 1 into the one that it has become, a few at a
// time, and remembers them in its folder. It returns how it went, in the order of the names; a
// node that is in the new fleet already is only remembered. Its error wraps [ErrElsewhere] where
// it is in another.
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
	switch in := fleetOf(old.Genesis, r.Name, chain); in {
	case next.Genesis.ID():
		return recordAddress(next, r.Address, r.Name, chain[0])
	case "", old.Genesis.ID():
	default:
		return fmt.Errorf("%w: %s, and not %s", ErrElsewhere, in, next.Genesis.ID())
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
