package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/votes"
	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/ledger"
)

func voteCommand() *cobra.Command {
	return group("vote", "See what the fleet is to decide, and answer it",
		voteListCommand(), voteShowCommand(), voteAnswerCommand(true), voteAnswerCommand(false), voteWatchCommand())
}

// voteItem is a proposal that waits, as kogge vote list and kogge vote show say it.
type voteItem struct {
	Number  uint64        `json:"number"`
	ID      string        `json:"id"`
	Kind    decision.Kind `json:"kind"`
	By      string        `json:"by"`     // the operator
	Reason  string        `json:"reason"` // his
	Height  int64         `json:"height"` // of the ledger when it was made
	Early   bool          `json:"early"`  // it goes before others
	Changes []string      `json:"changes"`
	Votes   int           `json:"votes"`
	Quorum  int           `json:"quorum"`
	Valid   int           `json:"valid"` // votes that call it so
	Invalid int           `json:"invalid"`
	Ready   int           `json:"ready"`
	Owners  []voteOwner   `json:"owners"`
	Seats   []voteSeat    `json:"seats"`
	Awaits  string        `json:"awaits"` // "": it is voted on
	Next    string        `json:"next"`
	// OpinionsKnown says that a node has told what seats think of proposals, of this one or another.
	OpinionsKnown bool `json:"opinionsKnown"`
}

// voteOwner is what an owner says to a proposal.
type voteOwner struct {
	Name   string `json:"name"`
	Votes  int    `json:"votes"`
	Answer string `json:"answer"` // yes, no; "": none yet
	Reason string `json:"reason"`
	// NewKeys is whether the keys that he is to get have said yes; "": he gets none.
	NewKeys string `json:"newKeys"`
}

// voteSeat is what a seat says to a proposal.
type voteSeat struct {
	Seat    int         `json:"seat"`
	Node    string      `json:"node"`
	Owner   string      `json:"owner"`
	Says    agenda.Says `json:"says"`
	Reasons []string    `json:"reasons"`
	Awaits  string      `json:"awaits"`
}

func voteItems(a agenda.Agenda, items []agenda.Item) []voteItem {
	rows := []voteItem{}
	for _, i := range items {
		row := voteItem{
			Number: i.Number, ID: i.ID.String(), Kind: i.Kind, By: i.By, Reason: i.Why, Height: i.Height, Early: i.Early, Changes: append([]string{}, i.Changes...),
			Votes: a.State.Roster.Votes(), Quorum: a.State.Roster.Quorum(), Valid: i.Valid, Invalid: i.Bad, Ready: i.Ready,
			Owners: []voteOwner{}, Seats: []voteSeat{}, Awaits: i.Awaits, Next: i.Next, OpinionsKnown: a.Opinions,
		}
		for _, o := range i.Owners {
			one := voteOwner{Name: o.Name, Votes: o.Votes}
			if o.Answer != nil {
				one.Answer, one.Reason = yesNo(o.Answer.Yes), o.Answer.Why
			}
			if o.New {
				one.NewKeys = map[bool]string{true: "yes", false: "awaited"}[o.Has]
			}
			row.Owners = append(row.Owners, one)
		}
		for _, s := range i.Seats {
			row.Seats = append(row.Seats, voteSeat{s.Number, s.Node, s.Owner, s.Says, append([]string{}, s.Why...), s.Awaits})
		}
		rows = append(rows, row)
	}
	return rows
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// lookForJSON is what waits; an empty list is an answer to a program, also of a fleet that is not founded.
func lookForJSON(ctx context.Context, t *target) (agenda.Agenda, *keyring.Keyring, error) {
	ring, err := t.openFleet()
	if err != nil {
		return agenda.Agenda{}, nil, err
	}
	if t.json {
		l, err := stateHere(ring)
		if err != nil || l.Height == 0 {
			return agenda.Agenda{}, ring, err
		}
	}
	b, err := votes.Look(ctx, ring, notice)
	for _, n := range b.Told {
		if n.Err != nil && err == nil {
			say("%v", nodeError(n.Node, n.Err))
		}
	}
	return b.Agenda, ring, voteHint(err)
}

func voteListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "list", Short: "List the proposals that wait to be decided", Args: exactly(),
		Long: "Asks nodes of the fleet what waits, in the order in which it would be decided. Each object counts only if it is\n" +
			"signed by somebody whom the ledger lists, which is verified here from the genesis on.",
		Example: "  kogge vote list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, _, err := lookForJSON(cmd.Context(), &t)
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), voteItems(a, a.Items))
			}
			return printAgenda(cmd.OutOrStdout(), a)
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	return cmd
}

