package slot

import "kogge.example/update/bootloader"

// Phase is where a slot stands:
//
//	empty ─begin─▶ writing ─whole─▶ staged ─arm─▶ armed ─boot─▶ trial ─good─▶ proven
//	                  │                             ▲             │              │
//	                  └─broken─▶ empty              ├──arm── bad ◀┴─bad, over──bad
//	                                                └───────────arm──────────────┘
//
// The slot that does not run may begin anew in every phase; it may be armed wherever the
// whole of a release lies. From begin to good the loader's only other choice is the
// slot that runs. Only the slot that runs is assessed: good or bad.
type Phase string

// The phases of a slot.
const (
	PhaseEmpty   Phase = "empty"   // nothing that anybody vouches for, and no entry
	PhaseWriting Phase = "writing" // some of a release, and no entry
	PhaseStaged  Phase = "staged"  // a whole release, read back, and no entry
	PhaseArmed   Phase = "armed"   // to be started at the next boot, counted
	PhaseTrial   Phase = "trial"   // started at least once, with or without tries left
	PhaseProven  Phase = "proven"  // blessed, uncounted
	PhaseBad     Phase = "bad"     // given up by the loader, or marked so
)

var phases = []Phase{PhaseEmpty, PhaseWriting, PhaseStaged, PhaseArmed, PhaseTrial, PhaseProven, PhaseBad}

// Event is what happens to a slot.
type Event string

// The events of a slot.
const (
	EventBegin  Event = "begin"  // a release is to be written
	EventWhole  Event = "whole"  // all of it was read back
	EventBroken Event = "broken" // it cannot be whole: other bytes than were signed, or the disk fails
	EventArm    Event = "arm"    // it is to be tried
	EventBoot   Event = "boot"   // the loader starts it
	EventGood   Event = "good"   // its boot assessment
	EventBad    Event = "bad"    // its boot assessment
	EventOver   Event = "over"   // the loader has no tries left and starts the other slot
)

var events = []Event{EventBegin, EventWhole, EventBroken, EventArm, EventBoot, EventGood, EventBad, EventOver}

// Action is what is to be done about an event before the phase is the new one.
type Action string

// The actions.
const (
	ActionNone   Action = "nothing"
	ActionRefuse Action = "refuse" // the event is not possible here: nothing changes
	ActionRetire Action = "retire" // entry, boot files and the first block of the root go
	ActionArm    Action = "arm"
	ActionBless  Action = "bless"
	ActionBad    Action = "mark bad"
)

// Step says what event e makes of a slot and what is to be done about it. runs says
// whether it is the slot that runs. It does nothing itself.
func (p Phase) Step(e Event, runs bool) (Phase, Action) {
	holds := p != PhaseEmpty && p != PhaseWriting // the whole of a release
	switch {
	case e == EventBegin && !runs:
		return PhaseWriting, ActionRetire
	case e == EventWhole && !runs && p == PhaseWriting:
		return PhaseStaged, ActionNone
	case e == EventBroken && !runs && p == PhaseWriting:
		return PhaseEmpty, ActionNone
	case e == EventArm && !runs && holds:
		return PhaseArmed, ActionArm
	case e == EventBoot && (p == PhaseArmed || p == PhaseTrial):
		return PhaseTrial, ActionNone
	case e == EventBoot && (p == PhaseProven || p == PhaseBad): // bad: the last resort
		return p, ActionNone
	case e == EventGood && runs && holds && p != PhaseStaged && p != PhaseArmed:
		return PhaseProven, ActionBless
	case e == EventBad && runs && p == PhaseTrial:
		return PhaseTrial, ActionNone // the reboot uses up a try
	case e == EventBad && runs && (p == PhaseProven || p == PhaseBad):
		return p, ActionNone // all that there is; update/verdict counts
	case e == EventOver && !runs && p == PhaseTrial:
		return PhaseBad, ActionNone
	}
	return p, ActionRefuse
}

// phaseOf says where a slot stands by what is remembered of it and what the loader says.
// The loader knows better: what it starts is there, whatever was remembered. record is
// nil where nothing is.
func phaseOf(record *Record, e bootloader.Entry, runs bool) Phase {
	switch {
	case e.Proven():
		return PhaseProven
	case e.Present && e.Left == 0 && runs:
		return PhaseTrial // its last one
	case e.Present && e.Left == 0:
		return PhaseBad
	case e.Present && e.Done > 0:
		return PhaseTrial
	case e.Present:
		return PhaseArmed
	case record == nil:
		return PhaseEmpty
	case record.Whole:
		return PhaseStaged
	}
	return PhaseWriting
}
