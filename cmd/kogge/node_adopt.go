package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

func nodeAdoptCommand() *cobra.Command {
	var t target
	var name string
	cmd := &cobra.Command{
		Use:   "adopt ADDRESS",
		Short: "Take a new node into the fleet",
		Long: `Takes the node at ADDRESS (HOST or HOST:PORT; kogge node find shows HOST.local) into the fleet. The node
has to have booted with a join.yaml of the fleet (kogge fleet token). It proves the token in join.yaml
without sending it, and gets a certificate for a key that it made itself.

If the node is already in the fleet, only its address is recorded here: use this when another operator
adopted the node, or when it has moved.`,
		Example: "  kogge node adopt 192.0.2.7\n  kogge node adopt kogge-3f2a9c.local\n  kogge node adopt [2001:db8::7]:7443 --name n1 --fleet hanse",
		Args:    exactly("ADDRESS"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return adopt(cmd.Context(), ring, args[0], name, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the node in the fleet (default: the name in its token, else its host name)")
	return cmd
}

// adopt takes the node at address into the fleet and remembers it as name, or by
// its host name.
func adopt(ctx context.Context, ring *keyring.Keyring, address, name string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	address = withPort(address)
	chain, err := api.Meet(ctx, address)
	if err != nil {
		return nodeError("at "+address, hinted{err, "is the node on? kogge node find looks for nodes on this computer's networks"})
	}
	if is, ours := nodeOf(ring.Genesis, chain); ours {
		return acquaint(ring, address, is, name, chain[0], out)
	}
	revoked, err := revokedKeys(ring)
	if err != nil {
		return err
	}
	var signed *x509.Certificate
	err = api.Adopt(ctx, address, api.Adoption{
		Genesis: ring.Genesis, Certificate: ring.Certificate(), Revoked: revoked,
		Sign: func(request, nonce, mac []byte, hostname string) ([]byte, error) {
			if name == "" {
				var err error
				if name, err = defaultName(ring, request, nonce, mac, hostname); err != nil {
					return nil, err
				}
			}
			der, err := ring.AdoptNode(request, nonce, mac, name, time.Now())
			if err == nil {
				signed, err = x509.ParseCertificate(der)
			}
			return der, err
		},
	})
	if errors.Is(err, keyring.ErrTokenUnknown) {
		return hinted{fmt.Errorf("node at %s: %w", address, err), "kogge fleet token makes a join.yaml; the node reads it at its next boot"}
	}
	if err != nil {
		return nodeError("at "+address, err)
	}
	if err := rememberNode(ring, name, knownNode{Address: address, Adopted: time.Now().UTC().Truncate(time.Second), Until: signed.NotAfter.UTC()}); err != nil {
		return err
	}
	// Who revokes tells the nodes of nodes.json: a key that was revoked since we asked
	// is for us to tell.
	late, err := revokedKeys(ring)
	if err == nil && len(late) > len(revoked) {
		err = nodeError(name, tellNode(ctx, ring, name, address, late))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "node %s has joined fleet %s: kogge node status %s\n", name, ring.Genesis.Name, name)
	return nil
}

// nodeOf says whether who shows chain is a node of the fleet already, and which. Its
// certificate may be over.
func nodeOf(genesis *fleet.Genesis, chain []*x509.Certificate) (fleet.Peer, bool) {
	if len(chain) == 0 {
		return fleet.Peer{}, false
	}
	peer, err := genesis.VerifyPeer(chain[0], chain[1:], time.Time{}, false, nil)
	return peer, err == nil && peer.Kind == fleet.KindNode
}

// acquaint remembers a node that is one of the fleet already: another computer adopted
// it, or it was known here by another address.
func acquaint(ring *keyring.Keyring, address string, is fleet.Peer, name string, shown *x509.Certificate, out io.Writer) error {
	if name != "" && name != is.Name {
		return hinted{fmt.Errorf("node at %s: %w: its name is %s", address, api.ErrAdopted, is.Name), "a node keeps its name; leave --name away"}
	}
	err := changeNodes(ring, func(nodes map[string]knownNode) {
		n := nodes[is.Name]
		n.Address, n.Until = address, shown.NotAfter.UTC()
		if n.Adopted.IsZero() {
			n.Adopted = shown.NotBefore.Add(fleet.Backdate).UTC()
		}
		nodes[is.Name] = n
	})
	if err == nil {
		fmt.Fprintf(out, "node %s is in fleet %s: kogge node status %s\n", is.Name, ring.Genesis.Name, is.Name)
	}
	return err
}

// defaultName is the one that the node's token was made for, or its host name.
func defaultName(ring *keyring.Keyring, request, nonce, mac []byte, hostname string) (string, error) {
	_, key, err := fleet.RequestKey(request)
	if err != nil {
		return "", err
	}
	token, err := ring.FindToken(key, nonce, mac)
	if err != nil {
		return "", err
	}
	return cmp.Or(token.Node, hostname), nil
}
