package main

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeRestartCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "restart SERVICE", Short: "Restart one of a node's services", Args: exactly("SERVICE"),
		Long:    "Restarts one of a node's own services. Containers keep running while containerd or agent restart. For a container, use kogge restart.",
		Example: "  kogge node restart clock --node n1", ValidArgsFunction: t.completeWith(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.RestartService(ctx, connect.NewRequest(&apiv1.RestartServiceRequest{Service: args[0]}))
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	return cmd
}
