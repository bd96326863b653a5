package main

import (
	"context"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func volumesCommand() *cobra.Command {
	return group("volumes", "Manage a node's volumes", volumesListCommand(), volumesRemoveCommand())
}

func volumesListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "ls [NODE]", Short: "List the volumes of a node", Args: cobra.MaximumNArgs(1),
		Long: "Lists the volumes of a node, their sizes, and the containers that use them. A volume is called\n" +
			"PROJECT.VOLUME; volumes of node.yaml have no project. A + after a size means at least: there were too\n" +
			"many files to count in ten seconds.",
		Example: "  kogge volumes ls n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ListVolumes(ctx, connect.NewRequest(&apiv1.ListVolumesRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) {
					tw := newTable(w)
					defer tw.Flush()
					tw.head("NAME\tSIZE\tUSED BY")
					for _, v := range answer.Msg.Volumes {
						size := iec(uint64(max(0, v.Size)))
						if v.Least {
							size += "+"
						}
						tw.row("%s\t%s\t%s\n", v.Name, size, dash(v.UsedBy))
					}
				})
			})
		},
	}
	t.register(cmd)
	return cmd
}

func volumesRemoveCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "rm VOLUME", Short: "Remove a volume and its content", Args: exactly("VOLUME"),
		Long:    "Removes a volume and its content for good. A volume that a container uses stays: remove its\nproject first (kogge rm).",
		Example: "  kogge volumes rm shop.data --node n1", ValidArgsFunction: t.completeWith(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.RemoveVolume(ctx, connect.NewRequest(&apiv1.RemoveVolumeRequest{Name: args[0]}))
				switch connect.CodeOf(err) {
				case connect.CodeNotFound:
					return hinted{err, "kogge volumes ls lists them"}
				case connect.CodeFailedPrecondition:
					return hinted{err, "kogge rm PROJECT removes its containers"}
				}
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	return cmd
}
