package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/care"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/order"
)

func fleetIsolateCommand() *cobra.Command {
	var t target
	var owner ownerFlags
	var why string
	cmd := &cobra.Command{
		Use: "isolate NODE", Short: "Cut a node off from all others at once", Args: exactly("NODE"), ValidArgsFunction: t.completeNodes,
		Long: "Orders that no node of the fleet has a session with this one, answers its calls or lets its etcd in. Operators with\n" +
			"the role admin may. The order goes to all nodes in reach, which pass it on, keep it, and follow it within a minute.\n" +
			"What the node signs is still passed on and counted: its vote ends only by a decision of the fleet. Operators alone\n" +
			"may isolate as many seats as may lie (kogge fleet status), and never half of those that run etcd. For more the\n" +
			"owner signs, too: with the owner keys in the fleet's folder, and with recovery sheets (--sheet).",
		Example: "  kogge fleet isolate n3 --why stolen\n  kogge fleet isolate n3 --sheet recovery-2.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return isolate(cmd.Context(), ring, args[0], why, true, &owner, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	owner.register(cmd)
	cmd.Flags().StringVar(&why, "why", "", "a `REASON`, which all operators see")
	return cmd
}

func fleetRejoinCommand() *cobra.Command {
	var t target
	var why string
	cmd := &cobra.Command{
		Use: "rejoin NODE", Short: "Let a node back in that was isolated", Args: exactly("NODE"), ValidArgsFunction: t.completeNodes,
		Long:    "Takes back what kogge fleet isolate has ordered, whoever has. Operators with the role admin may.",
		Example: "  kogge fleet rejoin n3",
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return isolate(cmd.Context(), ring, args[0], why, false, nil, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&why, "why", "", "a `REASON`, which all operators see")
	return cmd
}

// isolate orders that a node is isolated, or that it is not any more.
func isolate(ctx context.Context, ring *keyring.Keyring, node, why string, on bool, owner *ownerFlags, out io.Writer) error {
	c, err := care.Prepare(ctx, ring, order.IsolationKind, node, notice)
	if err != nil {
		return orderHint(ring, err)
	}
	o := order.Isolation{Seat: c.Seat.Number, Key: c.Seat.Key, Isolated: on, Why: why}
	if owner != nil && len(owner.sheets) > 0 {
		keys, err := owner.open(ctx, ring)
		if err != nil {
			return err
		}
		o.Owners = keys.Sign(order.OwnersBytes(c.Fleet(), c.Seat.Key, c.Number), ring.Genesis.Threshold)
	}
	if err := c.Seal(o, time.Now()); err != nil {
		return orderHint(ring, err)
	}
	what := isIsolated
	if !on {
		what = "not isolated any more"
	}
	return giveOrder(ctx, ring, c, what, out)
}

// giveOrder brings an order to the nodes, and says who has it.
func giveOrder(ctx context.Context, ring *keyring.Keyring, c *care.Command, what string, out io.Writer) error {
	told, err := c.Give(ctx, notice)
	if err != nil {
		return err
	}
	text, err := orderGiven(c.Seat.Name, what, told, c.Counts(time.Now()))
	fmt.Fprint(out, text)
	return orderHint(ring, err)
}

// isIsolated is what becomes of a node by kogge fleet isolate.
const isIsolated = "isolated"

// orderGiven says what became of an order about a node: how each node took it, and why it does not
// count beside those that these have.
func orderGiven(node, what string, told []operate.Told, doubt error) (string, error) {
	var b strings.Builder
	var has, follows, lacks []string
	cut := false // off from the others, it hears of no order
	for _, n := range told {
		switch {
		case n.Err == nil:
			has = append(has, n.Node)
		case errors.Is(n.Err, care.ErrUnkept):
			follows = append(follows, n.Node)
			fmt.Fprintln(&b, nodeError(n.Node, n.Err))
		default:
			why := strings.TrimPrefix(nodeError(n.Node, n.Err).Error(), "node "+n.Node+": ")
			fmt.Fprintf(&b, "node %s has not taken it: %s\n", n.Node, why)
			if cut = cut || n.Node == node && what == isIsolated; n.Node != node || !cut {
				lacks = append(lacks, n.Node)
			}
		}
	}
	switch {
	case doubt != nil:
		return b.String(), fmt.Errorf("the order does not count: %w", doubt)
	case len(has)+len(follows) == 0:
		return b.String(), hinted{fmt.Errorf("node %s: no node of the fleet has taken the order", node), "repeat the command where one can be reached"}
	case len(has) == 0:
		return b.String(), hinted{
			fmt.Errorf("node %s is %s, until the nodes that follow the order start anew: the disk of none of them keeps it", node, what),
			"make room on their disks, where the order is written then: kogge node status tells how full they are",
		}
	}
	fmt.Fprintf(&b, "Node %s is %s. The order lies on %s: %s.\n", node, what, count(len(has), "node"), strings.Join(has, ", "))
	if len(lacks) > 0 {
		fmt.Fprintf(&b, "These get it from there: %s.\n", strings.Join(lacks, ", "))
	}
	if cut {
		fmt.Fprintf(&b, "Node %s itself does not get it from them: none of them has a session with it.\n", node)
	}
	return b.String(), nil
}

// orderHint adds what to do about an order that cannot be given.
func orderHint(ring *keyring.Keyring, err error) error {
	switch {
	case errors.As(err, new(hinted)):
		return err
	case errors.Is(err, care.ErrNoSeat):
		return hinted{err, "kogge fleet nodes lists the seats"}
	case errors.Is(err, care.ErrNewer):
		return hinted{err, "kogge fleet status shows which one counts; repeat the command to take its place"}
	case errors.Is(err, care.ErrBeyond):
		hint := "the owner may: add --sheet FILE; or let another one back in: kogge fleet rejoin NODE"
		if there := ring.Sheets(); len(there) > 0 {
			hint = "the owner may: add --sheet " + there[0] + "; or let another one back in: kogge fleet rejoin NODE"
		}
		return hinted{err, hint}
	case errors.Is(err, order.ErrOrder):
		return hinted{err, "kogge help roles tells who may do what; kogge ledger show lists the fleet's operators"}
	}
	return err
}
