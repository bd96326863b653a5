package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// TestJunk has which keys may lie in etcd, and why the others may not: releases to come rely on it.
func TestJunk(t *testing.T) {
	state := ledgertest.Founded(t, 3, 3).Log.State()
	state.Operators = []ledger.Operator{{Name: "cleo", Key: ledgertest.Key(t, "cleo").ID()}}
	l, fleet, own := lawOf(state), state.Fleet(), state.Roster.Seats[0].Key.ID()
	seal := func(kind, by string, fleet document.Hash) []byte {
		e, err := signed.Seal(kind, fleet, ledgertest.Private(by), 1, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		return e.Bytes()
	}
	load := seal("kogge/load/v1", "n1", fleet)
	forged := append(load[:len(load)-1:len(load)-1], load[len(load)-1]^1)
	nodes := func(id document.Hash, leaf string) string { return board.Nodes.Prefix() + id.String() + "/" + leaf }
	var b strings.Builder
	for _, c := range []struct {
		what, key string
		lease     int64
		value     []byte
	}{
		{"a record", nodes(own, "record"), 0, seal(notice.NodeKind, "n1", fleet)},
		{"a record that is none, which its node writes anew", nodes(own, "record"), 0, []byte("junk")},
		{"a record too large for nodes that are away", nodes(own, "record"), 0, make([]byte, wire.MaxValue+1)},
		{"a status", nodes(own, "status"), 7, seal(notice.StatusKind, "n1", fleet)},
		{"a status that stays", nodes(own, "status"), 0, seal(notice.StatusKind, "n1", fleet)},
		{"a record of a node that nobody has", nodes(document.HashOf(nil), "record"), 0, seal(notice.NodeKind, "n1", fleet)},
		{"a status of a node that nobody has", nodes(document.HashOf(nil), "status"), 7, nil},
		{"a record of the ledger", board.Entry(3).Key(), 0, []byte("{}")},
		{"the last one that may come soon", board.Entry(state.Height + recent).Key(), 0, nil},
		{"one that may not", board.Entry(state.Height + recent + 1).Key(), 0, nil},
		{"another leaf, by a seat", nodes(own, "load"), 0, load},
		{"another leaf, by an operator", nodes(own, "spec"), 0, seal("kogge/spec/v1", "cleo", fleet)},
		{"another topic", board.Root + "loads/1", 0, load},
		{"another version", "/kogge/v2/nodes/x/load", 0, load},
		{"another version of a status", "/kogge/v2/nodes/x/status", 0, seal(notice.StatusKind, "n1", fleet)},
		{"another leaf, with nothing there", nodes(own, "load"), 0, nil},
		{"another leaf, by a stranger", nodes(own, "load"), 0, seal("kogge/load/v1", "eve", fleet)},
		{"another leaf, of another fleet", nodes(own, "load"), 0, seal("kogge/load/v1", "n1", document.HashOf(nil))},
		{"another leaf, with a wrong signature", nodes(own, "load"), 0, forged},
		{"a status in another place", board.Root + "loads/1", 0, seal(notice.StatusKind, "n1", fleet)},
		{"another version, with junk there", "/kogge/v2/roster", 0, []byte("junk")},
		{"no version", "/kogge/roster", 0, load},
		{"no version that is one", "/kogge/v01/loads/1", 0, load},
		{"version 0", "/kogge/v0/loads/1", 0, load},
		{"the prefix alone", "/kogge/v1", 0, load},
		{"outside", "/other", 0, load},
		{"long", board.Root + strings.Repeat("x", longKey), 0, load},
	} {
		why, look := l.ofKey(c.key)
		if look {
			why, _ = l.ofValue(c.key, c.value, c.lease)
		}
		if why == "" {
			why = "stays"
		}
		fmt.Fprintf(&b, "%s: %s\n", c.what, why)
	}
	golden.Compare(t, "junk.txt", b.String())
}

// TestAges has nothing be old before it has lain there for long enough, nor by revisions of another etcd.
func TestAges(t *testing.T) {
	var d tidying
	start := time.Now()
	for _, c := range []struct {
		after     time.Duration
		cluster   uint64
		newest    int64
		old, next int64
	}{
		{0, 1, 5, 0, 5}, {tidyAfter - 1, 1, 9, 0, 5}, {tidyAfter, 1, 10, 5, 10}, {tidyAfter + tidyEvery, 1, 20, 5, 10}, {2 * tidyAfter, 1, 30, 10, 30},
		{2*tidyAfter + 1, 1, 3, 0, 3}, {3*tidyAfter + 1, 1, 3, 3, 3}, {3*tidyAfter + 2, 2, 9, 0, 9}, {4*tidyAfter + 2, 2, 9, 9, 9},
	} {
		if d.ages(start.Add(c.after), store.Page{Cluster: c.cluster, Revision: c.newest}); d.old.revision != c.old || d.next.revision != c.next {
			t.Errorf("after %s: %+v, %+v", c.after, d.old, d.next)
		}
	}
}

// FuzzJunk has keys and values that a hostile member made up: none that this release has a place for goes
// by what lies there, unless it is too large, and none stays that nobody of the ledger has signed.
func FuzzJunk(f *testing.F) {
	state := ledgertest.Founded(f, 3, 1).Log.State()
	l := lawOf(state)
	f.Add("/kogge/v1/ledger/0000000001", []byte("{}"))
	f.Add("/kogge/v2/x", []byte("{}"))
	f.Add(board.Root+"nodes/"+state.Roster.Seats[0].Key.ID().String()+"/load", []byte{})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		why, look := l.ofKey(key)
		if look == (why != "") {
			t.Fatalf("%q: %q, %v", key, why, look)
		}
		if !look {
			return
		}
		why, found := l.ofValue(key, value, 1)
		stays := why == "" && found.Kind != ""
		if _, known := board.Parse(key); known != (why == "" && !stays || why == wire.TooLarge.String()) {
			t.Errorf("%q: %q, %+v", key, why, found)
		}
		if stays && (!l.signers[found.By.ID()] || found.Verify() != nil) {
			t.Errorf("%q stays by %s", key, found.By)
		}
	})
}

