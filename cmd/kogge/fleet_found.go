package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/ledger"
)

// foundFlags are the flags of kogge fleet found.
type foundFlags struct {
	target
	owner   ownerFlags
	all     bool
	members []string
	spares  []string
	domains map[string]string
}

func fleetFoundCommand() *cobra.Command {
	var f foundFlags
	cmd := &cobra.Command{
		Use:   "found NODE... | --all-adopted",
		Short: "Found the fleet: its first seats, and its ledger",
		Long: "Asks adopted nodes for the keys of their seats, writes the first record of the fleet's ledger, has the owner sign\n" +
			"it, and gives it to the nodes. Each node named has a seat with a vote from then on. Of them 1, 3 or 5 run etcd.\n" +
			"A fleet is founded once: all nodes that this computer knows are asked first whether it is. If a node cannot be\n" +
			"reached, repeat the command: it gives out the same record, from any computer that has the fleet's folder.\n" +
			"The owner signs with the owner keys in the fleet's folder, and with recovery sheets (--sheet).",
		Example: "  kogge fleet found n1 n2 n3 --sheet recovery-2.txt\n" +
			"  kogge fleet found --all-adopted --domain n1=attic --domain n2=cellar --sheet recovery-2.txt",
		Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.all == (len(args) > 0) {
				return usage{hinted{errors.New("fleet found: which nodes?"), "kogge fleet found n1 n2 n3, or --all-adopted"}}
			}
			ring, err := f.openFleet()
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), ring, args, cmd.OutOrStdout())
		},
	}
	f.fleetFlag(cmd)
	f.owner.register(cmd)
	cmd.Flags().BoolVar(&f.all, "all-adopted", false, "found it with all nodes that this computer knows")
	cmd.Flags().StringSliceVar(&f.members, "member", nil, "`NODE` that runs etcd: 1, 3 or 5 of them (default: the first that can, in domains of their own)")
	cmd.Flags().StringSliceVar(&f.spares, "spare", nil, "`NODE` that runs etcd when a member is lost")
	cmd.Flags().StringToStringVar(&f.domains, "domain", nil, "`NODE=DOMAIN`: what fails together with a node, as a house or a rack")
	return cmd
}

func (f *foundFlags) run(ctx context.Context, ring *keyring.Keyring, names []string, out io.Writer) error {
	known, err := operate.Nodes(ring)
	if err != nil {
		return err
	}
	if f.all {
		names = slices.Sorted(maps.Keys(known))
	}
	if err := f.ask(ctx, ring, slices.Sorted(maps.Keys(known)), names, out); err != nil {
		return err
	}
	l, entries, err := operate.Ledger(ring)
	if err != nil {
		return err
	}
	if l.State().Height == 0 {
		if l, entries, err = f.found(ctx, ring, names); err != nil {
			return err
		}
		fmt.Fprintf(out, "Fleet %s is founded.\n", ring.Genesis.Name)
	} else {
		fmt.Fprintf(out, "Fleet %s is founded already: its first record is given out again.\n", ring.Genesis.Name)
	}
	if err := printRoster(out, l.State()); err != nil {
		return err
	}
	return f.give(ctx, ring, l.State(), entries, slices.Sorted(maps.Keys(known)), out)
}

// ask asks all nodes that this computer knows for the ledger, before anything is founded:
// another computer may have done it. A node that does not answer keeps nobody from it, unless
// it is one of the founders; one that answers and cannot say does.
func (f *foundFlags) ask(ctx context.Context, ring *keyring.Keyring, known, founders []string, out io.Writer) error {
	told, err := operate.Gather(ctx, ring, known, notice)
	if err != nil {
		return err
	}
	var unsure error
	for _, n := range told {
		switch {
		case n.Err == nil, slices.Contains(founders, n.Node): // found says what is wrong with those
		case connect.CodeOf(n.Err) == connect.CodeFailedPrecondition:
			unsure = errors.Join(unsure, nodeError(n.Node, n.Err))
		default:
			fmt.Fprintf(out, "node %s could not be asked whether the fleet is founded: %v\n", n.Node, n.Err)
		}
	}
	return unsure
}

// found makes the first record.
func (f *foundFlags) found(ctx context.Context, ring *keyring.Keyring, names []string) (*ledger.Log, []ledger.Entry, error) {
	if ring.Genesis.Alone() {
		return nil, nil, hinted{fmt.Errorf("fleet %s: its genesis is of version 1, and such a fleet has no ledger", ring.Genesis.Name), "kogge fleet upgrade makes one of it that has"}
	}
	owner, err := f.owner.open(ctx, ring) // before the nodes are asked for their keys
	if err != nil {
		return nil, nil, err
	}
	applicants, err := operate.Applicants(ctx, ring, names, notice)
	if err != nil {
		return nil, nil, err
	}
	operators, err := operate.Operators(ring)
	if err != nil {
		return nil, nil, err
	}
	v, err := operate.Plan(ring.Genesis, operators, applicants, operate.Wish{Members: f.members, Spares: f.spares, Domains: f.domains})
	if err != nil {
		return nil, nil, err
	}
	if _, err := operate.Found(ring, v, owner); err != nil {
		return nil, nil, err
	}
	return operate.Ledger(ring)
}

// give gives the ledger to all that have a seat, and to the others that this computer knows: a
// node without the first record takes itself for alone, and needs nobody's leave to update.
func (f *foundFlags) give(ctx context.Context, ring *keyring.Keyring, s ledger.State, entries []ledger.Entry, known []string, out io.Writer) error {
	var names []string
	for _, seat := range s.Roster.Seats {
		names = append(names, seat.Name)
	}
	for _, name := range known {
		if _, seated := s.Roster.ByName(name); !seated {
			names = append(names, name)
		}
	}
	told, err := operate.Give(ctx, ring, names, entries, notice)
	if err != nil {
		return err
	}
	var missed []string
	for _, n := range told {
		if n.Err != nil {
			missed = append(missed, n.Node)
			fmt.Fprintf(out, "node %s has not taken it: %v\n", n.Node, n.Err)
		}
	}
	if len(missed) > 0 {
		return hinted{fmt.Errorf("fleet %s: %d of %s have not taken the first record: %s", s.Genesis.Name, len(missed), count(len(told), "node"), strings.Join(missed, ", ")),
			"repeat the command when they can be reached"}
	}
	fmt.Fprintf(out, "%s have taken the first record. kogge ledger log shows it.\n", count(len(told), "node"))
	return nil
}

// printRoster says who has a seat, and what that means.
func printRoster(out io.Writer, s ledger.State) error {
	r := s.Roster
	fmt.Fprintf(out, "%s; %d decide (%s), %d may be off, %s.\n\n", count(r.Votes(), "vote"), r.Quorum(), r.Rule, r.Votes()-r.Quorum(), mayLie(r.Liars()))
	t := newTable(out)
	t.head("SEAT\tNODE\tVOTE\tETCD\tDOMAIN\tKEY")
	for _, seat := range r.Seats {
		vote := "-"
		if seat.Vote {
			vote = "yes"
		}
		t.row("%d\t%s\t%s\t%s\t%s\t%s\n", seat.Number, seat.Name, vote, cmp.Or(etcdOf(seat), "-"), seat.DomainOf(), seat.Key.ID().Short())
	}
	err := t.Flush()
	fmt.Fprintln(out)
	return err
}
