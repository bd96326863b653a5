// Package vote is how the seats of a fleet decide the next record of their ledger: Algorithm 1 of
// Tendermint as a pure machine.
//
// In come ballots that were verified, time-outs, the answers to what the machine asked; out go
// the next state and an ordered list of effects. The package reads no clock, opens nothing, holds
// no key and sends nothing: the agent around it does, and the order of effects is its duty. What
// is decided is the hash of a record; what the record says, and whether this voter finds it good,
// is for others to know.
//
// The algorithm is that of "The latest gossip on BFT consensus", arXiv:1807.04938, whose lines
// the comments name. Five things differ, each with a reason:
//
//  1. A proposal of nil is dropped: a lock on nil would never open.
//  2. A voter is asked once whether a value is valid, when it is fresh (line 22). What a quorum
//     has prevoted is judged by the locks alone (lines 28, 36, 49): an opinion that changes with
//     time could keep those who are locked from ever being followed.
//  3. Line 36 takes note of a quorum of prevotes of any round of the height, also a late one.
//  4. The ballots of a double voter count once for each value, never the first one alone: else
//     two honest seats that heard them in another order would count differently.
//  5. Who abstains takes no step and sends nothing, but learns what is decided.
package vote

import (
	"time"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger"
)

// Phase is where a seat stands at a height:
//
//	Idle ─an item, or f+1 others (line 55)─▶ Running ─q precommits (line 49)─▶ Decided ─Begin─▶ Idle
//	                                          │   ▲
//	                    3N rounds without news│   │News, or f+1 others (line 55)
//	                                          ▼   │
//	                                         Resting
//
// A seat learns a decision in every phase. Two decisions at one height make it Halted, which
// nothing ends.
type Phase uint8

// The phases.
const (
	Idle Phase = iota
	Running
	Resting
	Decided
	Halted
)

var phaseNames = [...]string{"idle", "running", "resting", "decided", "halted"}

func (p Phase) String() string { return phaseNames[p] }

// State is one seat in the vote about one height. It is a value: [Step] changes none that it was
// given, and nobody else may. Within a round it goes
//
//	Proposal ─a proposal (22, 28), or time (57)─▶ Prevote ─q prevotes (36, 44), or time (61)─▶ Precommit
//	   ▲                                                                                           │
//	   └──────────────── the next round: q precommits and time (65), or f+1 others (55) ───────────┘
//
// Locked is the value that the seat has precommitted last, Valid the one that a quorum has
// prevoted last: it is what the seat puts forward when it is chair.
type State struct {
	Self   int // the seat's number; a seat without a vote only learns
	At     ballot.Height
	Phase  Phase
	Round  int32
	Step   ballot.Kind // what the seat has come to in Round
	Locked Choice
	Valid  Choice
	Item   document.Hash  // what the queue would have put forward; Nil: nothing
	Own    []ballot.Words // that the seat has signed at this height, or a later one
	Head   journal.Head   // the newest record that the journal knows
	// Abstain is the last height at which the seat takes no step, because its journal lacks
	// ballots that it may have cast.
	Abstain int64
	// Asking says that the seat waits for q answers about its own ballots, and takes no step;
	// Behind, that its journal is known to lack some.
	Asking, Behind bool

	decided document.Hash // in phase Decided
	replies []reply
	lock    *journal.Lock // what Locked rests on
	rounds  []*round
	timed   [ballot.Precommit + 1]bool // which time-outs of Round run
	judged  []document.Hash            // the fresh values of Round about which the seat was asked
	news    int32                      // the round in which something new was heard
	exposed []int                      // seats whose double vote was shown at this height
	newest  map[int]*ballot.Ballot     // of each seat, before this height or beyond it
}

// Choice is a value and the round in which a quorum has prevoted it; round -1: there is none.
type Choice struct {
	Round int32
	Value document.Hash
}

// none is no choice.
var none = Choice{Round: -1}

// New is a seat that goes on where its journal ends. It takes a step when [Begin] has told it
// the height, and q voters have answered it.
func New(self int, m journal.Memory) (State, []Effect) {
	s := State{
		Self: self, Own: m.Own, lock: m.Lock, Head: m.Head, Abstain: m.Abstain, Asking: true, Behind: m.Behind, Locked: none, Valid: none,
	}
	if m.Behind {
		return s, []Effect{Lack{}}
	}
	return s, nil
}

// Event is what happens to a seat.
type Event interface{ event() }

// The events.
type (
	// Begin opens a height, after a boot or after a decision was taken into the ledger.
	Begin struct{ Height ballot.Height }
	// Item is what the queue would have put forward now: a record that q opinions call valid
	// and for which q seats are ready. Nil: there is none.
	Item struct{ Value document.Hash }
	// News says that something was heard which may end fruitless rounds: another opinion, a
	// seat that is back. Whoever gives it sees to it that a liar cannot make news for ever.
	News struct{}
	// Received is a ballot, of others or of the seat itself, from [Open]. Again is no harm.
	Received struct{ Ballot *ballot.Ballot }
	// Judged answers [Judge].
	Judged struct {
		Height int64
		Round  int32
		Value  document.Hash
		Valid  bool
	}
	// Timeout says that a [Timer] is over. Late ones are no harm.
	Timeout struct {
		Height int64
		Round  int32
		Step   ballot.Kind
	}
	// Answered is a seat's answer to [Ask], from [OpenAnswer].
	Answered struct{ Answer ballot.Answer }
)

func (Begin) event()    {}
func (Item) event()     {}
func (News) event()     {}
func (Received) event() {}
func (Judged) event()   {}
func (Timeout) event()  {}
func (Answered) event() {}

// Effect is what is to be done. Effects are carried out in their order: a cut of power between
// any two is one that a voter survives.
type Effect interface{ effect() }

// The effects.
type (
	// Persist puts a record into the journal, and waits until it is on the disk. Nothing that
	// follows is done before.
	Persist struct{ Record journal.Record }
	// Send signs a ballot of this seat and gives it to the carriers, and, as [Received], to the
	// seat itself.
	Send struct{ Ballot *ballot.Ballot }
	// Timer asks for a time-out, once: a second timer of one step is in place of the first.
	Timer struct {
		Timeout
		After time.Duration
	}
	// Judge asks whether this voter, by its own rule and with the evidence in its hands, finds
	// a value valid. The answer may come late or never.
	Judge struct {
		Height int64
		Round  int32
		Value  document.Hash
	}
	// Ask puts a [Question] to the other voters, again and again until the state is not Asking.
	Ask struct{}
	// Decide is a decision. The caller takes it into the ledger, and begins the next height.
	Decide struct {
		Value       document.Hash
		Certificate ledger.Certificate
	}
	// Expose shows that a seat has voted twice.
	Expose struct{ Proof ballot.Proof }
	// Lack is an alarm: this seat has signed a ballot that its journal lacks. It abstains. nil:
	// the journal says so itself.
	Lack struct{ Ballot *ballot.Ballot }
	// Fork is an alarm: two records are decided at one height, or the ledger has another one
	// than the journal. The seat stops for good.
	Fork struct {
		Height     int64
		One, Other document.Hash
	}
)

func (Persist) effect() {}
func (Send) effect()    {}
func (Timer) effect()   {}
func (Judge) effect()   {}
func (Ask) effect()     {}
func (Decide) effect()  {}
func (Expose) effect()  {}
func (Lack) effect()    {}
func (Fork) effect()    {}
