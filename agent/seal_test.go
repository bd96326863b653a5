package main

import (
	"os"
	"path/filepath"
	"testing"

	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/memory"
	"kogge.example/update/release"
)

// TestSealable: projects are sealed once no slot has a release that would not read them.
func TestSealable(t *testing.T) {
	type slots = map[bootloader.Slot]*memory.Staged
	before := &memory.Staged{Schema: memory.Schema{Reads: [2]int{1, 1}, Writes: 1}}
	now := &memory.Staged{Schema: release.StateSchema}
	later := &memory.Staged{Schema: memory.Schema{Reads: [2]int{2, 4}, Writes: 4}}
	farther := &memory.Staged{Schema: memory.Schema{Reads: [2]int{3, 4}, Writes: 4}}
	for _, c := range []struct {
		name   string
		runs   bootloader.Slot
		staged slots
		want   bool
	}{
		{"a node from an image", "A", slots{}, true},
		{"its records are lost", "B", slots{}, false},
		{"updated from a release that seals", "B", slots{"A": now, "B": now}, true},
		{"updated from one that does not", "B", slots{"A": before, "B": now}, false},
		{"back on A", "A", slots{"A": now, "B": before}, false},
		{"a later one beside it", "A", slots{"B": later}, true},
		{"one that reads this one no more", "A", slots{"B": farther}, false},
		{"one that says nothing", "A", slots{"B": {}}, false},
	} {
		if got := sealable(c.runs, c.staged); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

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
