package membership

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kogge.example/update/golden"
)

const grace = 5 * time.Minute

// seats are so many members and then so many spares, each a domain of its own.
func seats(members, spares int) (all []Seat) {
	for n := 1; n <= members+spares; n++ {
		all = append(all, Seat{Number: n, Name: fmt.Sprintf("n%d", n), Spare: n > members, Domain: fmt.Sprintf("n%d", n)})
	}
	return all
}

// list reads etcd's list: "1 2 3l 4u" has a learner and one that has not started.
func list(text string) (all []Member) {
	for _, word := range strings.Fields(text) {
		m := Member{Started: true}
		fmt.Sscanf(word, "%d", &m.Seat)
		m.ID = uint64(m.Seat) * 11
		m.Learner = strings.ContainsAny(word, "lu")
		m.Started = !strings.Contains(word, "u")
		all = append(all, m)
	}
	return all
}

// peers reads how nodes stand: "2 3- 4= 5a" is one that answers, one that is silent for good, a
// learner in sync, one that is away. "~" is silent for a minute, "!" lost, "?" unfit, "^" one that
// answers and has not run etcd for the grace, "s" a learner that has not started for a minute, "l"
// one that has learned for ten, "v" one that came to nothing a minute ago, "c" corrupt.
func peers(text string) map[int]Peer {
	all := make(map[int]Peer)
	for _, word := range strings.Fields(text) {
		var seat int
		fmt.Sscanf(word, "%d", &seat)
		var p Peer
		switch {
		case strings.HasSuffix(word, "-"):
			p.Silent = grace
		case strings.HasSuffix(word, "~"):
			p.Silent = time.Minute
		case strings.HasSuffix(word, "="):
			p.InSync = true
		case strings.HasSuffix(word, "a"):
			p.Silent, p.Away = grace, true
		case strings.HasSuffix(word, "!"):
			p.Lost = true
		case strings.HasSuffix(word, "?"):
			p.Unfit = "its disk is too slow"
		case strings.HasSuffix(word, "^"):
			p.Idle = grace
		case strings.HasSuffix(word, "s"):
			p.Idle, p.Learns = time.Hour, time.Minute
		case strings.HasSuffix(word, "l"):
			p.Learns = 10 * time.Minute
		case strings.HasSuffix(word, "v"):
			p.Idle, p.Vain = time.Hour, time.Minute
		case strings.HasSuffix(word, "c"):
			p.Corrupt = true
		}
		all[seat] = p
	}
	return all
}

