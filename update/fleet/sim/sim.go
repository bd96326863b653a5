// Package sim runs whole fleets that vote, in one process: machines with disks that lose power, a network
// that loses, delays and parts, seats that lie, and a clock that nobody waits for. All of it follows from a
// seed; who runs a seed again sees the same run.
//
// In goes a [Plan]; out comes a [Result]: what was decided, in how many rounds, which faults there were, and
// what went wrong of that which never may. The machines run the packages that the agent runs, and nothing
// that only resembles them: update/fleet/vote with the bytes of its journal, ballots with signatures that are
// verified, the queue of update/fleet/proposal with signed opinions, and the ledger with its evidence. What
// is made up is the clock, the disk, the carriers, and what operators and owners want.
package sim

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// Lie is what a hostile seat does.
type Lie string

// The lies. Who tells none is honest.
const (
	Honest      Lie = ""
	Silent      Lie = "silent"       // it signs nothing, ever
	SilentChair Lie = "silent chair" // it is honest, but never puts anything forward
	Equivocate  Lie = "equivocate"   // it signs every value and nothing, for some these and for others those
	Withhold    Lie = "withhold"     // it is honest, and shows each ballot to one machine only
	Untruth     Lie = "untruth"      // it signs at random what was never put forward, and opinions of both kinds
	Hoard       Lie = "hoard"        // it keeps its ballots, and lets them go when their rounds are long over
	Replay      Lie = "replay"       // it is honest, and sends again what anybody ever sent
	Forge       Lie = "forge"        // it makes up rosters, records, certificates, and ballots of others
	Clone       Lie = "clone"        // its disk is copied at some moment: from then on there are two of it
	Twins       Lie = "twins"        // there are two of it from the beginning, and neither hears the other
	Amnesia     Lie = "amnesia"      // it forgets its locks
	Rollback    Lie = "rollback"     // its journal goes back to what it was, together with that of all who lie so
	Timing      Lie = "timing"       // it is honest, and late by about a time-out
	Mixed       Lie = "mixed"        // each of them something of the above
)

// Lies are all of them, in the order in which tables have them.
var Lies = []Lie{Silent, SilentChair, Equivocate, Withhold, Untruth, Hoard, Replay, Forge, Clone, Twins, Amnesia, Rollback, Timing, Mixed}

// Plan is one run. [Drawn] makes one from a seed.
type Plan struct {
	Seed    uint64
	N       int // seats with a vote, at the beginning
	Lie     Lie
	Liars   int
	Loss    float64 // of the messages
	Cuts    float64 // how often the power of a machine fails in a second, and a tenth of it before each effect
	Parting bool    // the network parts and heals
	Storm   bool    // some messages come half a minute late
	Aimed   bool    // precommits reach one machine only, mostly, and that one is cut off when it has decided
	Black   bool    // once, all lose power at one moment
	Fickle  bool    // honest seats change their minds about what is proposed
	Brief   bool    // what has no quorum of opinions leaves the queue after some minutes
	Seats   bool    // nodes get seats, lose them, and take over those of others
	Newest  bool    // carriers keep the newest word of each seat alone, as the agent's shelf does, not each ballot
	// Destroyed machines never come back. Then the owner breaks the glass, also where a quorum lives.
	Destroyed int
	Link      time.Duration
	Wild      time.Duration // how long there are faults
	End       time.Duration // when all has to be decided
	Items     int           // that are proposed meanwhile, and one more after it

	// Each has every machine verify all signatures itself. Else a signature is verified once, by the first
	// machine that sees it: its bytes are the same everywhere.
	Each bool
	// Hostile says that there may be more liars than a fleet bears: then what goes wrong is found, and told.
	Hostile bool
	Trace   io.Writer // each event, a line; nil: none
}

// Wrong is an invariant that did not hold.
type Wrong struct {
	What What
	How  string
}

// What is an invariant, in the words of a table.
type What string

// The invariants.
const (
	TwoDecisions What = "two decisions"      // at one height, by honest seats
	SignedTwice  What = "honest double vote" // two things in one step, by one honest seat
	SentFirst    What = "sent before disk"   // a ballot that was not on the disk
	Stuck        What = "stuck"              // what q seats want is not decided though the network is whole
	Rounds       What = "rounds"             // more of them than a whole network may take
	Forged       What = "forged"             // something is taken that nobody may sign so
	Damaged      What = "journal"            // a journal that a cut of power made unreadable
	Undetected   What = "undetected"         // two certificates of one height, and a node that has both goes on
)

