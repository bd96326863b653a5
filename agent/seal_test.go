package main

import (
	"os"
	"path/filepath"
	"testing"

	"kogge.example/agent/identity"
	"kogge.example/agent/sealed"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/memory"
	"kogge.example/update/partition"
)

// TestSeals asks a node's own files.
func TestSeals(t *testing.T) {
	at := paths{run: t.TempDir(), state: t.TempDir()}
	if at.seals() {
		t.Error("no node seals")
	}
	must(t, control.Boot{Slot: "A", Version: "1.0"}.Write(at.run))
	if !at.seals() {
		t.Error("a node from an image does not seal")
	}
	folder := filepath.Join(at.state, "kogge", "update")
	must(t, os.MkdirAll(folder, 0o700))
	for slot, want := range map[bootloader.Slot]bool{"A": true, "B": false} {
		must(t, memory.WriteStaged(memory.In(folder), map[bootloader.Slot]*memory.Staged{slot: {
			Release: "0.9", Verity: "abababababababababababababababababababababababababababababababab:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd:7",
			Schema: memory.Schema{Reads: [2]int{1, 1}, Writes: 1},
		}}))
		if got := at.seals(); got != want {
			t.Errorf("an older release in slot %s: %v", slot, got)
		}
	}
}

// TestSealed: an older release is not for a STATE with projects that it cannot read, whatever
// the other slot has by now.
func TestSealed(t *testing.T) {
	at := paths{run: t.TempDir(), state: t.TempDir()}
	if at.sealed() {
		t.Error("an empty folder is sealed")
	}
	must(t, os.MkdirAll(at.projects(), 0o700))
	for text, want := range map[string]bool{"services: {}\n": false, "age-encryption.org/v1\n-> X25519": true} {
		must(t, os.WriteFile(filepath.Join(at.projects(), "shop.yaml"), []byte(text), 0o600))
		if got := at.sealed(); got != want {
			t.Errorf("with a project of %q: %v", text, got)
		}
	}
}

// TestFormat: once a node knows a fleet that keeps a ledger, a release that knows none is not
// for its STATE.
func TestFormat(t *testing.T) {
	at := paths{run: t.TempDir(), state: t.TempDir()}
	if got := at.format(nil); got != partition.FleetState {
		t.Errorf("a node that knows nothing of itself: %d", got)
	}
	old, err := os.ReadFile(filepath.Join("..", "update", "fleet", "testdata", "v1", "genesis.json"))
	must(t, err)
	alone, err := fleet.ParseGenesis(old)
	must(t, err)
	for name, c := range map[string]struct {
		genesis *fleet.Genesis
		want    int
	}{"no fleet": {nil, 1}, "one of version 1": {alone, 1}, "one with a ledger": {ledgertest.Begun(t, 3).Genesis, partition.FleetState}} {
		node, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
		must(t, err)
		if c.genesis != nil {
			must(t, node.Join(&fleet.JoinFile{Genesis: c.genesis, Token: fleet.NewToken()}))
		}
		if got := at.format(node); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
	must(t, os.MkdirAll(at.projects(), 0o700))
	must(t, os.WriteFile(filepath.Join(at.projects(), "shop.yaml"), []byte("age-encryption.org/v1\n-> X25519"), 0o600))
	node, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
	must(t, err)
	if got := at.format(node); got != partition.SealedState {
		t.Errorf("with a sealed project: %d", got)
	}
}

// TestRunsOf: a project that cannot be opened is in the way of the others only while one of its
// containers runs.
func TestRunsOf(t *testing.T) {
	of := func(id string, task workload.Task) workload.Found {
		return workload.Found{Record: workload.Record{ID: id}, Task: task}
	}
	for _, c := range []struct {
		name  string
		found []workload.Found
		want  bool
	}{
		{"after a boot", []workload.Found{of("shop.web", workload.Absent), of("own", workload.Absent)}, false},
		{"others run", []workload.Found{of("own", workload.Alive), of("shop", workload.Alive), of("shops.web", workload.Alive), of("", workload.Alive)}, false},
		{"it has ended", []workload.Found{of("shop.web", workload.Over), of("shop.job", workload.Exited)}, false},
		{"it runs", []workload.Found{of("shop.job", workload.Over), of("shop.web", workload.Alive)}, true},
		{"it is paused", []workload.Found{of("shop.web", workload.Strange)}, true},
	} {
		if got := runsOf(c.found, map[string]error{"shop": sealed.ErrDamaged}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
