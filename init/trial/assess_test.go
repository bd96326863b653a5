package trial

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

// TestStep prints the answer to every state and event, on trial and on a proven slot.
func TestStep(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	for _, trial := range []bool{true, false} {
		for _, s := range []State{Pending, Bad, Good} {
			for _, e := range []Event{SaidGood, SaidPending, SaidSick, Failing, Timeout} {
				for _, before := range []string{"", "web is unhealthy"} {
					a := Assessment{State: s, Why: before, Since: now.Add(-time.Minute), Trial: trial, Limit: 10 * time.Minute}
					if s == Good && before != "" {
						continue
					}
					got, action := a.Step(e, "db does not answer", now)
					if (got.State != s) != got.Since.Equal(now) {
						t.Errorf("%s, %s: since %s", s, e, got.Since)
					}
					if action == Reboot && !trial || (action == Alarm || action == Spare) && trial {
						t.Errorf("%s, %s: %s with trial %v", s, e, action, trial)
					}
					slot := "proven"
					if trial {
						slot = "trial"
					}
					fmt.Fprintf(&b, "%-6s %-7s %-18q %-8s %-7s %-6s %q\n", slot, s, before, e, got.State, action, got.Why)
				}
			}
		}
	}
	golden.Compare(t, "step.txt", b.String())
}

func TestLine(t *testing.T) {
	for want, a := range map[string]Assessment{
		"boot assessment: good, slot A, release 1.0":                    {State: Good},
		"boot assessment: pending, slot A, release 1.0":                 {State: Pending, Why: "no matter"},
		"boot assessment: bad, slot A, release 1.0: db does not answer": {State: Bad, Why: "db does not answer"},
	} {
		if got := a.Line("A", "1.0"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
