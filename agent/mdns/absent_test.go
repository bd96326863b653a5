package mdns

import (
	"testing"
	"time"
)

// TestAbsent: the machine with the first name has answered, and starts anew, at whichever time
// and with whatever a conflict of others makes of the claim. It has its name when it is back.
// Once it is gone for good, the node has it within half an hour.
func TestAbsent(t *testing.T) {
	const away = 5 * time.Minute
	live := func(c Claim, gone, back, end time.Time) Claim {
		for !c.Next.IsZero() && c.Next.Before(end) {
			now := c.Next
			c, _ = c.Step(Timer, now)
			there := now.Before(gone) || !now.Before(back)
			if there && c.State == Regaining && c.Try == 1 {
				c, _ = c.Step(Taken, now)
			}
		}
		return c
	}
	begin := func() Claim {
		c, _ := NewClaim(t0, 0).Step(Conflict, t0)
		return c
	}
	for from := 2 * time.Minute; from < 2*time.Hour; from += 7 * time.Second {
		gone := t0.Add(from)
		if c := live(begin(), gone, gone.Add(away), gone.Add(away+time.Hour)); c.Number != 2 {
			t.Fatalf("the first machine goes after %s for %s: %s", from, away, show(c))
		}
		disputed := live(begin(), gone, gone.Add(away), gone)
		disputed, _ = disputed.Step(Conflict, gone) // of the node's own name
		if c := live(disputed, gone, gone.Add(away), gone.Add(away+time.Hour)); c.Number == 1 {
			t.Fatalf("the first machine goes after %s for %s, and somebody disputes the second name: %s", from, away, show(c))
		}
		if c := live(begin(), gone, t0.Add(24*time.Hour), gone.Add(30*time.Minute)); c.Number != 1 {
			t.Fatalf("the first machine goes after %s: half an hour later %s", from, show(c))
		}
	}
}
