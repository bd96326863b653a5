package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeHistoryCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "history [NODE]", Short: "List a node's last boots and their verdicts", Args: cobra.MaximumNArgs(1),
		Long: `Lists the last boots of a node: the slot and release, how many tries were left if it was on trial, and
whether the boot was assessed good or bad, after how long, and why.`,
		Example: "  kogge node history n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.History(ctx, connect.NewRequest(&apiv1.HistoryRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printHistory(w, answer.Msg.Boots) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printHistory(w io.Writer, boots []*apiv1.PastBoot) {
	tw := newTable(w)
	tw.head("BOOTED\tSLOT\tRELEASE\tTRIES LEFT\tVERDICT\tAFTER\tREASON")
	for _, b := range boots {
		tries, after := "-", "-"
		if b.Trial {
			tries = fmt.Sprint(b.TriesLeft)
		}
		if b.Verdict != "none" {
			after = age(time.Duration(b.Seconds) * time.Second)
		}
		tw.row("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", stamp(b.Time), b.Slot, b.Version, tries, b.Verdict, after, b.Reason)
	}
	tw.Flush()
}

func nodeForgetFailureCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "forget-failure NODE RELEASE", Short: "Allow a release that failed on a node", Args: exactly("NODE", "RELEASE"),
		Long: `A node refuses a release that failed on it or crashed it. This command makes the node forget the failure
of RELEASE, a version: use it when the cause was the node, and has been put right.`,
		Example: "  kogge node forget-failure n1 1.1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args[:1], func(ctx context.Context, c *api.Client) error {
				answer, err := c.ForgetFailure(ctx, connect.NewRequest(&apiv1.ForgetFailureRequest{Release: args[1]}))
				if connect.CodeOf(err) == connect.CodeNotFound {
					return hinted{err, "kogge node slots and kogge node history show what failed"}
				}
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "release %s may be installed on node %s again\n", strings.Join(answer.Msg.Forgotten, ", "), t.node)
				}
				return err
			})
		},
	}
	t.fleetFlag(cmd)
	t.viaFlag(cmd)
	return cmd
}