// Whats are all of them.
var Whats = []What{TwoDecisions, SignedTwice, SentFirst, Stuck, Rounds, Forged, Damaged, Undetected}

// Faults counts what was done to a fleet.
type Faults struct {
	Lost, Late, Cuts, Torn, Parts, Lies, Flips, Rollbacks int
}

// Total is all of them. A run without a fault proves nothing.
func (f Faults) Total() int {
	return f.Lost + f.Late + f.Cuts + f.Torn + f.Parts + f.Lies + f.Flips + f.Rollbacks
}

func (f Faults) String() string {
	return fmt.Sprintf("%d lost, %d late, %d cuts of power (%d torn records), %d partitions, %d lies, %d changes of mind, %d journals rolled back",
		f.Lost, f.Late, f.Cuts, f.Torn, f.Parts, f.Lies, f.Flips, f.Rollbacks)
}

func (f *Faults) add(o Faults) {
	f.Lost, f.Late, f.Cuts, f.Torn = f.Lost+o.Lost, f.Late+o.Late, f.Cuts+o.Cuts, f.Torn+o.Torn
	f.Parts, f.Lies, f.Flips, f.Rollbacks = f.Parts+o.Parts, f.Lies+o.Lies, f.Flips+o.Flips, f.Rollbacks+o.Rollbacks
}

// Result is what a run showed.
type Result struct {
	Plan
	Wrong   []Wrong
	Heights int           // that were decided
	After   int           // of them, begun in a whole network in which all held the opinions
	Rounds  int           // most that one of these took
	Open    int           // rounds that the height which was open then took from then on
	Left    int           // items that left the queue undecided
	Fsyncs  int           // records in all journals
	Took    time.Duration // from the last proposal until the last honest machine had decided it
	Kinds   map[string]int
	Faults  Faults
}

// Run runs a plan.
func Run(t testing.TB, p Plan) Result {
	w := newWorld(t, p)
	w.run()
	return w.result()
}

// Tally is many results.
type Tally struct {
	Runs, Idle, Heights, After, Rounds, Open, Left int
	Worst, WorstOpen                               uint64 // seeds
	Kinds                                          map[string]int
	Wrong                                          []Result
	Faults
}

// Add adds a result. A run without a fault counts as idle, and for nothing.
func (t *Tally) Add(r Result) {
	if len(r.Wrong) > 0 {
		t.Wrong = append(t.Wrong, r)
	}
	if r.Faults.Total() == 0 {
		t.Idle++
		return
	}
	t.Runs, t.Heights, t.After, t.Left = t.Runs+1, t.Heights+r.Heights, t.After+r.After, t.Left+r.Left
	if r.Rounds > t.Rounds {
		t.Rounds, t.Worst = r.Rounds, r.Seed
	}
	if r.Open > t.Open {
		t.Open, t.WorstOpen = r.Open, r.Seed
	}
	if t.Kinds == nil {
		t.Kinds = make(map[string]int)
	}
	for k, n := range r.Kinds {
		t.Kinds[k] += n
	}
	t.Faults.add(r.Faults)
}

func (t Tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs (%d more without a fault), %d heights, %d of them begun in a whole network, %d items left undecided\n", t.Runs, t.Idle, t.Heights, t.After, t.Left)
	fmt.Fprintf(&b, "  rounds: %d at most (seed %d); of the height that was open at that moment %d (seed %d)\n", t.Rounds, t.Worst, t.Open, t.WorstOpen)
	fmt.Fprintf(&b, "  faults: %s\n  decided:", t.Faults)
	var kinds []string
	for k, n := range t.Kinds {
		kinds = append(kinds, fmt.Sprintf(" %s %d", k, n))
	}
	slices.Sort(kinds)
	b.WriteString(strings.Join(kinds, ",") + "\n  ")
	for i, what := range Whats {
		n := 0
		for _, r := range t.Wrong {
			if slices.ContainsFunc(r.Wrong, func(w Wrong) bool { return w.What == what }) {
				n++
			}
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %d", what, n)
	}
	return b.String()
}