// TestNext is the table of what a leader's node does.
func TestNext(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name            string
		members, spares int
		list, peers     string
		edit            func(*Cluster)
	}{
		{name: "no leader", members: 3, list: "1 2 3", peers: "2 3", edit: func(c *Cluster) { c.Leader = 0 }},
		{name: "another leads", members: 3, list: "1 2 3", peers: "2 3", edit: func(c *Cluster) { c.Leader = 2 }},
		{name: "one of one", members: 1, list: "1"},
		{name: "three of three", members: 3, spares: 1, list: "1 2 3", peers: "2 3 4"},
		{name: "no quorum", members: 3, spares: 1, list: "1 2 3", peers: "2- 3- 4"},

		{name: "1 to 3", members: 3, list: "1", peers: "2 3"},
		{name: "1 to 3, first learner", members: 3, list: "1 2u", peers: "2 3"},
		{name: "1 to 3, one in sync", members: 3, list: "1 2l 3l", peers: "2= 3"},
		{name: "1 to 3, both in sync", members: 3, list: "1 2l 3l", peers: "2= 3="},
		{name: "1 to 3, one promoted", members: 3, list: "1 2 3l", peers: "2 3="},
		{name: "1 to 3, one answers", members: 3, list: "1", peers: "2 3-"},
		{name: "1 to 3, one learns alone", members: 3, list: "1 2l", peers: "2= 3-"},
		{name: "1 to 3, learner is silent", members: 3, spares: 1, list: "1 2l 3u", peers: "2= 3~ 4"},
		{name: "1 to 3, stopped at two", members: 3, list: "1 2", peers: "2 3-"},
		{name: "1 to 3, stopped at two for long", members: 3, list: "1 2", peers: "2 3-", edit: func(c *Cluster) { c.Settled = grace }},
		{name: "3 to 5", members: 5, list: "1 2 3", peers: "2 3 4 5"},
		{name: "3 to 5, both in sync", members: 5, list: "1 2 3 4l 5l", peers: "2 3 4= 5="},
		{name: "3 to 5, one promoted", members: 5, list: "1 2 3 4 5l", peers: "2 3 4 5="},
		{name: "3 to 5, a voter is silent", members: 5, list: "1 2 3", peers: "2 3~ 4 5"},

		{name: "silent for a minute", members: 3, spares: 1, list: "1 2 3", peers: "2 3~ 4"},
		{name: "silent for the grace", members: 3, spares: 1, list: "1 2 3", peers: "2 3- 4"},
		{name: "away", members: 3, spares: 1, list: "1 2 3", peers: "2 3a 4"},
		{name: "no spare", members: 3, list: "1 2 3", peers: "2 3-"},
		{name: "spare is away", members: 3, spares: 1, list: "1 2 3", peers: "2 3- 4a"},
		{name: "spare is slow", members: 3, spares: 1, list: "1 2 3", peers: "2 3- 4?"},
		{name: "second spare", members: 3, spares: 2, list: "1 2 3", peers: "2 3- 4- 5"},
		{name: "spare of another domain", members: 3, spares: 2, list: "1 2 3", peers: "2 3- 4 5", edit: func(c *Cluster) { c.Members = list("1 2"); c.Seats[3].Domain = "n2" }},
		{name: "removed", members: 3, spares: 1, list: "1 2", peers: "2 3- 4"},
		{name: "spare learns", members: 3, spares: 1, list: "1 2 4l", peers: "2 3- 4"},
		{name: "spare in sync", members: 3, spares: 1, list: "1 2 4l", peers: "2 3- 4="},
		{name: "the lost one is back", members: 3, spares: 1, list: "1 2 4", peers: "2 3 4"},
		{name: "back before the spare", members: 3, spares: 1, list: "1 2", peers: "2 3 4-"},
		{name: "data is gone", members: 3, list: "1 2 3", peers: "2 3!"},
		{name: "learner's data is gone", members: 3, list: "1 2 3l", peers: "2 3!"},
		{name: "one of five is lost", members: 5, spares: 1, list: "1 2 3 4 5", peers: "2 3 4 5- 6"},
		{name: "two of five are lost", members: 5, spares: 1, list: "1 2 3 4 5", peers: "2 3 4- 5- 6"},

		{name: "answers, and does not run", members: 3, spares: 1, list: "1 2 3", peers: "2 3^ 4"},
		{name: "does not run, no spare", members: 3, list: "1 2 3", peers: "2 3^"},
		{name: "does not run, and is away", members: 3, spares: 1, list: "1 2 3", peers: "2 3^ 4", edit: func(c *Cluster) { c.Peers[3] = Peer{Idle: grace, Away: true} }},
		{name: "does not run for a minute", members: 3, spares: 1, list: "1 2 3", peers: "2 3 4", edit: func(c *Cluster) { c.Peers[3] = Peer{Idle: time.Minute} }},
		{name: "two do not run", members: 3, spares: 1, list: "1 2 3", peers: "2^ 3^ 4"},
		{name: "spare does not start", members: 3, spares: 2, list: "1 2 4u", peers: "2 3- 4s 5"},
		{name: "spare did not start", members: 3, spares: 2, list: "1 2", peers: "2 3- 4v 5"},
		{name: "the only spare did not start", members: 3, spares: 1, list: "1 2", peers: "2 3- 4v"},
		{name: "it did not, for long", members: 3, spares: 1, list: "1 2", peers: "2 3- 4v", edit: func(c *Cluster) { c.Settled = grace }},
		{name: "it did not, the lost one is back", members: 3, spares: 1, list: "1 2", peers: "2 3 4v"},
		{name: "it did not, half an hour ago", members: 3, spares: 1, list: "1 2", peers: "2 3- 4v", edit: func(c *Cluster) { c.Peers[4] = Peer{Vain: 30 * time.Minute} }},
		{name: "lost, and the spare did not start", members: 3, spares: 1, list: "1 2 3", peers: "2 3- 4v"},
		{name: "spare cannot start", members: 3, spares: 2, list: "1 2 4u", peers: "2 3- 4? 5"},
		{name: "spare is too slow", members: 3, spares: 2, list: "1 2 4l", peers: "2 3- 4l 5"},
		{name: "spare waits for another", members: 3, list: "1 2l", peers: "2= 3-", edit: func(c *Cluster) { c.Peers[2] = Peer{InSync: true, Learns: time.Hour} }},
		{name: "one is corrupt", members: 3, list: "1 2 3", peers: "2 3c"},
		{name: "one is corrupt and silent", members: 3, list: "1 2 3", peers: "2 3c", edit: func(c *Cluster) { c.Peers[3] = Peer{Corrupt: true, Silent: time.Hour, Away: true} }},
		{name: "the leader is corrupt", members: 3, list: "1 2 3", peers: "1c 2 3"},
		{name: "the corrupt one is out", members: 3, list: "1 2", peers: "2 3"},
		{name: "a learner is corrupt", members: 3, list: "1 2l 3l", peers: "2= 3c"},

		{name: "5 to 3", members: 3, list: "1 2 3 4 5", peers: "2 3 4 5"},
		{name: "5 to 3, at four", members: 3, list: "1 2 3 4", peers: "2 3 4"},
		{name: "5 to 3, one is away", members: 3, list: "1 2 3 4 5", peers: "2 3 4 5a"},
		{name: "3 to 1, this one stays", members: 1, list: "1 2 3", peers: "2 3"},
		{name: "unseated", members: 3, list: "1 2 9", peers: "2 3 9"},
		{name: "unseated, another learns", members: 3, list: "1 2 9 3l", peers: "2 3 9"},
		{name: "unseated, another in sync", members: 3, list: "1 2 9 3l", peers: "2 3= 9"},
		{name: "unseated, four", members: 3, list: "1 2 9 3", peers: "2 3 9"},
		{name: "unseated and silent", members: 3, list: "1 2 9", peers: "2 3 9~"},
		{name: "unseated, nobody comes", members: 3, list: "1 2 9", peers: "2 9"},
		{name: "the leader is unseated", members: 3, list: "9 1 2 3", peers: "1 2 3", edit: func(c *Cluster) { c.Self, c.Leader = 9, 9 }},
		{name: "learner not needed", members: 3, list: "1 2 3 4l", spares: 1, peers: "2 3 4="},
		{name: "learner unseated", members: 3, list: "1 2 9l", peers: "2 3 9="},
	} {
		in := Cluster{Self: 1, Leader: 1, Seats: seats(c.members, c.spares), Members: list(c.list), Peers: peers(c.peers), Grace: grace}
		if c.edit != nil {
			c.edit(&in)
		}
		fmt.Fprintf(&b, "%-32s %d+%d  [%s]  peers %-10s  %s\n", c.name, c.members, c.spares, c.list, c.peers, Next(in))
	}
	golden.Compare(t, "next.txt", b.String())
}

