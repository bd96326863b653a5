package etcd

import (
	"fmt"
	"slices"
)

// usage is how a member's database stands.
type usage struct {
	Seat    int
	Answers bool
	Voter   bool
	Size    int64 // of the file, which only a defragmentation makes smaller
	InUse   int64 // of it
}

// chore is what the leader's node does about the databases.
type chore struct {
	Do   string
	Seat int
	Why  string
}

// What a chore may be.
const (
	nothing    = ""
	compact    = "compact"    // forget all revisions but the newest
	defragment = "defragment" // a seat's database
	yield      = "yield"      // to a seat: the leader's own database is next, and would hold up everybody
	disarm     = "disarm"     // the alarm, so that writes are taken again
)

const (
	// A database is defragmented when half of it and at least leastWaste is free: it is copied
	// whole for that, and takes no write meanwhile.
	leastWaste = 32 << 20
	// Under an alarm it is the members above part of the quota that have an eighth to give.
	fullPart = 0.8
)

// upkeep says what is to be done. self leads; full are the seats for which writes have stopped;
// compacted says that this was done since they have. One database is defragmented at a time, and
// the leader's is the last.
func upkeep(self int, quota int64, all []usage, full []int, compacted bool) chore {
	alarm := len(full) > 0
	if alarm && !compacted {
		return chore{compact, 0, fmt.Sprintf("seats %v are full", full)}
	}
	wasteful := func(u usage) bool {
		free := u.Size - u.InUse
		if alarm && float64(u.Size) >= fullPart*float64(quota) {
			return free >= u.Size/8
		}
		return free >= leastWaste && free >= u.Size/2
	}
	var own bool
	for _, u := range all {
		switch {
		case !u.Answers || !wasteful(u):
		case u.Seat == self:
			own = true
		default:
			return chore{defragment, u.Seat, fmt.Sprintf("%d of %d MiB are free", (u.Size-u.InUse)>>20, u.Size>>20)}
		}
	}
	if own {
		if i := slices.IndexFunc(all, func(u usage) bool { return u.Answers && u.Voter && u.Seat != self }); i >= 0 {
			return chore{yield, all[i].Seat, "this database is to be defragmented"}
		}
		return chore{defragment, self, "it is the only one"}
	}
	if !alarm {
		return chore{}
	}
	for _, seat := range full {
		if i := slices.IndexFunc(all, func(u usage) bool { return u.Seat == seat }); i >= 0 {
			switch u := all[i]; {
			case !u.Answers:
				return chore{nothing, seat, fmt.Sprintf("seat %d is full and does not answer", seat)}
			case float64(u.Size) >= 0.95*float64(quota):
				return chore{nothing, seat, fmt.Sprintf("seat %d is full: %d MiB of %d MiB are in use", seat, u.InUse>>20, quota>>20)}
			}
		}
	}
	return chore{disarm, 0, "there is room again"}
}
