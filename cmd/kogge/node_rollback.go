package main

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet/ledger"
)

func nodeRollbackCommand() *cobra.Command {
	var f changeSlot
	cmd := &cobra.Command{
		Use: "rollback NODE", Short: "Boot the release in a node's other slot", Args: exactly("NODE"),
		Long: `Boots the release in a node's other slot, without sending anything. That release has to be whole, and to
have proven itself once. It is booted on trial, like an update. A second rollback goes back to where the
node was.`,
		Example: "  kogge node rollback n1\n  kogge node rollback n1 --reboot window", ValidArgsFunction: f.target.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := f.when(cmd)
			if err != nil {
				return err
			}
			return f.run(cmd, args[0], func(ctx context.Context, c *api.Client, show func(*apiv1.UpdateStep) error) error {
				ring, err := f.target.openFleet()
				if err != nil {
					return err
				}
				permit, err := f.owner.permit(ctx, ring, args[0], c, func(string) (string, error) { return otherRelease(ctx, c) })
				if err != nil {
					return err
				}
				stream, err := c.Rollback(ctx, connect.NewRequest(&apiv1.RollbackRequest{Reboot: when, Permit: permit}))
				if err != nil {
					return err
				}
				defer stream.Close()
				for stream.Receive() {
					if err := show(stream.Msg().GetStep()); err != nil {
						return err
					}
				}
				return stream.Err()
			})
		},
	}
	f.register(cmd)
	return cmd
}

// otherRelease names what lies in the slot that does not run: what an image brought by its
// root hash.
func otherRelease(ctx context.Context, c *api.Client) (string, error) {
	answer, err := c.ListSlots(ctx, connect.NewRequest(&apiv1.ListSlotsRequest{}))
	if err != nil {
		return "", err
	}
	for _, s := range answer.Msg.Slots {
		if !s.Running {
			if s.Digest == "" && s.RootHash != "" {
				return ledger.RootName(s.RootHash), nil
			}
			return s.Digest, nil
		}
	}
	return "", nil // the node says what is wrong
}
