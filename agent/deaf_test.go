package main

import (
	"strings"
	"testing"
	"time"
)

// testDeaf: a container that hears no signal and has an hour to stop is shown once its
// project was removed, and killed when somebody stops or removes it once more.
func (i *imaged) testDeaf(t *testing.T) {
	i.load(t, "deaf", map[string]any{"Cmd": []string{"app", "command", "stubborn"}})
	for _, again := range []func(){
		func() { i.kogge(t, "pg.deaf  gone", "rm", "pg") },
		func() { i.kogge(t, "", "stop", "pg.deaf") },
	} {
		i.apply(t, "deaf", "image: example.invalid/deaf:1, stop_grace_period: 1h")
		until(t, "it to be deaf", func() bool {
			return i.line(t, "pg.deaf", " running ") && strings.Contains(i.kogge(t, "", "logs", "pg.deaf"), "ready")
		})
		i.kogge(t, "pg.deaf  gone", "rm", "pg", "--no-wait")
		until(t, "it to be shown", func() bool { return i.line(t, "pg.deaf", " pg.deaf was told to stop at ") })
		again()
		until(t, "nothing to be left", func() bool {
			return len(processes(t, "app")) == 0 && !strings.Contains(i.kogge(t, "", "ps"), "pg.deaf")
		})
	}
	// So is one that is restarted; a stop leaves it the time that it has, and no more.
	i.apply(t, "deaf", "image: example.invalid/deaf:1, stop_grace_period: 1h")
	until(t, "it to be deaf", func() bool {
		return i.line(t, "pg.deaf", " running ") && strings.Contains(i.kogge(t, "", "logs", "pg.deaf"), "ready")
	})
	i.kogge(t, "", "restart", "pg.deaf", "--no-wait")
	told := func() string {
		_, after, _ := strings.Cut(i.kogge(t, "", "ps"), " pg.deaf was told to stop at ")
		return after[:min(len(after), len(time.TimeOnly))]
	}
	until(t, "it to be shown", func() bool { return i.line(t, "pg.deaf", " starting ") && told() != "" })
	first := told()
	until(t, "the next second", func() bool { return time.Now().UTC().Format(time.TimeOnly) != first })
	i.kogge(t, "", "stop", "pg.deaf", "--no-wait")
	until(t, "it to be stopping", func() bool { return i.line(t, "pg.deaf", " stopping ") && told() != "" })
	if again := told(); again != first {
		t.Errorf("told to stop at %s, and by the stop at %s", first, again)
	}
	i.kogge(t, "", "stop", "pg.deaf")
	i.kogge(t, "", "start", "pg.deaf")
	i.kogge(t, "", "restart", "pg.deaf", "--no-wait")
	until(t, "it to be told", func() bool { return told() != "" })
	i.kogge(t, "", "restart", "pg.deaf")
	i.kogge(t, "", "stop", "pg.deaf", "--no-wait")
	i.kogge(t, "", "stop", "pg.deaf")
	i.kogge(t, "", "rm", "pg")
}
