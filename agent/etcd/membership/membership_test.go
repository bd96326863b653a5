package membership

import (
	"fmt"
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
// learner in sync, one that is away. "~" is silent for a minute, "!" lost, "?" unfit.
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

		{name: "drained", members: 3, list: "1 2 3", peers: "2 3", edit: func(c *Cluster) { c.Yields = true }},
		{name: "drained, and so is another", members: 3, list: "1 2 3", peers: "2 3", edit: func(c *Cluster) { c.Yields, c.Peers[2] = true, Peer{Yields: true} }},
		{name: "all are drained", members: 3, list: "1 2 3", peers: "2 3", edit: func(c *Cluster) { c.Yields, c.Peers[2], c.Peers[3] = true, Peer{Yields: true}, Peer{Yields: true} }},
		{name: "drained, and the other is silent", members: 3, list: "1 2 3", peers: "2~ 3", edit: func(c *Cluster) { c.Yields = true }},
		{name: "drained, and alone", members: 1, list: "1", edit: func(c *Cluster) { c.Yields = true }},
		{name: "another one is drained", members: 3, list: "1 2 3", peers: "2 3", edit: func(c *Cluster) { c.Peers[2] = Peer{Yields: true} }},
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
		{"unseated, still listed", Own{Begun: true, Folder: Mine, Reports: led("1 2 3")}},
		{"unseated", Own{Begun: true}},
		{"data gone", Own{Wanted: true, Founder: true, Begun: true}},
		{"data gone, listed", Own{Wanted: true, Founder: true, Begun: true, Reports: led("1 2 3")}},
		{"data and mark gone, listed", Own{Wanted: true, Founder: true, Reports: led("1 2 3")}},
		{"data gone, listed as learner", Own{Wanted: true, Founder: true, Begun: true, Reports: led("1u 2 3")}},
		{"data gone, alone", Own{Wanted: true, Founder: true, Begun: true, Alone: true}},
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
	alive   map[int]bool
	away    map[int]bool
	leader  int
	settled time.Duration
	silent  time.Duration // of those who are not alive
}

func (w *world) voters() (n, alive int) {
	for _, m := range w.members {
		if !m.Learner {
			n++
			if w.alive[m.Seat] {
				alive++
			}
		}
	}
	return n, alive
}

func (w *world) majority() bool { n, alive := w.voters(); return alive >= n/2+1 }

func (w *world) cluster() Cluster {
	c := Cluster{Self: w.leader, Leader: w.leader, Seats: w.seats, Members: slices.Clone(w.members), Grace: grace, Settled: w.settled, Peers: make(map[int]Peer)}
	for seat, alive := range w.alive {
		p := Peer{Away: w.away[seat]}
		if !alive {
			p.Silent = w.silent
		}
		i := slices.IndexFunc(w.members, func(m Member) bool { return m.Seat == seat })
		p.InSync = alive && i >= 0 && w.members[i].Started
		c.Peers[seat] = p
	}
	return c
}

// lead has the lowest voter that is alive lead.
func (w *world) lead() {
	if i := slices.IndexFunc(w.members, func(m Member) bool { return m.Seat == w.leader && !m.Learner }); i >= 0 && w.alive[w.leader] {
		return
	}
	w.leader = 0
	for _, m := range w.members {
		if !m.Learner && w.alive[m.Seat] {
			w.leader = m.Seat
		}
	}
}

