package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/ledger"
)

// fleetMember is what kogge fleet members says of a node that runs etcd, or is to.
type fleetMember struct {
	Node string `json:"node"`
	Seat int    `json:"seat"`
	// Role is leader, member or learner where etcd lists it; spare where it waits until a member is
	// lost: so the ledger has it, or a spare has taken its place; lost where etcd lacks it.
	Role     string `json:"role"`
	Running  bool   `json:"running"`
	Doing    string `json:"doing"` // or what it waits for; "": it does not answer
	Problem  string `json:"problem"`
	Revision int64  `json:"revision"`
	Bytes    int64  `json:"bytes"` // of its database
	Quota    int64  `json:"quota"`
	// Fsync is how long its disk takes for a synced write, of 99 in 100; "": not known.
	Fsync     string `json:"fsync"`
	Snapshots int    `json:"snapshots"` // copies on its disk
	Newest    int64  `json:"newest"`    // revision of the last of them
}

func fleetMembersCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "members", Short: "List the nodes that run etcd, and its spares", Args: cobra.NoArgs,
		Long: "Lists the nodes that run the fleet's etcd, and those that wait as spares: who leads, how much each has\n" +
			"(revision), how large its database is, how long its disk takes for a synced write, and how many copies of the\n" +
			"database lie on it. kogge help members-lost tells what to do when too many are lost.",
		Example: "  kogge fleet members\n  kogge fleet members --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			s, seen, err := operate.Survey(cmd.Context(), ring, notice)
			if err != nil {
				return forkHint(err)
			}
			rows := memberRows(s, seen, operate.Judge(s, seen, time.Now()).Etcd)
			if t.json {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			return printMembers(cmd.OutOrStdout(), rows)
		},
	}
	t.fleetFlag(cmd)
	jsonFlag(cmd, &t.json)
	return cmd
}

// memberRows are the seats that run etcd or may, by the ledger and by what nodes said.
func memberRows(s ledger.State, seen []operate.Sighting, e operate.EtcdHealth) []fleetMember {
	all := []fleetMember{}
	for _, seat := range s.Roster.Seats {
		one := fleetMember{Node: seat.Name, Seat: seat.Number, Role: etcdOf(seat)}
		switch {
		case seat.Number == e.Leader:
			one.Role = "leader"
		case slices.Contains(e.Members, seat.Number):
			one.Role = "member"
		case slices.Contains(e.Learners, seat.Number):
			one.Role = "learner"
		case spare(s, seat, e):
			one.Role = "spare"
		case seat.Member && e.Leader != 0:
			one.Role = "lost"
		}
		if one.Role == "" {
			continue
		}
		i := slices.IndexFunc(seen, func(n operate.Sighting) bool { return n.Node == seat.Name })
		if i >= 0 && seen[i].Etcd != nil {
			said := seen[i].Etcd
			one.Running, one.Doing, one.Problem = said.Running, cmp.Or(said.Doing, "-"), said.Problem
			one.Revision, one.Bytes, one.Quota = said.Revision, said.Bytes, said.Quota
			one.Fsync, one.Snapshots, one.Newest = said.Fsync, int(said.Snapshots), said.NewestSnapshot
		}
		all = append(all, one)
	}
	return all
}

// rounded is a duration in its first two digits, for people.
func rounded(duration string) string {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return "-"
	}
	unit := time.Duration(1)
	for d.Abs()/unit >= 100 {
		unit *= 10
	}
	return d.Round(unit).String()
}

func printMembers(w io.Writer, rows []fleetMember) error {
	t := newTable(w)
	t.head("SEAT\tNODE\tETCD\tSTATE\tREVISION\tSIZE\tFSYNC\tCOPIES\tDOES")
	for _, m := range rows {
		state, size := "stopped", "-"
		switch {
		case m.Doing == "":
			state = "silent"
		case m.Running:
			state = "running"
		case m.Role == "spare":
			state = "waits"
		}
		if m.Quota > 0 {
			size = fmt.Sprintf("%s of %s", iec(uint64(m.Bytes)), iec(uint64(m.Quota)))
		}
		t.row("%d\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%s\n", m.Seat, m.Node, m.Role, state, m.Revision, size, rounded(m.Fsync), m.Snapshots, cmp.Or(m.Problem, m.Doing, "-"))
	}
	return t.Flush()
}
