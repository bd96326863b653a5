package main

import (
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/operate"
)

// nodeRow is what kogge node list says of a node.
type nodeRow struct {
	Name string `json:"name"`
	operate.Node
}

func nodeListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "list", Short: "List the nodes of the fleet that this computer knows", Args: cobra.NoArgs,
		Example: "  kogge node list\n  kogge node list --fleet hanse --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			nodes, err := operate.Nodes(ring)
			if err != nil {
				return err
			}
			rows := []nodeRow{}
			for _, name := range slices.Sorted(maps.Keys(nodes)) {
				rows = append(rows, nodeRow{name, nodes[name]})
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			tw := newTable(cmd.OutOrStdout())
			tw.head("NAME\tADDRESS\tADOPTED\tCERTIFICATE UNTIL")
			for _, n := range rows {
				until := "-"
				if !n.Until.IsZero() {
					until = n.Until.Local().Format(time.DateOnly)
				}
				tw.row("%s\t%s\t%s\t%s\n", n.Name, n.Address, n.Adopted.Local().Format(time.DateOnly), until)
			}
			return tw.Flush()
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	return cmd
}
