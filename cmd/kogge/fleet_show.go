package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// fleetFacts are what kogge fleet show says of a fleet. There is no secret in it.
type fleetFacts struct {
	fleetRow
	Threshold int          `json:"threshold"` // owner keys that together are the owner
	Keys      []keyFacts   `json:"keys"`
	Tokens    []tokenFacts `json:"tokens"`
	Sheets    []string     `json:"sheets"` // recovery sheets that are still on this disk
}

type keyFacts struct {
	Key         string          `json:"key"`
	Fingerprint string          `json:"fingerprint"` // SHA-256 of the public key
	Where       keyring.Holding `json:"where"`
	Until       *time.Time      `json:"until,omitempty"`
}

type tokenFacts struct {
	ID      string        `json:"id"`
	State   string        `json:"state"`
	Node    string        `json:"node,omitempty"`
	Count   int           `json:"count"`
	Expires time.Time     `json:"expires"`
	Used    []keyring.Use `json:"used"`
}

func fleetShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a fleet's keys and tokens, but no secrets", Args: exactly("NAME"),
		Example:           "  kogge fleet show hanse --json",
		ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadFleet(args[0])
			if err != nil {
				return err
			}
			facts, err := newFleetFacts(args[0], f)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			return facts.print(cmd.OutOrStdout())
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newFleetFacts(name string, f *keyring.Keyring) (fleetFacts, error) {
	g := f.Genesis
	facts := fleetFacts{fleetRow: newFleetRow(name, f.Dir), Threshold: g.Threshold, Sheets: append([]string{}, f.Sheets()...), Tokens: []tokenFacts{}}
	own := f.Certificate().Leaf
	facts.Keys = append(facts.Keys,
		keyFacts{f.Operator().String(), f.Operator().Key, keyring.Open, &own.NotAfter},
		keyFacts{"operator CA", fleet.KeyID(g.OperatorCA.RawSubjectPublicKeyInfo), f.HoldsCA(fleet.KindOperator), &g.OperatorCA.NotAfter},
		keyFacts{"node CA", fleet.KeyID(g.NodeCA.RawSubjectPublicKeyInfo), f.HoldsCA(fleet.KindNode), &g.NodeCA.NotAfter})
	for i := range g.Owners {
		facts.Keys = append(facts.Keys, keyFacts{Key: fmt.Sprintf("owner key %d", i+1), Fingerprint: g.OwnerKeyID(i + 1), Where: f.HoldsOwner(i + 1)})
	}
	tokens, err := f.Tokens()
	for _, t := range tokens {
		facts.Tokens = append(facts.Tokens, tokenFacts{t.ID, t.State(time.Now()), t.Node, t.Count, t.Expires, append([]keyring.Use{}, t.Used...)})
	}
	return facts, err
}

func (f fleetFacts) print(out io.Writer) error {
	fmt.Fprintf(out, "fleet   %s\nid      %s\nfolder  %s\nowner   any %d of its owner keys\n\n", f.Name, f.ID, f.Folder, f.Threshold)
	w := newTable(out)
	w.head("KEY\tFINGERPRINT\tUNTIL\tWHERE")
	for _, k := range f.Keys {
		until := "-"
		if k.Until != nil {
			until = k.Until.Format(time.DateOnly)
		}
		w.row("%s\t%s\t%s\t%s\n", k.Key, fleet.Short(k.Fingerprint), until, k.Where)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(f.Tokens) > 0 {
		fmt.Fprintln(out)
		w.head("TOKEN\tSTATE\tEXPIRES\tFOR\tUSED BY")
		for _, t := range f.Tokens {
			whom := t.Node
			if whom == "" {
				whom = fmt.Sprintf("any %d", t.Count)
			}
			by := []string{}
			for _, u := range t.Used {
				by = append(by, u.Node)
			}
			if len(by) == 0 {
				by = append(by, "-")
			}
			w.row("%s\t%s\t%s\t%s\t%s\n", t.ID, t.State, t.Expires.Local().Format("2006-01-02 15:04"), whom, strings.Join(by, ", "))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if len(f.Sheets) > 0 {
		fmt.Fprintf(out, "\nStill on this disk: print them, keep them in two places, and delete the files:\n  %s\n", strings.Join(f.Sheets, "\n  "))
	}
	return nil
}
