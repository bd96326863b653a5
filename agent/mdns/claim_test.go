package mdns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

var t0 = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// TestClaim prints what each event makes of a claim in each state.
func TestClaim(t *testing.T) {
	var out strings.Builder
	for _, c := range []Claim{
		{State: Probing, Number: 1, Next: t0}, {State: Probing, Number: 1, Sent: 2, Next: t0}, {State: Probing, Number: 1, Sent: 3, Next: t0},
		{State: Probing, Number: 15, Conflicts: 14, Next: t0}, {State: Probing, Number: 40, Conflicts: 39, Next: t0},
		{State: Announcing, Number: 2, Sent: 1, Conflicts: 1, Next: t0}, {State: Holding, Number: 1}, {State: Holding, Number: 2, Next: t0},
		{State: Regaining, Number: 3, Try: 1, Sent: 1, Next: t0}, {State: Regaining, Number: 3, Try: 2, Sent: 3, Tries: 1, Next: t0},
		{State: Regaining, Number: 3, Try: 1, Sent: 3, Next: t0, Owed: [crowded]int{1: 3}}, {State: Regaining, Number: 2, Try: 1, Sent: 3, Next: t0, Owed: [crowded]int{1: 1}},
	} {
		fmt.Fprintf(&out, "%s\n", show(c))
		for _, e := range []Event{Timer, Changed, Conflict, Lost, Taken} {
			next, action := c.Step(e, t0)
			fmt.Fprintf(&out, "    %-8s  %-8s  %s\n", e, action, show(next))
		}
	}
	golden.Compare(t, "claim.txt", out.String())
}

func show(c Claim) string {
	next := "never"
	if !c.Next.IsZero() {
		next = c.Next.Sub(t0).String()
	}
	text := fmt.Sprintf("%s %s, sent %d, conflicts %d, next %s", c.State, label("n", c.Number), c.Sent, c.Conflicts, next)
	if c.Try > 0 || c.Tries > 0 {
		text += fmt.Sprintf(", tries %s, %d times in vain", label("n", c.Try), c.Tries)
	}
	for number, n := range c.Owed {
		if n > 0 {
			text += fmt.Sprintf(", %s to be free %d times", label("n", number), n)
		}
	}
	return text
}

// TestClaimLife goes from a new link to a name that nobody disputes, and through a
// crowd of machines that all have the name already: the node never asks more than a
// hundred times an hour.
func TestClaimLife(t *testing.T) {
	c := NewClaim(t0, probePause)
	var done []Action
	for !c.Next.IsZero() {
		var a Action
		c, a = c.Step(Timer, c.Next)
		done = append(done, a)
	}
	if got, want := fmt.Sprint(done), "[probe probe probe announce announce]"; got != want || c.State != Holding {
		t.Errorf("%s, %s, want %s", got, c.State, want)
	}
	c, asked := NewClaim(t0, 0), 0
	for now := t0; now.Before(t0.Add(24 * time.Hour)); now = c.Next {
		var a Action
		if c, a = c.Step(Timer, now); a == Probe {
			asked++
			c, _ = c.Step(Conflict, now)
		}
	}
	if asked > 24*100 {
		t.Errorf("%d probes in a day", asked)
	}
}

// TestRegained: a neighbour disputes names for some seconds and goes. The node has the first
// one that is free again within two minutes, and asks seldom where none is.
func TestRegained(t *testing.T) {
	for name, c := range map[string]struct {
		taken []int // by other machines
		want  int
	}{
		"all are free":      {nil, 1},
		"two are taken":     {[]int{1, 2}, 3},
		"one in the middle": {[]int{2}, 1},
		"all are taken":     {[]int{1, 2, 3, 4, 5, 6, 7, 8}, 9},
	} {
		claim := NewClaim(t0, 0)
		for range 8 {
			claim, _ = claim.Step(Conflict, t0)
		}
		now, asked, held := t0, 0, false
		live := func(span time.Duration) {
			for end := now.Add(span); !claim.Next.IsZero() && claim.Next.Before(end); {
				now = claim.Next
				var a Action
				if claim, a = claim.Step(Timer, now); a == Probe {
					asked++
				}
				if held = held || claim.State == Holding; held && claim.State == Probing {
					t.Errorf("%s: without a name at %s", name, now)
				}
				if claim.State == Regaining && slices.Contains(c.taken, claim.Try) {
					claim, _ = claim.Step(Taken, now)
				}
			}
		}
		if live(2 * time.Minute); claim.Number != c.want {
			t.Errorf("%s: %s", name, show(claim))
		}
		asked = 0
		if live(24 * time.Hour); claim.Number != c.want || asked > 24*8*len(c.taken) {
			t.Errorf("%s: %d probes in a day, %s", name, asked, show(claim))
		}
	}
}

// TestLabel keeps names within what DNS allows.
func TestLabel(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct {
		host   string
		number int
		want   string
	}{{"n1", 1, "n1"}, {"n1", 2, "n1-2"}, {long, 1, long}, {long, 12, long[:60] + "-12"}} {
		if got := label(c.host, c.number); got != c.want || len(got) > 63 {
			t.Errorf("%s %d: %s, want %s", c.host, c.number, got, c.want)
		}
	}
}
