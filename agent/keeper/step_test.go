package keeper

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

var (
	states = []workload.State{workload.Waiting, workload.Pending, workload.Starting, workload.Running, workload.Backoff, workload.Ended, workload.Stopping, workload.Stopped, workload.Replacing}
	events = []Event{Begin, Adopted, Ready, Started, StartFailed, Succeeded, Failed, Timer, Lost,
		StopAsked, StartAsked, RestartAsked, Removed, RemoveFailed,
		MustGo, Fit, Unfit, OldExited, OldRemoved, OldStuck}
)

// TestStepTable prints the answer to every state × event pair, for a container
// that has failed twice and has run for ten seconds; then for one that an operator
// wants stopped; then with an older instance beside it, whose time has come.
func TestStepTable(t *testing.T) {
	var b strings.Builder
	for _, r := range []workload.Restart{{Policy: workload.Always}, {Policy: workload.OnFailure}, {Policy: workload.OnFailure, Max: 2}, {Policy: workload.No}} {
		fmt.Fprintf(&b, "restart %s", r.Policy)
		if r.Max > 0 {
			fmt.Fprintf(&b, ":%d", r.Max)
		}
		b.WriteString(", two exits so far\n")
		stepTable(&b, Unit{Restart: r})
	}
	b.WriteString("restart always, two exits so far, held\n")
	stepTable(&b, Unit{Restart: workload.Restart{Policy: workload.Always}, Held: true})
	for _, old := range []Relief{Serving, Draining, Leaving} {
		fmt.Fprintf(&b, "restart on-failure, two exits so far, an old one is %s\n", old)
		stepTable(&b, Unit{Restart: workload.Restart{Policy: workload.OnFailure}, Old: old})
	}
	golden.Compare(t, "step.txt", b.String())
}

func stepTable(b *strings.Builder, u Unit) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, s := range states {
		for _, e := range events {
			u.State, u.Exits, u.Since, u.NotBefore, u.Until = s, 2, now.Add(-10*time.Second), now, now
			after, action := u.Step(e, now)
			if after == u && action == None {
				continue
			}
			fmt.Fprintf(b, "  %-9s %-14s → %-9s", s, e, after.State)
			if action != None {
				fmt.Fprintf(b, " %s", action)
			}
			if after.NotBefore.After(now) {
				fmt.Fprintf(b, " for %s", after.NotBefore.Sub(now))
			}
			if after.Held != u.Held {
				fmt.Fprintf(b, ", held: %v", after.Held)
			}
			if after.Old != u.Old {
				fmt.Fprintf(b, ", old one %s", cmp.Or(after.Old, "gone"))
				if after.Until.After(now) {
					fmt.Fprintf(b, " for %s", after.Until.Sub(now))
				}
			}
			b.WriteString("\n")
		}
	}
	b.WriteString("  everything else changes nothing\n\n")
}

// TestStepDay walks a container that always fails at once through its pauses, and
// then through a good run.
func TestStepDay(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	u := Unit{State: workload.Waiting, Restart: workload.Restart{Policy: workload.Always}}
	var pauses []string
	step := func(e Event, want Action) {
		t.Helper()
		var got Action
		if u, got = u.Step(e, now); got != want {
			t.Fatalf("%s: action %q, want %q", e, got, want)
		}
	}
	step(Begin, None)
	step(Ready, Start)
	for range 9 {
		step(Started, Watch)
		step(Failed, None)
		if _, action := u.Step(Timer, now); action != None {
			t.Fatal("started before the pause was over")
		}
		pauses = append(pauses, u.NotBefore.Sub(now).String())
		now = u.NotBefore
		step(Timer, Start)
	}
	want := "1s 2s 4s 8s 16s 32s 1m0s 1m0s 1m0s"
	if got := strings.Join(pauses, " "); got != want {
		t.Errorf("pauses %s, want %s", got, want)
	}
	step(Started, Watch)
	now = now.Add(time.Minute)
	step(Failed, None)
	if got := u.NotBefore.Sub(now); got != time.Second {
		t.Errorf("pause after a good minute: %s", got)
	}
	step(Lost, None)
	step(Begin, None)
	if u.State != workload.Backoff {
		t.Errorf("containerd's return cut the pause short: %s", u.State)
	}
}

func TestDelayNeverOverflows(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 63, 64, 1 << 40} {
		if d := delay(n); d < time.Second || d > longest {
			t.Errorf("delay after %d exits: %s", n, d)
		}
	}
}
