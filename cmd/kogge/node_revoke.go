package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
)

func nodeRevokeCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "revoke NODE",
		Short: "Revoke a node that was stolen or copied",
		Long: "Revokes the keys of a node and forgets it here: it is not called any more, whoever has its disk, nothing is\n" +
			"signed for it, and each other node that this computer knows is told to turn it away. A node that is adopted\n" +
			"later learns of it then. If a node cannot be reached, it is named: repeat the command until all of them know.\n" +
			"Other operators have lists of their own: each does the same on his computer.\n" +
			"What the node knew is another matter: change the passwords of registries and the secrets of its projects.\n" +
			"Revoking is final: a machine that returns is reset, makes a new key, and is adopted anew.",
		Example: "  kogge node revoke n3 --fleet hanse",
		Args:    exactly("NODE"), ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			return revokeNode(cmd.Context(), f, t.fleet, args[0], cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	return cmd
}

func revokeNode(ctx context.Context, ring *keyring.Keyring, fleetName, name string, out io.Writer) error {
	keys, err := operate.RevokeNode(ctx, ring, name, time.Now())
	switch {
	case errors.Is(err, keyring.ErrNoNode):
		return hinted{err, "kogge node list --fleet " + fleetName + " shows the nodes that this computer knows"}
	case err != nil:
		return err
	}
	fmt.Fprintf(out, "node %s is revoked in fleet %s (%s), and forgotten here.\n", name, fleetName, count(keys, "key"))
	nodes, err := operate.TellRevoked(ctx, ring, notice)
	if err != nil {
		return err
	}
	missed, err := printTold(out, fleetName, nodes)
	if err != nil || len(missed) == 0 {
		return err
	}
	err = fmt.Errorf("node %s: %d of %s not told: %s", name, len(missed), count(len(nodes), "node"), strings.Join(missed, ", "))
	return hinted{err, "repeat this when they can be reached: kogge node revoke " + name + " --fleet " + fleetName}
}
