package install

import (
	"slices"
	"time"
	_ "time/tzdata" // a node has no zoneinfo

	"kogge.example/init/nodeconfig"
)

// Opens says when a node may reboot into what is armed: now, if its window is open, or
// when it opens next. A window belongs to the day on which it begins. What of it is not
// on the clocks in a night in which they change is left out, and what is on them twice is
// longer.
func Opens(u nodeconfig.Update, now time.Time) (time.Time, error) {
	if u.Window.IsZero() {
		return time.Time{}, refuse("node.yaml has no update.window to wait for")
	}
	zone := time.UTC
	if u.Zone != "" {
		var err error
		if zone, err = time.LoadLocation(u.Zone); err != nil {
			return time.Time{}, refuse("node.yaml: update.zone %q: unknown time zone", u.Zone)
		}
	}
	local := now.In(zone)
	year, month, day := local.Date()
	for ahead := -1; ahead <= 15; ahead++ { // yesterday's may be open still
		at := func(clock time.Duration, days int) time.Time {
			return time.Date(year, month, day+days, int(clock.Hours()), int(clock.Minutes())%60, 0, 0, zone)
		}
		opens, closes := at(u.Window.From, ahead), at(u.Window.To, ahead)
		if u.Window.To < u.Window.From {
			closes = at(u.Window.To, ahead+1)
		}
		if len(u.Days) > 0 && !slices.ContainsFunc(u.Days, func(d nodeconfig.Day) bool { return d.Weekday() == opens.Weekday() }) {
			continue
		}
		switch {
		case !now.Before(closes), !opens.Before(closes):
		case now.Before(opens):
			return opens, nil
		default:
			return now, nil
		}
	}
	return time.Time{}, refuse("update.window never opens") // no configuration gets here
}