// TestBegin is the table of what a node does about its own etcd.
func TestBegin(t *testing.T) {
	led := func(members string) []Report { return []Report{{Seat: 2, Leader: 2, Members: list(members)}} }
	founded := func(members string) []Report {
		r := led(members)
		r[0].Members[0].Started = false
		return r
	}
	gen := func(n int) []Report { return []Report{{Seat: 3, Leader: 3, Generation: n, Members: list("3")}} }
	var b strings.Builder
	for _, c := range []struct {
		name string
		own  Own
	}{
		{"first start", Own{Wanted: true, Founder: true}},
		{"first start, alone", Own{Wanted: true, Founder: true, Alone: true}},
		{"first start, others have begun", Own{Wanted: true, Founder: true, Reports: founded("1 2 3")}},
		{"first start, others have no leader", Own{Wanted: true, Founder: true, Reports: []Report{{Seat: 2}}}},
		{"founder of what was restored", Own{Wanted: true, Founder: true, Reports: []Report{{Seat: 2, Generation: 1}}}},
		{"founder not in what was restored", Own{Wanted: true, Founder: true, Reports: []Report{{Seat: 2, Leader: 2, Generation: 1, Members: list("2")}}}},
		{"second start", Own{Wanted: true, Founder: true, Begun: true, Folder: Mine}},
		{"second start, listed", Own{Wanted: true, Begun: true, Folder: Mine, Reports: led("1 2 3")}},
		{"second start, removed", Own{Wanted: true, Begun: true, Folder: Mine, Reports: led("2 3 4")}},
		{"second start, a follower does not list it", Own{Wanted: true, Begun: true, Folder: Mine, Reports: []Report{{Seat: 2, Leader: 3, Members: list("3")}}}},
		{"second start, a follower lags behind", Own{Wanted: true, Begun: true, Folder: Mine, Reports: []Report{{Seat: 2, Leader: 3, Members: list("3")}, {Seat: 3, Leader: 3, Members: list("1 2 3")}}}},
		{"second start, restored meanwhile", Own{Wanted: true, Begun: true, Folder: Mine, Reports: []Report{{Seat: 2, Leader: 2, Generation: 1, Members: list("2")}}}},
		{"second start, of the restored one", Own{Wanted: true, Begun: true, Folder: Mine, Generation: 1, Reports: led("2 3")}},
		{"second start, two restores meanwhile", Own{Wanted: true, Begun: true, Folder: Mine, Reports: gen(2)}},
		{"second start, another one than was ordered", Own{Wanted: true, Begun: true, Folder: Mine, Ordered: 1, Reports: append(gen(2), led("1 2 3")...)}},
		{"second start, one says that it was restored", Own{Wanted: true, Begun: true, Folder: Mine, Reports: append(gen(1), led("1 2 3")...)}},
		{"second start, and it was ordered", Own{Wanted: true, Begun: true, Folder: Mine, Ordered: 1, Reports: append(gen(1), led("1 2 3")...)}},
		{"second start, one lies about the list", Own{Wanted: true, Begun: true, Folder: Mine, Reports: append(led("1 2 3"), Report{Seat: 3, Leader: 3, Members: list("2 3")})}},
		{"second start, another has no leader", Own{Wanted: true, Begun: true, Folder: Mine, Reports: append(gen(1), Report{Seat: 2, Runs: true})}},
		{"runs, one says that it was restored", Own{Wanted: true, Begun: true, Folder: Mine, Runs: true, Reports: gen(1)}},
		{"runs, and it was ordered", Own{Wanted: true, Begun: true, Folder: Mine, Runs: true, Ordered: 1, Reports: gen(1)}},
		{"runs, and had no leader for the grace", Own{Wanted: true, Begun: true, Folder: Mine, Runs: true, Orphan: true, Reports: append(gen(1), Report{Seat: 2, Runs: true})}},
		{"spare, one says that it was restored", Own{Wanted: true, Reports: append(gen(7), append(led("2 3 4"), Report{Seat: 4, Leader: 2, Members: list("2 3 4")})...)}},
		{"spare of what was restored often", Own{Wanted: true, Reports: gen(7)}},
		{"could not be looked at", Own{Wanted: true, Begun: true, Folder: Unread, What: "too many open files", Reports: led("1 2 3")}},
		{"unseated, still listed", Own{Begun: true, Folder: Mine, Reports: led("1 2 3")}},
		{"unseated", Own{Begun: true}},
		{"data gone", Own{Wanted: true, Founder: true, Begun: true}},
		{"data gone, listed", Own{Wanted: true, Founder: true, Begun: true, Reports: led("1 2 3")}},
		{"data and mark gone, listed", Own{Wanted: true, Founder: true, Reports: led("1 2 3")}},
		{"data gone, listed as learner", Own{Wanted: true, Founder: true, Begun: true, Reports: led("1u 2 3")}},
		{"data gone, alone", Own{Wanted: true, Founder: true, Begun: true, Alone: true}},
		{"data gone, alone, no founder", Own{Wanted: true, Begun: true, Alone: true, Generation: 1}},
		{"renewed, and cut before it began", Own{Wanted: true, Founder: true, Alone: true, Generation: 1}},
		{"listed after a restore, and cut", Own{Wanted: true, Founder: true, Generation: 1}},
		{"spare", Own{Wanted: true, Reports: led("2 3 4")}},
		{"spare, nobody answers", Own{Wanted: true}},
		{"spare with a slow disk", Own{Wanted: true, Unfit: "fsync takes 2s", Reports: led("2 3 4")}},
		{"spare, listed", Own{Wanted: true, Reports: led("1u 2 3")}},
		{"foreign", Own{Wanted: true, Folder: Foreign, What: "data of another fleet"}},
		{"damaged", Own{Wanted: true, Begun: true, Folder: Damaged, What: "wal: crc mismatch"}},
		{"damaged, others go on", Own{Wanted: true, Begun: true, Folder: Damaged, What: "wal: crc mismatch", Reports: led("1 2 3")}},
		{"damaged, alone", Own{Wanted: true, Begun: true, Alone: true, Folder: Damaged, What: "wal: crc mismatch"}},
	} {
		c.own.Seat = 1
		if c.own.Folder == "" {
			c.own.Folder = Absent
		}
		fmt.Fprintf(&b, "%-42s %-8s lost=%-5v  %s\n", c.name, c.own.Folder, c.own.Lost(), Begin(c.own))
	}
	golden.Compare(t, "begin.txt", b.String())
}