func printAgenda(w io.Writer, a agenda.Agenda) error {
	if len(a.Items) == 0 {
		_, err := fmt.Fprintf(w, "Nothing waits to be decided in fleet %s.\n", a.State.Genesis.Name)
		return err
	}
	t := newTable(w)
	t.head("NUMBER\tKIND\tBY\tVALID\tINVALID\tANSWERS\tAWAITS")
	for _, i := range voteItems(a, a.Items) {
		valid, invalid := fmt.Sprintf("%d of %d", i.Valid, i.Quorum), fmt.Sprint(i.Invalid)
		if !i.OpinionsKnown {
			valid, invalid = "-", "-"
		}
		var answers []string
		for _, o := range i.Owners {
			if o.Answer != "" {
				answers = append(answers, o.Name+" "+o.Answer)
			}
		}
		t.row("%d\t%s\t%s\t%s\t%s\t%s\t%s\n", i.Number, i.Kind, i.By, valid, invalid, cmp.Or(strings.Join(answers, ", "), "-"), cmp.Or(i.Awaits, i.Next))
	}
	return t.Flush()
}

func voteShowCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "show [NUMBER]", Short: "Show a proposal: what each seat says, what is awaited, what happens next", Args: cobra.MaximumNArgs(1),
		Long: "Without a number it shows all. Where two operators have given one number, the first 12 digits of the id tell which.\n" +
			"What a seat says is its own signed word. How a node votes its seed may say, which is not known here: what a silent\n" +
			"seat is shown to wait for goes by what its owner has set with a signature, or else by the rules.",
		Example: "  kogge vote show 17",
		RunE: func(cmd *cobra.Command, args []string) error {
			a, _, err := lookForJSON(cmd.Context(), &t)
			if err != nil {
				return err
			}
			items := a.Items
			if len(args) > 0 {
				one, err := a.Find(args[0])
				if err != nil {
					return waitsHint(err)
				}
				items = []agenda.Item{one}
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), voteItems(a, items))
			}
			if len(items) == 0 {
				return printAgenda(cmd.OutOrStdout(), a)
			}
			for n, i := range voteItems(a, items) {
				if n > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := printItem(cmd.OutOrStdout(), i); err != nil {
					return err
				}
			}
			return nil
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	return cmd
}

// waitsHint is what to do about a proposal that does not wait.
func waitsHint(err error) error {
	return hinted{err, "kogge vote list lists what waits; kogge ledger log lists what was decided"}
}

func printItem(w io.Writer, i voteItem) error {
	fmt.Fprintf(w, "proposal %d: %s, by %s at height %d (%.12s)\n", i.Number, cell(string(i.Kind)), cell(i.By), i.Height, i.ID)
	if i.Reason != "" {
		fmt.Fprintf(w, "  reason  %s\n", cell(i.Reason))
	}
	for _, line := range i.Changes {
		fmt.Fprintf(w, "  change  %s\n", cell(line))
	}
	fmt.Fprintln(w)
	t := newTable(w)
	t.head("OWNER\tVOTES\tANSWER\tREASON")
	for _, o := range i.Owners {
		answer := cmp.Or(o.Answer, "-")
		if o.NewKeys != "" {
			answer += ", new keys: " + o.NewKeys
		}
		t.row("%s\t%d\t%s\t%s\n", o.Name, o.Votes, answer, cmp.Or(o.Reason, "-"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = newTable(w)
	t.head("SEAT\tNODE\tOWNER\tSAYS\tWHY, OR WHAT IT WAITS FOR")
	for _, s := range i.Seats {
		t.row("%d\t%s\t%s\t%s\t%s\n", s.Seat, s.Node, s.Owner, string(s.Says), cmp.Or(strings.Join(append(s.Reasons, nonempty(s.Awaits)...), "; "), "-"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if !i.OpinionsKnown {
		fmt.Fprintln(w, "No opinions are known: the nodes that were asked tell of none.")
	}
	fmt.Fprintf(w, "valid   %d of %s, %d decide; invalid %d; ready %d\n", i.Valid, count(i.Votes, "vote"), i.Quorum, i.Invalid, i.Ready)
	if i.Awaits != "" {
		fmt.Fprintf(w, "awaits  %s\n", cell(i.Awaits))
	}
	_, err := fmt.Fprintf(w, "next    %s\n", cell(i.Next))
	return err
}

func nonempty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func stateHere(ring *keyring.Keyring) (ledger.State, error) {
	s, _, err := votes.Here(ring)
	if s.Height == 0 && s.Genesis != nil {
		err = nil // it is not founded
	}
	return s, err
}

func voteWatchCommand() *cobra.Command {
	var t target
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "watch [NUMBER]", Short: "Follow what waits, until it is decided", Args: cobra.MaximumNArgs(1),
		Long: "Shows what kogge vote show does, again and again: on a terminal in place, elsewhere each time that it has changed.\n" +
			"With a number it ends when that proposal does not wait any more.",
		Example: "  kogge vote watch 17",
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < minInterval {
				return usage{hinted{fmt.Errorf("--interval %s is less than %s", interval, minInterval), "each answer costs the nodes something"}}
			}
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return watchVote(cmd.Context(), ring, args, interval, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "time between two looks")
	return cmd
}
