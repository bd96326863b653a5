package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"kogge.example/agent/identity"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/install"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// joinYAML is a join.yaml for the fleet of a genesis.
func joinYAML(t *testing.T, g *fleet.Genesis) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "join.yaml")
	must(t, os.WriteFile(path, fleet.MarshalJoinFile(&fleet.JoinFile{Genesis: g, Token: fleet.NewToken()}), 0o600))
	return path
}

// TestJoin: a node takes a fleet with a ledger only once it cannot go back to a release that
// knows none, and keeps its join.yaml until then. Of other fleets nobody asks that.
func TestJoin(t *testing.T) {
	f := ledgertest.Begun(t, 3)
	alone := ledgertest.Version1(t, f.Genesis)
	refused := func() (func(), error) { return nil, install.ErrFallback }
	open := func() *identity.Node {
		node, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
		must(t, err)
		return node
	}
	node, path := open(), joinYAML(t, f.Genesis)
	for range 2 {
		if err := join(node, path, refused); !errors.Is(err, errLater) || !errors.Is(err, install.ErrFallback) || node.Genesis() != nil {
			t.Fatalf("it is %s: %v", node, err)
		}
	}
	held := 0
	ready := func() (func(), error) {
		held++
		return func() {
			if held--; node.Genesis() == nil {
				t.Error("the slots are let go before the fleet is known")
			}
		}, nil
	}
	must(t, join(node, path, ready))
	if g := node.Genesis(); g == nil || g.ID() != f.Genesis.ID() || held != 0 {
		t.Errorf("it is %s, held %d", node, held)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the token is left")
	}
	must(t, join(node, path, refused)) // there is no file

	if err := join(open(), joinYAML(t, alone), refused); err != nil {
		t.Errorf("a fleet of version 1: %v", err)
	}
	adopted, _ := identitytest.Adopted(t, f)
	if err := join(adopted, joinYAML(t, f.Genesis), refused); err != nil {
		t.Errorf("a node that is adopted: %v", err)
	}
	broken := filepath.Join(t.TempDir(), "join.yaml")
	must(t, os.WriteFile(broken, []byte("fleet: x\n"), 0o600))
	if err := join(open(), broken, refused); err == nil || errors.Is(err, errLater) {
		t.Errorf("one that is broken: %v", err)
	}
}

// TestJoinLater goes on trying for as long as it says later.
func TestJoinLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		joinLater(t.Context(), errLater, func() error {
			if tries++; tries < 4 {
				return errLater
			}
			return nil
		})
		if tries != 4 {
			t.Errorf("%d tries", tries)
		}
		joinLater(t.Context(), errors.New("a mistake"), func() error { t.Error("a mistake is no better later"); return nil })
		joinLater(t.Context(), nil, func() error { t.Error("it has joined"); return nil })
	})
}
