package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
)

// foundFlags are the flags of kogge fleet found.
type foundFlags struct {
	target
	owner   ownerFlags
	consent consent
	all     bool
	list    string
	draft   string
	members []string
	spares  []string
	domains map[string]string
}

func fleetFoundCommand() *cobra.Command {
	var f foundFlags
	cmd := &cobra.Command{
		Use:   "found NODE... | --all-adopted | -f FILE",
		Short: "Found the fleet: its first seats, and its ledger",
		Long: "Asks adopted nodes for the keys of their seats, writes the first record of the fleet's ledger, shows who gets a\n" +
			"seat and who is an operator, has the owner sign it, and gives it to the nodes. Each node named has a seat with a\n" +
			"vote from then on. Of them 1, 3 or 5 run etcd: nodes whose disk is fast enough, which each of them measures first.\n" +
			"A fleet is founded once: all nodes that this computer knows are asked first whether it is, and the folder signs one\n" +
			"record 1. If a node cannot be reached, repeat the command: it gives out the same record, from any computer that has\n" +
			"the fleet's folder.\n" +
			"The owner signs with the owner keys in the fleet's folder, and with recovery sheets (--sheet). If the owner's keys\n" +
			"are in several places, --sign-with writes what is to be signed into a file, which travels: each of the others adds a\n" +
			"signature with kogge fleet sign, and the same command founds the fleet when they are enough.",
		Example: "  kogge fleet found n1 n2 n3 --sheet recovery-2.txt\n" +
			"  kogge fleet found --all-adopted --domain n1=attic --domain n2=cellar --sheet recovery-2.txt\n" +
			"  kogge fleet found -f nodes.txt --sign-with founding.txt",
		Args: cobra.ArbitraryArgs, ValidArgsFunction: f.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			named, err := f.named(cmd.Context(), args)
			if err != nil {
				return err
			}
			ring, err := f.openFleet()
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), ring, named, cmd.OutOrStdout())
		},
	}
	f.fleetFlag(cmd)
	f.owner.register(cmd)
	f.consent.register(cmd)
	cmd.Flags().BoolVar(&f.all, "all-adopted", false, "found it with all nodes that this computer knows")
	cmd.Flags().StringVarP(&f.list, "file", "f", "", "found it with the nodes that `FILE` names, a line each")
	cmd.Flags().StringVar(&f.draft, "sign-with", "", "`FILE` that owners in other places sign, too")
	cmd.Flags().StringSliceVar(&f.members, "member", nil, "`NODE` that runs etcd: 1, 3 or 5 of them (default: the first that can, in domains of their own)")
	cmd.Flags().StringSliceVar(&f.spares, "spare", nil, "`NODE` that runs etcd when a member is lost")
	cmd.Flags().StringToStringVar(&f.domains, "domain", nil, "`NODE=DOMAIN`: what fails together with a node, as a house or a rack")
	return cmd
}

func (f *foundFlags) run(ctx context.Context, ring *keyring.Keyring, names []string, out io.Writer) error {
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return err
	}
	known := slices.Sorted(maps.Keys(nodes))
	if f.all {
		names = known
	}
	silent, refused, err := ask(ctx, ring, known)
	if err != nil {
		return forkHint(err)
	}
	l, entries, err := operate.Ledger(ring)
	if err != nil {
		return err
	}
	shown := false // who gets a seat
	if l.State().Height == 0 {
		if refused != nil {
			return refused
		}
		var unasked []string
		for _, n := range silent {
			unasked = append(unasked, n.Node)
			fmt.Fprintf(out, "node %s could not be asked whether the fleet is founded: %v\n", n.Node, n.Err)
		}
		d, err := f.found(ctx, ring, names, unasked, out)
		if err != nil || !d.Enough() {
			return err
		}
		if l, entries, err = operate.Ledger(ring); err != nil {
			return err
		}
		fmt.Fprintf(out, "Fleet %s is founded.\n", ring.Genesis.Name)
		shown = !f.consent.given // who founded it was asked, with the roster
	} else {
		fmt.Fprintf(out, "Fleet %s is founded already: its first record is given out again.\n", ring.Genesis.Name)
	}
	if !shown {
		if err := printRoster(out, l.State()); err != nil {
			return err
		}
	}
	// One node that is off keeps no other from the node CA's key.
	return errors.Join(f.give(ctx, ring, l.State(), entries, known, out), hand(ctx, ring, l.State(), out))
}

