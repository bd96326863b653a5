package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/care"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/order"
)

// absentCommand orders a state of a node that is absent on purpose, or that it is back.
func absentCommand(use string, state order.State, short, long string, examples string) *cobra.Command {
	var t target
	var until, why string
	cmd := &cobra.Command{
		Use: use + " NODE", Short: short, Args: exactly("NODE"), ValidArgsFunction: t.completeNodes,
		Long: long, Example: examples,
		RunE: func(cmd *cobra.Command, args []string) error {
			end, err := parseUntil(until, time.Now())
			if err != nil {
				return usage{err}
			}
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return absent(cmd.Context(), ring, args[0], order.Absence{State: state, Until: end, Why: why}, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	if state == order.Away {
		cmd.Flags().StringVar(&until, "until", "", "when that is over by itself: a `TIME` from now, as 48h, or a date, as 2026-12-24")
	}
	cmd.Flags().StringVar(&why, "why", "", "a `REASON`, which all operators see")
	return cmd
}

func nodeAwayCommand() *cobra.Command {
	return absentCommand("away", order.Away, "Say that a node is silent on purpose",
		"Until it is back, the fleet takes the silence of the node for what it is: nobody is alarmed, and no spare takes its\n"+
			"place in etcd. Its etcd hands the lead over, if another node can lead. Its vote counts as absent all the same.",
		"  kogge node away n3 --until 48h --why power\n  kogge node away n3 --until 2026-12-24")
}

func nodeCordonCommand() *cobra.Command {
	return absentCommand("cordon", order.Cordoned, "Say that a node is to get nothing new to do",
		"Marks the node for all operators and nodes. What runs on it goes on. Until the fleet places containers by itself,\n"+
			"who applies a project to a node by its name is not held up.",
		"  kogge node cordon n3 --why noisy")
}

func nodeDrainCommand() *cobra.Command {
	return absentCommand("drain", order.Drained, "Say that a node is to get nothing new to do, and to lead nothing",
		"As kogge node cordon, and its etcd hands the lead over to another node, if one can lead. Its containers go on: until\n"+
			"the fleet places containers by itself, no other node would start them.",
		"  kogge node drain n3 --why disk")
}

func nodeBackCommand() *cobra.Command {
	return absentCommand("back", order.Present, "Take back that a node is away, cordoned or drained",
		"Takes back what kogge node away, cordon or drain has ordered, whoever has.",
		"  kogge node back n3")
}

// longestAway is how long a node can be away, at most.
const longestAway = 366 * 24 * time.Hour

// parseUntil reads when something is over: a time from now, a date here, or a time of RFC 3339.
// Zero: nobody says.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.ParseInLocation(time.DateOnly, text, now.Location())
	if err != nil {
		at, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		var d time.Duration
		if d, err = time.ParseDuration(text); err == nil {
			at = now.Add(d)
		}
	}
	switch {
	case err != nil:
		return time.Time{}, hinted{fmt.Errorf("--until %.40q is no time", text), "use one from now, as 48h, a date, as 2026-12-24, or both, as 2026-12-24T18:00:00+01:00"}
	case !at.After(now):
		return time.Time{}, fmt.Errorf("--until %s has passed", text)
	case at.Sub(now) > longestAway:
		return time.Time{}, errors.New("--until is more than a year from now: without it a node is away until kogge node back")
	}
	return at.UTC().Truncate(time.Second), nil
}

// absent orders that a node is absent as o says.
func absent(ctx context.Context, ring *keyring.Keyring, node string, o order.Absence, out io.Writer) error {
	c, err := care.Prepare(ctx, ring, order.AbsenceKind, node, notice)
	if err != nil {
		return orderHint(ring, err)
	}
	o.Seat, o.Key = c.Seat.Number, c.Seat.Key
	if err := c.Seal(o, time.Now()); err != nil {
		return orderHint(ring, err)
	}
	what := "back"
	if o.State != order.Present {
		what = string(o.State)
	}
	if !o.Until.IsZero() {
		what += " until " + o.Until.Local().Format("2006-01-02 15:04:05 MST")
	}
	return giveOrder(ctx, ring, c, what, out)
}
