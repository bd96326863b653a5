package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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
			"the command. Operators who were invited are invited anew. The old folder is needed until all nodes are over.\n" +
			"A fleet has one successor: the folders of this computer and the nodes are asked first whether there is one.",
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
	var missed, elsewhere []string
	for _, n := range told {
		switch {
		case n.Err == nil:
			continue
		case errors.Is(n.Err, operate.ErrElsewhere):
			elsewhere = append(elsewhere, n.Node)
		default:
			missed = append(missed, n.Node)
		}
		fmt.Fprintf(out, "not over: %v\n", nodeError(n.Node, n.Err))
	}
	over := len(told) - len(missed) - len(elsewhere)
	switch {
	case len(elsewhere) > 0:
		return hinted{fmt.Errorf("fleet %s: %s are in it, %d are in another successor: %s, and %d have not come over: %s", as, count(over, "node"), len(elsewhere), names(elsewhere), len(missed), names(missed)),
			"the old fleet has two successors: kogge fleet list shows those of this computer. A node goes over once; one in the wrong fleet is reset, and adopted anew"}
	case len(missed) > 0:
		return hinted{fmt.Errorf("fleet %s: %s are in it, and %d have not come over: %s", as, count(over, "node"), len(missed), names(missed)), "repeat the command when they can be reached"}
	}
	fmt.Fprintf(out, "%s are in it. Next:\n  kogge fleet found --all-adopted --fleet %s\nKeep the folder %s while a node may be in the old fleet: other computers may know of more. Its recovery sheets are the new fleet's, too.\n", count(over, "node"), as, old.Dir)
	return nil
}

// names is a list for people.
func names(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// makeSuccessor has the owner sign the successor of a fleet.
func makeSuccessor(ctx context.Context, old *keyring.Keyring, name, dir string, owner *ownerFlags) (*keyring.Keyring, error) {
	if !old.Genesis.Alone() {
		return nil, hinted{fmt.Errorf("fleet %s is of version 2: it can be founded as it is", name), "kogge fleet found --all-adopted --fleet " + name}
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s %w", dir, keyring.ErrExists)
	}
	if err := noSuccessor(ctx, old, name); err != nil {
		return nil, err
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

// noSuccessor wants a fleet to have no successor yet: in no folder here, and on no node that is
// reached. Its nodes follow one alone.
func noSuccessor(ctx context.Context, old *keyring.Keyring, name string) error {
	root, err := configDir()
	if err != nil {
		return err
	}
	folders, err := keyring.List(root)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if f, err := keyring.Load(filepath.Join(root, folder)); err == nil && f.Genesis.Predecessor.String() == old.Genesis.ID() {
			return hinted{fmt.Errorf("fleet %s has a successor already: fleet %s, %s", name, folder, f.Genesis.ID()), "take its nodes into that one: kogge fleet upgrade " + name + " --as " + folder}
		}
	}
	nodes, err := operate.Nodes(old)
	if err != nil {
		return err
	}
	told, err := operate.Remain(ctx, old, slices.Sorted(maps.Keys(nodes)))
	if err != nil {
		return err
	}
	silent := 0
	for _, n := range told {
		switch {
		case errors.Is(n.Err, operate.ErrElsewhere):
			return hinted{fmt.Errorf("fleet %s, %s, has a successor already: node %s: %w", name, old.Genesis.ID(), n.Node, n.Err), "go on at the computer that has this fleet's folder"}
		case n.Err != nil:
			silent++
			say("not asked which fleet it is in: %v", nodeError(n.Node, n.Err))
		}
	}
	if len(told) > 0 && silent == len(told) {
		return hinted{fmt.Errorf("fleet %s: none of its nodes answers: another computer may have made its successor already", name), "repeat the command when one of them can be reached"}
	}
	return nil
}
