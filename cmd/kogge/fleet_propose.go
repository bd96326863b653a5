package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/cmd/kogge/votes"
	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

func fleetProposeCommand() *cobra.Command {
	cmd := group("propose", "Propose what the fleet is to decide",
		proposeSeatCommand(), proposeUnseatCommand(), proposeOperatorCommand(), proposePolicyCommand(), proposeRuleCommand(), proposeMembersCommand(),
		proposeIsolateCommand(), proposeTUFRootCommand(), proposeCACommand(), proposeOwnersCommand())
	cmd.Long = "Signs a proposal with your key and gives it to the nodes, which pass it on. Operators may whose role the policy\n" +
		"names (kogge help roles). It changes nothing by itself: seats vote on it, most of them only when their owners have\n" +
		"said yes (kogge vote yes). What would be changed, and who has to say yes, is shown first; --check does no more."
	return cmd
}

// proposing are the flags of what an operator proposes.
type proposing struct {
	target
	reason string
	check  bool
}

func (p *proposing) register(cmd *cobra.Command) {
	p.fleetFlag(cmd)
	cmd.Flags().StringVar(&p.reason, "reason", "", "a `TEXT` that says why, for all who vote")
	cmd.Flags().BoolVar(&p.check, "check", false, "show what it would change, and propose nothing")
}

// wish makes what is proposed, by the ledger's state. With it goes what else the decision rests on.
type wish func(ctx context.Context, ring *keyring.Keyring, s ledger.State) (v ledger.Value, with [][]byte, err error)

// run proposes what a wish makes.
func (p *proposing) run(ctx context.Context, out io.Writer, make wish) error {
	ring, err := p.openFleet()
	if err != nil {
		return err
	}
	b, err := votes.Look(ctx, ring, notice)
	if err != nil {
		return voteHint(err)
	}
	v, with, err := make(ctx, ring, b.State)
	if err != nil {
		return voteHint(err)
	}
	d := votes.Draft{Value: v, Why: p.reason, With: with}
	if err := d.Seal(ring, b, b.Number(b.Entries)); err != nil { // before it is shown: it may be none
		return voteHint(err)
	}
	printDecision(out, b.State, d.Value)
	if p.check {
		fmt.Fprintln(out, "Nothing was proposed.")
		return nil
	}
	told, err := votes.Propose(ctx, ring, b, &d, notice)
	if err != nil {
		return voteHint(err)
	}
	printTaken(out, fmt.Sprintf("Proposal %d", d.Number), told)
	if d.Lacks != nil {
		fmt.Fprintf(out, "It still lacks this: %s\n", cell(agenda.Plain(d.Lacks)))
	}
	fmt.Fprintf(out, "Owners answer it: kogge vote yes %d. kogge vote show %d tells what becomes of it.\n", d.Number, d.Number)
	return nil
}

// printDecision says what a value would change, and who has to say yes.
func printDecision(out io.Writer, s ledger.State, v ledger.Value) {
	row, _ := decision.Of(v.Kind())
	fmt.Fprintf(out, "%s: %s.\n", cell(string(v.Kind())), row.What)
	for _, line := range agenda.Changes(s, v) {
		fmt.Fprintf(out, "  %s\n", cell(line))
	}
	fmt.Fprintf(out, "who decides:\n")
	for _, line := range agenda.Consent(s, v) {
		fmt.Fprintf(out, "  %s\n", cell(line))
	}
}

// printTaken says which nodes have what somebody has said.
func printTaken(out io.Writer, what string, told []operate.Told) {
	var has []string
	for _, n := range told {
		if n.Err == nil {
			has = append(has, n.Node)
			continue
		}
		fmt.Fprintf(out, "node %s has not taken it: %s\n", n.Node, cell(strings.TrimPrefix(nodeError(n.Node, n.Err).Error(), "node "+n.Node+": ")))
	}
	fmt.Fprintf(out, "%s lies on %s: %s. They pass it on.\n", what, count(len(has), "node"), strings.Join(has, ", "))
}