// TestStrangers has somebody write once more, under other keys, what a seat has signed for a release to come,
// and delete what the seat has put. Once he is gone, the seat's own keys stay when its gateway has put them
// again, and nothing else does.
func TestStrangers(t *testing.T) {
	fleet, revision := document.HashOf(nil), int64(0)
	lies := make(map[string]int64)
	says := make(map[string]signed.Envelope)
	put := func(key, kind string, number uint64) {
		e, err := signed.Seal(kind, fleet, ledgertest.Private("n1"), number, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		revision++
		lies[key], says[key] = revision, e
	}
	tidy := func() {
		for all, left := make(strangers), slices.Sorted(maps.Keys(lies)); len(left) > 0; left = left[1:] {
			if junk, is := all.take(store.Found{Key: left[0], Revision: lies[left[0]]}, says[left[0]]); is {
				if lies[junk.Key] != junk.Revision {
					t.Fatalf("%+v is to go, and does not lie there", junk)
				}
				delete(lies, junk.Key)
			}
		}
	}
	own := func(again bool) {
		for number := range uint64(mostUnknown) { // votes of rounds, and one load
			if key := fmt.Sprintf("/kogge/v1/votes/%d/ID", number); lies[key] == 0 || !again {
				put(key, "kogge/ballot/v1", 100+number)
			}
		}
		if lies["/kogge/v1/nodes/ID/load"] == 0 || !again {
			put("/kogge/v1/nodes/ID/load", "kogge/load/v1", 7)
		}
	}
	for _, deletes := range []bool{false, true} {
		clear(lies)
		own(false)
		if tidy(); len(lies) != mostUnknown+1 {
			t.Fatalf("%d keys are the seat's, and stay", len(lies))
		}
		if deletes {
			clear(lies)
		}
		for i := range uint64(3 * mostUnknown) {
			put(fmt.Sprintf("/kogge/v1/!new%02d", i), "kogge/ballot/v1", 100+i%mostUnknown) // what it says
			put(fmt.Sprintf("/kogge/v1/!old%02d", i), "kogge/ballot/v1", i)                 // what it has said
			put(fmt.Sprintf("/kogge/v2/one%02d", i), "kogge/load/v1", 7)
		}
		tidy()
		own(true)
		tidy()
		own(true)
		tidy()
		for key := range lies {
			if strings.HasPrefix(key, "/kogge/v1/!") || strings.HasPrefix(key, "/kogge/v2/") {
				t.Errorf("%s stays", key)
			}
		}
		if len(lies) != mostUnknown+1 {
			t.Errorf("%d keys of the seat's stay", len(lies))
		}
	}
	for i := range 2 * mostKinds {
		put(fmt.Sprintf("/kogge/v3/%02d", i), fmt.Sprintf("kogge/kind%d/v1", i), 1)
	}
	if tidy(); len(lies) != mostUnknown+1+mostKinds-2 {
		t.Errorf("%d keys stay", len(lies))
	}
}
