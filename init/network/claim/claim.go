// Package claim keeps two machines from using one address.
//
// In come what happens to an address that a link is to have and, from a [Socket], the packets
// about it, of ARP or IPv6's neighbour discovery; out come whether the link may use it, and
// packets that ask for it, announce and defend it. Who sets addresses, and who is told of a
// conflict, is init/network's to know.
package claim

import (
	"fmt"
	"net/netip"
	"time"
)

// Standing is where an address stands that the node is to have on a link:
//
//	Waiting ─CarrierUp─▶ Probing ─Timer─▶ Fresh ─Timer──▶ Held
//	   ▲                  │  ▲             ▲  └─CarrierUp─┐  │ CarrierUp
//	   └───CarrierDown────┘  │             └────Timer─── Checking
//	                         └─Timer─ Taken ◀─Conflict─ Probing, Fresh, Checking, unless it is ours
//	                                  (if it is: Probing goes to Fresh, the others stay)
//
// It is used in Fresh, Held and Checking. A short while after it came into use, an answer to
// the question whether somebody has it may still be on its way, and gives it up.
//
// Nobody can tell whoever has an address from a stranger who says so, or from a router that
// answers for everything. So it is given up three times in a row at most. What is said to be
// taken then is used all the same, and so is what has been in use, whatever is heard: it is
// ours. It is defended against one conflict in ten seconds, and named as disputed as long as
// anybody answers the question for it.
//
// The times between probes are short, as on wired networks an answer takes milliseconds.
// A switch may take a second until it passes packets on, though: so the address is probed
// again while it is fresh, for as long as RFC 5227 would have us wait for it.
//
// Source: RFC 5227, sections 2.1 to 2.4; of those in 2.4, ours is (c). RFC 4862, section 5.4,
// asks the same question for IPv6, and would leave the address to whoever answers for ever.
type Standing string

const (
	Waiting  Standing = "waiting"  // for a carrier
	Probing  Standing = "probing"  // does anybody have it?
	Fresh    Standing = "fresh"    // in use and announced
	Held     Standing = "held"     // in use
	Checking Standing = "checking" // in use, and probed: the network may be another one now
	Taken    Standing = "taken"    // somebody else has it
)

// Event is what happens to a claim.
type Event string

const (
	Timer       Event = "timer"        // Next is reached
	Conflict    Event = "conflict"     // somebody else says that the address is his
	Asked       Event = "asked"        // somebody else asks whether anybody has it
	CarrierUp   Event = "carrier up"   // the link can send
	CarrierDown Event = "carrier down" // it cannot
)

// Action is what to do about an event.
type Action string

const (
	Wait     Action = "wait"     // until Next
	Probe    Action = "probe"    // ask whether anybody has the address
	Announce Action = "announce" // say that it is ours
	GiveUp   Action = "give up"  // use it no more; of a lease: decline it
)

const (
	probes    = 3
	probeGap  = 60 * time.Millisecond
	probeWait = 80 * time.Millisecond // after the last
	defendGap = 10 * time.Second      // DEFEND_INTERVAL
	quiet     = time.Minute           // without a conflict: is it over?
	answer    = time.Second           // it is, without an answer in this time
	patience  = 3                     // so often in a row an address is given up
)

// whileFresh is what is done while an address is fresh, each so long before the next.
var whileFresh = []struct {
	do   Action
	wait time.Duration
}{{Announce, time.Second}, {Probe, time.Second}, {Announce, 2 * time.Second}, {Probe, 3 * time.Second}}

// Claim is an address and where it stands.
type Claim struct {
	State    Standing
	Leased   bool      // from DHCP, not from node.yaml
	Ours     bool      // never given up any more
	Sent     int       // packets in this state; in Held: whether it was asked if the dispute is over
	By       string    // MAC address of whoever has it or disputes it, or another link's name; "": nobody
	Heard    time.Time // the last conflict
	Conflict time.Time // the last one that was answered
	Failures int       // times taken, in a row; of a lease: leases; of the kernel's address: its own time, too
	Next     time.Time // of the next Timer; zero: none
}

// InUse says whether the link may have the address.
func (c Claim) InUse() bool { return c.State == Fresh || c.State == Held || c.State == Checking }

