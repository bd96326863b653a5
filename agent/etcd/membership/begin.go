package membership

import (
	"fmt"
	"slices"
)

// Folder is what a node's data folder holds.
type Folder string

// What a data folder may hold.
const (
	Absent  Folder = "absent"
	Mine    Folder = "mine"    // data of this seat, of this fleet's etcd
	Foreign Folder = "foreign" // of another fleet, founding or seat
	Damaged Folder = "damaged" // cannot be read, or etcd has died of it again and again
)

// Own is what a node knows of itself.
type Own struct {
	Seat   int
	Wanted bool // the roster has this seat run etcd
	// Founder says that record 1 names this seat: it may begin etcd, once.
	Founder bool
	// Begun says that this node has started etcd for this fleet before, whatever became of
	// the data: it is never a founder again, or it would forget what it has promised.
	Begun bool
	// Alone says that the roster has nobody else run etcd.
	Alone  bool
	Folder Folder
	What   string // what is wrong with the folder
	// Generation of the data here. Each restore begins another etcd, one higher.
	Generation int
	Unfit      string // why this node's disk is none for etcd; "": it is
	Reports    []Report
}

// Report is what another member says of the etcd that it runs.
type Report struct {
	Seat       int
	Generation int
	Leader     int // 0: it knows of none
	Members    []Member
}

// Begin is what a node does about its own etcd while that does not run.
func Begin(o Own) Step {
	told, found := o.newest()
	me := slices.IndexFunc(told.Members, func(m Member) bool { return m.Seat == o.Seat })
	switch o.Folder {
	case Foreign:
		return Step{Aside, 0, o.What}
	case Damaged:
		switch {
		case o.Alone:
			return Step{Aside, 0, o.What}
		case found && others(told.Members, o.Seat):
			return Step{Aside, 0, o.What + "; the other members have the data"}
		}
		return Step{Refuse, 0, o.What + "; no other member answers that has a leader, so this may be the only copy: bring another member back, or restore a snapshot"}
	case Mine:
		switch {
		case found && told.Generation > o.Generation:
			return Step{Aside, 0, fmt.Sprintf("etcd was restored as generation %d, and this is data of generation %d", told.Generation, o.Generation)}
		case found && told.Generation == o.Generation && me < 0:
			return Step{Aside, 0, fmt.Sprintf("seat %d says that etcd does not list this seat any more", told.Seat)}
		}
		return Step{Start, 0, "its data is here"}
	}
	return o.without(told, found, me)
}

// without is Begin of a node that has no data.
func (o Own) without(told Report, found bool, me int) Step {
	switch {
	case !o.Wanted:
		return Step{Wait, 0, "the roster does not have this seat run etcd"}
	case found && me >= 0 && told.Members[me].Learner && !told.Members[me].Started:
		return Step{Join, 0, fmt.Sprintf("seat %d leads, and has listed this seat as a learner", told.Leader)}
	case found && me >= 0 && !told.Members[me].Started && o.founds() && told.Generation == 0:
		return Step{New, 0, "record 1 names this seat, and the other founders wait"}
	case found && me >= 0:
		return Step{Wait, 0, "etcd lists this seat, and its data is gone: the leader removes it and adds it again"}
	case found && o.Unfit != "":
		return Step{Wait, 0, o.Unfit}
	case found:
		return Step{Wait, 0, fmt.Sprintf("seat %d leads, and adds this seat when it is needed", told.Leader)}
	case o.founds() && !o.restored():
		return Step{New, 0, "record 1 names this seat"}
	case o.Alone && o.Begun:
		return Step{Renew, 0, "the data of the only member is gone"}
	}
	return Step{Wait, 0, "no member answers that has a leader"}
}

// Lost says whether a node without data is to be removed first: its leader listens for it.
func (o Own) Lost() bool {
	told, found := o.newest()
	if o.Folder == Mine || !found {
		return false
	}
	i := slices.IndexFunc(told.Members, func(m Member) bool { return m.Seat == o.Seat })
	return i >= 0 && (told.Members[i].Started || !told.Members[i].Learner && !o.founds())
}

// founds says whether the node may begin etcd.
func (o Own) founds() bool { return o.Founder && !o.Begun }

// restored says whether anybody speaks of an etcd that is not the first one.
func (o Own) restored() bool {
	return slices.ContainsFunc(o.Reports, func(r Report) bool { return r.Generation > 0 })
}

// newest is the report of the newest etcd that has a leader.
func (o Own) newest() (newest Report, found bool) {
	for _, r := range o.Reports {
		if r.Leader != 0 && r.Seat != o.Seat && (!found || r.Generation > newest.Generation) {
			newest, found = r, true
		}
	}
	if found && newest.Generation < o.Generation {
		return Report{}, false // it has not heard of the restore yet
	}
	return newest, found
}

// others says whether a list has voters besides a seat.
func others(members []Member, seat int) bool {
	return slices.ContainsFunc(members, func(m Member) bool { return m.Seat != seat && !m.Learner })
}
