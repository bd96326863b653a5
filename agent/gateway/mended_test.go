package gateway_test

import (
	"bytes"
	"testing"
	"time"

	"kogge.example/agent/etcd/store"
	"kogge.example/update/fleet/board"
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
