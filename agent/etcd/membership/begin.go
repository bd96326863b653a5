package membership

import "slices"

// Folder is what a node's data folder holds.
type Folder string

// What a data folder may hold.
const (
	Absent  Folder = "absent"
	Mine    Folder = "mine"    // data of this seat, of this fleet's etcd
	Foreign Folder = "foreign" // of another fleet, founding or seat
	Damaged Folder = "damaged" // cannot be read, or etcd has died of it again and again
	Unread  Folder = "unread"  // could not be looked at, which says nothing of it
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
	// Alone says that no other node can have what etcd had here: this seat was its only voter, or
	// the roster has nobody else run it.
	Alone  bool
	Folder Folder
	What   string // what is wrong with the folder
	// Generation of the data here. Each restore begins another etcd, one higher.
	Generation int
	// Ordered is the newest generation that a signed order has begun; 0: none is known.
	Ordered int
	Runs    bool   // etcd does, here
	Orphan  bool   // and has had no leader for the grace
	Unfit   string // why this node cannot run etcd; "": it can
	Reports []Report
}

// Report is what another member says of the etcd that it runs.
type Report struct {
	Seat       int
	Generation int
	Runs       bool
	Leader     int // 0: it knows of none
	Members    []Member
}

// Begin is what a node does about its own etcd while that does not run.
func Begin(o Own) Step {
	told, found := o.Told()
	me := slices.IndexFunc(told.Members, func(m Member) bool { return m.Seat == o.Seat })
	switch o.Folder {
	case Unread:
		return step(Refuse, 0, "%s; it is tried again", o.What)
	case Foreign:
		return step(Aside, 0, "%s", o.What)
	case Damaged:
		switch {
		case o.Alone:
			return step(Aside, 0, "%s", o.What)
		case found && others(told.Members, o.Seat):
			return step(Aside, 0, "%s; the other members have the data", o.What)
		}
		return step(Refuse, 0, "%s; no other member answers that has a leader, so this may be the only copy: bring another member back, or restore a snapshot", o.What)
	case Mine:
		switch {
		case found && told.Generation > o.Generation:
			return step(Aside, 0, "etcd was restored as generation %d, and this is data of generation %d", told.Generation, o.Generation)
		case found && me < 0 && told.leads() && !o.listed(): // others may not know of it yet
			return step(Aside, 0, "seat %d says that etcd does not list this seat any more", told.Seat)
		}
		return step(Start, 0, "its data is here")
	}
	return o.without(told, found, me)
}

// without is Begin of a node that has no data.
func (o Own) without(told Report, found bool, me int) Step {
	switch {
	case !o.Wanted:
		return step(Wait, 0, "the roster does not have this seat run etcd")
	case found && me >= 0 && told.Members[me].Learner && !told.Members[me].Started:
		return step(Join, 0, "seat %d leads, and has listed this seat as a learner", told.Leader)
	case found && me >= 0 && !told.Members[me].Started && o.founds() && told.Generation == 0:
		return step(New, 0, "record 1 names this seat, and the other founders wait")
	case found && me >= 0:
		return step(Wait, 0, "etcd lists this seat, and its data is gone: the leader removes it and adds it again")
	case found && o.Unfit != "":
		return step(Wait, 0, "%s", o.Unfit)
	case found:
		return step(Wait, 0, "seat %d leads, and adds this seat when it is needed", told.Leader)
	case o.founds() && !o.restored():
		return step(New, 0, "record 1 names this seat")
	case o.Alone && (o.Begun || o.Generation > 0):
		return step(Renew, 0, "the data of the only member is gone")
	case o.Begun:
		return step(Refuse, 0, "no member answers that has a leader, and there is no data here: bring a member back, or restore a snapshot")
	}
	return step(Wait, 0, "no member answers that has a leader")
}

// Lost says whether a node without data is to be removed first: its leader listens for it.
func (o Own) Lost() bool {
	told, found := o.Told()
	if o.Folder == Mine || o.Folder == Unread || !found {
		return false
	}
	i := slices.IndexFunc(told.Members, func(m Member) bool { return m.Seat == o.Seat })
	return i >= 0 && (told.Members[i].Started || !told.Members[i].Learner && !o.founds())
}

// founds says whether the node may begin etcd.
func (o Own) founds() bool { return o.Founder && !o.Begun && o.Generation == 0 }

// restored says whether anybody speaks of an etcd that is not the first one.
func (o Own) restored() bool {
	return slices.ContainsFunc(o.Reports, func(r Report) bool { return r.Generation > 0 })
}

// leads says whether the report is of the leader, whose list is the newest.
func (r Report) leads() bool { return r.Leader == r.Seat }

// Told is the report that counts: of the newest etcd that this node believes in, by its leader if
// that answers.
func (o Own) Told() (told Report, found bool) {
	for _, r := range o.Reports {
		if o.believes(r) && (!found || r.Generation > told.Generation || r.Generation == told.Generation && r.leads()) {
			told, found = r, true
		}
	}
	return told, found
}

// believes says whether a report is of an etcd that may count here. One member's word is not
// enough to give data up for: that there is a newer etcd has to be ordered, or nobody goes on with
// the one that is here, neither this node nor another one that a reboot has left without a leader.
// A node without data goes by what most say.
func (o Own) believes(r Report) bool {
	switch {
	case r.Leader == 0 || r.Seat == o.Seat || r.Generation < o.Generation: // or it has not heard of the restore yet
		return false
	case r.Generation == o.Generation || r.Generation <= o.Ordered:
		return true
	case o.Folder == Absent || o.Folder == Foreign:
		told := o.tell(r.Generation)
		return !slices.ContainsFunc(o.Reports, func(other Report) bool {
			return other.Generation >= o.Generation && o.tell(other.Generation) > told
		})
	}
	return o.tell(o.Generation) == 0 && (o.Orphan || !o.Runs && !slices.ContainsFunc(o.Reports, func(other Report) bool {
		return other.Runs && other.Generation == o.Generation
	}))
}

// tell counts the reports of an etcd of a generation that has a leader.
func (o Own) tell(generation int) (n int) {
	for _, r := range o.Reports {
		if r.Leader != 0 && r.Seat != o.Seat && r.Generation == generation {
			n++
		}
	}
	return n
}

// listed says whether anybody lists this seat in the etcd whose data is here.
func (o Own) listed() bool {
	return slices.ContainsFunc(o.Reports, func(r Report) bool {
		return r.Leader != 0 && r.Generation == o.Generation && slices.ContainsFunc(r.Members, func(m Member) bool { return m.Seat == o.Seat })
	})
}

// others says whether a list has voters besides a seat.
func others(members []Member, seat int) bool {
	return slices.ContainsFunc(members, func(m Member) bool { return m.Seat != seat && !m.Learner })
}
