// Package partition has the names of the partitions of a Kogge disk.
//
// Who writes a disk gives them, whoever reads one finds its parts by them; nothing flows
// here. Sizes, places and types are image/disk's, the table itself is update/gpt's.
package partition

import "strings"

// The names, as they stand in the partition table.
const (
	ESP   = "ESP"    // boot loader, kernels of both slots, the seed
	RootA = "ROOT-A" // root file system and verity tree of slot A
	RootB = "ROOT-B"
	State = "STATE" // what a node keeps
)

// All are the partitions in their order on the disk. Without the last one a node boots,
// and keeps nothing.
func All() []string { return []string{ESP, RootA, RootB, State} }

// Root is the root partition of a slot, "A" or "B" in either case.
func Root(slot string) string { return "ROOT-" + strings.ToUpper(slot) }
