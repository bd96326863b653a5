// Package partition has the names of the partitions of a Kogge disk.
//
// Who writes a disk gives them, whoever reads one finds its parts by them; nothing flows
// here. Sizes, places and types are image/disk's, the table itself is update/gpt's. It also
// has what the image, PID 1 and the agent have to agree on about STATE: its format, and which
// files are preloads.
package partition

import "strings"

// The names, as they stand in the partition table.
const (
	ESP   = "ESP"    // boot loader, kernels of both slots, the seed
	RootA = "ROOT-A" // root file system and verity tree of slot A
	RootB = "ROOT-B"
	State = "STATE" // what a node keeps
)

// SealedState is the format of STATE, as releases say which ones they read, in which applied
// Compose files may be sealed (agent/sealed), and whose file system may have quotas of
// projects (image/disk). Releases that read format 1 alone cannot read the one, and their
// kernels do not mount the other.
const SealedState = 2

// FleetState is the format of STATE in which a node may know a genesis of version 2, and has
// its fleet's ledger. Releases that do not read it know no such fleet. A new kind of record in
// the ledger, too, is a new format: who goes back has to understand what was decided.
const FleetState = 3

// All are the partitions in their order on the disk. Without the last one a node boots,
// and keeps nothing.
func All() []string { return []string{ESP, RootA, RootB, State} }

// Root is the root partition of a slot, "A" or "B" in either case.
func Root(slot string) string { return "ROOT-" + strings.ToUpper(slot) }