// do is etcd carrying a step out, with what it refuses.
func (w *world) do(t *rapid.T, s Step) {
	at := slices.IndexFunc(w.members, func(m Member) bool { return m.Seat == s.Seat })
	switch s.Do {
	case Add:
		learners := 0
		for _, m := range w.members {
			if m.Learner {
				learners++
			} else if !w.alive[m.Seat] {
				t.Fatalf("%s: etcd refuses a learner while voter %d is silent", s, m.Seat)
			}
		}
		if at >= 0 || learners >= MaxLearners || !w.alive[s.Seat] {
			t.Fatalf("%s: of %v", s, w.members)
		}
		w.members = append(w.members, Member{Seat: s.Seat, Learner: true})
	case Promote:
		if at < 0 || !w.members[at].Learner || !w.members[at].Started || !w.alive[s.Seat] {
			t.Fatalf("%s: of %v", s, w.members)
		}
		w.members[at].Learner = false
	case Remove:
		if at < 0 || s.Seat == w.leader {
			t.Fatalf("%s: of %v, led by %d", s, w.members, w.leader)
		}
		voters, _ := w.voters()
		if c := w.cluster(); w.away[s.Seat] && !w.alive[s.Seat] && !w.members[at].Learner && c.wanted(s.Seat) && voters <= c.target() {
			t.Fatalf("%s: it is away", s)
		}
		w.members = slices.Delete(w.members, at, at+1)
	case Yield:
		w.leader = s.Seat
	default:
		t.Fatalf("a leader does not %s", s)
	}
	if !w.majority() {
		t.Fatalf("%s: %v has no quorum left", s, w.members)
	}
	w.settled = 0
}

// come starts the learners whose nodes are alive.
func (w *world) come() {
	for i := range w.members {
		w.members[i].Started = w.members[i].Started || w.alive[w.members[i].Seat]
	}
}

// TestComesToRest: whatever happens while a majority lives, the list ends at 1, 3 or 5 voters,
// at as many as the roster wants if enough nodes answer, and no step costs the quorum.
func TestComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{1, 3, 5})
		w := &world{seats: seats(size.Draw(t, "members"), rapid.IntRange(0, 3).Draw(t, "spares")), alive: make(map[int]bool), away: make(map[int]bool)}
		for _, s := range w.seats {
			w.alive[s.Number] = true
		}
		for n := 1; n <= size.Draw(t, "founders"); n++ { // some of them may be of an older roster
			w.members = append(w.members, Member{Seat: n, Started: true})
			w.alive[n] = true
		}
		w.silent = grace
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			seat := rapid.IntRange(1, 8).Draw(t, "seat")
			if _, known := w.alive[seat]; !known {
				continue
			}
			before := w.alive[seat]
			switch rapid.SampledFrom([]string{"dies", "comes back", "away", "back", "steps", "roster"}).Draw(t, "event") {
			case "dies":
				w.alive[seat] = false
			case "comes back":
				w.alive[seat] = true
			case "away":
				w.away[seat] = true
			case "back":
				w.away[seat] = false
			case "roster":
				w.seats = seats(size.Draw(t, "members"), rapid.IntRange(0, 3).Draw(t, "spares"))
				for _, s := range w.seats {
					if _, known := w.alive[s.Number]; !known {
						w.alive[s.Number] = true
					}
				}
			case "steps":
				for range rapid.IntRange(1, 3).Draw(t, "steps") {
					w.lead()
					if s := Next(w.cluster()); s.Do != Wait && s.Do != Rest {
						w.do(t, s)
						w.come()
					}
				}
			}
			if !w.majority() {
				w.alive[seat] = before // this test is about fleets that have one
			}
		}
		w.settle(t)
		voters, alive := w.voters()
		if voters%2 == 0 {
			t.Fatalf("at rest with %d voters, %d of them alive: %v; %s", voters, alive, w.members, Next(w.cluster()))
		}
		target := w.cluster().target()
		if voters > target {
			t.Fatalf("at rest with %d voters of %d: %v", voters, target, w.members)
		}
		if free := w.cluster().candidates(w.members, nil); voters < target && len(free) >= 2 && alive == voters {
			t.Fatalf("at rest with %d voters of %d, and %v answer", voters, target, free)
		}
	})
}

// settle takes steps until there are none, with all the time in the world.
func (w *world) settle(t *rapid.T) {
	for range 100 {
		w.come()
		w.lead()
		s := Next(w.cluster())
		if s.Do == Wait || s.Do == Rest {
			if w.settled >= 8*grace {
				return
			}
			w.settled += grace
			continue
		}
		w.do(t, s)
	}
	t.Fatalf("no rest after 100 steps: %v; %s", w.members, Next(w.cluster()))
}