// voteHint adds what to do about something that was not proposed or answered.
func voteHint(err error) error {
	switch {
	case err == nil || errors.As(err, new(hinted)):
		return err
	case errors.Is(err, votes.ErrFounded):
		return hinted{err, "kogge fleet found NODE..."}
	case errors.Is(err, agenda.ErrWish):
		return hinted{err, "kogge fleet nodes lists the seats; kogge ledger log what was decided"}
	case errors.Is(err, votes.ErrSilent), errors.Is(err, votes.ErrNowhere):
		return hinted{err, "kogge fleet status tells which nodes answer, and what is wrong"}
	case errors.Is(err, ledger.ErrWithdrawn):
		return hinted{err, "an operator whose key was not revoked has to propose it: kogge operator list"}
	}
	return forkHint(err)
}

func proposeSeatCommand() *cobra.Command {
	var p proposing
	var vote, spare bool
	var domain, owner string
	cmd := &cobra.Command{
		Use: "seat NODE...", Short: "Give nodes seats, or make their seats into others", Args: cobra.MinimumNArgs(1),
		Long: "A node that has no seat is asked for the key of the one that it is to get: it has to be known here (kogge node\n" +
			"adopt) and to answer now. What is not said of a seat that is there stays as it is; a new one has no vote, no\n" +
			"part in etcd and belongs to the fleet's owner. With the fourth vote the rule becomes two-thirds. A spare runs\n" +
			"etcd when a member is lost, or by kogge fleet propose members: its disk is measured first.",
		Example:           "  kogge fleet propose seat n4 --vote --domain attic --reason 'the new machine'\n  kogge fleet propose seat n4 --spare",
		ValidArgsFunction: p.completeNodes,
	}
	p.register(cmd)
	cmd.Flags().BoolVar(&vote, "vote", false, "it has a vote; --vote=false: it has none any more")
	cmd.Flags().BoolVar(&spare, "spare", false, "it runs etcd when a member is lost; --spare=false: it does not")
	cmd.Flags().StringVar(&domain, "domain", "", "`DOMAIN`: what fails together with it, as a house or a rack")
	cmd.Flags().StringVar(&owner, "owner", "", "`OWNER` of the fleet to whom it belongs")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		var want agenda.Seating
		for flag, given := range map[string]func(){
			"vote": func() { want.Vote = &vote }, "spare": func() { want.Spare = &spare }, "domain": func() { want.Domain = &domain }, "owner": func() { want.Owner = &owner },
		} {
			if cmd.Flags().Changed(flag) {
				given()
			}
		}
		return p.run(cmd.Context(), cmd.OutOrStdout(), func(ctx context.Context, ring *keyring.Keyring, s ledger.State) (ledger.Value, [][]byte, error) {
			newcomers, err := newcomersOf(ctx, ring, s, names, want.Spare != nil && *want.Spare)
			if err != nil {
				return ledger.Value{}, nil, err
			}
			return agenda.SeatValue(s, names, want, newcomers)
		})
	}
	return cmd
}

// newcomersOf asks those of some nodes for their keys that have no seat. What is to run etcd has to have a disk for
// it.
func newcomersOf(ctx context.Context, ring *keyring.Keyring, s ledger.State, names []string, etcd bool) (all []agenda.Newcomer, err error) {
	var fresh []string
	for _, name := range names {
		if _, seated := s.Roster.ByName(name); !seated {
			fresh = append(fresh, name)
		}
	}
	ask := fresh
	if etcd {
		ask = names
	}
	applicants, err := operate.Applicants(ctx, ring, ask, notice)
	if err == nil && etcd {
		applicants, err = operate.Wish{Spares: names, Members: names}.Probe(ctx, ring, applicants, notice)
	}
	if err != nil {
		return nil, err
	}
	for _, a := range applicants {
		if etcd && !roster.MayBeMember(a.Arch) {
			return nil, fmt.Errorf("node %s cannot run etcd: it is of architecture %.20q", a.Name, a.Arch)
		}
		if a.Unfit != "" {
			return nil, hinted{fmt.Errorf("node %s cannot run etcd: %s", a.Name, a.Unfit), "etcd runs on nodes whose disk keeps small writes soon, as an SSD does; leave --spare out, or name another node"}
		}
		if slices.Contains(fresh, a.Name) {
			all = append(all, agenda.Newcomer{Name: a.Name, Seat: roster.Seat{Key: a.Key, Journal: a.Journal}, Request: a.Request})
		}
	}
	return all, nil
}

