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

func psCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "ps [NODE]", Short: "List the containers of a node", Args: cobra.MaximumNArgs(1),
		Example: "  kogge ps\n  kogge ps n1 --json", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printContainers(w, answer.Msg, time.Now()) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printContainers(w io.Writer, list *apiv1.ListResponse, now time.Time) {
	tw := newTable(w)
	tw.head("NAME\tIMAGE\tSTATE\tHEALTH\tFOR\tNETWORKS\tPORTS\tEXITS\tREASON")
	for _, c := range list.Containers {
		since, health := "", c.Health
		if c.Started.IsValid() && c.Started.GetSeconds() > 0 {
			since = age(max(0, now.Sub(c.Started.AsTime())))
		}
		if health == "" {
			health = "-"
		}
		tw.row("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", c.Name, c.Image, stateOf(c), health, since, networks(c), strings.Join(c.Ports, " "), c.Exits, c.Reason)
	}
	tw.Flush()
	if list.Trouble != "" {
		fmt.Fprintln(w, "trouble: "+cell(list.Trouble))
	}
}

// stateOf is a container's state; of one that waits for its image, how far that is.
func stateOf(c *apiv1.Container) string {
	done, total := c.Pull.GetDone(), c.Pull.GetTotal()
	switch {
	case c.Pull == nil:
		return c.State
	case total == 0:
		return "pulling"
	case done < total:
		return fmt.Sprintf("pulling %d%%", 100*done/total)
	}
	return "unpacking"
}

// networks that a container is on, with its addresses; one of its own project by its
// name in there.
func networks(c *apiv1.Container) string {
	var all []string
	for _, n := range c.Networks {
		all = append(all, strings.TrimPrefix(n.Name, c.Project+".")+"="+n.Address)
	}
	return strings.Join(all, " ")
}
