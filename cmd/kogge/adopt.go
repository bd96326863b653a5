package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/identity"
)

func nodeAdoptCommand() *cobra.Command {
	var t target
	var name string
	cmd := &cobra.Command{
		Use:   "adopt ADDRESS",
		Short: "Take a new node into the fleet",
		Long: "Takes the node at ADDRESS (HOST or HOST:PORT) into the fleet. The node has to have booted with a\n" +
			"join.yaml of the fleet (kogge fleet token): it proves the token in it without sending it, gets a\n" +
			"certificate for the key that it made itself, and is known by that from then on.",
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := t.openFleet()
			if err != nil {
				return err
			}
			return adopt(cmd.Context(), fleet, args[0], name, cmd.OutOrStdout())
		},
	}
	t.register(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the node in the fleet (default: the one its token is for, else its host name)")
	return cmd
}

// adopt takes the node at address into the fleet and remembers it as name, or by
// its host name.
func adopt(ctx context.Context, fleet *identity.Fleet, address, name string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	address = withPort(address)
	revoked, err := revokedKeys(fleet)
	if err != nil {
		return err
	}
	err = api.Adopt(ctx, address, api.Adoption{
		Genesis: fleet.Genesis, Certificate: fleet.Certificate(), Revoked: revoked,
		Sign: func(request, nonce, mac []byte, hostname string) ([]byte, error) {
			if name == "" {
				var err error
				if name, err = defaultName(fleet, request, nonce, mac, hostname); err != nil {
					return nil, err
				}
			}
			return fleet.AdoptNode(request, nonce, mac, name, time.Now())
		},
	})
	if errors.Is(err, identity.ErrTokenUnknown) {
		return hinted{fmt.Errorf("node at %s: %w", address, err), "kogge fleet token makes a join.yaml; the node reads it at its next boot"}
	}
	if err != nil {
		return nodeError("at "+address, err)
	}
	if err := rememberNode(fleet, name, knownNode{Address: address, Adopted: time.Now().UTC().Truncate(time.Second)}); err != nil {
		return err
	}
	// Who revokes tells the nodes of nodes.json: a key that was revoked since we asked
	// is for us to tell.
	late, err := revokedKeys(fleet)
	if err == nil && len(late) > len(revoked) {
		err = nodeError(name, tellNode(ctx, fleet, name, address, late))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is a node of fleet %s now: kogge node status %s\n", name, fleet.Genesis.Name, name)
	return nil
}

// defaultName is the one that the node's token was made for, or its host name.
func defaultName(fleet *identity.Fleet, request, nonce, mac []byte, hostname string) (string, error) {
	_, key, err := identity.RequestKey(request)
	if err != nil {
		return "", err
	}
	token, err := fleet.FindToken(key, nonce, mac)
	if err != nil {
		return "", err
	}
	return cmp.Or(token.Node, hostname), nil
}
