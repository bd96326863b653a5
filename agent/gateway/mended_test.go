package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"kogge.example/agent/etcd/store"
	"kogge.example/agent/pinned"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
)

// TestUnleased has somebody write a node's status anew, as the node has signed it, by no lease and by one
// that another gateway keeps: the node says nothing, and its status lies there by its gateway's lease again.
func TestUnleased(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other, err := s.Lease(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key := board.Place{Topic: board.Nodes, Node: w.nodes[3].seat.Key.ID(), Kind: notice.StatusKind}.Key()
	for _, lease := range []int64{0, other} {
		var own store.Item
		w.etcd.Until("the status is written", func() bool {
			if own, err = s.Get(t.Context(), key); err != nil {
				return false
			}
			_, done, err := s.Write(t.Context(), []store.Write{{Key: key, Value: own.Value, Was: own.Revision, Lease: lease}})
			return err == nil && done
		})
		w.etcd.Until("it lies there by the gateway's lease", func() bool {
			i, err := s.Get(t.Context(), key)
			return err == nil && i.Lease == own.Lease && bytes.Equal(i.Value, own.Value)
		})
	}
	w.whole()
}

// TestTidy has somebody write more than a page of what is nobody's: all of it goes, by whichever gateway;
// what is of the fleet stays, and what a release to come may have put there, but for what is too much of it.
func TestTidy(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n4 := w.nodes[3]
	own := board.Nodes.Prefix() + n4.seat.Key.ID().String() + "/"
	lies := make(map[string]bool) // that stay
	var writes []store.Write
	write := func(key string, value []byte, stays bool) {
		writes, lies[key] = append(writes, store.Write{Key: key, Value: value}), stays
	}
	for i := range 20 {
		write(fmt.Sprintf("%sload%02d", own, i), n4.seal("kogge/load/v1", uint64(i), []byte("{}")).Bytes(), i >= 4)
		write(fmt.Sprintf("%s!%02d", board.Root, i), n4.seal("kogge/load/v1", 3, []byte("{}")).Bytes(), false)
		write(fmt.Sprintf("/other/%d", i), nil, false)
		write(fmt.Sprintf("%s%x/status", board.Nodes.Prefix(), i), nil, false)
		write(fmt.Sprintf("%s%s/record", board.Nodes.Prefix(), document.HashOf([]byte{byte(i)})), []byte("junk"), false)
		write(board.Entry(int64(1000+i)).Key(), []byte("junk"), false)
	}
	write(board.Root+strings.Repeat("x", 1000), nil, false)
	write(board.Root+strings.Repeat("x", 1001), nil, false)
	write("/zzz", nil, false)
	write(board.Root+"zzz", nil, false)
	for len(writes) > 0 {
		some := writes[:min(len(writes), 64)]
		w.etcd.Until("they are written", func() bool {
			_, done, err := s.Write(t.Context(), some)
			return err == nil && done
		})
		writes = writes[len(some):]
	}
	w.etcd.Until("what is nobody's is gone", func() bool {
		for _, n := range w.nodes[:3] {
			n.gateway.Tidy(t.Context())
		}
		for key, stays := range lies {
			if i, err := s.Get(t.Context(), key); err != nil || (i.Revision > 0) != stays {
				return false
			}
		}
		return true
	})
	w.etcdHas(w.nodes...)
	w.whole()
	var removed uint64
	for _, n := range w.nodes[:3] {
		removed += n.gateway.Stats().Removed
	}
	if removed == 0 {
		t.Error("none is counted")
	}
}

// TestTidyQuiet has nobody write anything while the gateways look through all keys: what is of the fleet
// stays as it was written, and junk goes though no word of the fleet's has come after it. A lease that ran
// out on a busy machine is no fault here: that status is written anew, and no gateway has taken it out.
func TestTidyQuiet(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	w.etcdHas(w.nodes...)
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	revisions := func() map[string]int64 { // of what no lease keeps
		all := make(map[string]int64)
		if err := s.List(t.Context(), board.Root, "", func(items []store.Item) error {
			for _, i := range items {
				if i.Lease == 0 {
					all[i.Key] = i.Revision
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := revisions()
	for _, n := range w.nodes {
		if before[board.Place{Topic: board.Nodes, Node: n.seat.Key.ID(), Kind: notice.NodeKind}.Key()] == 0 {
			t.Fatalf("%s has no record", n.seat.Name)
		}
	}
	junk := []string{"/zzz", board.Root + "zzz"}
	for _, key := range junk {
		w.etcd.Until("junk is written", func() bool {
			_, done, err := s.Write(t.Context(), []store.Write{{Key: key}})
			return err == nil && done
		})
	}
	w.etcd.Until("junk is gone", func() bool {
		for _, n := range w.nodes[:3] {
			n.gateway.Tidy(t.Context())
		}
		for _, key := range junk {
			if i, err := s.Get(t.Context(), key); err != nil || i.Revision > 0 {
				return false
			}
		}
		return true
	})
	var removed uint64
	for _, n := range w.nodes[:3] {
		removed += n.gateway.Stats().Removed
	}
	if removed > 2 {
		t.Errorf("%d keys were taken out, and 2 are nobody's", removed)
	}
	if after := revisions(); !maps.Equal(before, after) {
		t.Errorf("before: %v\nafter: %v", before, after)
	}
	w.etcdHas(w.nodes...)
}

// TestTidyFull fills etcd with junk until it takes no write any more: it is taken out, and then nodes are
// heard again.
func TestTidyFull(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	junk := make([]byte, 100<<10)
	for n := 0; !errors.Is(err, rpctypes.ErrNoSpace); n++ {
		if n > 1000 {
			t.Fatalf("it is not full: %v", err)
		}
		_, _, err = s.Write(t.Context(), []store.Write{{Key: fmt.Sprintf("/junk/%d", n), Value: junk}})
	}
	w.nodes[3].say(notice.StatusKind, statusOf("full"))
	w.etcd.Until("junk is gone", func() bool {
		for _, n := range w.nodes[:3] {
			n.gateway.Tidy(t.Context())
		}
		gone := true
		err := s.List(t.Context(), "/junk/", "", func([]store.Item) error { gone = false; return nil })
		return err == nil && gone
	})
	w.etcdHas(w.nodes...)
	w.whole()
}

// TestTidyBehind has gateways whose ledgers stand still, as a later release's record is next, or there are
// two histories: they take nothing away of those who may have been seated since. That somebody has put
// there what is not proved stops nobody.
func TestTidyBehind(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(key string, value []byte) {
		t.Helper()
		w.etcd.Until(key+" is written", func() bool {
			i, err := s.Get(t.Context(), key)
			if err != nil {
				return false
			}
			_, done, err := s.Write(t.Context(), []store.Write{{Key: key, Value: value, Was: i.Revision}})
			return err == nil && done
		})
	}
	value := []byte("{\n  \"version\": 1,\n  \"later\": {}\n}\n") // a kind that this release does not know
	r, err := w.fleet.Log.State().Next(w.fleet.Operators(t, "carl"))
	if err != nil {
		t.Fatal(err)
	}
	r.Value = document.HashOf(value)
	proved, made := w.fleet.Proved(r, ledger.Value{}, 3), w.fleet.Proved(r, ledger.Value{}, 1)
	proved.Value, made.Value = value, value
	stranger := board.Nodes.Prefix() + document.HashOf([]byte("later")).String() + "/record"
	for _, c := range []struct {
		what  string
		next  []byte
		stays bool
	}{
		{"a later release's", ledger.FormatEntry(2, proved), true},
		{"no entry", []byte("junk"), false},
		{"one that is not proved", ledger.FormatEntry(2, made), false},
		{"two histories", []byte("junk"), true},
	} {
		if c.what == "two histories" {
			for _, n := range w.nodes[:3] {
				if err := n.ledger.Take(1, w.fleet.Again(t)); !errors.Is(err, pinned.ErrFork) {
					t.Fatal(err)
				}
			}
		}
		put(board.Entry(2).Key(), c.next)
		put(stranger, []byte("what it says"))
		for _, n := range w.nodes[:3] {
			n.gateway.Tidy(t.Context())
		}
		i, err := s.Get(t.Context(), stranger)
		if err != nil || (i.Revision > 0) != c.stays {
			t.Errorf("%s: %+v, %v", c.what, i, err)
		}
	}
}
