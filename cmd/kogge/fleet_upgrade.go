package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

func fleetUpgradeCommand() *cobra.Command {
	var owner ownerFlags
	var as string
	cmd := &cobra.Command{
		Use:   "upgrade NAME --as NEW",
		Short: "Make a fleet of the first release one that can be founded",
		Long: "Fleets that a release before the ledger created cannot be founded. This makes a fleet that follows on one of\n" +
			"them, with the same owners and CAs, in a folder of its own; has the owner sign that it follows; and takes the\n" +
			"nodes along, which keep their names, their keys and all that runs there. If a node cannot be reached, repeat\n" +
			"the command. Operators who were invited are invited anew. The old folder is needed until all nodes are over.",
		Example: "  kogge fleet upgrade hanse --as hanse2 --sheet recovery-2.txt",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if as == "" {
				return usage{hinted{errors.New("fleet upgrade: no name for the new folder"), "add: --as NEW"}}
			}
			return fleetHint(upgradeFleet(cmd.Context(), args[0], as, &owner, cmd.OutOrStdout()), args[0])
		},
	}
	owner.register(cmd)
	cmd.Flags().StringVar(&as, "as", "", "name of the new fleet's folder on this computer")
	return cmd
}

func upgradeFleet(ctx context.Context, name, as string, owner *ownerFlags, out io.Writer) error {
	old, err := loadFleet(name)
	if err != nil {
		return err
	}
	dir, err := fleetDir(as)
	if err != nil {
		return err
	}
	next, err := keyring.Load(dir)
	switch {
	case errors.Is(err, keyring.ErrNoFleet):
		if next, err = makeSuccessor(ctx, old, name, dir, owner); err != nil {
			return err
		}
		fmt.Fprintf(out, "Fleet %s has a successor.\n  before  %s\n  now     %s\n  folder  %s\n\n", old.Genesis.Name, old.Genesis.ID(), next.Genesis.ID(), dir)
	case err != nil:
		return err
	case next.Genesis.Predecessor.String() != old.Genesis.ID():
		return hinted{fmt.Errorf("fleet %s (%s) does not follow on fleet %s (%s)", as, fleet.Short(next.Genesis.ID()), name, fleet.Short(old.Genesis.ID())), "choose another name: --as NEW"}
	}
	nodes, err := operate.Nodes(old)
	if err != nil {
		return err
	}
	told, err := operate.Succeed(ctx, old, next, slices.Sorted(maps.Keys(nodes)), notice)
	if err != nil {
		return err
	}
	var missed []string
	for _, n := range told {
		if n.Err != nil {
			missed = append(missed, n.Node)
			fmt.Fprintf(out, "node %s is still in the old fleet: %v\n", n.Node, nodeError(n.Node, n.Err))
		}
	}
	if len(missed) > 0 {
		return hinted{fmt.Errorf("fleet %s: %d of %s are still in the old fleet: %s", name, len(missed), count(len(told), "node"), strings.Join(missed, ", ")), "repeat the command when they can be reached"}
	}
	fmt.Fprintf(out, "%s are in it. Next:\n  kogge fleet found --all-adopted --fleet %s\nThe folder %s is of no use any more: keep its recovery sheets, which are the new fleet's too.\n", count(len(told), "node"), as, old.Dir)
	return nil
}

// makeSuccessor has the owner sign the successor of a fleet.
func makeSuccessor(ctx context.Context, old *keyring.Keyring, name, dir string, owner *ownerFlags) (*keyring.Keyring, error) {
	if !old.Genesis.Alone() {
		return nil, hinted{fmt.Errorf("fleet %s is of version 2: it can be founded as it is", name), "kogge fleet found --all-adopted --fleet " + name}
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s %w", dir, keyring.ErrExists)
	}
	keys, err := owner.open(ctx, old)
	if err != nil {
		return nil, err
	}
	if err := unlock(ctx, old, name, &owner.secret); err != nil {
		return nil, err
	}
	return old.Succeed(dir, fleet.DefaultPolicy(), keys, time.Now())
}
