package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func imagesCommand() *cobra.Command {
	return group("images", "Manage a node's container images", imagesListCommand(), imagesPullCommand(), imagesLoadCommand(), imagesRemoveCommand(), imagesPruneCommand())
}

func imagesListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "ls [NODE]", Short: "List the images of a node", Args: cobra.MaximumNArgs(1),
		Example: "  kogge images ls n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ListImages(ctx, connect.NewRequest(&apiv1.ListImagesRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printImages(w, answer.Msg.Images, time.Now()) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printImages(w io.Writer, all []*apiv1.Image, now time.Time) {
	tw := newTable(w)
	defer tw.Flush()
	tw.head("NAME\tDIGEST\tSIZE\tON DISK\tHERE FOR\tLAST USED\tUSED BY")
	for _, i := range all {
		used := "never"
		switch {
		case len(i.UsedBy) > 0:
			used = "now"
		case i.Used != nil:
			used = age(max(0, now.Sub(i.Used.AsTime()))) + " ago"
		}
		by := dash(i.UsedBy)
		switch {
		case i.Pulling:
			by = "(being pulled)"
		case i.Preload && len(i.UsedBy) == 0:
			by = "(preload)"
		}
		tw.row("%s\t%.19s\t%s\t%s\t%s\t%s\t%s\n", i.Name, i.Digest, iec(uint64(max(0, i.Size))), iec(uint64(max(0, i.Disk))),
			age(max(0, now.Sub(i.Created.AsTime()))), used, by)
	}
}

func imagesPruneCommand() *cobra.Command {
	var t target
	var check bool
	cmd := &cobra.Command{
		Use: "prune [NODE]", Short: "Remove images that no container uses", Args: cobra.MaximumNArgs(1),
		Long: `Removes images that no container uses, and the remains of broken pulls. Preloaded images stay,
and so do images that are being pulled. When less than a tenth of its STATE is free, a node does
the same by itself, least recently used first.`,
		Example: "  kogge images prune --check\n  kogge images prune n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, runLimit)
				defer cancel()
				answer, err := c.PruneImages(ctx, connect.NewRequest(&apiv1.PruneImagesRequest{Check: check}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) {
					for _, i := range answer.Msg.Images {
						fmt.Fprintln(w, i.Name)
					}
					if !check {
						fmt.Fprintf(w, "%s freed\n", iec(uint64(max(0, answer.Msg.Freed))))
					}
				})
			})
		},
	}
	t.register(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "only list what would be removed")
	return cmd
}

func imagesRemoveCommand() *cobra.Command {
	var t target
	var force bool
	cmd := &cobra.Command{
		Use: "rm IMAGE", Short: "Remove an image from a node", Args: exactly("IMAGE"),
		Long:    "Removes an image. If a container uses it, or if it was preloaded, add --force: running containers go\non, but their next start pulls the image again.",
		Example: "  kogge images rm registry.example/web:1", ValidArgsFunction: t.completeWith(imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.RemoveImage(ctx, connect.NewRequest(&apiv1.RemoveImageRequest{Name: args[0], Force: force}))
				if connect.CodeOf(err) == connect.CodeFailedPrecondition {
					return hinted{err, "--force removes it anyway"}
				}
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also if it is in use, or was preloaded")
	return cmd
}
