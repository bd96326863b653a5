package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// renewLimit bounds a renewal that comes by the way.
const renewLimit = 10 * time.Second

// reach has do call the node called name. A node whose certificate is over gets a new
// one before, and one whose certificate will be over soon gets it afterwards, where
// this computer has the key to sign it.
func reach(ctx context.Context, f *keyring.Keyring, name, address string, do func(context.Context, *api.Client) error) error {
	client := api.Dial(address, name, f.Genesis, f.Certificate())
	defer client.Close()
	err := do(ctx, client)
	shown := client.Shown()
	if shown == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, fleet.ErrExpired) {
		if !renewsNodes(f) {
			return hinted{err, "renew its certificate on the computer where the fleet was created, or have another admin with the node CA's key do it: kogge node renew " + name}
		}
		limited, cancel := context.WithTimeout(ctx, renewLimit)
		defer cancel()
		if shown, err = renewNode(limited, f, name, address); err != nil {
			return err
		}
		say("renewed: the certificate of node %s had expired, and is now good until %s", name, shown.NotAfter.Local().Format(time.DateOnly))
		client.Close()
		return do(ctx, client)
	}
	if renewsNodes(f) && fleet.RenewDue(shown, f.Genesis.NodeCA, time.Now()) {
		limited, cancel := context.WithTimeout(ctx, renewLimit)
		defer cancel()
		next, failed := renewNode(limited, f, name, address)
		if failed != nil { // no error of what was asked: the old one may do for months
			say("the certificate of node %s is good until %s; renew it: %v", name, shown.NotAfter.Local().Format(time.DateOnly), nodeError(name, failed))
			return err
		}
		say("renewed: the certificate of node %s is good until %s", name, next.NotAfter.Local().Format(time.DateOnly))
		return err
	}
	if failed := noteUntil(f, name, shown); failed != nil {
		say("%v", failed)
	}
	return err
}

// renewsNodes says whether this computer can give nodes their certificates.
func renewsNodes(f *keyring.Keyring) bool {
	return f.HoldsCA(fleet.KindNode) == keyring.Open && f.Operator().Role == fleet.RoleAdmin
}

// renewNode gives a node a new certificate, and returns it.
func renewNode(ctx context.Context, f *keyring.Keyring, name, address string) (*x509.Certificate, error) {
	next, err := api.Renew(ctx, address, name, f.Genesis, f.Certificate(), func(old *x509.Certificate) ([]byte, error) {
		return f.RenewNode(old, time.Now())
	})
	if errors.Is(err, fleet.ErrClock) {
		err = hinted{err, "set the clock of this computer, or wait until it is set"}
	}
	if err != nil {
		return nil, err
	}
	return next, noteUntil(f, name, next)
}

// noteUntil remembers until when a node's certificate is good.
func noteUntil(f *keyring.Keyring, name string, shown *x509.Certificate) error {
	nodes, err := readNodes(f)
	if err != nil || nodes[name].Until.Equal(shown.NotAfter) {
		return err
	}
	return changeNodes(f, func(nodes map[string]knownNode) {
		if n, known := nodes[name]; known {
			n.Until = shown.NotAfter.UTC()
			nodes[name] = n
		}
	})
}

func nodeRenewCommand() *cobra.Command {
	var t target
	var all bool
	cmd := &cobra.Command{
		Use:   "renew [NODE]",
		Short: "Renew a node's certificate",
		Long: "Gives a node a certificate for another year, signed with the node CA's key in this folder; with --all each node\n" +
			"that this computer knows. Any call to a node does so by itself in the last third of a certificate's life, and\n" +
			"after it has expired: this command is for nodes that are seldom called.",
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
			if !renewsNodes(f) {
				return hinted{fmt.Errorf("node renew: fleet %s: only an admin who has the node CA's key can sign nodes", t.fleet), "do this on the computer where the fleet was created; kogge fleet show " + t.fleet + " lists the keys that are here"}
			}
			nodes, err := readNodes(f)
			if err != nil {
				return err
			}
			if !all {
				_, known, err := t.resolve()
				if err != nil {
					return err
				}
				nodes = map[string]knownNode{t.node: known}
			}
			if len(nodes) == 0 {
				say("this computer knows no node of fleet %s yet", t.fleet)
			}
			return renewNodes(cmd.Context(), f, nodes, cmd.OutOrStdout())
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every node that this computer knows")
	return cmd
}

// renewNodes renews the certificates of nodes, and prints how it went.
func renewNodes(ctx context.Context, f *keyring.Keyring, nodes map[string]knownNode, out io.Writer) error {
	names := slices.Sorted(maps.Keys(nodes))
	until, failed := make([]time.Time, len(names)), make([]error, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		next, err := renewNode(limited, f, names[i], nodes[names[i]].Address)
		if failed[i] = err; err == nil {
			until[i] = next.NotAfter
		}
	})
	if len(names) == 1 && failed[0] != nil {
		return nodeError(names[0], failed[0])
	}
	missed := 0
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for i, name := range names {
		if failed[i] != nil {
			missed++
			fmt.Fprintf(w, "%s\tnot renewed: %v\n", name, failed[i])
			continue
		}
		fmt.Fprintf(w, "%s\tgood until %s\n", name, until[i].Local().Format(time.DateOnly))
	}
	if err := w.Flush(); err != nil || missed == 0 {
		return err
	}
	return fmt.Errorf("node renew: %d of %s not renewed", missed, count(len(names), "node"))
}

// each does something for every number below n, a few at a time.
func each(n int, do func(i int)) {
	const atOnce = 16
	places := make(chan struct{}, atOnce)
	var done sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		done.Go(func() {
			defer func() { <-places }()
			do(i)
		})
	}
	done.Wait()
}
