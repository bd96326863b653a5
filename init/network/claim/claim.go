// Package claim keeps two machines from using one IPv4 address.
//
// In come what happens to an address that a link is to have and, from a [Socket], the ARP
// packets about it; out come whether the link may use it, and packets that ask for it,
// announce and defend it. Who sets addresses, and who is told of a conflict, is init/network's
// to know; addresses of IPv6 are the kernel's.
package claim

import (
	"fmt"
	"net/netip"
	"time"
)

// Standing is where an IPv4 address stands that the node is to have on a link:
//
//	Waiting ─CarrierUp─▶ Probing ─Timer─▶ Fresh ─Timer──▶ Held
//	   ▲                  │  ▲             ▲  └─CarrierUp─┐  │ CarrierUp
//	   └───CarrierDown────┘  │             └────Timer─── Checking
//	                         └─Timer─ Taken ◀─Conflict─ Probing, Fresh, Checking; Held if leased
//
// It is used in Fresh, Held and Checking. A short while after it came into use, an answer to
// the question whether somebody has it may still be on its way. Later the node defends it:
// of a lease, against one conflict in ten seconds; one from node.yaml it never gives up,
// as others know it, and two packets of a stranger would take the node from its network.
//
// The times between probes are short, as on wired networks an answer takes milliseconds.
// A switch may take a second until it passes packets on, though: so the address is probed
// again while it is fresh, for as long as RFC 5227 would have us wait for it.
//
// Source: RFC 5227, sections 2.1 to 2.4.
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
	quiet     = time.Minute           // without a conflict: it is over
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
	Sent     int       // packets in this state
	By       string    // MAC address of whoever has it or disputes it; "": nobody
	Conflict time.Time // the last one that was answered
	Failures int       // times taken, in a row
	Next     time.Time // of the next Timer; zero: none
}

// InUse says whether the link may have the address.
func (c Claim) InUse() bool { return c.State == Fresh || c.State == Held || c.State == Checking }

// Begin is a claim that begins now. used says that the link has the address already, from an
// earlier run.
func Begin(leased, used, carrier bool, now time.Time) Claim {
	c := Claim{State: Probing, Leased: leased, Next: now}
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
// of whoever caused it. It sends nothing and reads no clock.
func (c Claim) Step(e Event, by string, now time.Time) (Claim, Action) {
	to := func(s Standing, next time.Time) { c.State, c.Sent, c.Next = s, 0, next }
	switch {
	case e == CarrierDown && c.State == Probing:
		to(Waiting, time.Time{})
	case e == CarrierUp && (c.State == Waiting || c.State == Taken && !c.Leased):
		to(Probing, now)
	case e == CarrierUp && (c.State == Fresh || c.State == Held):
		to(Checking, now)
	case e == Asked && c.State == Probing && !c.Leased, e == Conflict && (c.State == Probing || c.State == Fresh || c.State == Checking):
		return c.taken(by, now)
	case e == Conflict && c.State == Held:
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
		c.State, c.Sent, c.Next, c.By = Fresh, 0, now, ""
	case Fresh:
		if c.Sent < len(whileFresh) {
			one := whileFresh[c.Sent]
			c.Sent++
			c.Next = now.Add(one.wait)
			return c, one.do
		}
		c.State, c.Sent, c.Next, c.Failures = Held, 0, time.Time{}, 0
	case Held:
		c.By, c.Next = "", time.Time{}
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
	if !c.Leased {
		c.Next = now.Add(pause(c.Failures))
	}
	return c, GiveUp
}

// defend answers a conflict about an address that has long been ours.
func (c Claim) defend(by string, now time.Time) (Claim, Action) {
	again := !c.Conflict.IsZero() && now.Sub(c.Conflict) < defendGap
	if again && c.Leased {
		return c.taken(by, now)
	}
	c.By, c.Next = by, now.Add(quiet)
	if again {
		return c, Wait // two that defend it all the time would fill the network
	}
	c.Conflict = now
	return c, Announce
}

// pause grows with the conflicts in a row: 1, 2, 4 … 60 seconds.
func pause(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 6), time.Minute)
}
