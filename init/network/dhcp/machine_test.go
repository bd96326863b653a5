package dhcp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/update/golden"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func office() *control.Lease {
	return &control.Lease{
		Address: netip.MustParsePrefix("192.0.2.50/24"), Server: netip.MustParseAddr("192.0.2.1"),
		Since: t0, Renew: 30 * time.Minute, Rebind: 52 * time.Minute, Valid: time.Hour,
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStep shows the answer of the DHCP client to every event in every state.
func TestStep(t *testing.T) {
	var out strings.Builder
	fresh := office()
	fresh.Since = t0.Add(40 * time.Minute)
	after := func(c Client) string {
		next := "-"
		if !c.Next.IsZero() {
			next = c.Next.Sub(t0).String()
		}
		lease := "no lease"
		if c.Lease != nil {
			lease = "lease until " + c.Lease.Expires().Sub(t0).String()
		}
		return fmt.Sprintf("%-10s next %-9s %s", c.State, next, lease)
	}
	for _, s := range []State{Selecting, Bound, Renewing, Rebinding, Confirming} {
		for _, down := range []bool{false, true} {
			fmt.Fprintf(&out, "%s, carrier %v\n", s, map[bool]string{false: "up", true: "down"}[down])
			for _, e := range []Event{Timer, Got, Nak, Failed, Declined, CarrierUp, CarrierDown} {
				for _, at := range []time.Duration{40 * time.Minute, 53 * time.Minute, 61 * time.Minute} {
					if e != Timer && at != 40*time.Minute {
						continue
					}
					c := Client{State: s, Down: down}
					if s != Selecting {
						c.Lease = office()
					}
					got, action := c.Step(e, fresh, t0.Add(at))
					fmt.Fprintf(&out, "  %-12s at %-7s → %-8s %s\n", e, at, action, after(got))
				}
			}
		}
	}
	golden.Compare(t, "step.txt", out.String())
}

// TestStepDay walks a client through a day with a server that falls silent: it
// keeps the lease to its end, asks more and more widely, and starts anew.
func TestStepDay(t *testing.T) {
	c, _ := Client{State: Selecting, Down: true}.Step(CarrierUp, nil, t0)
	var action Action
	asked := map[Action]int{}
	now, dropped := t0, time.Time{}
	for i := 0; now.Before(t0.Add(24*time.Hour)) && i < 10000; i++ {
		if c.Next.After(now) {
			now = c.Next
		}
		c, action = c.Step(Timer, nil, now)
		asked[action]++
		switch action {
		case Discover:
			if dropped.IsZero() {
				c, _ = c.Step(Got, office(), now)
			} else {
				c, _ = c.Step(Failed, nil, now.Add(14*time.Second))
			}
		case Renew, Rebind:
			c, _ = c.Step(Failed, nil, now.Add(14*time.Second))
		case Drop:
			dropped = now
		}
	}
	if dropped != t0.Add(time.Hour) {
		t.Errorf("the lease of an hour was dropped at %s", dropped)
	}
	if asked[Renew] < 3 || asked[Rebind] < 2 || asked[Discover] < 1000 || asked[Discover] > 1200 {
		t.Errorf("questions of a day: %v", asked)
	}
}