// Begin is a claim that begins now. used says that the link has the address already, from an
// earlier run; failures are the Failures so far: of the last lease, or what the kernel found.
func Begin(leased, used, carrier bool, failures int, now time.Time) Claim {
	c := Claim{State: Probing, Leased: leased, Ours: used || failures >= patience, Failures: failures, Next: now}
	switch {
	case used && carrier:
		c.State = Checking
	case used:
		c.State, c.Next = Held, time.Time{}
	case !carrier:
		c.State, c.Next = Waiting, time.Time{}
	}
	return c
}

// Step says what event e makes of the claim and what is to be done; by is the MAC address
// of whoever caused it, or the name of another link of the node. It sends nothing and reads no clock.
func (c Claim) Step(e Event, by string, now time.Time) (Claim, Action) {
	to := func(s Standing, next time.Time) { c.State, c.Sent, c.Next = s, 0, next }
	switch {
	case e == CarrierDown && c.State == Probing:
		to(Waiting, time.Time{})
	case e == CarrierUp && (c.State == Waiting || c.State == Taken && !c.Leased):
		to(Probing, now)
	case e == CarrierUp && (c.State == Fresh || c.State == Held):
		to(Checking, now)
		c.By = "" // whoever he is, he may not be here
	case e == Asked && c.State == Probing && !c.Leased, e == Conflict && (c.State == Probing || c.InUse()):
		if !c.Ours {
			return c.taken(by, now)
		}
		return c.defend(by, now)
	case e == Timer:
		return c.timer(now)
	}
	return c, Wait
}

// Dispute says, for people, who else has the address a; "": nobody is known.
func (c Claim) Dispute(a netip.Addr) string {
	switch {
	case c.By == "":
		return ""
	case c.InUse():
		return fmt.Sprintf("%s says that %s is its own, too: one of the two needs another address", c.By, a)
	}
	return fmt.Sprintf("%s is not used: %s has it", a, c.By)
}

func (c Claim) timer(now time.Time) (Claim, Action) {
	switch c.State {
	case Probing, Checking:
		if c.Sent < probes {
			c.Sent++
			c.Next = now.Add(probeGap)
			if c.Sent == probes {
				c.Next = now.Add(probeWait)
			}
			return c, Probe
		}
		if c.State == Probing {
			c.By = ""
		}
		c.State, c.Sent, c.Next = Fresh, 0, now
	case Fresh:
		if c.Sent < len(whileFresh) {
			one := whileFresh[c.Sent]
			c.Sent++
			c.Next = now.Add(one.wait)
			return c, one.do
		}
		c.State, c.Ours, c.Sent, c.Next = Held, true, 0, time.Time{}
		if c.By != "" {
			c.Next = c.Heard.Add(quiet)
		} else {
			c.Failures = 0
		}
	case Held:
		if c.By != "" && c.Sent == 0 {
			c.Sent, c.Next = 1, now.Add(answer)
			return c, Probe
		}
		c.By, c.Sent, c.Failures, c.Next = "", 0, 0, time.Time{}
	case Taken:
		if !c.Leased {
			c.State, c.Sent, c.Next = Probing, 0, now
		}
	}
	return c, Wait
}

// taken gives the address up. One from node.yaml is tried again, ever more rarely.
func (c Claim) taken(by string, now time.Time) (Claim, Action) {
	c.State, c.Sent, c.By, c.Next = Taken, 0, by, time.Time{}
	c.Failures++
	c.Ours = c.Failures >= patience
	if !c.Leased {
		c.Next = now.Add(pause(c.Failures))
	}
	return c, GiveUp
}

// defend answers a conflict about an address that is ours.
func (c Claim) defend(by string, now time.Time) (Claim, Action) {
	again := !c.Conflict.IsZero() && now.Sub(c.Conflict) < defendGap
	c.Heard = now
	if !again || c.By == "" {
		c.By = by // whoever says it under ever new names gets one in the log at a time
	}
	switch c.State {
	case Probing: // nothing is left to be asked, and being fresh begins with an announcement
		c.State, c.Sent, c.Next, c.Conflict = Fresh, 0, now, now
		return c, Wait
	case Held:
		c.Sent, c.Next = 0, now.Add(quiet)
	}
	if again {
		return c, Wait // two that defend it all the time would fill the network
	}
	c.Conflict = now
	return c, Announce
}

// pause grows with the conflicts in a row: 1, 2, 4 seconds.
func pause(failures int) time.Duration { return time.Second << (min(failures, patience) - 1) }