func proposeUnseatCommand() *cobra.Command {
	var p proposing
	var members []string
	var ca string
	cmd := &cobra.Command{
		Use: "unseat NODE...", Short: "Take the seats of nodes away", Args: cobra.MinimumNArgs(1), ValidArgsFunction: p.completeNodes,
		Long: "The node has no part in the fleet any more. If its seat runs etcd, or is a spare, it has had the key of the node\n" +
			"CA: then the decision has to bring another one (--ca).",
		Example: "  kogge fleet propose unseat n4 --reason 'the machine is dead'\n  kogge fleet propose unseat n2 --member n4 --ca next-ca.crt",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(ctx context.Context, _ *keyring.Keyring, s ledger.State) (ledger.Value, [][]byte, error) {
				der, err := certificateIn(ctx, ca)
				if err != nil {
					return ledger.Value{}, nil, err
				}
				v, err := agenda.UnseatValue(s, names, members, der)
				return v, nil, err
			})
		},
	}
	p.register(cmd)
	cmd.Flags().StringSliceVar(&members, "member", nil, "`NODE`, a spare, that runs etcd from then on")
	cmd.Flags().StringVar(&ca, "ca", "", "`FILE` with the certificate of the next node CA")
	return cmd
}

// certificateIn is the certificate of a CA in a file, in DER; nil: there is no file.
func certificateIn(ctx context.Context, file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readInput(ctx, file, maxInput)
	if err != nil {
		return nil, err
	}
	c, err := keyring.DecodeCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c.Raw, nil
}

func proposeOperatorCommand() *cobra.Command {
	var p proposing
	var role, key string
	var remove bool
	cmd := &cobra.Command{
		Use: "operator NAME...", Short: "Add operators to the fleet's ledger, or remove them", Args: cobra.MinimumNArgs(1),
		Long: "An operator has the rights that the ledger gives him: the certificate alone gives none in a founded fleet. Names\n" +
			"are those of operators whom this computer has signed (kogge operator list); for others --role and --key say\n" +
			"who it is.",
		Example: "  kogge fleet propose operator bob --reason 'he joins us'\n  kogge fleet propose operator bob --remove",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(_ context.Context, ring *keyring.Keyring, _ ledger.State) (ledger.Value, [][]byte, error) {
				slices.Sort(names)
				if remove {
					return ledger.Value{Operators: &ledger.Operators{Remove: names}}, nil, nil
				}
				all, err := operatorsOf(ring, names, role, key)
				return ledger.Value{Operators: &ledger.Operators{Set: all}}, nil, err
			})
		},
	}
	p.register(cmd)
	cmd.Flags().BoolVar(&remove, "remove", false, "he is no operator any more")
	cmd.Flags().StringVar(&role, "role", "", "`ROLE`: reader, operator or admin (default: that of his certificate)")
	cmd.Flags().StringVar(&key, "key", "", "fingerprint of his `KEY`, all of it (default: as this computer has signed it)")
	cmd.MarkFlagsMutuallyExclusive("remove", "role")
	cmd.MarkFlagsMutuallyExclusive("remove", "key")
	return cmd
}

