package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/hearsay"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

// fleetHealth is what kogge fleet status says.
type fleetHealth struct {
	Fleet     string         `json:"fleet"`
	ID        string         `json:"id"`
	Height    int64          `json:"height"` // of the ledger; 0: the fleet is not founded
	Record    string         `json:"record"` // the newest one
	Votes     int            `json:"votes"`
	Quorum    int            `json:"quorum"`
	MayLie    int            `json:"mayLie"`
	Answering int            `json:"answering"` // votes
	MayFail   int            `json:"mayFail"`   // more votes; negative: so many lack for a decision
	Leader    string         `json:"leader"`    // node whose etcd leads; "": none
	Members   []string       `json:"members"`   // nodes that run etcd now
	Leases    fleetLeases    `json:"leases"`
	Whole     bool           `json:"whole"`
	Problems  []fleetProblem `json:"problems"`
}

// fleetLeases is what one node knows of the others' leases.
type fleetLeases struct {
	From    string `json:"from"` // the node; "": none knows of any
	Held    int    `json:"held"`
	Known   int    `json:"known"`   // of so many
	Etcd    bool   `json:"etcd"`    // it reaches etcd now
	Seconds int64  `json:"seconds"` // how old that is; -1: it never knew
}

type fleetProblem struct {
	Node string `json:"node"` // "": the whole fleet
	What string `json:"what"`
	Do   string `json:"do"`
}

// fleetNode is what kogge fleet nodes says of a node.
type fleetNode struct {
	Node   string `json:"node"`
	Seat   int    `json:"seat"` // 0: none
	Vote   bool   `json:"vote"`
	Etcd   string `json:"etcd"` // member, spare or ""
	Domain string `json:"domain"`
	Board  string `json:"board"` // "" where it did not say it
	// Admitted is how it came in: seat, accepted, new, adopted, or "" where nobody could be asked.
	Admitted string `json:"admitted"`
	State    string `json:"state"`
	Release  string `json:"release"`
	Slot     string `json:"slot"`
	Height   int64  `json:"height"`
	Lease    string `json:"lease"` // held, none or unknown
	Said     int64  `json:"said"`  // seconds since its status came to the node that was asked; -1: not known
	Order    string `json:"order"` // what operators have ordered about its seat; "": nothing
}

func fleetStatusCommand() *cobra.Command {
	var t target
	var check bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the fleet is: votes, what is wrong and what to do", Args: cobra.NoArgs,
		Long: "Asks all nodes of the fleet how they are, and says whether they can decide, how many more may fail, what is\n" +
			"wrong and what to do. It says what this computer sees, and what one of the nodes knows of the others, which may\n" +
			"reach nodes that this computer does not.",
		Example: "  kogge fleet status\n  kogge fleet status --wait 5m\n  kogge fleet status --check --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			s, h, board, err := survey(cmd.Context(), ring, wait)
			if err != nil {
				return err
			}
			if t.json {
				err = printJSON(cmd.OutOrStdout(), healthOf(s, h, board))
			} else {
				err = printHealth(cmd.OutOrStdout(), s, h, board)
			}
			if n := len(h.Problems); err == nil && n > 0 && (check || wait > 0) {
				return fmt.Errorf("fleet %s: %s", ring.Genesis.Name, count(n, "problem"))
			}
			return err
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 if something is wrong")
	cmd.Flags().DurationVar(&wait, "wait", 0, "ask again until nothing is wrong, for so long; then exit with 1")
	return cmd
}

