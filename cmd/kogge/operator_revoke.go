package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
)

func operatorRevokeCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke an operator",
		Long: "Revokes every key of an operator, withdraws their open invitations, and tells each node that this computer\n" +
			"knows (kogge node list). Nodes end what runs under those keys. A node that is adopted later learns of it then.\n" +
			"If a node cannot be reached, it is named: repeat the command until all of them know. Each time it passes on\n" +
			"all revocations so far.\n" +
			"Revoking is final: an operator who returns needs a new invitation, and makes a new key.",
		Example: "  kogge operator revoke bob --fleet hanse",
		Args:    exactly("NAME"), ValidArgsFunction: t.completeOperators,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			return revoke(cmd.Context(), f, t.fleet, args[0], cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	return cmd
}

// completeOperators offers those who can be revoked.
func (t *target) completeOperators(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if f, err := t.openFleet(); err == nil && len(args) == 0 {
		rows, _ := operatorRows(f, time.Now())
		for _, r := range rows {
			if r.Revoked == nil && !r.You {
				names = append(names, r.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

func revoke(ctx context.Context, ring *keyring.Keyring, fleetName, name string, out io.Writer) error {
	done, err := operate.Revoke(ring, name, time.Now())
	switch {
	case errors.Is(err, keyring.ErrNoKey):
		return hinted{fmt.Errorf("operator revoke: another computer signs the operators of fleet %s", fleetName), "do this on the computer where " + name + " was signed"}
	case errors.Is(err, keyring.ErrNoOperator):
		return hinted{err, "kogge operator list " + fleetName}
	case err != nil:
		return err
	case done.Keys == 0:
		fmt.Fprintf(out, "The invitation of %s into fleet %s is withdrawn; nobody had used it.\n", name, fleetName)
		return nil
	}
	fmt.Fprintf(out, "%s is revoked in fleet %s (%s).\n", name, fleetName, count(done.Keys, "key"))
	if done.Withdrawn > 0 {
		fmt.Fprintf(out, "%s withdrawn.\n", count(done.Withdrawn, "open invitation"))
	}
	if l, _, err := operate.Ledger(ring); err == nil && l.State().Height > 0 {
		fmt.Fprintf(out, "Tokens that %[1]s gave out let in nobody more, and what %[1]s has ordered about nodes counts no more: kogge fleet status\nsays what is isolated now, and which nodes that %[1]s accepted are to be accepted anew. Nodes that are in the fleet stay:\nkogge fleet nodes lists them.\n", name)
	}
	nodes, err := operate.TellRevoked(ctx, ring, notice)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		fmt.Fprintf(out, "This computer knows no node of the fleet. Nodes that are adopted later learn of it then.\n")
		return nil
	}
	missed, err := printTold(out, fleetName, nodes)
	if err != nil || len(missed) == 0 {
		return err
	}
	err = fmt.Errorf("operator %s: %d of %s not told: %s", name, len(missed), count(len(nodes), "node"), strings.Join(missed, ", "))
	return hinted{err, name + " can still operate them; repeat this when they can be reached: kogge operator revoke " + name + " --fleet " + fleetName}
}

// printTold prints which nodes know who is revoked, and returns the names of those that do
// not. What some of them say of other keys is a warning.
func printTold(out io.Writer, fleetName string, nodes []operate.Told) (missed []string, err error) {
	w := newTable(out)
	for _, n := range nodes {
		if n.Err == nil {
			adopt := "kogge node adopt " + n.Address + " --fleet " + fleetName
			if n.Other.GetForgets() {
				say("Node %s cannot read any more who was revoked before: %s --all-revoked", n.Node, adopt)
			}
			if told := len(n.Other.GetTold()); told > 0 {
				say("Node %s turns away %s more on a member's word alone. This shows which: %s", n.Node, count(told, "key"), adopt)
			}
			w.row("  %s\ttold\n", n.Node)
			continue
		}
		missed = append(missed, n.Node)
		text := n.Err.Error()
		if said := (*connect.Error)(nil); errors.As(n.Err, &said) {
			text = said.Message()
		}
		w.row("  %s\tnot told: %s\n", n.Node, text)
	}
	return missed, w.Flush()
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