// operatorsOf are operators as they are to stand in the ledger.
func operatorsOf(ring *keyring.Keyring, names []string, role, key string) (all []ledger.Operator, err error) {
	if key != "" && (len(names) > 1 || role == "") {
		return nil, usage{errors.New("fleet propose operator: --key is for one operator, and needs --role")}
	}
	known, err := ring.Operators()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		o := ledger.Operator{Name: name, Role: fleet.Role(role)}
		is := key
		for _, k := range known { // the newest one is the last
			if key == "" && k.Name == name && k.Revoked == nil {
				is = k.Key
				if role == "" {
					o.Role = k.Role
				}
			}
		}
		if is == "" {
			return nil, hinted{fmt.Errorf("operator %s: this computer has signed none of that name", name), "add --role ROLE --key KEY, as kogge operator list on his computer has it"}
		}
		if o.Key, err = document.ParseHash(is); err != nil {
			return nil, fmt.Errorf("operator %s: its key: %w", name, err)
		}
		all = append(all, o)
	}
	return all, nil
}

func proposePolicyCommand() *cobra.Command {
	var p proposing
	cmd := &cobra.Command{
		Use: "policy FIELD=VALUE...", Short: "Change what decisions of the fleet may do", Args: cobra.MinimumNArgs(1),
		Long:    "The fields are those that kogge ledger show 1 has of a policy, as bake, steps or emergency.bake; without a\ndecision about it they are those of the genesis.",
		Example: "  kogge fleet propose policy bake=2h steps=5,30,100 --reason 'more time'\n  kogge fleet propose policy propose=admin --check",
		RunE: func(cmd *cobra.Command, changes []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(_ context.Context, _ *keyring.Keyring, s ledger.State) (ledger.Value, [][]byte, error) {
				v, err := agenda.PolicyValue(s, changes)
				if errors.Is(err, agenda.ErrWish) {
					var fields []string
					for name, is := range agenda.Limits(s.Policy) {
						fields = append(fields, name+"="+is)
					}
					slices.Sort(fields)
					err = hinted{err, "now it has " + strings.Join(fields, " ")}
				}
				return v, nil, err
			})
		},
	}
	p.register(cmd)
	return cmd
}

func proposeRuleCommand() *cobra.Command {
	var p proposing
	cmd := &cobra.Command{
		Use: "rule majority", Short: "Have a fleet of 1 to 3 votes decide by the majority again", Args: exactly("RULE"), ValidArgs: []string{string(roster.Majority)},
		Long:    "A fleet that has lost votes keeps its rule, two-thirds, until it decides otherwise. Of a majority none may lie.",
		Example: "  kogge fleet propose rule majority",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(context.Context, *keyring.Keyring, ledger.State) (ledger.Value, [][]byte, error) {
				return ledger.Value{Rule: &decision.Rule{Rule: roster.Rule(args[0])}}, nil, nil
			})
		},
	}
	p.register(cmd)
	return cmd
}

func proposeMembersCommand() *cobra.Command {
	var p proposing
	var spares []string
	cmd := &cobra.Command{
		Use: "members NODE...", Short: "Say which nodes run etcd, and which are its spares", Args: cobra.MinimumNArgs(1), ValidArgsFunction: p.completeNodes,
		Long:    "Names all of them: 1, 3 or 5 nodes run etcd. New ones are taken from spares, two in one decision.",
		Example: "  kogge fleet propose members n1 n2 n4 --spare n3",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(_ context.Context, _ *keyring.Keyring, s ledger.State) (ledger.Value, [][]byte, error) {
				v, err := agenda.MembersValue(s, names, spares)
				return v, nil, err
			})
		},
	}
	p.register(cmd)
	cmd.Flags().StringSliceVar(&spares, "spare", nil, "`NODE` that runs etcd when a member is lost")
	return cmd
}

