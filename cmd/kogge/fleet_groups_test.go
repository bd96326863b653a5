package main

import (
	"bytes"
	"fmt"
	"testing"

	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/golden"
)

// TestGroups prints the nodes of a large fleet, and those with a fault.
func TestGroups(t *testing.T) {
	var rows []fleetNode
	for i := 1; i <= 40; i++ {
		n := fleetNode{Node: fmt.Sprintf("n%d", i), Seat: i, Vote: i <= 5, Domain: "attic", Board: "qemu-x86_64", State: "good", Release: "1.0", Slot: "A", Height: 3}
		switch {
		case i > 38:
			n.Domain, n.State, n.Release, n.Board = n.Node, "silent", "", ""
		case i > 30:
			n.Domain, n.State = "cellar", "silent"
		case i > 20:
			n.Domain, n.Board = "cellar", "qemu-arm64"
		case i == 7:
			n.State, n.Release = "trial", "1.1"
		}
		rows = append(rows, n)
	}
	var out bytes.Buffer
	must(t, printGroups(&out, rows))
	must(t, printNodes(&out, faulty(rows, operate.Health{Problems: []operate.Problem{{What: "of all"}, {Node: "n7"}, {Node: "n39"}}})))
	golden.Compare(t, "groups.txt", out.String())
}