func fleetNodesCommand() *cobra.Command {
	var t target
	var all, problems bool
	cmd := &cobra.Command{
		Use: "nodes", Short: "List the fleet's nodes, and how each is", Args: cobra.NoArgs,
		Long: fmt.Sprintf("Lists the fleet's nodes, and how each is. From %d nodes on it lists groups of them, by domain and board, and names\n", manyNodes) +
			"those that are not well. JSON always has each node.",
		Example: "  kogge fleet nodes\n  kogge fleet nodes --problems\n  kogge fleet nodes --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			_, h, _, err := survey(cmd.Context(), ring, 0)
			if err != nil {
				return err
			}
			rows := nodesOf(h)
			if problems {
				rows = faulty(rows, h)
			}
			switch {
			case t.json:
				return printJSON(cmd.OutOrStdout(), rows)
			case len(rows) >= manyNodes && !all && !problems:
				return printGroups(cmd.OutOrStdout(), rows)
			}
			return printNodes(cmd.OutOrStdout(), rows)
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	cmd.Flags().BoolVar(&all, "all", false, "list each node, also in a large fleet")
	cmd.Flags().BoolVar(&problems, "problems", false, "list only nodes with which something is wrong")
	return cmd
}

// surveyPause is between two looks at a fleet that is not well yet.
const surveyPause = 2 * time.Second

// survey looks at the fleet, and again until all is well or patience is over. The board is what one
// of its nodes knows of the others.
func survey(ctx context.Context, ring *keyring.Keyring, patience time.Duration) (ledger.State, operate.Health, hearsay.Board, error) {
	until := time.Now().Add(patience)
	var ear hearsay.Ear
	for {
		s, seen, err := operate.Survey(ctx, ring, notice)
		if err != nil {
			return s, operate.Health{}, hearsay.Board{}, forkHint(err)
		}
		h := operate.Judge(s, seen, time.Now())
		admit(ctx, ring, s, &h)
		board, err := hear(ctx, ring, &ear, s, h)
		if err != nil {
			return s, h, board, err
		}
		board.Pin(&h)
		if h.Whole() || !time.Now().Add(surveyPause).Before(until) {
			return s, h, board, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return s, h, board, context.Cause(ctx)
		case <-time.After(surveyPause):
		}
	}
}

// admit asks nodes that answer how each came into the fleet. Where none can say, nothing is shown.
func admit(ctx context.Context, ring *keyring.Keyring, s ledger.State, h *operate.Health) {
	names := answering(*h)
	if s.Height == 0 || len(names) == 0 {
		return
	}
	if a, err := admission.Papers(ctx, ring, names, notice); err == nil {
		a.Note(h)
	}
}

// hearLimit is how long one node may take to say what it knows of the others.
const hearLimit = 10 * time.Second

// hear asks a node that answers what it knows of the others.
func hear(ctx context.Context, ring *keyring.Keyring, ear *hearsay.Ear, s ledger.State, h operate.Health) (hearsay.Board, error) {
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return hearsay.Board{}, err
	}
	return ear.Read(ctx, s, answering(h), func(ctx context.Context, name string, do func(context.Context, apiv1connect.FleetServiceClient) error) error {
		limited, cancel := context.WithTimeout(ctx, hearLimit)
		defer cancel()
		r := operate.Remote{Keys: ring, Name: name, Address: nodes[name].Address, Tell: notice}
		return r.Call(limited, func(ctx context.Context, c *api.Client) error { return do(ctx, c) })
	})
}

// answering are the nodes with a seat that answer and count.
func answering(h operate.Health) (names []string) {
	for _, n := range h.Nodes {
		if n.Seat.Number > 0 && n.Counts() {
			names = append(names, n.Node)
		}
	}
	return names
}

func healthOf(s ledger.State, h operate.Health, b hearsay.Board) fleetHealth {
	all := fleetHealth{
		Fleet: s.Genesis.Name, ID: s.Genesis.ID(), Height: s.Height, Votes: h.Votes, Quorum: h.Quorum, MayLie: h.Liars,
		Answering: h.Answering, MayFail: h.Spare(), Whole: h.Whole(), Problems: []fleetProblem{},
		Leader: nodeOf(s, h.Etcd.Leader), Members: []string{}, Leases: fleetLeases{Seconds: -1},
	}
	if b.From != "" {
		held, known := b.Leases()
		all.Leases = fleetLeases{From: b.From, Held: held, Known: known, Etcd: b.Gateway != 0, Seconds: wholeSeconds(b.Listed)}
	}
	for _, n := range h.Etcd.Members {
		all.Members = append(all.Members, nodeOf(s, n))
	}
	if s.Height > 0 {
		all.Record = s.Record.String()
	}
	for _, p := range h.Problems {
		all.Problems = append(all.Problems, fleetProblem(p))
	}
	return all
}

