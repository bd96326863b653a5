package main

import (
	"os"
	"path/filepath"
	"testing"

	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/part"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestSeatless: what the installer asks of a node that has lost the key of its seat.
func TestSeatless(t *testing.T) {
	f := ledgertest.Founded(t, 1, 1)
	var now parts
	slots := installer(paths{}, &now)
	if _, err := slots.Ledger(); err == nil {
		t.Error("a node that knows nothing of itself has a ledger")
	}
	node, state := identitytest.Adopted(t, f)
	p := part.New(node, state, t.TempDir(), func() {})
	now.part.Store(p)
	taken, err := p.Ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	must(t, os.WriteFile(filepath.Join(state, "identity", "seat.json"), []byte("{}"), 0o600))
	if s, err := slots.Ledger(); err != nil || s.Height != 1 || s.Roster.Votes() != 1 {
		t.Errorf("height %d, %v", s.Height, err)
	}
	if key, err := slots.Seat(); err == nil {
		t.Errorf("its seat has key %s", key)
	}
}