// hand gives the node CA's key to the nodes that run etcd, or may: with it they let nodes in and
// renew them. That some have not got it is no failure of the founding: the others pass it on.
func hand(ctx context.Context, ring *keyring.Keyring, s ledger.State, out io.Writer) error {
	told, err := admission.Hand(ctx, ring, s, notice)
	if errors.Is(err, keyring.ErrNoKey) {
		say("the node CA's key is not on this computer: type the command again on the one that has it, so that nodes come in without it")
		return nil
	}
	if err != nil {
		return err
	}
	var hold []string
	for _, n := range told {
		if n.Err != nil { // the fleet is founded all the same, and the others pass it on
			say("node %s does not hold the node CA's key: %v", n.Node, n.Err)
			continue
		}
		hold = append(hold, n.Node)
	}
	if len(hold) == 0 {
		say("no node holds the node CA's key, so none lets others in: repeat the command when they can be reached")
		return nil
	}
	_, err = fmt.Fprintf(out, "The node CA's key is with %s: nodes come in by a token, and are renewed, without this computer.\n", strings.Join(hold, ", "))
	return err
}

// ask asks all nodes that this computer knows for the ledger, before anything is founded:
// another computer may have done it. It returns those that could not be asked, which people are
// to judge. One that answers and does not say is refused: it may know of a founding.
func ask(ctx context.Context, ring *keyring.Keyring, known []string) (silent []operate.Told, refused, err error) {
	told, err := operate.Gather(ctx, ring, known, notice)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range told {
		switch {
		case n.Err == nil:
		case api.ReasonOf(n.Err) == apiv1.Reason_REASON_UNLISTED:
			refused = errors.Join(refused, fmt.Errorf("fleet %s is founded already: %w", ring.Genesis.Name, nodeError(n.Node, n.Err)))
		case n.Answered():
			refused = errors.Join(refused, nodeError(n.Node, n.Err))
		default:
			silent = append(silent, n)
		}
	}
	return silent, refused, nil
}

// named are the nodes that the command names.
func (f *foundFlags) named(ctx context.Context, args []string) ([]string, error) {
	ways := 0
	for _, is := range []bool{f.all, f.list != "", len(args) > 0} {
		if is {
			ways++
		}
	}
	if ways != 1 {
		return nil, usage{hinted{errors.New("fleet found: which nodes?"), "kogge fleet found n1 n2 n3, or --all-adopted, or -f FILE"}}
	}
	if f.list == "" {
		return args, nil
	}
	text, err := readInput(ctx, f.list, maxInput)
	if err != nil {
		return nil, fmt.Errorf("fleet found: %w", err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := fleet.CheckName(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.list, i+1, err)
		}
		args = append(args, line)
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("%s names no node", f.list)
	}
	return args, nil
}

// found makes the first record, if enough owner keys are here or have signed elsewhere. Else it
// writes what they are to sign.
func (f *foundFlags) found(ctx context.Context, ring *keyring.Keyring, names, unasked []string, out io.Writer) (ledger.Draft, error) {
	if ring.Genesis.Alone() {
		return ledger.Draft{}, hinted{fmt.Errorf("fleet %s: its genesis is of version 1, and such a fleet has no ledger", ring.Genesis.Name), "kogge fleet upgrade makes one of it that has"}
	}
	d, begun, err := f.begun(ring)
	if err != nil {
		return d, err
	}
	var owner keyring.OwnerKeys
	if !begun || !d.Enough() {
		open := f.owner.open
		if f.draft != "" {
			open = f.owner.some
		}
		if owner, err = open(ctx, ring); err != nil { // before the nodes are asked for their keys
			return d, err
		}
	}
	if begun {
		unasked, err = f.compare(ctx, ring, d, names, unasked)
	} else {
		d, err = f.plan(ctx, ring, names)
	}
	if err != nil {
		return d, err
	}
	instead, err := f.consent.get(ctx, ring, d, unasked, out)
	if err != nil {
		return d, err
	}
	if d, err = operate.SignDraft(ring, d, owner, instead); err != nil {
		return d, err
	}
	if d.Enough() {
		_, err := operate.Begin(ring, d)
		return d, err
	}
	if err := writeDraft(f.draft, d, out); err != nil {
		return d, err
	}
	_, err = fmt.Fprintln(out, "When it is back, repeat this command.")
	return d, err
}

