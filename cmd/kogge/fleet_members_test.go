package main

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/golden"
)

// TestMembers prints who runs etcd: a leader, one that is silent, one that etcd has lost, a learner
// and a spare.
func TestMembers(t *testing.T) {
	f := ledgertest.Begun(t, 6)
	v := f.Founding(t)
	for i := range v.Founding.Roster.Seats {
		v.Founding.Roster.Seats[i].Member, v.Founding.Roster.Seats[i].Spare = i < 3, i == 3 || i == 4
	}
	s := ledgertest.Founded(t, 6, 3).Log.State()
	s.Roster.Seats = v.Founding.Roster.Seats
	seen := []operate.Sighting{
		{Node: "n1", Etcd: &apiv1.EtcdResponse{Wanted: true, Running: true, Leader: 1, Doing: "at rest", Revision: 812, Bytes: 40 << 10, Quota: 64 << 20, Fsync: "12.480467ms", Snapshots: 3, NewestSnapshot: 800}},
		{Node: "n2", Err: errors.New("no route to host")},
		{Node: "n3", Etcd: &apiv1.EtcdResponse{Wanted: true, Doing: "waits", Problem: "its disk\nis full"}},
		{Node: "n4", Etcd: &apiv1.EtcdResponse{Wanted: true, Running: true, Leader: 1, Doing: "learns", Revision: 700, Fsync: "481.23µs"}},
		{Node: "n5", Etcd: &apiv1.EtcdResponse{}},
	}
	var out bytes.Buffer
	must(t, printMembers(&out, memberRows(s, seen, operate.EtcdHealth{Leader: 1, Members: []int{1, 2}, Learners: []int{4}})))
	// A spare has taken the place of n3, which is back.
	out.WriteString("\n")
	seen[1] = operate.Sighting{Node: "n2", Etcd: &apiv1.EtcdResponse{Wanted: true, Running: true, Leader: 1, Doing: "seat 1 leads"}}
	seen[3].Etcd.Doing = "seat 1 leads"
	seen[2].Etcd = &apiv1.EtcdResponse{Wanted: true, Doing: "wait: seat 1 leads, and adds this seat when it is needed"}
	must(t, printMembers(&out, memberRows(s, seen, operate.EtcdHealth{Leader: 1, Members: []int{1, 2, 4}})))
	golden.Compare(t, "members.txt", out.String())
}

// TestRounded has no duration be told as nothing, none to more than two digits, and what is none not at all.
func TestRounded(t *testing.T) {
	for said, want := range map[string]string{
		"0s": "0s", "7ns": "7ns", "481.23µs": "480µs", "12.480467ms": "12ms", "99.96ms": "100ms", "1.234s": "1.2s", "-481.23µs": "-480µs", "": "-", "soon": "-",
	} {
		if got := rounded(said); got != want {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
	}
}

// TestEtcdLine says who runs etcd and who waits: spares, and members whose place a spare has taken.
func TestEtcdLine(t *testing.T) {
	s := ledgertest.Founded(t, 4, 1).Log.State()
	s.Roster.Seats = slices.Clone(s.Roster.Seats)
	s.Roster.Seats[3].Spare = true
	for _, c := range []struct {
		etcd   operate.EtcdHealth
		silent int
		want   string
	}{
		{operate.EtcdHealth{}, 0, "is to run on n1, n2, n3; spare: n4"},
		{operate.EtcdHealth{Leader: 1, Members: []int{1, 2, 3}}, 3, "n1 leads, n2, n3 (does not answer); spare: n4"},
		{operate.EtcdHealth{Leader: 1, Members: []int{1, 2}, Learners: []int{4}}, 3, "n1 leads, n2, n4 learns"},
		{operate.EtcdHealth{Leader: 1, Members: []int{1, 2, 4}}, 3, "n1 leads, n2, n4; spare: n3 (does not answer)"},
		{operate.EtcdHealth{Leader: 1, Members: []int{1, 2, 4}}, 0, "n1 leads, n2, n4; spare: n3"},
		{operate.EtcdHealth{Leader: 1, Members: []int{1}}, 3, "n1 leads; spare: n4"},
	} {
		h := operate.Health{Etcd: c.etcd}
		for _, seat := range s.Roster.Seats {
			n := operate.NodeHealth{Node: seat.Name, Seat: seat, Standing: operate.StandingGood}
			if seat.Number == c.silent {
				n.Standing = operate.StandingSilent
			}
			h.Nodes = append(h.Nodes, n)
		}
		if got := etcdLine(s, h); got != c.want {
			t.Errorf("%+v, seat %d is silent: %q, want %q", c.etcd, c.silent, got, c.want)
		}
	}
}