// world is etcd and its nodes, as far as Next is concerned.
type world struct {
	seats   []Seat
	members []Member
	nodes   map[int]*node
	leader  int
	now     time.Time
	voted   time.Time // since when the voters have been those that they are
}

// node is one of them, with what it remembers of others.
type node struct {
	alive, away bool
	stuck       bool // it answers, and its etcd does not run, or never starts
	slow        bool // it never has what the leader has
	ran         time.Time
	seen        map[int]Sight
	vain        map[int]time.Time
}

func (n *node) able() bool { return n.alive && !n.stuck }

// boot has a node forget.
func (n *node) boot() { n.seen, n.vain = make(map[int]Sight), make(map[int]time.Time) }

func (w *world) meet(seat int) {
	if w.nodes[seat] == nil {
		w.nodes[seat] = &node{alive: true, ran: w.now}
		w.nodes[seat].boot()
	}
}

func (w *world) member(seat int) (Member, bool) {
	i := slices.IndexFunc(w.members, func(m Member) bool { return m.Seat == seat })
	if i < 0 {
		return Member{}, false
	}
	return w.members[i], true
}

func (w *world) voters() (n, able int) {
	for _, m := range w.members {
		if !m.Learner {
			n++
			if w.nodes[m.Seat].able() {
				able++
			}
		}
	}
	return n, able
}

