package main

import (
	"testing"

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
