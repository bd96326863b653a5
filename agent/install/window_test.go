package install

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestOpens shows when a node reboots that may only do so in its window.
func TestOpens(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		settings string
		at       []string
	}{
		{"window: 02:00-04:00", []string{"2026-11-28T01:59:59Z", "2026-11-28T02:00:00Z", "2026-11-28T03:59:59Z", "2026-11-28T04:00:00Z"}},
		{"window: 23:30-01:00", []string{"2026-11-28T00:30:00Z", "2026-11-28T12:00:00Z", "2026-11-28T23:45:00Z", "2026-11-29T00:59:00Z", "2026-11-29T01:00:00Z"}},
		// Saturday's window is open on Sunday morning still; Friday's on Saturday is none.
		{"window: 23:30-01:00\ndays: [sat]", []string{"2026-11-28T00:30:00Z", "2026-11-28T23:30:00Z", "2026-11-29T00:30:00Z", "2026-11-29T01:00:00Z"}},
		{"window: 02:00-04:00\ndays: [sun, mon]", []string{"2026-11-28T02:00:00Z", "2026-11-30T05:00:00Z"}},
		{"window: 02:00-04:00\nzone: Europe/Berlin", []string{"2026-11-28T00:30:00Z", "2026-11-28T01:00:00Z", "2026-07-01T12:00:00Z"}},
		// 02:30 is not on the clocks of 2026-03-29, and twice on those of 2026-10-25.
		{"window: 02:30-03:30\nzone: Europe/Berlin", []string{"2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T00:45:00Z", "2026-10-25T02:20:00Z"}},
		{"window: 00:00-23:59", []string{"2026-11-28T23:59:30Z"}},
		{"zoneless: 1", []string{"2026-11-28T00:00:00Z"}},
		{"window: 02:00-04:00\nzone: Europe/Lübeck", []string{"2026-11-28T00:00:00Z"}},
		{"window: 02:00-04:00\nzone: Europe/Luebeck", []string{"2026-11-28T00:00:00Z"}},
	} {
		fmt.Fprintf(&b, "%s\n", strings.ReplaceAll(c.settings, "\n", ", "))
		text := "update:\n  " + strings.ReplaceAll(c.settings, "\n", "\n  ") + "\n"
		config, err := nodeconfig.Parse("node.yaml", []byte(text))
		if err != nil { // the zero Update has no window
			fmt.Fprintf(&b, "  node.yaml refuses it\n")
		}
		for _, at := range c.at {
			now, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Fatal(err)
			}
			opens, err := Opens(config.Update, now)
			switch {
			case err != nil && !errors.Is(err, ErrRefused):
				t.Errorf("%s: %v is no refusal", c.settings, err)
			case err != nil:
				fmt.Fprintf(&b, "  %s  %v\n", at, err)
			case opens.Equal(now):
				fmt.Fprintf(&b, "  %s  now\n", at)
			default:
				fmt.Fprintf(&b, "  %s  %s\n", at, opens.Format(time.RFC3339))
			}
		}
	}
	golden.Compare(t, "opens.txt", b.String())
}

// TestOpensAlways: whatever the window, it opens within two weeks (one night of a week may leave it out), and is open then.
func TestOpensAlways(t *testing.T) {
	begin := time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC)
	for _, zone := range []string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"} {
		for _, w := range []nodeconfig.Window{{From: 2 * time.Hour, To: 3 * time.Hour}, {From: 23 * time.Hour, To: time.Hour}, {From: 150 * time.Minute, To: 151 * time.Minute}} {
			for _, days := range [][]nodeconfig.Day{nil, {"sun"}, {"mon", "thu"}} {
				u := nodeconfig.Update{Window: w, Days: days, Zone: zone}
				for at := begin; at.Before(begin.AddDate(0, 0, 10)); at = at.Add(47 * time.Minute) {
					opens, err := Opens(u, at)
					if err != nil {
						t.Fatal(err)
					}
					if opens.Before(at) || opens.After(at.AddDate(0, 0, 14)) {
						t.Fatalf("%+v at %s opens %s", u, at, opens)
					}
					if again, err := Opens(u, opens); err != nil || !again.Equal(opens) {
						t.Fatalf("%+v: opens at %s, and is not open then: %s, %v", u, opens, again, err)
					}
				}
			}
		}
	}
}
