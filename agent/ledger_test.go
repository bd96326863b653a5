package main

import (
	"errors"
	"path/filepath"
	"testing"

	"kogge.example/agent/identity"
	"kogge.example/agent/pinned"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestLedgerProblem: a node tells that its fleet has two histories for as long as it knows of
// them; one that has no ledger does not even look for the key of a seat.
func TestLedgerProblem(t *testing.T) {
	state := t.TempDir()
	errNobody := errors.New("nobody has adopted it")
	own := func() (*identity.Seat, *pinned.Ledger, error) { return nil, nil, errNobody }
	if err := ledgerProblem(own, state); err != nil {
		t.Errorf("a node alone: %v", err)
	}
	f := ledgertest.Founded(t, 4, 2)
	dir := filepath.Join(state, "kogge", "ledger")
	must(t, pinned.Open(dir, f.Genesis).Take(1, f.Entries[0]))
	if err := ledgerProblem(own, state); !errors.Is(err, errNobody) {
		t.Errorf("a ledger of nobody: %v", err)
	}
	own = func() (*identity.Seat, *pinned.Ledger, error) { return nil, pinned.Open(dir, f.Genesis), nil }
	if err := ledgerProblem(own, state); err != nil {
		t.Errorf("one that is whole: %v", err)
	}
	if err := pinned.Open(dir, f.Genesis).Take(1, f.Again(t)); !errors.Is(err, pinned.ErrFork) {
		t.Fatal(err)
	}
	if err := ledgerProblem(own, state); !errors.Is(err, pinned.ErrFork) {
		t.Errorf("with two histories: %v", err)
	}
}