// compare wants a file that came back to be what this command would write now. It returns who
// could not be asked, with those founders who do not show their keys now.
func (f *foundFlags) compare(ctx context.Context, ring *keyring.Keyring, d ledger.Draft, names, unasked []string) ([]string, error) {
	all, err := operate.Applicants(ctx, ring, names, notice)
	if all == nil && err != nil {
		return unasked, err
	}
	var applicants []operate.Applicant
	for i, a := range all {
		switch {
		case a.Key != "":
			applicants = append(applicants, a)
		case !slices.Contains(unasked, names[i]):
			unasked = append(unasked, names[i])
		}
	}
	operators, err := operate.Operators(ring)
	if err != nil {
		return unasked, operatorsHint(err)
	}
	if err := operate.Fits(d, names, applicants, operators, f.wish()); err != nil {
		return unasked, hinted{fmt.Errorf("%s is not what this command would write: %w", f.draft, err), "if the file was not changed on its way, the fleet was: give the command as it was, or begin with another file"}
	}
	return unasked, nil
}

func (f *foundFlags) wish() operate.Wish {
	return operate.Wish{Members: f.members, Spares: f.spares, Domains: f.domains}
}

// begun reads the file that travels, if there is one.
func (f *foundFlags) begun(ring *keyring.Keyring) (d ledger.Draft, is bool, err error) {
	if f.draft == "" {
		return d, false, nil
	}
	d, err = readDraft(ring, f.draft)
	if errors.Is(err, fs.ErrNotExist) {
		return ledger.Draft{}, false, nil
	}
	return d, err == nil, err
}

// plan asks the nodes for the keys of their seats, and writes who gets which.
func (f *foundFlags) plan(ctx context.Context, ring *keyring.Keyring, names []string) (ledger.Draft, error) {
	applicants, err := operate.Applicants(ctx, ring, names, notice)
	if err != nil {
		return ledger.Draft{}, err
	}
	w := f.wish()
	if applicants, err = w.Probe(ctx, ring, applicants, notice); err != nil {
		return ledger.Draft{}, err
	}
	slow := false
	for _, a := range applicants {
		if a.Unfit != "" {
			slow = true
			say("node %s cannot run etcd: %s", a.Name, a.Unfit)
		}
	}
	operators, err := operate.Operators(ring)
	if err != nil {
		return ledger.Draft{}, operatorsHint(err)
	}
	v, err := operate.Plan(ring.Genesis, operators, applicants, w)
	if err != nil && slow {
		err = hinted{err, "etcd runs on nodes whose disk keeps small writes soon, as an SSD does: name others with --member and --spare;\na node that runs no etcd needs no such disk. If the disk was only busy, repeat the command"}
	}
	if err != nil {
		return ledger.Draft{}, err
	}
	d, err := operate.Draft(ring.Genesis, v)
	first := func(o ledger.Operator) bool { return o.Key.String() == ring.Genesis.FirstOperatorID() }
	if err != nil && !slices.ContainsFunc(operators, first) {
		err = hinted{err, "found the fleet on the computer where it was created: the folder there lists its operators"}
	}
	return d, err
}

// operatorsHint is what to do about operators whom record 1 cannot list.
func operatorsHint(err error) error {
	if errors.Is(err, operate.ErrFounding) {
		return hinted{err, "kogge operator revoke NAME revokes all keys of a name; invite each computer by a name of its own"}
	}
	return err
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
	unknown := true // all of them
	for _, n := range told {
		if n.Err == nil {
			continue
		}
		missed = append(missed, n.Node)
		if errors.Is(n.Err, keyring.ErrNoNode) {
			fmt.Fprintf(out, "node %s has not taken it: this computer does not know its address\n", n.Node)
			continue
		}
		unknown = false
		fmt.Fprintf(out, "node %s has not taken it: %v\n", n.Node, n.Err)
	}
	if len(missed) > 0 {
		hint := "repeat the command when they can be reached"
		if unknown {
			hint = "kogge node adopt ADDRESS remembers a node here, and gives it the record; kogge node find lists who is in reach"
		}
		return hinted{fmt.Errorf("fleet %s: %d of %s have not taken the first record: %s", s.Genesis.Name, len(missed), count(len(told), "node"), strings.Join(missed, ", ")), hint}
	}
	have := "have"
	if len(told) == 1 {
		have = "has"
	}
	fmt.Fprintf(out, "%s %s taken the first record. kogge ledger log shows it.\n", count(len(told), "node"), have)
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
