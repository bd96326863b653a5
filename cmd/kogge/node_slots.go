package main

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeSlotsCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "slots [NODE]", Short: "Show a node's two slots", Args: cobra.MaximumNArgs(1),
		Long: `Shows the two slots of a node: their releases, whether each is proven, on trial, armed or failed, and
how many tries it has left. A * marks the running slot.`,
		Example: "  kogge node slots n1\n  kogge node slots n1 --json", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ListSlots(ctx, connect.NewRequest(&apiv1.ListSlotsRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printSlots(w, answer.Msg) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printSlots(w io.Writer, all *apiv1.ListSlotsResponse) {
	tw := newTable(w)
	tw.head("SLOT\tRELEASE\tSTATE\tTRIES LEFT\tENTRY\tROOT HASH\tSAYS")
	for _, s := range all.Slots {
		name, release, tries, entry, root := s.Slot, s.Version, "-", "-", "-"
		if s.Running {
			name += " *"
		}
		if release == "" {
			release = "-"
		}
		if s.State == "on trial" || s.State == "armed" || s.TriesLeft > 0 {
			tries = fmt.Sprint(s.TriesLeft)
		}
		if s.Number > 0 {
			entry = fmt.Sprint(s.Number)
		}
		if s.RootHash != "" {
			root = fmt.Sprintf("%.12s", s.RootHash)
		}
		tw.row("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, release, s.State, tries, entry, root, s.Text)
	}
	tw.Flush()
	if all.Assessment != "" {
		text := all.Assessment
		if all.Why != "" {
			text += ": " + all.Why
		}
		fmt.Fprintf(w, "boot assessment: %s\n", text)
	}
	if all.Busy != "" {
		fmt.Fprintf(w, "update: %s\n", all.Busy)
	}
	if all.RebootAt.IsValid() && all.RebootAt.GetSeconds() > 0 {
		fmt.Fprintf(w, "reboot: at %s\n", all.RebootAt.AsTime().Local().Format("2006-01-02 15:04 MST"))
	}
}