func proposeIsolateCommand() *cobra.Command {
	var p proposing
	var lift bool
	cmd := &cobra.Command{
		Use: "isolate NODE...", Short: "Cut nodes off for good, or let them in again", Args: cobra.MinimumNArgs(1), ValidArgsFunction: p.completeNodes,
		Long:    "The node has no sessions, calls and secrets; its vote stays and is counted. kogge fleet isolate does so at once, by\nan order; this is the decision that stays.",
		Example: "  kogge fleet propose isolate n3 --reason stolen\n  kogge fleet propose isolate n3 --lift",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(_ context.Context, _ *keyring.Keyring, s ledger.State) (ledger.Value, [][]byte, error) {
				v, err := agenda.IsolateValue(s, names, lift)
				return v, nil, err
			})
		},
	}
	p.register(cmd)
	cmd.Flags().BoolVar(&lift, "lift", false, "they are isolated no more")
	return cmd
}

func proposeTUFRootCommand() *cobra.Command {
	var p proposing
	cmd := &cobra.Command{
		Use: "tuf-root FILE", Short: "Have other keys sign the fleet's releases", Args: exactly("FILE"),
		Long:    "FILE is the next version of the TUF root, as kogge release keys rotate makes it. The ledger gets its number and hash.",
		Example: "  kogge fleet propose tuf-root 2.root.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(ctx context.Context, _ *keyring.Keyring, _ ledger.State) (ledger.Value, [][]byte, error) {
				raw, err := readInput(ctx, args[0], maxInput)
				if err != nil {
					return ledger.Value{}, nil, err
				}
				var root struct {
					Signed struct {
						Type    string `json:"_type"`
						Version int    `json:"version"`
					} `json:"signed"`
				}
				if err := json.Unmarshal(raw, &root); err != nil || root.Signed.Type != "root" {
					return ledger.Value{}, nil, fmt.Errorf("%s: it is no TUF root", args[0])
				}
				return ledger.Value{TUFRoot: &decision.TUFRoot{Number: root.Signed.Version, Root: document.HashOf(raw)}}, nil, nil
			})
		},
	}
	p.register(cmd)
	return cmd
}

func proposeCACommand() *cobra.Command {
	var p proposing
	cmd := &cobra.Command{
		Use: "ca FILE", Short: "Replace the CA that makes nodes of the fleet", Args: exactly("FILE"),
		Long:    "FILE has the certificate of the next node CA. The old one opens enrolment for 30 days more.",
		Example: "  kogge fleet propose ca next-ca.crt",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(ctx context.Context, _ *keyring.Keyring, _ ledger.State) (ledger.Value, [][]byte, error) {
				der, err := certificateIn(ctx, args[0])
				return ledger.Value{CA: &decision.CA{Certificate: der}}, nil, err
			})
		},
	}
	p.register(cmd)
	return cmd
}

func proposeOwnersCommand() *cobra.Command {
	var p proposing
	var lost bool
	cmd := &cobra.Command{
		Use: "owners FILE", Short: "Give an owner other keys", Args: exactly("FILE"),
		Long: "FILE is a document of JSON: the owner's name, all of his keys from then on, and how many of them act as him\n" +
			"(threshold), as kogge ledger show 1 has owners. As many of the keys that he gets have to say yes, so that it is known\n" +
			"that somebody has them. If the old ones are lost, he waits, and any of the old ones may veto it.",
		Example: "  kogge fleet propose owners hanse.json\n  kogge fleet propose owners hanse.json --lost",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd.Context(), cmd.OutOrStdout(), func(ctx context.Context, _ *keyring.Keyring, _ ledger.State) (ledger.Value, [][]byte, error) {
				raw, err := readInput(ctx, args[0], maxInput)
				d := &decision.Owners{Lost: lost}
				if err == nil {
					err = json.Unmarshal(raw, &d.Owner)
				}
				if err != nil {
					return ledger.Value{}, nil, fmt.Errorf("%s: %w", args[0], err)
				}
				return ledger.Value{Owners: d}, nil, nil
			})
		},
	}
	p.register(cmd)
	cmd.Flags().BoolVar(&lost, "lost", false, "the keys that he has are lost")
	return cmd
}
