package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"kogge.example/init/guard"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// remembered is what the node remembers of its updates.
var remembered = memory.In(memory.Dir)

// concludeTrial says, at the start of a boot, what became of the release that was armed
// last. A cut at any point of it has the next boot come to the same end: the trial is
// forgotten last, and counts once in the memory of failures.
func (n *node) concludeTrial() error {
	if !n.persist || n.tries.loader == nil {
		return nil
	}
	r, mine := n.tries.record, n.slot()
	if n.boot.Trial && r.Armed == mine && r.Holds(n.tries.state.Of(mine)) {
		why := fmt.Sprintf("by the node itself: slot %s had %d boots in a row without a good assessment", r.Slot, r.Bad)
		n.degraded.Add("history of boots", n.note(memory.Event{Kind: memory.KindArmed, Slot: mine, Release: n.boot.Version, Why: why}))
	}
	t, found, err := memory.ReadTrial(remembered)
	if err != nil || !found {
		return err
	}
	boots, err := n.history()
	n.degraded.Add("history of boots", err)
	failures, err := memory.ReadFailures(remembered)
	if err != nil {
		return err
	}
	before := 0
	if f, known := failures.Find(t.Release, t.Digest); known && f.Verdict == memory.Unproven && f.Arming != t.Number {
		before = f.Times
	}
	e := n.collect(&t)
	e.Log = readWords(wordsFile)
	c := memory.Conclude(t, mine, n.tries.state, boots, e, before)
	switch c.Stage {
	case memory.TrialPassed:
		_, _, err := memory.Settle(remembered)
		return err
	case memory.TrialStale:
		return memory.EndTrial(remembered)
	case memory.TrialOver:
		return n.endTrial(t, c, failures)
	}
	return nil
}

// endTrial remembers what became of a trial, and tells.
func (n *node) endTrial(t memory.Trial, c memory.Conclusion, failures memory.Failures) error {
	n.say(fmt.Sprintf("kogge: release %s %s", t.Release, c))
	if err := memory.WriteFailures(remembered, failures.Add(t, c, time.Now())); err != nil {
		return err
	}
	e := memory.Event{Kind: memory.KindVerdict, Slot: t.Slot, Release: t.Release, Verdict: c.Verdict, Why: c.Why}
	n.degraded.Add("history of boots", n.note(e))
	if !c.Rearm {
		return memory.EndTrial(remembered)
	}
	err := n.tries.part.Edit(func(v *fat.Volume) error {
		_, err := memory.Rearm(v, n.tries.loader, remembered, t, time.Now())
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("arm release %s once more: %w", t.Release, err), memory.EndTrial(remembered))
	}
	n.say(fmt.Sprintf("kogge: release %s is armed once more: the next boot tries it", t.Release))
	e = memory.Event{Kind: memory.KindArmed, Slot: t.Slot, Release: t.Release, Why: "once more, for it is not proven to be bad"}
	return n.note(e)
}

// passTrial finishes the trial of a slot that has just been blessed.
func (n *node) passTrial() error {
	if !n.persist || !n.boot.Trial {
		return nil
	}
	return memory.Pass(remembered, n.slot())
}

// history are the boots before this one.
func (n *node) history() ([]memory.Boot, error) {
	boots, err := memory.LoadHistory(historyFile)
	this := bootID()
	return slices.DeleteFunc(boots, func(b memory.Boot) bool { return b.ID == this }), err
}

// settle is called when the boot is good: it leaves nothing behind, so there is time for
// how the one before it ended.
func (n *node) settle() { n.collect(nil) }

// traceTrial begins to keep the last words of a trial, and returns who listens to its
// services; nil on a proven slot.
func (n *node) traceTrial() func(service string) io.WriteCloser {
	if !n.boot.Trial || !n.persist {
		return nil
	}
	entry := n.tries.state.Of(n.slot())
	words, err := openWords(wordsFile, entry.Done <= 1)
	if err != nil {
		n.degraded.Add("log of the trial", err)
		return nil
	}
	n.words = words
	words.add("init", fmt.Appendf(nil, "%s, %d tries left, boot %s\n", n.boot, entry.Left, bootID()))
	guard.Go("log of the trial", func() {
		if err := words.followKernel("/dev/kmsg"); err != nil {
			guard.Kmsg("log of the trial: " + err.Error())
		}
	})
	return func(service string) io.WriteCloser { return trace{words, service} }
}
