package main

import (
	"context"
	"fmt"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/operate"
)

func nodeResetCommand() *cobra.Command {
	var t target
	var keep, yes bool
	var joinFile string
	cmd := &cobra.Command{
		Use: "reset NODE", Short: "Reset a node: its data and identity are lost", Args: exactly("NODE"),
		Long: "Restarts a node with a new STATE: volumes, images, projects, identity and membership in the fleet are lost\n" +
			"for good. The node starts with the node.yaml of its boot partition, or with --keep-config with its present one,\n" +
			"and makes a new key. With --join it can be adopted at once; otherwise it first needs a join.yaml on its boot\n" +
			"partition.",
		Example:           "  kogge fleet token hanse --node n1 -o join.yaml\n  kogge node reset n1 --keep-config --join join.yaml",
		ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &apiv1.ResetRequest{Node: args[0], KeepConfig: keep}
			if joinFile != "" {
				text, err := readInput(cmd.Context(), joinFile, maxInput)
				if err == nil {
					_, err = identity.ParseJoinFile(filepath.Base(joinFile), text)
				}
				if err != nil {
					return fmt.Errorf("node reset: %w", err)
				}
				r.Join = string(text)
			}
			if !yes {
				if err := confirm(patient{cmd.Context(), cmd.InOrStdin()}, args[0]); err != nil {
					return hinted{err, "in scripts, add: --yes"}
				}
			}
			err := t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				_, err := c.UpkeepServiceClient.Reset(ctx, connect.NewRequest(r))
				return err
			})
			if err != nil {
				return err
			}
			return t.afterReset(cmd, r.Join != "")
		},
	}
	t.fleetFlag(cmd)
	t.viaFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&keep, "keep-config", false, "start with the node's present node.yaml")
	flags.BoolVar(&yes, "yes", false, "do not ask for the node's name first")
	flags.StringVar(&joinFile, "join", "", "join.yaml `FILE` for its next adoption (kogge fleet token makes one)")
	return cmd
}

// afterReset forgets the node, and says how to go on with it.
func (t *target) afterReset(cmd *cobra.Command, joins bool) error {
	ring, err := t.openFleet()
	if err != nil {
		return err
	}
	var address string
	err = operate.ChangeNodes(ring, func(nodes map[string]operate.Node) {
		address = nodes[t.node].Address
		delete(nodes, t.node)
	})
	if err != nil {
		return err
	}
	next := "once it is up: kogge node adopt " + address
	if !joins {
		next = "it can be adopted once it has a join.yaml on its boot partition"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s restarts with a new STATE; %s\n", t.node, next)
	return err
}
