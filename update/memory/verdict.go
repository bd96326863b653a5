package memory

import (
	"fmt"
	"regexp"
	"strings"

	"kogge.example/update/bootloader"
)

// Verdict is what became of a release that was tried and did not stay.
type Verdict string

const (
	// Failed: it came up, and its boot assessment was bad.
	Failed Verdict = "failed"
	// Crashed: its kernel panicked, the watchdog reset it, or it could not be started.
	Crashed Verdict = "crashed"
	// Unproven: its tries ran out and nobody can say why; the power may have failed
	// three times. It is armed once more by itself.
	Unproven Verdict = "unproven"
)

// Evidence is what the boot before this one left behind.
type Evidence struct {
	// Panic is the kernel's last words, from pstore; "": none.
	Panic string
	// Watchdog says that the hardware was reset by its watchdog.
	Watchdog bool
	// Log is the end of the trial's log; nil: none was saved.
	Log []byte
}

// Stage is where a trial stands at the start of a boot.
type Stage string

const (
	// TrialRunning: this boot is one of its tries.
	TrialRunning Stage = "running"
	// TrialPassed: its slot has been blessed.
	TrialPassed Stage = "passed"
	// TrialStale: the slot was not armed after all, or armed again since.
	TrialStale Stage = "stale"
	// TrialOver: the tries are used up, and the other slot runs.
	TrialOver Stage = "over"
)

// Conclusion is what [Conclude] says of a trial.
type Conclusion struct {
	Stage Stage
	// These are of a trial that is TrialOver.
	Verdict Verdict
	Why     string // one line
	Boots   int    // tries that were used up
	Log     string // the end of its log, at most maxLog bytes
	Rearm   bool   // it is to be armed once more
}

// String is "failed: agent not ready within 60s (3 boots)".
func (c Conclusion) String() string {
	if c.Stage != TrialOver {
		return string(c.Stage)
	}
	plural := "s"
	if c.Boots == 1 {
		plural = ""
	}
	return fmt.Sprintf("%s: %s (%d boot%s)", c.Verdict, c.Why, c.Boots, plural)
}

// Conclude says where trial t stands when the slot running comes up. state is the
// loader's; boots is the history before this boot, oldest first; before counts how
// often the release was unproven already.
//
// A trial's boots follow each other: the loader starts nothing else until they are
// used up. So they are the last ones of the history, but for boots of the other slot that
// lost their power before they could conclude the trial.
func Conclude(t Trial, running bootloader.Slot, state bootloader.State, boots []Boot, e Evidence, before int) Conclusion {
	entry := state.Of(t.Slot)
	switch {
	case !entry.Present, entry.Number != t.Number:
		return Conclusion{Stage: TrialStale}
	case !entry.Counted:
		return Conclusion{Stage: TrialPassed}
	case running == t.Slot:
		return Conclusion{Stage: TrialRunning}
	}
	c := Conclusion{Stage: TrialOver, Boots: entry.Done, Log: tail(e.Log, maxLog)}
	if c.Boots == 0 {
		c.Boots = t.Tries - entry.Left
	}
	c.Verdict, c.Why = judge(t, tries(t, boots), e)
	switch {
	case c.Verdict == Unproven && entry.Left > 0: // one that could would have
		c.Verdict, c.Why = Crashed, "the boot loader could not start it"
	case c.Verdict == Unproven:
		c.Rearm = before == 0
	}
	return c
}

// tries are the boots of the trial: the last ones of the history, but for those that were
// cut on the way to a conclusion. One that got further is not passed over: before it lies
// an earlier trial, maybe of the same release.
func tries(t Trial, boots []Boot) []Boot {
	for last := len(boots) - 1; last >= 0 && boots[last].Slot != t.Slot && boots[last].Assessment == None && boots[last].End == ""; last-- {
		boots = boots[:last]
	}
	first := len(boots)
	for first > 0 && boots[first-1].Trial && boots[first-1].Slot == t.Slot && boots[first-1].Release == t.Release {
		first--
	}
	return boots[max(first, len(boots)-max(t.Tries, 0)):]
}

// judge finds the reason, the newest first. What the assessment said is the best one:
// a reboot after it is our own doing.
func judge(t Trial, boots []Boot, e Evidence) (Verdict, string) {
	for i := len(boots) - 1; i >= 0; i-- {
		if boots[i].Assessment == Bad {
			return Failed, boots[i].Why
		}
	}
	if line := panicLine(e.Panic); line != "" {
		return Crashed, line
	}
	if e.Watchdog {
		return Crashed, "reset by the watchdog"
	}
	for i := len(boots) - 1; i >= 0; i-- {
		if boots[i].End == EndCrashed {
			return Crashed, boots[i].EndWhy
		}
	}
	if len(boots) == 0 {
		return Unproven, "its tries ran out before it could note anything"
	}
	return Unproven, "its tries ran out without a boot assessment"
}

// panicText finds what the kernel says when it gives up, worst last: a panic is often
// only the end of an oops.
var panicText = regexp.MustCompile(`(?m)^.*?(Kernel panic - not syncing: [^\n]*|BUG: [^\n]*|Oops: [^\n]*|kogge: panic[^\n]*)$`)

// panicLine is the line of a kernel's last words that says why, "" if none does.
func panicLine(text string) string {
	found := ""
	for _, m := range panicText.FindAllStringSubmatch(text, -1) {
		if found == "" || strings.HasPrefix(m[1], "Kernel panic") {
			found = m[1]
		}
	}
	return oneLine(found)
}

const (
	// maxWhy is how long a reason may be, in bytes.
	maxWhy = 200
	// maxLog is how much of a trial's log is kept with the verdict, in bytes.
	maxLog = 4 << 10
)

// oneLine is text fit for a reason: printable, and of bounded length.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.TrimSpace(text)
	for len(text) > maxWhy {
		text = strings.ToValidUTF8(text[:maxWhy-3], "") + "…"
	}
	return text
}

// tail is the end of text, from the beginning of a line.
func tail(text []byte, most int) string {
	s := strings.ToValidUTF8(string(text[max(0, len(text)-most):]), "?")
	if len(text) > most {
		_, s, _ = strings.Cut(s, "\n")
	}
	return s
}
