package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
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

// adopt takes the node at address into the fleet, and says by which name.
func adopt(ctx context.Context, ring *keyring.Keyring, address, name string, out io.Writer) error {
	address = withPort(address)
	node, err := operate.Adopt(ctx, ring, address, name, notice)
	switch {
	case errors.As(err, new(operate.Unanswered)):
		return nodeError("at "+address, hinted{err, "is the node on? kogge node find looks for nodes on this computer's networks"})
	case errors.Is(err, keyring.ErrTokenUnknown):
		return hinted{fmt.Errorf("node at %s: %w", address, err), "kogge fleet token makes a join.yaml; the node reads it at its next boot"}
	case errors.Is(err, api.ErrNodeRevoked), errors.Is(err, fleet.ErrRevoked):
		return hinted{fmt.Errorf("node at %s: %w", address, err), lostHint}
	case errors.Is(err, api.ErrAdopted) && node.Name != "":
		return hinted{fmt.Errorf("node at %s: %w", address, err), "a node keeps its name; leave --name away"}
	case errors.As(err, new(operate.Untold)):
		return nodeError(node.Name, overHint(node.Name, err))
	case err != nil:
		return nodeError("at "+address, err)
	}
	joined := "has joined"
	if node.Before {
		joined = "is in"
	}
	fmt.Fprintf(out, "node %s %s fleet %s: kogge node status %s\n", node.Name, joined, ring.Genesis.Name, node.Name)
	return nil
}
