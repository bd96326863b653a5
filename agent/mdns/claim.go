package mdns

import "time"

// State is where the node's claim of a name stands on one link:
//
//	Probing ─Timer, after three probes─▶ Announcing ─Timer, after two─▶ Holding
//	 ▲ ▲ ├─Conflict─▶ itself, with the next name   ▲                       │ │
//	 │ │ └─Lost─▶ itself, a second later           └─────────── Changed ───┘ │
//	 │ └─Conflict── Announcing ◀─Timer, after three probes── Regaining       │
//	 ├───Conflict────────────────────────────────────────────────┤ ▲         │
//	 │              Holding ◀─Taken, Lost or owed, the last one──┘ │         │
//	 │                itself, with the next ◀─Taken, Lost or owed──┤         │
//	 │                                                             └─Timer───┤
//	 └───Conflict────────────────────────────────────────────────────────────┘
//
// A name that another machine has is left to it: the node takes NAME-2, and so on. Where
// two have held one name, as when their networks were joined, both ask again, and it
// stays with one. A link that is full of conflicts is tried once a minute at most.
//
// After a quiet minute the node asks for the names before its own, the first one first, and
// keeps its own until one of them turns out to be free. While all are taken it asks less and
// less often. Whoever has answered for a name then is somebody who lives here, and may only be
// starting anew: the name has to be free three times in a row.
//
// Source: RFC 6762, sections 8 and 9.
type State string

const (
	Probing    State = "probing"    // is the name free?
	Announcing State = "announcing" // it is: the others are told
	Holding    State = "holding"
	Regaining  State = "regaining" // it holds its name, and is a better one free?
)

// Event is what happens to a claim.
type Event string

const (
	Timer    Event = "timer"    // Next is reached
	Changed  Event = "changed"  // the node has something else to say
	Conflict Event = "conflict" // another machine has the name
	Lost     Event = "lost"     // another one is trying the name too, and goes before us
	Taken    Event = "taken"    // another machine has the name that is to be regained
)

// Action is what to do about an event.
type Action string

const (
	Wait     Action = "wait"
	Probe    Action = "probe"    // ask whether somebody has the name
	Announce Action = "announce" // say all there is to say
)

// Claim is the state of a node's name on one link.
type Claim struct {
	State     State
	Number    int       // of the name, from 1
	Sent      int       // in this state
	Conflicts int       // in a row
	Next      time.Time // zero: nothing to do
	Try       int       // number of the name that is to be regained; 0: none
	Tries     int       // in vain, in a row
	// Owed is how often a name, by its number, has to be free still before it is regained.
	Owed [crowded]int
}

// The times of section 8.
const (
	probes        = 3
	probePause    = 250 * time.Millisecond
	announces     = 2
	announcePause = time.Second
	lostPause     = time.Second
	crowded       = 15 // conflicts from which on pauses grow
	crowdedPause  = 5 * time.Second
)

const (
	// quiet is how long a name is held before a better one is tried, again after twice as
	// long each time, up to mostQuiet.
	quiet     = time.Minute
	mostQuiet = 8 * time.Minute
	// absences is how often a machine that has answered may be silent in a row: at first for
	// six minutes, later for 16.
	absences = 3
)

// NewClaim begins after wait, which is random and up to [probePause]: a street of nodes
// comes back at once after a power cut.
func NewClaim(now time.Time, wait time.Duration) Claim {
	return Claim{State: Probing, Number: 1, Next: now.Add(wait)}
}

// Step says what event e makes of the claim and what is to be done. It sends nothing
// and reads no clock.
func (c Claim) Step(e Event, now time.Time) (Claim, Action) {
	switch {
	case e == Conflict:
		number := c.Number
		if c.State == Probing {
			number++
		}
		return Claim{State: Probing, Number: number, Conflicts: c.Conflicts + 1, Next: now.Add(pause(c.Conflicts + 1)), Owed: c.Owed}, Wait
	case e == Lost && c.State == Probing:
		c.Sent, c.Next = 0, now.Add(lostPause)
		return c, Wait
	case e == Changed && c.State != Probing:
		return c.announce(now, 1)
	case (e == Taken || e == Lost) && c.State == Regaining:
		if e == Taken {
			c.Owed[c.Try] = absences
		}
		return c.tryNext(now), Wait
	case e != Timer || c.Next.IsZero():
		return c, Wait
	case c.State == Holding:
		c.State, c.Try, c.Sent, c.Next = Regaining, 1, 1, now.Add(probePause)
		return c, Probe
	case c.State == Regaining && c.Sent < probes:
		c.Sent, c.Next = c.Sent+1, now.Add(probePause)
		return c, Probe
	case c.State == Regaining && c.Owed[c.Try] > 1:
		c.Owed[c.Try]--
		return c.tryNext(now), Wait
	case c.State == Regaining:
		c.Number, c.Tries, c.Owed[c.Try] = c.Try, 0, 0
		return c.announce(now, 1)
	case c.State == Probing && c.Sent < probes:
		c.Sent, c.Next = c.Sent+1, now.Add(probePause)
		return c, Probe
	case c.State == Probing:
		return c.announce(now, 1)
	case c.State == Announcing:
		return c.announce(now, c.Sent+1)
	}
	return c, Wait
}

// tryNext has the next name be asked for, if there is one before that which is held.
func (c Claim) tryNext(now time.Time) Claim {
	c.Try, c.Sent, c.Next = c.Try+1, 0, now.Add(probePause)
	if c.Try >= min(c.Number, crowded) {
		c.Tries++
		return c.hold(now)
	}
	return c
}

// announce does it for the nth time.
func (c Claim) announce(now time.Time, n int) (Claim, Action) {
	c.State, c.Sent, c.Try, c.Next = Announcing, n, 0, now.Add(announcePause)
	if n >= announces {
		c.Conflicts = 0
		c = c.hold(now)
	}
	return c, Announce
}

// hold has the node hold its name, the first one for good.
func (c Claim) hold(now time.Time) Claim {
	c.State, c.Sent, c.Try, c.Next = Holding, 0, 0, time.Time{}
	if c.Number > 1 {
		c.Next = now.Add(min(quiet<<min(c.Tries, 6), mostQuiet))
	}
	return c
}

// pause is before the first probe after a conflict.
func pause(conflicts int) time.Duration {
	if conflicts < crowded {
		return probePause
	}
	return min(crowdedPause<<min(conflicts-crowded, 6), time.Minute)
}
