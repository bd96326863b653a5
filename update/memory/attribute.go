package memory

import "time"

// Attribute makes lines of the history of what the boot before this one left behind.
// boots are those before this one, oldest first; trial is the release that is tried, if
// one is; this is the id of the boot that found the evidence.
//
// A boot that ended in order left nothing: then it was one that came after it and was
// never noted, and while a release is tried that was one of its tries.
func Attribute(boots []Boot, trial *Trial, e Evidence, this string) []Event {
	why := panicLine(e.Panic)
	switch {
	case why != "":
	case e.Watchdog:
		why = "reset by the watchdog"
	default:
		return nil
	}
	lost := Event{Kind: KindLost, End: EndCrashed, Why: why}
	if last := len(boots) - 1; last >= 0 && boots[last].End == "" {
		lost.Boot = boots[last].ID
		return []Event{lost}
	}
	if trial == nil {
		return nil // a crash while going down, or of some other system
	}
	lost.Boot = "before " + this
	return []Event{{Kind: KindUp, Boot: lost.Boot, Slot: trial.Slot, Release: trial.Release, Trial: true, Time: time.Time{}}, lost}
}
