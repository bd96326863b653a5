package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// trialLimit is for all boots of one story.
const trialLimit = 40 * time.Minute

// TestTrial follows what PID 1 makes of boots that are not good, line by line on the
// console, and what it remembers of them. Only KOGGE_E2E=all has the time for it.
func TestTrial(t *testing.T) {
	whole(t)
	t.Parallel()
	if os.Getenv("KOGGE_E2E") != "all" {
		t.Skip("many boots: KOGGE_E2E=all runs them")
	}
	p, err := pairs("qemu-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	stories := []struct {
		name    string
		prepare func(v *fat.Volume, l bootloader.Loader) error
		armed   bool     // by hand: the node remembers a trial
		lines   []string // of the console, in this order
		history []string // of history.jsonl
	}{
		{
			"third bad boot", func(v *fat.Volume, l bootloader.Loader) error {
				return errors.Join(p.provenB(v, l), twoBad(v))
			}, false,
			[]string{
				"kogge: slot A had 3 boots in a row without a good assessment: slot B is tried",
				"kogge: slot B, release 1.1, board " + p.board.Name + ", on trial",
				"kogge: boot assessment: good, slot B, release 1.1",
			},
			[]string{`"kind":"armed".*"slot":"B","release":"1.1","why":"by the node itself: slot A had 3 boots`, `"assessment":"good"`},
		},
		{
			"third bad boot, and the other is worse", func(v *fat.Volume, l bootloader.Loader) error {
				return errors.Join(p.provenB(v, l), twoBad(v), p.breakB(v, l, "kernel-panic"))
			}, false,
			[]string{
				"kogge: slot A had 3 boots in a row without a good assessment: slot B is tried",
				"kogge: slot B, release 1.1, board " + p.board.Name + ", on trial",
				"kogge: slot A had 4 boots in a row .*, and slot B was tried at .*: it is tried again a day later, or at boot 6 of these",
				"kogge: boot assessment: good, slot A, release 1.0",
			}, nil,
		},
		{
			"a release that panics", func(v *fat.Volume, l bootloader.Loader) error {
				return errors.Join(p.breakB(v, l, "kernel-panic"), l.Arm(v, "B", "1.1", 3, written))
			}, true,
			[]string{
				"kogge: slot B, release 1.1, board " + p.board.Name + ", on trial",
				"kogge: slot B, release 1.1, board " + p.board.Name + ", on trial",
				"kogge: slot B, release 1.1, board " + p.board.Name + ", on trial",
				"kogge: release 1.1 crashed: Kernel panic - not syncing: sysrq triggered crash .3 boots.",
				"kogge: boot assessment: good, slot A, release 1.0",
			},
			[]string{`"kind":"lost".*"end":"crashed","why":"Kernel panic`, `"kind":"verdict".*"release":"1.1".*"verdict":"crashed"`},
		},
		{
			"a release whose agent says nothing", func(v *fat.Volume, l bootloader.Loader) error {
				return errors.Join(p.breakB(v, l, "agent-sick"), l.Arm(v, "B", "1.1", 3, written))
			}, true,
			[]string{
				"kogge: boot assessment: bad, slot B, release 1.1: not good within 4m0s: the agent has said nothing",
				"kogge: boot assessment: bad, slot B, release 1.1: not good within 4m0s: the agent has said nothing",
				"kogge: boot assessment: bad, slot B, release 1.1: not good within 4m0s: the agent has said nothing",
				"kogge: release 1.1 failed: not good within 4m0s: the agent has said nothing .3 boots.",
				"kogge: boot assessment: good, slot A, release 1.0",
			},
			[]string{`"assessment":"bad","why":"not good within 4m0s: the agent has said nothing"`, `"kind":"verdict".*"release":"1.1".*"verdict":"failed"`},
		},
	}
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), trialLimit, fmt.Errorf("nothing within %s", trialLimit))
			defer cancel()
			disk := p.disk(t)
			loader, err := bootloader.For(p.board.Bootloader)
			if err != nil {
				t.Fatal(err)
			}
			if s.armed {
				// What Arm remembers lies on STATE, which only the node itself can write.
				var trial string
				err := p.edit(disk, func(v *fat.Volume) (err error) {
					trial, err = p.rememberTrial(v, loader)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				n, err := p.boot(ctx, disk, p.vars)
				if err != nil {
					t.Fatal(err)
				}
				defer n.end()
				if _, err := n.ask(ctx, command{Op: "write", Args: []string{memory.Dir + "/trial.json", trial}}); err != nil {
					t.Fatal(err)
				}
				if _, err := n.vm.Console().WaitLine(ctx, good); err != nil { // before it, the power button may not be seen
					t.Fatal(err)
				}
				if err := n.vm.Stop(ctx); err != nil {
					t.Fatal(err)
				}
				n.end()
			}
			if err := p.edit(disk, func(v *fat.Volume) error { return s.prepare(v, loader) }); err != nil {
				t.Fatal(err)
			}
			n, err := p.boot(ctx, disk, p.vars)
			if err != nil {
				t.Fatal(err)
			}
			defer n.end()
			console := n.vm.Console()
			for _, line := range s.lines {
				if _, err := console.WaitLine(ctx, regexp.MustCompile(line)); err != nil {
					t.Fatalf("%v; console log %s", err, filepath.Join(n.dir, "console.log"))
				}
			}
			text, err := n.ask(ctx, command{Op: "read", Args: []string{memory.Dir + "/" + memory.HistoryFile}})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range s.history {
				if !regexp.MustCompile(want).MatchString(text) {
					t.Errorf("the history lacks %s:\n%s", want, text)
				}
			}
			if err := os.RemoveAll(filepath.Dir(n.dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// provenB has both slots proven, and A started.
func (p *pair) provenB(v *fat.Volume, l bootloader.Loader) error {
	for _, s := range []bootloader.Slot{"B", "A"} {
		version := map[bootloader.Slot]string{"A": "1.0", "B": "1.1"}[s]
		if err := errors.Join(l.Arm(v, s, version, 3, written), l.Bless(v, s, written)); err != nil {
			return err
		}
	}
	return nil
}

// twoBad has slot A look back on two boots without a good assessment.
func twoBad(v *fat.Volume) error {
	return v.WriteFile(memory.CountFile, memory.Count{Slot: "A", Bad: 2}.Text(), written)
}

// rememberTrial is trial.json of slot B as it is about to be armed.
func (p *pair) rememberTrial(v *fat.Volume, l bootloader.Loader) (string, error) {
	state, err := l.State(v)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{
		"version": 1, "slot": "B", "release": "1.1", "digest": "sha256:11", "counter": 2, "verity": "",
		"number": 1 + max(state.A.Number, state.B.Number), "tries": bootloader.Tries, "armed": written, "by": "a test",
	})
	return string(text), err
}
