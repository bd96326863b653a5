package docket

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
)

// TestStore keeps what waits from run to run, and lets go what was decided.
func TestStore(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	dir := filepath.Join(t.TempDir(), "docket")
	state := func() ledger.State { return f.Log.State() }
	s := Open(dir, state)
	heard := 0
	s.Listen(func() { heard++ })
	value := f.Operators(t, "bob")
	e := f.Proposal(t, value)
	id := proposal.ID(e)
	yes := f.Answer(id, true, f.Genesis.Name, "", 1, 2)
	if _, err := s.Take(yes); !errors.Is(err, docket.ErrEarly) {
		t.Errorf("an answer to nothing: %v", err)
	}
	for _, raw := range [][]byte{e.Bytes(), yes} {
		if news, err := s.Take(raw); err != nil || !news {
			t.Errorf("news %v, %v", news, err)
		}
		if news, err := s.Take(raw); err != nil || news {
			t.Errorf("again: news %v, %v", news, err)
		}
	}
	if heard != 2 {
		t.Errorf("%d changes are told, and there were 2", heard)
	}
	if err := os.WriteFile(filepath.Join(dir, id.String()), []byte("no object"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := Open(dir, state)
	if again.Sum() != s.Sum() || len(again.All()) != 2 || len(again.Open()) != 1 || again.Open()[0].ID != id {
		t.Errorf("after a boot: %d objects", len(again.All()))
	}
	if _, err := os.Stat(filepath.Join(dir, id.String())); !errors.Is(err, os.ErrNotExist) {
		t.Error("what is no object stays")
	}
	f.Take(t, f.Decided(t, value, 3))
	if open := again.Open(); len(open) > 0 || len(again.Known()) > 0 {
		t.Errorf("decided, and it waits: %+v", open)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}

// TestDropped does not take again what left the queue.
func TestDropped(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	s := Open(filepath.Join(t.TempDir(), "docket"), func() ledger.State { return f.Log.State() })
	e := f.Proposal(t, f.Operators(t, "bob"))
	if _, err := s.Take(e.Bytes()); err != nil {
		t.Fatal(err)
	}
	s.Drop(proposal.ID(e), "nobody wants it")
	if len(s.All()) > 0 {
		t.Error("it waits")
	}
	if _, err := s.Take(e.Bytes()); !errors.Is(err, docket.ErrOver) {
		t.Errorf("it comes again: %v", err)
	}
}

// TestWith is as if there were no docket where nothing waits.
func TestWith(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	open := func() *Store {
		return Open(filepath.Join(t.TempDir(), "docket"), func() ledger.State { return f.Log.State() })
	}
	one, other := open(), open()
	a, b := With(With(one, open()), open()), With(other, open())
	e := f.Proposal(t, f.Operators(t, "bob"))
	if news, err := one.Take(e.Bytes()); err != nil || !news {
		t.Fatal(err)
	}
	if a.Sum() == b.Sum() {
		t.Error("the sums are the same")
	}
	for _, raw := range a.Lacking(b.IDs(), 64<<10) {
		if _, err := other.Take(raw); err != nil {
			t.Error(err)
		}
	}
	if a.Sum() != b.Sum() || len(a.Lacking(b.IDs(), 64<<10)) > 0 {
		t.Error("both have the same, and the sums differ")
	}
}
