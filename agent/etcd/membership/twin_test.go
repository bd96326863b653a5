package membership

import (
	"strings"
	"testing"
	"time"
)

// TestTwinHolds walks a node that wants to begin through what others may say.
func TestTwinHolds(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const grace = 5 * time.Minute
	var w Twin
	for _, c := range []struct {
		after  time.Duration
		speaks bool
		want   string
	}{
		{0, false, ""}, {time.Second, true, "still"}, {time.Second, false, ""}, // it has just ended
		{time.Second, true, "still"}, {Stale - time.Second, true, "still"}, {time.Second, true, "another"},
		{time.Second, false, "another"}, {grace - 2*time.Second, false, "another"}, {time.Second, false, ""},
		{time.Second, true, "still"},
	} {
		now = now.Add(c.after)
		if got := w.Holds(c.speaks, now, grace); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("at %s: %q, want %q", now.Format("15:04:05"), got, c.want)
		}
	}
}
