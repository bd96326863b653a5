package etcd

import (
	"fmt"
	"slices"
)

// usage is how a member's database stands. Of others it is what they say.
type usage struct {
	Seat    int
	Answers bool
	Voter   bool
	Size    int64 // of the file, which only a defragmentation makes smaller
	InUse   int64 // of it, as of the last write: after a compaction nothing may be written
	Done    bool  // it was defragmented since revisions were forgotten for want of room
	Often   int   // how often it was in the last hour
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
	disarm     = "disarm"     // the alarms for want of room, so that writes are taken again
	forget     = "forget"     // the alarms of members that are gone
)

const (
	// A database is defragmented when half of it, and at least that part of the quota, is free:
	// it is copied whole for that, and takes no write meanwhile.
	wastePart = 1. / 8
	// Under an alarm it is each of the members above part of the quota, once, and those that have
	// an eighth to give.
	fullPart = 0.8
	// Above that part of it a member would soon raise the alarm again.
	alarmPart = 0.95
	// mostDone is how often one is defragmented in an hour, whatever a member says of itself.
	mostDone = 6
)

// upkeep says what is to be done. self leads; full are the seats for which writes have stopped;
// gone is how many alarms are of members that are not there any more; compacted says that revisions
// were forgotten since writes have stopped. One database is defragmented at a time, and the
// leader's is the last. All have the same data, so only what this node sees of its own says that
// there is no room: one that is silent, or says so after it was defragmented, raises its alarm again
// if that is so.
func upkeep(self int, quota int64, all []usage, full []int, gone int, compacted bool) chore {
	if gone > 0 {
		return chore{forget, 0, fmt.Sprintf("%d alarms are of members that are gone", gone)}
	}
	alarm := len(full) > 0
	if alarm && !compacted {
		return chore{compact, 0, fmt.Sprintf("seats %v are full", full)}
	}
	wasteful := func(u usage) bool {
		free := u.Size - u.InUse
		switch {
		case u.Often >= mostDone:
			return false
		case alarm && float64(u.Size) >= fullPart*float64(quota):
			return !u.Done || free >= u.Size/8
		}
		return float64(free) >= wastePart*float64(quota) && free >= u.Size/2
	}
	var own bool
	for _, u := range all {
		switch {
		case !u.Answers || !wasteful(u):
		case u.Seat == self:
			own = true
		default:
			return chore{defragment, u.Seat, fmt.Sprintf("%d of %d MiB are in use", u.InUse>>20, u.Size>>20)}
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
	for _, u := range all {
		if u.Seat == self && float64(u.Size) >= alarmPart*float64(quota) {
			return chore{nothing, self, fmt.Sprintf("etcd is full: %d MiB of %d MiB are in use", u.InUse>>20, quota>>20)}
		}
	}
	return chore{disarm, 0, "there is room again"}
}
