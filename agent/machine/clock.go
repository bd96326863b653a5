package machine

import (
	"time"

	"kogge.example/init/control"
)

// clockText says in words what the clock goes by.
func clockText(c control.Clock) string {
	switch {
	case c.Synced:
		return "follows " + c.Source
	case c.Problem != "":
		return c.Problem
	case !c.ByHand.IsZero():
		return "set by hand on " + c.ByHand.UTC().Format(time.DateOnly)
	}
	return "on its own"
}
