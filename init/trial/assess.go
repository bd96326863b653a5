package trial

import (
	"fmt"
	"time"
)

// State is where the boot assessment stands:
//
//	Pending ─Good─▶ Good                        the slot is blessed
//	   │
//	   └─Failing, Timeout─▶ Bad ─Good─▶ Good         (a proven slot, which goes on)
//	                         │
//	                         └─ on trial: the node reboots, which uses up a try
//
// The agent may say Sick meanwhile: the node itself is well, and what runs on it is not. On
// trial that is one more thing to wait for. On a proven slot the boot is counted as a bad
// one no more, whatever follows: the other slot would run the same containers, and nobody
// who runs one may choose the release. When the time is over it is Bad all the same, which
// is an alarm.
//
// What happens after Good is a matter of services and containers: it is not the boot's
// any more. A release on trial that was bad once stays so until it is tried again.
type State string

const (
	Pending State = "pending"
	Good    State = "good"
	Bad     State = "bad"
)

// Event is what happens to it.
type Event string

const (
	// SaidGood, SaidPending and SaidSick are the agent's words. Bad is not its to say: it
	// is what the time that passes makes of the other two.
	SaidGood    Event = "good"
	SaidPending Event = "pending"
	SaidSick    Event = "sick"
	// Failing: a vital service failed too often in a row.
	Failing Event = "failing"
	// Timeout: the time for the assessment is over.
	Timeout Event = "timeout"
)

// Action is what PID 1 does about it.
type Action string

const (
	None   Action = "none"
	Bless  Action = "bless"  // the slot has proven itself
	Spare  Action = "spare"  // this boot of a proven slot is no bad one
	Alarm  Action = "alarm"  // show that this boot is bad, and go on
	Reboot Action = "reboot" // note why, and use up the try
)

// Assessment is the state with what belongs to it.
type Assessment struct {
	State State
	Why   string // what is missing, or bad
	// Since is when it came into that state, by the node's clock of then.
	Since time.Time
	// Trial says that the slot has not proven itself yet.
	Trial bool
	// Limit is the time that the boot has to be good in.
	Limit time.Duration
}

// Step says what event e makes of the assessment, and what is done about it. why goes
// with the agent's words and with Failing.
func (a Assessment) Step(e Event, why string, now time.Time) (Assessment, Action) {
	switch {
	case a.State == Good, a.State == Bad && a.Trial:
		return a, None
	case e == SaidGood:
		return a.enter(Good, "", now), Bless
	case e == SaidPending, e == SaidSick:
		a.Why = why
		if e == SaidSick && !a.Trial {
			return a, Spare
		}
		return a, None
	case e == Timeout && a.State == Bad:
		return a, None
	}
	if e == Timeout {
		if a.Why == "" {
			a.Why = "the agent has said nothing"
		}
		why = fmt.Sprintf("not good within %s: %s", a.Limit, a.Why)
	}
	if a.State == Bad { // proven, and bad for another reason by now
		a.Why = why
		return a, None
	}
	a = a.enter(Bad, why, now)
	if a.Trial {
		return a, Reboot
	}
	return a, Alarm
}

func (a Assessment) enter(s State, why string, now time.Time) Assessment {
	a.State, a.Why, a.Since = s, why, now
	return a
}

// Line is what people and tests read on the console: "boot assessment: good, slot A,
// release 1.0", and after a bad one why.
func (a Assessment) Line(slot, release string) string {
	line := fmt.Sprintf("boot assessment: %s, slot %s, release %s", a.State, slot, release)
	if a.State == Bad {
		line += ": " + a.Why
	}
	return line
}