func (w *world) majority() bool { n, able := w.voters(); return able >= n/2+1 }

// pass has time pass: who can starts, and etcd has a leader.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for i, m := range w.members {
		n := w.nodes[m.Seat]
		if w.members[i].Started = m.Started || n.able(); w.members[i].Started && n.able() {
			n.ran = w.now
		}
	}
	if m, listed := w.member(w.leader); listed && !m.Learner && w.nodes[w.leader].able() {
		return
	}
	for _, m := range w.members {
		if !m.Learner && w.nodes[m.Seat].able() {
			w.lead(m.Seat)
			return
		}
	}
}

// lead has a node lead, which has not looked at others before.
func (w *world) lead(seat int) { w.leader, w.nodes[seat].seen = seat, make(map[int]Sight) }

// look is what the leader's node sees.
func (w *world) look() Cluster {
	c := Cluster{Self: w.leader, Leader: w.leader, Seats: w.seats, Members: slices.Clone(w.members), Grace: grace, Settled: w.now.Sub(w.voted), Peers: make(map[int]Peer)}
	own := w.nodes[w.leader]
	for seat, n := range w.nodes {
		m, listed := w.member(seat)
		runs := n.able() && listed && m.Started
		own.seen[seat] = own.seen[seat].Look(w.now, n.alive, runs, listed && m.Learner)
		p := own.seen[seat].Peer()
		p.Away, p.InSync = n.away, runs && !n.slow
		if !n.alive {
			delete(own.vain, seat)
		}
		if at := own.vain[seat]; !at.IsZero() {
			p.Vain = w.now.Sub(at)
		}
		c.Peers[seat] = p
	}
	return c
}

