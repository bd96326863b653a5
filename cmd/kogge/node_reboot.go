package main

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

// nodeEndCommand is reboot or poweroff.
func nodeEndCommand(how string) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   how + " NODE",
		Short: map[string]string{"reboot": "Shut down cleanly and reboot", "poweroff": "Shut down cleanly and power off"}[how],
		Long: map[string]string{
			"reboot":   "Stops a node's containers and services, syncs its disk and reboots it.",
			"poweroff": "Stops a node's containers and services, syncs its disk and switches it off. Only somebody at the machine can switch it on again.",
		}[how],
		Example: "  kogge node " + how + " n1",
		Args:    exactly("NODE"), ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				_, err := c.Reboot(ctx, connect.NewRequest(&apiv1.RebootRequest{Poweroff: how == "poweroff"}))
				return err
			})
		},
	}
	t.fleetFlag(cmd)
	t.viaFlag(cmd)
	return cmd
}