func nodesOf(h operate.Health) []fleetNode {
	all := []fleetNode{}
	for _, n := range h.Nodes {
		row := fleetNode{Node: n.Node, Seat: n.Seat.Number, Vote: n.Seat.Vote, Etcd: etcdOf(n.Seat), Admitted: n.Admitted, Board: n.Board, State: string(n.Standing), Release: n.Release, Slot: n.Slot, Height: n.Height, Order: n.Order}
		if n.Seat.Number > 0 {
			row.Domain = n.Seat.DomainOf()
		}
		row.Lease, row.Said = n.Lease, wholeSeconds(n.Said)
		all = append(all, row)
	}
	return all
}

// printHealth is what people see first of a fleet.
func printHealth(w io.Writer, s ledger.State, h operate.Health, b hearsay.Board) error {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	answer := 0
	for _, n := range h.Nodes {
		if n.Answers() {
			answer++
		}
	}
	row("fleet", "%s (%s)", s.Genesis.Name, fleet.Short(s.Genesis.ID()))
	if s.Height > 0 {
		row("ledger", "%s, the newest is %s", count(int(s.Height), "record"), s.Record.Short())
		row("votes", "%d, of which %d decide (%s): %d answer, %s, %s", h.Votes, h.Quorum, s.Roster.Rule, h.Answering, mayFail(h), mayLie(h.Liars))
		row("etcd", "%s", etcdLine(s, h))
		if b.From != "" {
			row("leases", "%s", leaseLine(b, len(s.Roster.Seats)))
		}
	}
	row("nodes", "%d of %d answer this computer", answer, len(h.Nodes))
	for _, a := range h.Orders.Absent {
		row("absent", "%s: %s", a.Seat.Name, cell(a.String()))
	}
	if waiting := admission.Waits(h); len(waiting) > 0 {
		row("new", "%s: kogge fleet accept NODE accepts it", strings.Join(waiting, ", "))
	}
	if h.Whole() {
		_, err := fmt.Fprintln(w, "\nAll is well.")
		return err
	}
	fmt.Fprintf(w, "\n%s:\n", count(len(h.Problems), "problem"))
	for i, p := range h.Problems {
		if i == manyNodes {
			fmt.Fprintf(w, "  and %d more: kogge fleet nodes --problems\n", len(h.Problems)-i)
			break
		}
		where := p.Node
		if where == "" {
			where = "fleet"
		}
		fmt.Fprintf(w, "  %s: %s\n      %s\n", where, cell(p.What), p.Do)
	}
	return nil
}

// mayFail says how far the fleet is from deciding nothing.
func mayFail(h operate.Health) string {
	switch spare := h.Spare(); {
	case spare < 0:
		return fmt.Sprintf("%d more are needed", -spare)
	case spare == 0:
		return "none may fail"
	default:
		return fmt.Sprintf("%d more may fail", spare)
	}
}

func mayLie(n int) string {
	if n == 0 {
		return "none may lie"
	}
	return fmt.Sprintf("%d may lie", n)
}

// etcdOf is "member" where a seat runs etcd, "spare" where it will when a member is lost, or "".
func etcdOf(seat roster.Seat) string {
	switch {
	case seat.Member:
		return "member"
	case seat.Spare:
		return "spare"
	}
	return ""
}

// nodeOf is the node of a seat, for people; "": of none.
func nodeOf(s ledger.State, number int) string {
	if seat, ok := s.Roster.Seat(number); ok {
		return seat.Name
	}
	if number > 0 {
		return fmt.Sprintf("seat %d", number)
	}
	return ""
}

