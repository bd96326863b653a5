package main

import (
	"os"
	"path/filepath"
	"testing"

	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/memory"
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
