package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
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

func revoke(ctx context.Context, f *keyring.Keyring, fleetName, name string, out io.Writer) error {
	if f.HoldsCA(fleet.KindOperator) == keyring.Elsewhere {
		return hinted{fmt.Errorf("operator revoke: another computer signs the operators of fleet %s", fleetName), "do this on the computer where " + name + " was signed"}
	}
	withdrawn, err := f.Withdraw(name)
	if err != nil {
		return err
	}
	mine, err := f.RevokeOperator(name, time.Now())
	if errors.Is(err, keyring.ErrNoOperator) && withdrawn > 0 {
		fmt.Fprintf(out, "The invitation of %s into fleet %s is withdrawn; nobody had used it.\n", name, fleetName)
		return nil
	}
	if errors.Is(err, keyring.ErrNoOperator) {
		return hinted{err, "kogge operator list " + fleetName}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is revoked in fleet %s (%s).\n", name, fleetName, count(len(mine), "key"))
	if withdrawn > 0 {
		fmt.Fprintf(out, "%s withdrawn.\n", count(withdrawn, "open invitation"))
	}
	keys, err := revokedKeys(f)
	if err != nil {
		return err
	}
	nodes, err := readNodes(f)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		fmt.Fprintf(out, "This computer knows no node of the fleet. Nodes that are adopted later learn of it then.\n")
		return nil
	}
	missed, err := tellNodes(ctx, f, nodes, keys, out)
	if err != nil || len(missed) == 0 {
		return err
	}
	err = fmt.Errorf("operator %s: %d of %s not told: %s", name, len(missed), count(len(nodes), "node"), strings.Join(missed, ", "))
	return hinted{err, name + " can still operate them; repeat this when they can be reached: kogge operator revoke " + name + " --fleet " + fleetName}
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// revokedKeys are all keys that the fleet's folder has as revoked.
func revokedKeys(f *keyring.Keyring) ([]string, error) {
	people, err := f.Operators()
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, o := range people {
		if o.Revoked != nil {
			keys = append(keys, o.Key)
		}
	}
	return keys, nil
}

// tellNodes tells every node which keys are revoked, a few at a time, prints how it
// went and returns the names of those that do not know.
func tellNodes(ctx context.Context, f *keyring.Keyring, nodes map[string]knownNode, keys []string, out io.Writer) ([]string, error) {
	names := slices.Sorted(maps.Keys(nodes))
	answers := make([]error, len(names))
	each(len(names), func(i int) { answers[i] = tellNode(ctx, f, names[i], nodes[names[i]].Address, keys) })
	var missed []string
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for i, name := range names {
		if answers[i] == nil {
			fmt.Fprintf(w, "  %s\ttold\n", name)
			continue
		}
		missed = append(missed, name)
		fmt.Fprintf(w, "  %s\tnot told: %v\n", name, answers[i])
	}
	return missed, w.Flush()
}

// tellNode tells one node.
func tellNode(ctx context.Context, f *keyring.Keyring, name, address string, keys []string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := reach(ctx, f, name, address, func(ctx context.Context, c *api.Client) error {
		_, err := c.Revoke(ctx, connect.NewRequest(&apiv1.RevokeRequest{Keys: keys}))
		return err
	})
	if said := (*connect.Error)(nil); errors.As(err, &said) {
		return errors.New(said.Message())
	}
	return err
}
