package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

// notice says on a line what operate does by the way of a call.
func notice(n operate.Notice) {
	until := n.Until.Local().Format(time.DateOnly)
	switch {
	case n.Err != nil && n.Until.IsZero():
		say("%v", n.Err)
	case n.Err != nil: // no error of what was asked: the old one may do for months
		say("the certificate of node %s is good until %s; renew it: %v", n.Node, until, nodeError(n.Node, n.Err))
	case n.Over:
		say("renewed: the certificate of node %s had expired, and is now good until %s", n.Node, until)
	default:
		say("renewed: the certificate of node %s is good until %s", n.Node, until)
	}
}

// overHint adds what to do about a node whose certificate is over, where this computer
// cannot renew it, or where its clock is wrong.
func overHint(name string, err error) error {
	switch {
	case errors.Is(err, fleet.ErrExpired):
		return hinted{err, "renew its certificate on the computer where the fleet was created, or have another admin with the node CA's key do it: kogge node renew " + name}
	case errors.Is(err, fleet.ErrClock):
		return hinted{err, "set the clock of this computer, or wait until it is set"}
	}
	return err
}

func nodeRenewCommand() *cobra.Command {
	var t target
	var all bool
	cmd := &cobra.Command{
		Use:   "renew [NODE]",
		Short: "Renew a node's certificate",
		Long: "Gives a node a certificate for another year, signed with the node CA's key in this folder; with --all each node\n" +
			"that this computer knows. In the last third of a certificate's life, and after it has expired, any command that\n" +
			"calls the node renews it first, and says so: this command is for nodes that are seldom called.",
		Example: "  kogge node renew n1\n  kogge node renew --all",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				t.node = args[0]
			}
			if all && t.node != "" {
				return errors.New("node renew: name a node or add --all, not both")
			}
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			if !operate.CanRenew(f) {
				return hinted{fmt.Errorf("node renew: fleet %s: only an admin who has the node CA's key can sign nodes", t.fleet), "do this on the computer where the fleet was created; kogge fleet show " + t.fleet + " lists the keys that are here"}
			}
			nodes, err := operate.Nodes(f)
			if err != nil {
				return err
			}
			if !all {
				_, known, err := t.resolve()
				if err != nil {
					return err
				}
				nodes = map[string]operate.Node{t.node: known}
			}
			if len(nodes) == 0 {
				say("this computer knows no node of fleet %s yet", t.fleet)
			}
			return renewNodes(cmd.Context(), f, nodes, t.via, cmd.OutOrStdout())
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every node that this computer knows")
	return cmd
}

// renewNodes renews the certificates of nodes, and prints how it went.
func renewNodes(ctx context.Context, ring *keyring.Keyring, nodes map[string]operate.Node, via string, out io.Writer) error {
	all := operate.RenewAll(ctx, ring, nodes, via)
	if len(all) == 1 && all[0].Err != nil {
		return nodeError(all[0].Node, overHint(all[0].Node, all[0].Err))
	}
	missed := 0
	w := newTable(out)
	for _, r := range all {
		if r.Err != nil {
			missed++
			w.row("%s\tnot renewed: %v\n", r.Node, r.Err)
			continue
		}
		w.row("%s\tgood until %s\n", r.Node, r.Until.Local().Format(time.DateOnly))
	}
	if err := w.Flush(); err != nil || missed == 0 {
		return err
	}
	return fmt.Errorf("node renew: %d of %s not renewed", missed, count(len(all), "node"))
}
