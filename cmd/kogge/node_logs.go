package main

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeLogsCommand() *cobra.Command {
	var t target
	var follow, all bool
	var tail int32
	cmd := &cobra.Command{
		Use: "logs SERVICE", Short: "Show the log of a node's service", Args: exactly("SERVICE"),
		Example: "  kogge node logs agent -n 20\n  kogge node logs -f network --node n1", ValidArgsFunction: t.completeWith(serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				stream, err := c.ServiceLogs(ctx, connect.NewRequest(&apiv1.ServiceLogsRequest{Service: args[0], Tail: tail, Follow: follow}))
				return lines(cmd.OutOrStdout(), all, stream, err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until Ctrl-C")
	rawFlag(cmd, &all)
	cmd.Flags().Int32VarP(&tail, "tail", "n", 0, "`NUMBER` of lines from the end to start with (0: all)")
	return cmd
}

func nodeDmesgCommand() *cobra.Command {
	var t target
	var follow, all bool
	cmd := &cobra.Command{
		Use: "dmesg [NODE]", Short: "Show a node's kernel log", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node dmesg n1\n  kogge node dmesg -f", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
				stream, err := c.KernelLog(ctx, connect.NewRequest(&apiv1.KernelLogRequest{Follow: follow}))
				return lines(cmd.OutOrStdout(), all, stream, err)
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing until Ctrl-C")
	rawFlag(cmd, &all)
	return cmd
}