// etcdLine says who runs etcd by the word of those that answer, and who of them does not.
func etcdLine(s ledger.State, h operate.Health) string {
	silent := make(map[int]string)
	for _, n := range h.Nodes {
		if !n.Answers() {
			silent[n.Seat.Number] = " (does not answer)"
		}
	}
	var now, planned []string
	for _, n := range h.Etcd.Members {
		name := nodeOf(s, n)
		if n == h.Etcd.Leader {
			name += " leads"
		}
		now = append(now, name+silent[n])
	}
	for _, n := range h.Etcd.Learners {
		now = append(now, nodeOf(s, n)+" learns"+silent[n])
	}
	var spares []string
	for _, seat := range s.Roster.Seats {
		if seat.Member {
			planned = append(planned, seat.Name)
		}
		if spare(s, seat, h.Etcd) {
			spares = append(spares, seat.Name+silent[seat.Number])
		}
	}
	text := strings.Join(now, ", ")
	if len(now) == 0 {
		text = "is to run on " + strings.Join(planned, ", ")
	}
	if len(spares) > 0 {
		text += "; spare: " + strings.Join(spares, ", ")
	}
	return text
}

// spare says whether a seat waits until a member is lost: as the roster has it, or because another
// one has taken its place.
func spare(s ledger.State, seat roster.Seat, e operate.EtcdHealth) bool {
	if slices.Contains(e.Members, seat.Number) || slices.Contains(e.Learners, seat.Number) {
		return false
	}
	planned := 0
	for _, one := range s.Roster.Seats {
		if one.Member {
			planned++
		}
	}
	return seat.Spare || seat.Member && len(e.Members) >= planned
}

// leaseLine says of how many seats the fleet hears, and how old that is.
func leaseLine(b hearsay.Board, seats int) string {
	held, known := b.Leases()
	switch {
	case b.Gateway == 0 && (known == 0 || b.Listed < 0):
		return "not known yet: " + b.From + " is on its way to etcd" + because(b.Problem)
	case known == 0 || b.Listed < 0:
		return "not known yet: " + b.From + " is being told of them; ask again in a moment"
	case b.Gateway == 0:
		return fmt.Sprintf("%d of %d were kept when %s knew of all last, %s ago", held, seats, b.From, age(b.Listed))
	case !b.Now():
		return fmt.Sprintf("%d of %d were kept when %s knew of all last, %s ago; ask again in a moment", held, seats, b.From, age(b.Listed))
	}
	return fmt.Sprintf("%d of %d are kept, as %s sees it", held, seats, b.From)
}

// because is a reason in brackets, if there is one: a node's words.
func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + cell(why) + ")"
}

// wholeSeconds is a time as JSON has it; -1: none.
func wholeSeconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64(d / time.Second)
}

func printNodes(w io.Writer, rows []fleetNode) error {
	t := newTable(w)
	t.head("SEAT\tNODE\tVOTE\tETCD\tDOMAIN\tSTATE\tLEASE\tSAID\tRELEASE\tSLOT\tRECORDS\tORDER")
	for _, n := range rows {
		seat, vote := "-", "-"
		switch {
		case n.Seat > 0:
			seat = fmt.Sprint(n.Seat)
		case n.Admitted == admission.New, n.Admitted == admission.Accepted:
			seat = n.Admitted
		}
		if n.Vote {
			vote = "yes"
		}
		lease, said := n.Lease, "-"
		if lease == string(hearsay.LeaseUnknown) {
			lease = "-"
		}
		if n.Said >= 0 {
			said = age(time.Duration(n.Said)*time.Second) + " ago"
		}
		t.row("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", seat, n.Node, vote, cmp.Or(n.Etcd, "-"), cmp.Or(n.Domain, "-"), n.State, lease, said, cmp.Or(n.Release, "-"), cmp.Or(n.Slot, "-"), n.Height, cmp.Or(n.Order, "-"))
	}
	return t.Flush()
}