// step has the leader's node look, and etcd carry out what it says, with what it refuses.
func (w *world) step(t *rapid.T) {
	c := w.look()
	s := Next(c)
	at := slices.IndexFunc(w.members, func(m Member) bool { return m.Seat == s.Seat })
	voters, _ := w.voters()
	switch s.Do {
	case Wait, Rest:
		return
	case Add:
		learners := 0
		for _, m := range w.members {
			if m.Learner {
				learners++
			} else if !w.nodes[m.Seat].able() {
				t.Fatalf("%s: etcd refuses a learner while voter %d is silent", s, m.Seat)
			}
		}
		if at >= 0 || learners >= MaxLearners || !w.nodes[s.Seat].alive {
			t.Fatalf("%s: of %v", s, w.members)
		}
		w.members = append(w.members, Member{Seat: s.Seat, Learner: true})
	case Promote:
		if at < 0 || !w.members[at].Learner || !w.members[at].Started || !w.nodes[s.Seat].able() || w.nodes[s.Seat].slow {
			t.Fatalf("%s: of %v", s, w.members)
		}
		w.members[at].Learner = false
	case Remove:
		if at < 0 || s.Seat == w.leader {
			t.Fatalf("%s: of %v, led by %d", s, w.members, w.leader)
		}
		n := w.nodes[s.Seat]
		if !w.members[at].Learner && c.wanted(s.Seat) && voters <= c.target() {
			if n.away && !n.able() {
				t.Fatalf("%s: it is away", s)
			}
			dead := strings.HasPrefix(s.Why, "it has been silent") || strings.HasPrefix(s.Why, "its etcd has not run")
			if quiet := w.now.Sub(n.ran); dead && quiet < grace {
				t.Fatalf("%s: it ran %s ago", s, quiet)
			}
		}
		if w.members = slices.Delete(w.members, at, at+1); s.Vain {
			w.nodes[w.leader].vain[s.Seat] = w.now
		}
	case Yield:
		w.lead(s.Seat)
	default:
		t.Fatalf("a leader does not %s", s)
	}
	if !w.majority() {
		t.Fatalf("%s: %v has no quorum left", s, w.members)
	}
	if after, _ := w.voters(); after != voters {
		w.voted = w.now
	}
}

// looks has the leader's node look for a time, as often as it does.
func (w *world) looks(t *rapid.T, often, until time.Duration) {
	for end := w.now.Add(until); w.now.Before(end); {
		w.pass(often)
		w.step(t)
	}
}

// events are what happens to a node, and to a leader that does not look for a while.
var events = map[string]func(t *rapid.T, w *world, n *node){
	"dies":       func(_ *rapid.T, _ *world, n *node) { n.alive = false },
	"comes back": func(_ *rapid.T, _ *world, n *node) { n.alive, n.stuck = true, false; n.boot() },
	"away":       func(_ *rapid.T, _ *world, n *node) { n.away = true },
	"back":       func(_ *rapid.T, _ *world, n *node) { n.away = false },
	"sticks":     func(_ *rapid.T, _ *world, n *node) { n.stuck = true },
	"is slow":    func(_ *rapid.T, _ *world, n *node) { n.slow = true },
	"reboots": func(t *rapid.T, w *world, n *node) {
		before := n.alive
		if n.alive = false; w.majority() {
			w.looks(t, 3*time.Second, rapid.SampledFrom([]time.Duration{3 * time.Second, time.Minute, 4 * time.Minute}).Draw(t, "for"))
		}
		n.alive = before
		n.boot()
	},
	"is not looked at": func(t *rapid.T, w *world, n *node) { // and runs meanwhile
		before := *n
		n.alive, n.stuck = true, false
		w.pass(rapid.SampledFrom([]time.Duration{time.Minute, grace, time.Hour}).Draw(t, "for"))
		n.alive, n.stuck = before.alive, before.stuck
	},
	"steps": func(t *rapid.T, w *world, _ *node) {
		w.looks(t, 3*time.Second, rapid.SampledFrom([]time.Duration{3 * time.Second, 10 * time.Second, 2 * time.Minute, 6 * time.Minute}).Draw(t, "for"))
	},
}

