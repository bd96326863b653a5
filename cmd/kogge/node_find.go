package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/mdns"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

// defaultFindTime is enough for an answer, and for another one where the first was lost.
const defaultFindTime = 3 * time.Second

// foundNode is what kogge node find says of a node, by its own word.
type foundNode struct {
	Name      string   `json:"name"`      // in its fleet, or the host name of one that is in none
	Host      string   `json:"host"`      // as HOST.local
	Addresses []string `json:"addresses"` // with the port; the best first
	Fleet     string   `json:"fleet"`     // that it is in or waits for; "": none
	FleetID   string   `json:"fleetId"`   // the first 12 digits
	Key       string   `json:"key"`       // the first 12 digits of its fingerprint
	Release   string   `json:"release"`
	Board     string   `json:"board"`
	Adopted   bool     `json:"adopted"`
	State     string   `json:"state"` // as it is printed
}

// The states of a found node.
const (
	foundKnown   = "known"        // this computer has it in its list
	foundMoved   = "known, moved" // and by another address
	foundNew     = "not known here"
	foundForeign = "of another fleet"
	foundWaits   = "waits to be adopted"
	foundNoJoin  = "has no join.yaml"
)

func nodeFindCommand() *cobra.Command {
	var wait time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "find",
		Short: "Look for nodes on this computer's networks",
		Long: "Asks all networks of this computer for nodes, by multicast DNS, and lists those that answer: new nodes that wait\n" +
			"to be adopted, nodes of your fleets, and nodes of other fleets. Their answers are not verified: a node proves\n" +
			"who it is when it is adopted or called.\n\n" +
			"A node also answers to HOST.local, unless its node.yaml says mdns: false. Routers pass none of this on: nodes on\n" +
			"other networks are not found, nor are VMs without a network of their own.",
		Example: "  kogge node find\n  kogge node adopt kogge-3f2a9c.local\n  kogge node find --timeout 10s --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait <= 0 {
				return usage{errors.New("node find: --timeout must be positive")}
			}
			fleets, err := knownFleets()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			all, err := mdns.Find(ctx)
			if err != nil {
				return fmt.Errorf("node find: %w", err)
			}
			rows := []foundNode{}
			for _, f := range all {
				rows = append(rows, newFoundNode(f, fleets))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			if len(rows) == 0 {
				say("no node answered within %s; only nodes on this computer's own networks can be found", wait)
				return nil
			}
			if err := printFound(cmd.OutOrStdout(), rows); err != nil {
				return err
			}
			for _, hint := range foundHints(rows) {
				say("%s", hint)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "timeout", defaultFindTime, "time to wait for answers")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// knownFleets are the addresses of the nodes that this computer knows, by name, of each
// of its fleets, by the first digits of its id.
func knownFleets() (map[string]map[string]operate.Node, error) {
	root, err := configDir()
	if err != nil {
		return nil, err
	}
	names, err := keyring.List(root)
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]operate.Node)
	for _, name := range names {
		f, err := keyring.Load(filepath.Join(root, name))
		if err != nil {
			continue // a damaged folder does not hide the others: kogge fleet list shows it
		}
		if all[fleet.Short(f.Genesis.ID())], err = operate.Nodes(f); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func newFoundNode(f mdns.Found, fleets map[string]map[string]operate.Node) foundNode {
	row := foundNode{
		Name: cmp.Or(f.Node, f.Host), Host: f.Host, Addresses: []string{}, Fleet: f.Fleet, FleetID: f.FleetID, Key: f.Key,
		Release: f.Release, Board: f.Board, Adopted: f.Node != "", State: foundNoJoin,
	}
	for _, a := range f.Addresses {
		row.Addresses = append(row.Addresses, net.JoinHostPort(a.String(), strconv.Itoa(f.Port)))
	}
	nodes, ours := fleets[f.FleetID]
	known, listed := nodes[f.Node]
	switch {
	case f.Fleet != "" && !ours:
		row.State = foundForeign
	case row.Adopted && !listed:
		row.State = foundNew
	case row.Adopted && row.leads(known.Address):
		row.State = foundKnown
	case row.Adopted:
		row.State = foundMoved
	case f.Fleet != "":
		row.State = foundWaits
	}
	return row
}

// leads says whether an address is one that the node says to have.
func (n foundNode) leads(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), n.Host+".local") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return true // a name that somebody else knows
	}
	for _, a := range n.Addresses {
		if own, err := netip.ParseAddrPort(a); err == nil && own.Addr().WithZone("") == ip.WithZone("") && port == strconv.Itoa(int(own.Port())) {
			return true
		}
	}
	return false
}

// reachable is what people type to reach the node.
func (n foundNode) reachable() string { return n.Host + ".local" }

func printFound(out io.Writer, rows []foundNode) error {
	w := newTable(out)
	w.head("NAME\tADDRESS\tFLEET\tRELEASE\tBOARD\tSTATE")
	for _, n := range rows {
		name := n.Name
		if n.Name != n.Host {
			name += " (" + n.Host + ")"
		}
		w.row("%s\t%s\t%s\t%s\t%s\t%s\n", name, n.shown(), cmp.Or(n.Fleet, "-"), cmp.Or(n.Release, "-"), cmp.Or(n.Board, "-"), n.State)
	}
	return w.Flush()
}

// shown are the addresses as people read them: without what they would not type.
func (n foundNode) shown() string {
	var global, all []string
	for _, text := range n.Addresses {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			continue
		}
		if a.Port() == api.Port {
			text = a.Addr().String()
		}
		all = append(all, text)
		if !a.Addr().IsLinkLocalUnicast() {
			global = append(global, text)
		}
	}
	if global == nil {
		global = all
	}
	return strings.Join(global, " ")
}

// foundHints say what to do about what was found: a line for each state in which there
// is something to do.
func foundHints(rows []foundNode) []string {
	first, count := make(map[string]foundNode), make(map[string]int)
	for _, n := range rows {
		if count[n.State]++; count[n.State] == 1 {
			first[n.State] = n
		}
	}
	var all []string
	for _, h := range []struct{ state, one, more string }{
		{foundWaits, "%[2]s waits to be adopted: kogge node adopt %[2]s", "%[1]d nodes wait to be adopted: kogge node adopt %[2]s, and so on"},
		{foundNoJoin, "%[2]s has no join.yaml: kogge fleet token writes one, kogge image seed puts it on its disk", "%[1]d nodes have no join.yaml: kogge fleet token writes one, kogge image seed puts it on a disk"},
		{foundNew, "%[2]s is in a fleet of yours: kogge node adopt %[2]s records its address here", "%[1]d nodes of your fleets are not known here: kogge node adopt %[2]s, and so on, records their addresses"},
		{foundMoved, "%[2]s has a new address: kogge node adopt %[2]s records it", "%[1]d nodes have new addresses: kogge node adopt %[2]s, and so on, records their addresses"},
	} {
		switch n := first[h.state]; count[h.state] {
		case 0:
		case 1:
			all = append(all, fmt.Sprintf(h.one, 1, n.reachable()))
		default:
			all = append(all, fmt.Sprintf(h.more, count[h.state], n.reachable()))
		}
	}
	return all
}
