package memory

import (
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/golden"
)

const panicLog = `<4>[    9.1] BUG: unable to handle page fault for address: 00000000deadbeef
<4>[    9.2] Oops: 0002 [#1] PREEMPT SMP
<0>[    9.3] Kernel panic - not syncing: Fatal exception
<0>[    9.4] Kernel Offset: disabled
`

// TestConclude prints what becomes of a trial for each state of the loader, each
// history and each evidence.
func TestConclude(t *testing.T) {
	trial := Trial{Slot: "B", Release: "1.1", Digest: "sha256:11", Number: 7, Tries: 3}
	a := bootloader.Entry{Present: true, Version: "1.0", Number: 6}
	entries := []struct {
		name string
		bootloader.Entry
	}{
		{"empty", bootloader.Entry{}},
		{"armed anew", bootloader.Entry{Present: true, Number: 8, Counted: true, Left: 3}},
		{"2 tries left", bootloader.Entry{Present: true, Number: 7, Counted: true, Left: 2, Done: 1}},
		{"no tries left", bootloader.Entry{Present: true, Number: 7, Counted: true, Left: 0, Done: 3}},
		{"blessed", bootloader.Entry{Present: true, Number: 7}},
	}
	old := Boot{Slot: "A", Release: "1.0", Assessment: Good, End: "reboot"}
	earlier := Boot{Slot: "B", Release: "1.1", Trial: true, Assessment: Bad, Why: "of an earlier arming"}
	try := Boot{Slot: "B", Release: "1.1", Trial: true, Assessment: None}
	cut := Boot{Slot: "A", Release: "1.0", Assessment: None}
	bad, crashed := try, try
	bad.Assessment, bad.Why, bad.End = Bad, "agent not ready within 1m0s", "reboot"
	crashed.End, crashed.EndWhy = EndCrashed, "Kernel panic - not syncing: hung_task: blocked tasks"
	histories := []struct {
		name  string
		boots []Boot
	}{
		{"no try noted", []Boot{earlier, old}},
		{"three tries, no word", []Boot{earlier, old, try, try, try}},
		{"one bad, then no word", []Boot{earlier, old, bad, try, try}},
		{"one crashed", []Boot{old, try, crashed, try}},
		{"one bad, then a cut in slot A", []Boot{earlier, old, bad, try, try, cut, cut}},
		{"no try noted, then a cut in A", []Boot{earlier, old, cut}},
		{"earlier arming, straight before", []Boot{earlier, try, try, try}},
	}
	evidence := []struct {
		name string
		Evidence
	}{
		{"none", Evidence{}},
		{"panic", Evidence{Panic: panicLog}},
		{"watchdog", Evidence{Watchdog: true}},
	}
	var b strings.Builder
	for _, e := range entries {
		for _, running := range []bootloader.Slot{"A", "B"} {
			for _, h := range histories {
				for _, ev := range evidence {
					c := Conclude(trial, running, bootloader.State{A: a, B: e.Entry}, h.boots, ev.Evidence, 0)
					again := Conclude(trial, running, bootloader.State{A: a, B: e.Entry}, h.boots, ev.Evidence, 1)
					if again.Rearm || again.Verdict != c.Verdict {
						t.Errorf("a second time: %+v after %+v", again, c)
					}
					if c.Stage != TrialOver {
						if c.Verdict != "" || c.Rearm {
							t.Errorf("%s has a verdict: %+v", c.Stage, c)
						}
						continue
					}
					line := fmt.Sprintf("%-14s slot %s runs, %-32s evidence %-9s %s", e.name+",", running, h.name+",", ev.name+":", c)
					if c.Rearm {
						line += ", armed once more"
					}
					fmt.Fprintln(&b, line)
				}
			}
			c := Conclude(trial, running, bootloader.State{A: a, B: e.Entry}, nil, Evidence{}, 0)
			if c.Stage != TrialOver {
				fmt.Fprintf(&b, "%-14s slot %s runs: %s\n", e.name+",", running, c.Stage)
			}
		}
	}
	golden.Compare(t, "conclude.txt", b.String())
}

func TestPanicLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"all well":                             "",
		panicLog:                               "Kernel panic - not syncing: Fatal exception",
		"<4>[1] BUG: soft lockup\n<4>[2] more": "BUG: soft lockup",
		"<3>[1] kogge: panic in supervisor: nil\nBUG: no":         "kogge: panic in supervisor: nil",
		"Kernel panic - not syncing: " + strings.Repeat("x", 999): "Kernel panic - not syncing: " + strings.Repeat("x", maxWhy-3-28) + "…",
		"Kernel panic - not syncing: a\x00b\x1b[2J":               "Kernel panic - not syncing: a b [2J",
	} {
		if got := panicLine(text); got != want {
			t.Errorf("%.60q: %q, want %q", text, got, want)
		}
	}
}

func FuzzPanicLine(f *testing.F) {
	f.Add(panicLog)
	f.Fuzz(func(t *testing.T, text string) {
		line := panicLine(text)
		if len(line) > maxWhy || strings.ContainsAny(line, "\n\r\x1b\x00") {
			t.Errorf("%q", line)
		}
	})
}

// TestAttribute finds the boot that a panic or a reset belongs to.
func TestAttribute(t *testing.T) {
	running, over := Boot{ID: "b1"}, Boot{ID: "b1", End: "reboot"}
	trial := &Trial{Slot: "B", Release: "1.1"}
	panicked, reset := Evidence{Panic: panicLog}, Evidence{Watchdog: true}
	for _, c := range []struct {
		name  string
		boots []Boot
		trial *Trial
		e     Evidence
		want  string
	}{
		{"nothing", []Boot{running}, trial, Evidence{}, ""},
		{"a panic", []Boot{over, running}, nil, panicked, "lost b1 Kernel panic - not syncing: Fatal exception;"},
		{"a reset on trial", []Boot{running}, trial, reset, "lost b1 reset by the watchdog;"},
		{"a try that was not noted", []Boot{over}, trial, panicked, "up before b2 B 1.1;lost before b2 Kernel panic - not syncing: Fatal exception;"},
		{"the first boot of all", nil, trial, reset, "up before b2 B 1.1;lost before b2 reset by the watchdog;"},
		{"another system's", []Boot{over}, nil, panicked, ""},
		{"an unknown panic", []Boot{running}, nil, Evidence{Panic: "<6> hello"}, ""},
	} {
		got := ""
		for _, e := range Attribute(c.boots, c.trial, c.e, "b2") {
			got += strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s %s", e.Kind, e.Boot, e.Slot, e.Release, e.Why)), " ") + ";"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
