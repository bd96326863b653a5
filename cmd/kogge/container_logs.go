package main

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func logsCommand() *cobra.Command {
	var t target
	var follow, all bool
	var tail int32
	cmd := &cobra.Command{
		Use: "logs CONTAINER", Short: "Show a container's output", Args: exactly("CONTAINER"),
		Example: "  kogge logs web\n  kogge logs -f -n 100 web --node n1", ValidArgsFunction: t.completeWith(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				stream, err := c.Logs(ctx, connect.NewRequest(&apiv1.LogsRequest{Container: args[0], Tail: tail, Follow: follow}))
				return lines(cmd.OutOrStdout(), all, stream, err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until Ctrl-C, or until the container is gone")
	rawFlag(cmd, &all)
	cmd.Flags().Int32VarP(&tail, "tail", "n", 0, "`NUMBER` of lines from the end to start with (0: all)")
	return cmd
}