// TestComesToRest: whatever happens while a majority runs, the list ends at 1, 3 or 5 voters, at as
// many as the roster wants if enough nodes can run etcd; no step costs the quorum, and nobody is
// taken for dead who ran within the grace. Nodes die, reboot while they lead, answer without ever
// running etcd, learn for ever, and do not look.
func TestComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{1, 3, 5})
		w := &world{seats: seats(size.Draw(t, "members"), rapid.IntRange(0, 3).Draw(t, "spares")), nodes: make(map[int]*node), now: time.Unix(0, 0)}
		for n := range size.Draw(t, "founders") { // some of them may be of an older roster
			w.members = append(w.members, Member{Seat: n + 1, Started: true})
		}
		everybody := func() {
			for _, s := range w.seats {
				w.meet(s.Number)
			}
			for _, m := range w.members {
				w.meet(m.Seat)
			}
		}
		everybody()
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			what := rapid.SampledFrom(append(slices.Sorted(maps.Keys(events)), "roster")).Draw(t, "event")
			if what == "roster" {
				w.seats = seats(size.Draw(t, "members"), rapid.IntRange(0, 3).Draw(t, "spares"))
				everybody()
				continue
			}
			n := w.nodes[rapid.IntRange(1, 8).Draw(t, "seat")]
			if n == nil {
				continue
			}
			before := *n
			if events[what](t, w, n); !w.majority() {
				n.alive, n.stuck = before.alive, before.stuck // this test is about fleets that have one
			}
			w.looks(t, 3*time.Second, time.Second) // what was between two looks nobody knows
		}
		w.looks(t, 15*time.Second, 3*time.Hour)
		w.rests(t)
	})
}

// rests says whether the list is one to rest at.
func (w *world) rests(t *rapid.T) {
	c := w.look()
	voters, able := w.voters()
	if voters%2 == 0 {
		t.Fatalf("at rest with %d voters, %d of them able: %v; %s", voters, able, w.members, Next(c))
	}
	if voters > c.target() {
		t.Fatalf("at rest with %d voters of %d: %v", voters, c.target(), w.members)
	}
	var free []int
	for _, s := range w.seats {
		n := w.nodes[s.Number]
		if m, listed := w.member(s.Number); n.able() && !n.slow && !n.away && (!listed || m.Learner) {
			free = append(free, s.Number)
		}
	}
	if voters < c.target() && len(free) >= 2 && able == voters {
		t.Fatalf("at rest with %d voters of %d, and %v can run etcd: %v", voters, c.target(), free, w.members)
	}
	for _, m := range w.members {
		if n := w.nodes[m.Seat]; !m.Learner && !n.able() && !n.away && len(free) > 0 && able == voters-1 {
			t.Fatalf("at rest with voter %d, which does not run, and %v can: %v", m.Seat, free, w.members)
		}
	}
}

// TestSight is the table of how long a node counts as silent: from the first look at which it was
// missed, and only while this node looks.
func TestSight(t *testing.T) {
	for _, c := range []struct {
		name, looks  string // a second each: "." not looked, "+" runs, "o" answers, "-" does not
		silent, idle time.Duration
	}{
		{"runs", "++++", 0, 0},
		{"never heard", "---", 2 * time.Second, 2 * time.Second},
		{"missed now", "+++-", 1, 1},
		{"missed now, after a contented day", "+........................-", 1, 1},
		{"missed twice, with a day between", "-........................-", 1, 1},
		{"missed, with a step between", "+-.........-", 10 * time.Second, 10 * time.Second},
		{"back", "+---+", 0, 0},
		{"answers, and does not run", "++ooo", 0, 2 * time.Second},
		{"missed, and does not run then", "+--oo", 0, 3 * time.Second},
		{"not looked for long, and does not run", "+ooooo.......................o", 0, 1},
	} {
		var s Sight
		at := time.Unix(0, 0)
		for _, l := range c.looks {
			if at = at.Add(time.Second); l != '.' {
				s = s.Look(at, l != '-', l == '+', false)
			}
		}
		if p := s.Peer(); p.Silent != c.silent || p.Idle != c.idle {
			t.Errorf("%s: silent for %s, idle for %s", c.name, p.Silent, p.Idle)
		}
	}
}
