package main

import (
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// fleetRow is what kogge fleet list says of a fleet.
type fleetRow struct {
	Name        string           `json:"name"`
	ID          string           `json:"id,omitempty"`
	Folder      string           `json:"folder"`
	Operator    string           `json:"operator,omitempty"`
	Role        fleet.Role       `json:"role,omitempty"`
	Certificate *time.Time       `json:"certificateUntil,omitempty"`
	Signs       []fleet.PeerKind `json:"signs"` // whom the CA keys at hand can sign
	Problem     string           `json:"problem,omitempty"`
}

func newFleetRow(name, dir string) fleetRow {
	row := fleetRow{Name: name, Folder: dir, Signs: []fleet.PeerKind{}}
	f, err := keyring.Load(dir)
	if err != nil {
		row.Problem = err.Error()
		return row
	}
	row.ID, row.Operator, row.Role = f.Genesis.ID(), f.Operator().Name, f.Operator().Role
	until := f.Certificate().Leaf.NotAfter
	row.Certificate = &until
	for _, kind := range []fleet.PeerKind{fleet.KindOperator, fleet.KindNode} {
		if f.HoldsCA(kind) != keyring.Elsewhere {
			row.Signs = append(row.Signs, kind)
		}
	}
	return row
}

func fleetListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the fleets that this computer knows", Args: cobra.NoArgs,
		Example: "  kogge fleet list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := configDir()
			if err != nil {
				return err
			}
			names, err := keyring.List(dir)
			if err != nil {
				return err
			}
			rows := []fleetRow{}
			for _, name := range names {
				rows = append(rows, newFleetRow(name, filepath.Join(dir, name)))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				say("there is no fleet in %s yet; kogge fleet create NAME makes one", dir)
				return nil
			}
			return printFleets(cmd.OutOrStdout(), rows)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printFleets(out io.Writer, rows []fleetRow) error {
	w := newTable(out)
	w.head("NAME\tID\tOPERATOR\tROLE\tCERTIFICATE UNTIL\tSIGNS")
	for _, r := range rows {
		if r.Problem != "" {
			w.row("%s\tunreadable: %s\n", r.Name, r.Problem)
			continue
		}
		var signs []string
		for _, kind := range r.Signs {
			signs = append(signs, string(kind)+"s")
		}
		if signs == nil {
			signs = []string{"nobody"}
		}
		w.row("%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, fleet.Short(r.ID), r.Operator, r.Role, r.Certificate.Format(time.DateOnly), strings.Join(signs, ", "))
	}
	return w.Flush()
}
