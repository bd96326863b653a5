package main

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"
	"time"

	"kogge.example/cmd/kogge/hearsay"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/golden"
)

// TestHealth prints how a fleet is, by what this computer sees and by what one of the nodes knows
// of the others: with etcd, without, and where no node knows anything.
func TestHealth(t *testing.T) {
	s := ledgertest.Founded(t, 3, 1).Log.State()
	words := func(all ...hearsay.Word) hearsay.Board { // of n1 and so on
		b := hearsay.Board{From: "n1"}
		for i, w := range all {
			b.Words = with(b.Words, s.Roster.Seats[i].Key, w)
		}
		return b
	}
	reached := words(hearsay.Word{Lease: hearsay.LeaseHeld, Age: time.Second}, hearsay.Word{Lease: hearsay.LeaseHeld, Age: 90 * time.Second}, hearsay.Word{Lease: hearsay.LeaseNone, Age: 26 * time.Hour})
	reached.Gateway = 1
	down := words(hearsay.Word{Lease: hearsay.LeaseHeld, Age: time.Second}, hearsay.Word{Lease: hearsay.LeaseHeld, Age: -1})
	down.Heard, down.Listed = 320*time.Second, 320*time.Second
	told, old := reached, reached
	told.Listed, old.Listed = -1, time.Hour
	var out bytes.Buffer
	for _, c := range []struct {
		what  string
		board hearsay.Board
	}{
		{"no node knows of others", hearsay.Board{Heard: -1, Listed: -1}},
		{"etcd was never reached", hearsay.Board{From: "n1", Heard: -1, Listed: -1, Problem: "no seat\nanswers"}},
		{"n1 is being told", told}, {"n1 was told an hour ago", old}, {"n1 reaches etcd", reached}, {"etcd is down", down},
	} {
		h := operate.Health{Votes: 3, Quorum: 2, Answering: 2, Etcd: operate.EtcdHealth{Leader: 2, Members: []int{1, 2, 3}}}
		for _, seat := range s.Roster.Seats {
			h.Nodes = append(h.Nodes, operate.NodeHealth{Node: seat.Name, Seat: seat, Standing: operate.StandingGood, Release: "1.0", Slot: "A", Height: 1})
		}
		h.Nodes[2] = operate.NodeHealth{Node: "n3", Seat: s.Roster.Seats[2], Standing: operate.StandingSilent}
		h.Problems = []operate.Problem{{Node: "n3", What: "it does not answer: no route to host", Do: "is it on?"}}
		c.board.Pin(&h)
		fmt.Fprintf(&out, "-- %s\n", c.what)
		must(t, printHealth(&out, s, h, c.board))
		must(t, printNodes(&out, nodesOf(h)))
	}
	text := regexp.MustCompile(`\(([0-9a-f]{12})\)|is [0-9a-f]{12}`).ReplaceAllString(out.String(), "HASH") // of random ids
	golden.Compare(t, "health.txt", text)
}

// with is a map with one thing more.
func with[K comparable, V any](m map[K]V, key K, value V) map[K]V {
	if m == nil {
		m = make(map[K]V)
	}
	m[key] = value
	return m
}
