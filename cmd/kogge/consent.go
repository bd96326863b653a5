package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// consent is what a person says to record 1 of a fleet: no owner key signs one, and none founds
// a fleet, that nobody has seen.
type consent struct {
	record  string // the hash that he was told, or its first digits; "": ask on the terminal
	instead string // the record that was signed here before, and is given up
	given   bool   // the fleet is this program's own
}

// hashDigits is how much of a hash has to be typed, at least.
const hashDigits = 12

func (c *consent) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.record, "record", "", "`HASH` of the record, or its first 12 digits (default: ask on the terminal)")
	cmd.Flags().StringVar(&c.instead, "instead", "", "give up the record with this `HASH`, which was signed here before")
}

// get shows a founding and asks whether it is wanted. unasked are nodes that may know of
// another. It returns the record that this one comes in the place of; zero: none.
func (c *consent) get(ctx context.Context, ring *keyring.Keyring, d ledger.Draft, unasked []string, out io.Writer) (document.Hash, error) {
	instead, err := c.gives(ring, d.State.Record)
	if err != nil || c.given {
		return instead, err
	}
	if err := printDraft(out, ring, d); err != nil {
		return instead, err
	}
	hash := d.State.Record.String()
	question := "Sign this"
	if d.Enough() {
		question = "Found the fleet with this"
	}
	if len(unasked) > 0 {
		question += ", though " + strings.Join(unasked, ", ") + " could not be asked whether the fleet is founded"
	}
	switch {
	case c.record != "":
		if !begins(hash, c.record) {
			return instead, hinted{fmt.Errorf("fleet %s: its record 1 would be %s, and not %.64q", ring.Genesis.Name, hash, c.record), "do not sign: it is another one than you were told"}
		}
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return instead, hinted{fmt.Errorf("fleet %s: there is no terminal to ask whether record 1 may be signed", ring.Genesis.Name), "look at who has a seat and who is an operator; if it is right, add: --record " + d.State.Record.Short()}
	default:
		fmt.Fprintf(errorOutput(), "%s? (yes or no): ", question)
		answer, err := askLine(ctx)
		if err != nil {
			return instead, err
		}
		if answer != "yes" {
			return instead, fmt.Errorf("fleet %s: nothing was signed", ring.Genesis.Name)
		}
	}
	return instead, nil
}

// gives is the record that is given up for another one; zero: there is none to give up. It has
// to be named.
func (c *consent) gives(ring *keyring.Keyring, record document.Hash) (document.Hash, error) {
	first, err := ring.First()
	if err != nil || first.Record.IsZero() || first.Record == record {
		return document.Hash{}, err
	}
	if c.instead != "" && begins(first.Record.String(), c.instead) {
		return first.Record, nil
	}
	by := "no owner key"
	if len(first.Owners) > 0 {
		by = "owner key " + strings.Trim(strings.ReplaceAll(fmt.Sprint(first.Owners), " ", " and "), "[]")
	}
	return document.Hash{}, hinted{fmt.Errorf("fleet %s: record 1 would be %s, and %s was agreed to here on %s, with %s", ring.Genesis.Name, record.Short(), first.Record.Short(), first.Noted.Local().Format(minute), by),
		"was the file changed on its way? A record that was signed is good for ever: if anybody can have enough signatures of that one, nodes that are shown both stop.\n" +
			"If nobody can, give it up: --instead " + first.Record.Short()}
}

// begins says whether a hash is the one that somebody typed, or as much as is enough.
func begins(hash, typed string) bool {
	return len(typed) >= hashDigits && strings.HasPrefix(hash, strings.ToLower(typed))
}

// printDraft says who would get a seat, and who would be an operator.
func printDraft(out io.Writer, ring *keyring.Keyring, d ledger.Draft) error {
	if err := printRoster(out, d.State); err != nil {
		return err
	}
	t := newTable(out)
	t.head("OPERATOR\tROLE\tKEY")
	for _, o := range d.State.Operators {
		t.row("%s\t%s\t%s\n", o.Name, o.Role, o.Key.Short())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nRecord 1 of fleet %s would be %s.\n", ring.Genesis.Name, d.State.Record)
	return err
}
