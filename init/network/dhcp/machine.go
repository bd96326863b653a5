package dhcp

import (
	"time"

	"kogge.example/init/control"
)

// State is where a DHCP client stands, of either version:
//
//	Selecting ─Got─▶ Bound ─Timer (T1)─▶ Renewing ─Timer (T2)─▶ Rebinding ─Timer (over)─▶ Selecting
//	    ▲              ▲                    │ Got                  │ Got, Nak
//	    │              └────────────────────┴──────────────────────┘ (Nak: Selecting)
//	    └─Nak── Confirming ─Got─▶ Bound
//	                ▲  └─Failed─▶ itself, until the lease is over; from the second time on
//	                │            any lease will do
//	                └─CarrierUp── Bound, Renewing, Rebinding
//
// A lost carrier changes nothing: the lease is kept, and asked about when the
// carrier is back, since the cable may end in another network now. Failures in
// Selecting make the pauses grow, up to a minute. A lease whose address somebody else has
// is declined, from wherever it stands, and the next is asked for ten seconds later.
//
// Sources: RFC 2131, section 4.4; RFC 8415, section 18.2, where it is much the same: a
// DHCPv6 client confirms with the message of that name, and never by unicast.
type State string

const (
	Selecting  State = "selecting"  // no lease
	Bound      State = "bound"      // a lease, nothing to do
	Renewing   State = "renewing"   // asks the lease's server
	Rebinding  State = "rebinding"  // asks any server
	Confirming State = "confirming" // asks whether an old lease still holds here
)

// Event is what happens to a client.
type Event string

const (
	Timer       Event = "timer"        // Next is reached
	Got         Event = "got"          // a lease came
	Nak         Event = "nak"          // the server takes the lease back
	Failed      Event = "failed"       // no answer
	Declined    Event = "declined"     // somebody else has the address
	CarrierUp   Event = "carrier up"   // the link can send
	CarrierDown Event = "carrier down" // it cannot
)

// Action is what to do about an event.
type Action string

const (
	Wait     Action = "wait"     // until Next
	Discover Action = "discover" // ask for any lease
	Confirm  Action = "confirm"  // ask for the old one, by broadcast
	Renew    Action = "renew"    // ask the server, by unicast
	Rebind   Action = "rebind"   // ask all servers, by broadcast
	Drop     Action = "drop"     // the lease is over; Next is now
)

// Client is the state of a DHCP client.
type Client struct {
	State    State
	Lease    *control.Lease // nil in Selecting
	Down     bool           // no carrier
	Failures int            // in a row, in Selecting
	Next     time.Time
}

// Step says what event e makes of the client and what is to be done. lease is the
// one that Got brings. It sends nothing and reads no clock.
func (c Client) Step(e Event, lease *control.Lease, now time.Time) (Client, Action) {
	switch e {
	case CarrierDown:
		c.Down = true
		return c.wait(now)
	case CarrierUp:
		if !c.Down {
			return c.wait(now)
		}
		c.Down, c.Failures = false, 0
		if c.Lease != nil {
			c.State = Confirming
		}
		c.Next = now
		return c, Wait
	case Got:
		c.State, c.Lease, c.Failures = Bound, lease, 0
		c.Next = lease.Since.Add(lease.Renew)
		return c, Wait
	case Nak:
		return c.drop(now)
	case Declined:
		next, action := c.drop(now)
		if least := now.Add(declinePause); next.Next.Before(least) {
			next.Next = least
		}
		return next, action
	case Failed:
		c.Failures++
		return c.wait(now)
	}
	// Timer.
	if c.Lease != nil && !now.Before(c.Lease.Expires()) {
		return c.drop(now)
	}
	if c.Down {
		return c.wait(now)
	}
	switch c.State {
	case Bound, Renewing, Rebinding:
		switch {
		case !now.Before(c.Lease.Since.Add(c.Lease.Rebind)):
			c.State = Rebinding
			return c, Rebind
		case !now.Before(c.Lease.Since.Add(c.Lease.Renew)):
			c.State = Renewing
			return c, Renew
		}
		return c.wait(now)
	case Confirming:
		// Not every server says no to an address of another network. Whoever answers
		// a question for any lease is right; with no answer the old one stays.
		if c.Failures >= 2 {
			return c, Discover
		}
		return c, Confirm
	}
	return c, Discover
}

// declinePause is the least time to the next question after a lease was declined (RFC
// 2131, 3.1): a pool may be full of such addresses.
const declinePause = 10 * time.Second

// drop gives the lease up and starts anew.
func (c Client) drop(now time.Time) (Client, Action) {
	had := c.Lease != nil
	c.State, c.Lease = Selecting, nil
	c.Failures++ // a server that gives and takes in turn is not asked without a pause
	c.Next = now.Add(pause(c.Failures))
	if !had {
		return c, Wait
	}
	return c, Drop
}

// wait sets the time of the next step.
func (c Client) wait(now time.Time) (Client, Action) {
	switch {
	case c.Lease == nil:
		c.Next = now.Add(pause(c.Failures))
	case c.Down:
		c.Next = c.Lease.Expires()
	case c.State == Bound:
		c.Next = c.Lease.Since.Add(c.Lease.Renew)
	default:
		// Half of what is left until the next state, at least a minute (RFC 2131,
		// 4.4.5), and at most an hour: servers come back. Confirming is in a hurry, the network may be another one.
		until := c.Lease.Expires()
		if rebind := c.Lease.Since.Add(c.Lease.Rebind); c.State == Renewing && now.Before(rebind) {
			until = rebind
		}
		gap := min(max(until.Sub(now)/2, time.Minute), time.Hour)
		if c.State == Confirming {
			gap = pause(c.Failures)
		}
		c.Next = now.Add(gap)
		if c.Next.After(until) {
			c.Next = until
		}
	}
	return c, Wait
}

// pause grows with the failures in a row: 0, 1, 2, 4 … 60 seconds.
func pause(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	return min(time.Second<<min(failures-1, 6), time.Minute)
}
