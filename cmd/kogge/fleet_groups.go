package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"kogge.example/cmd/kogge/operate"
)

// manyNodes is from how many nodes on a list of them is one of groups.
const manyNodes = 30

// maxNamed is how many nodes of a group are named that are not well.
const maxNamed = 4

// nodeGroup is the nodes of one failure domain with one board.
type nodeGroup struct {
	Domain string // "" where the ledger names none
	Board  string // "" where no node has said it
	nodes  []fleetNode
}

// groupsOf are the groups of a fleet's nodes, by domain and board.
func groupsOf(rows []fleetNode) (all []nodeGroup) {
	for _, n := range rows {
		domain := n.Domain
		if domain == n.Node { // its own
			domain = ""
		}
		i := slices.IndexFunc(all, func(g nodeGroup) bool { return g.Domain == domain && g.Board == n.Board })
		if i < 0 {
			i = len(all)
			all = append(all, nodeGroup{Domain: domain, Board: n.Board})
		}
		all[i].nodes = append(all[i].nodes, n)
	}
	slices.SortFunc(all, func(a, b nodeGroup) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Board, b.Board))
	})
	return all
}

// tally counts the nodes by a word of each, the most frequent word first.
func (g nodeGroup) tally(word func(fleetNode) string) (words []string, who map[string][]string) {
	who = make(map[string][]string)
	for _, n := range g.nodes {
		w := word(n)
		if who[w] == nil {
			words = append(words, w)
		}
		who[w] = append(who[w], n.Node)
	}
	slices.SortFunc(words, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(who[b]), len(who[a])), cmp.Compare(a, b))
	})
	return words, who
}

// state says how the group's nodes are, and which are not good.
func (g nodeGroup) state() string {
	words, who := g.tally(func(n fleetNode) string { return n.State })
	for i, w := range words {
		words[i] = fmt.Sprintf("%d %s", len(who[w]), w)
		if w == string(operate.StandingGood) {
			continue
		}
		named := who[w][:min(len(who[w]), maxNamed)]
		words[i] += ": " + strings.Join(named, " ")
		if more := len(who[w]) - len(named); more > 0 {
			words[i] += fmt.Sprintf(" and %d more", more)
		}
	}
	return strings.Join(words, "; ")
}

// release says which releases the group's nodes run.
func (g nodeGroup) release() string {
	words, who := g.tally(func(n fleetNode) string { return cmp.Or(n.Release, "?") })
	if len(words) > 1 {
		for i, w := range words {
			words[i] = fmt.Sprintf("%s (%d)", w, len(who[w]))
		}
	}
	return strings.Join(words, ", ")
}

// printGroups is the list of the nodes of a large fleet.
func printGroups(w io.Writer, rows []fleetNode) error {
	t := newTable(w)
	t.head("DOMAIN\tBOARD\tNODES\tVOTES\tSTATE\tRELEASE")
	for _, g := range groupsOf(rows) {
		votes := 0
		for _, n := range g.nodes {
			if n.Vote {
				votes++
			}
		}
		t.row("%s\t%s\t%d\t%d\t%s\t%s\n", cmp.Or(g.Domain, "-"), cmp.Or(g.Board, "-"), len(g.nodes), votes, g.state(), g.release())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s in groups; --all lists each, --problems those with a fault\n", count(len(rows), "node"))
	return err
}

// faulty are the nodes with which something is wrong.
func faulty(rows []fleetNode, h operate.Health) []fleetNode {
	return slices.DeleteFunc(slices.Clone(rows), func(n fleetNode) bool {
		return !slices.ContainsFunc(h.Problems, func(p operate.Problem) bool { return p.Node == n.Node })
	})
}
