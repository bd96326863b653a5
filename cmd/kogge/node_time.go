package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func nodeTimeCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "time [NODE]", Short: "Show a node's clock and its time source, or set it", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node time n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, way, err := askTime(ctx, c)
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer, func(w io.Writer) { printTime(w, answer, time.Now().Add(-way)) })
			})
		},
	}
	t.register(cmd)
	cmd.AddCommand(timeSetCommand())
	return cmd
}

// askTime asks for the node's time; way is how long the answer travelled, about.
func askTime(ctx context.Context, c *api.Client) (answer *apiv1.GetTimeResponse, way time.Duration, err error) {
	// The first call also opens the connection.
	for range 2 {
		began := time.Now()
		a, err := c.GetTime(ctx, connect.NewRequest(&apiv1.GetTimeRequest{}))
		if err != nil {
			return nil, 0, err
		}
		answer, way = a.Msg, time.Since(began)/2
	}
	return answer, way, nil
}

// printTime shows the clock to people. now is this computer's time of the answer.
func printTime(w io.Writer, s *apiv1.GetTimeResponse, now time.Time) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("time", "%s, %s from this computer's", stamp(s.Time), signed(s.Time.AsTime().Sub(now)))
	source := "none: the clock runs on its own"
	switch {
	case s.Sure:
		source = s.Source
	case s.Problem != "":
		source = "none: " + s.Problem
	case len(s.Servers) > 0:
		source = "none: no server answers"
	case s.ByHand != nil:
		source = "set by hand at " + stamp(s.ByHand)
	}
	row("source", "%s", source)
	row("in sync", "%s", map[bool]string{true: "yes", false: "no: the dates of certificates are not checked"}[s.Sure])
	if s.Polled != nil {
		row("offset", "%s at %s", signed(s.Offset.AsDuration()), stamp(s.Polled))
	}
	if s.Jumped != nil {
		row("set", "by %s at %s", signed(s.Jump.AsDuration()), stamp(s.Jumped))
	}
	if s.Saved != nil {
		row("saved", "%s", stamp(s.Saved))
	}
	row("floor", "%s", stamp(s.Floor))
	if len(s.Servers) == 0 {
		return
	}
	fmt.Fprintln(w)
	tw := newTable(w)
	defer tw.Flush()
	tw.head("SERVER\tSTRATUM\tOFFSET\tERROR")
	for _, server := range s.Servers {
		stratum, offset, off := "-", "-", "no good answer"
		for _, a := range s.Answers {
			if a.Server == server {
				stratum, offset, off = fmt.Sprint(a.Stratum), signed(a.Offset.AsDuration()), "±"+a.Error.AsDuration().Round(time.Microsecond).String()
			}
		}
		tw.row("%s\t%s\t%s\t%s\n", server, stratum, offset, off)
	}
}

func stamp(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339) }

// signed is a duration with its sign, in milliseconds where it is shorter than hours.
func signed(d time.Duration) string {
	to := time.Millisecond
	if d.Abs() >= time.Hour {
		to = time.Second
	}
	text := d.Round(to).String()
	if !strings.HasPrefix(text, "-") {
		text = "+" + text
	}
	return text
}

func timeSetCommand() *cobra.Command {
	var t target
	var fromHere, back bool
	cmd := &cobra.Command{
		Use: "set [TIME]", Short: "Set a node's clock by hand", Args: cobra.MaximumNArgs(1),
		Long: "Sets the clock of a node that has no battery for it and reaches no time server. TIME is written as in\n" +
			"2026-11-25T22:00:00Z; --from-here takes this computer's. The time holds until time servers agree on\n" +
			"another. A node whose clock follows servers refuses.",
		Example: "  kogge node time set --from-here --node n1\n  kogge node time set 2026-11-25T22:00:00Z --node n1",
		RunE: func(cmd *cobra.Command, args []string) error {
			var to time.Time
			switch {
			case fromHere == (len(args) == 1):
				return hinted{errors.New("node time set: give a TIME or --from-here, one of the two"), cmd.UseLine()}
			case !fromHere:
				var err error
				if to, err = time.Parse(time.RFC3339, args[0]); err != nil {
					return hinted{fmt.Errorf("node time set: %q is not a time", args[0]), "write it as " + time.Now().UTC().Format(time.RFC3339)}
				}
			}
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, way, err := askTime(ctx, c)
				if err != nil {
					return err
				}
				if fromHere {
					to = time.Now().Add(way)
				}
				answer, err := c.SetTime(ctx, connect.NewRequest(&apiv1.SetTimeRequest{Time: timestamppb.New(to), Back: back}))
				if err != nil && !back && api.ReasonOf(err) == apiv1.Reason_REASON_BEFORE_SAVED_TIME {
					return hinted{err, "if that time was wrong, add: --back"}
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s: %s, was %s\n", t.node, stamp(answer.Msg.Now), stamp(answer.Msg.Was))
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&fromHere, "from-here", false, "take the time of this computer")
	cmd.Flags().BoolVar(&back, "back", false, "accept a time before the one that the node saved last, or before a certificate begins")
	return cmd
}
