// Package trial is PID 1's part of an update: is this boot a trial, was it good, and what
// follows from that.
//
// In come the boot loader's state and the count of boots on the boot partition, what a
// node remembers on STATE (update/memory), what the boot before left behind, and the agent's
// word. Out come the slot that is blessed or given up, the other slot armed when a proven
// one has gone bad, the history of boots, the log of a trial, and the facts that programs
// of the node read. Mounts, services and the watchdog's pings are PID 1's own.
//
// Four decide in turn whether a boot was good. The agent says so: its Judge.Step
// (agent/probe/judge.go) says "good" once all probes have been well for long enough, and can
// say nothing worse than "pending". PID 1 decides: [Assessment.Step] (assess.go) makes a bad
// boot of the time that ran out, or of a vital service that keeps failing, and has a good one
// blessed (count.go). The boot loader makes it so: after its Bless (update/bootloader) it
// starts the slot uncounted. What became of a trial that was not blessed is concluded at a
// later boot, when the other slot runs again, by memory.Conclude (update/memory/verdict.go):
// see [Boot.Conclude].
//
// PID 1 takes these steps in this order, each once: [Boot.Count], with the boot partition and
// before drivers and STATE; [Boot.CountAgain], with the clock; [Boot.NoteUp] and
// [Boot.Conclude], with STATE; [Boot.Assess] and [Boot.Trace], with the services;
// [Assessor.Over] and [Boot.NoteDown] at the end.
package trial

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/supervise"
	"kogge.example/init/watchdog"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// Node is what this package sees of the node. PID 1 fills it in as it comes to know; what
// is not known yet is the zero value.
type Node struct {
	// Facts are what stage 0 found. Count puts right whether this is a trial, and how many
	// tries are left, and publishes them in Run.
	Facts *control.Boot
	Run   string // folder of the facts: control.RunDir
	ID    string // the kernel's name of this boot
	// Part is the boot partition: bootpart.Partition. nil: it is out of reach or must not
	// be written, and no boot is counted.
	Part Partition
	// Memory is the folder of what the node remembers: memory.Dir. "": STATE is not on the
	// disk, and nothing is noted.
	Memory string
	// Selected asks for the slot that a boot loader with a menu has set out to start, "A" or
	// "B"; "" is not known.
	Selected func() (string, error)
	// Pstore opens the folder of kernels' last words, which keeps those of this one from
	// then on. A folder may come with an error; "" is none.
	Pstore   func() (dir string, err error)
	Dog      *watchdog.Dog
	Degraded *supervise.Degraded
	Say      func(line string) // shows a line on the consoles
}

// Partition is the boot partition.
type Partition interface {
	Edit(func(*fat.Volume) error) error
	Read(func(*fat.Volume) error) error
}

// Boot is this boot of the node.
type Boot struct {
	Node

	loader bootloader.Loader // nil: nothing is counted here
	state  bootloader.State  // as it was at the start of the boot

	mu sync.Mutex // guards count, and is held while that is written
	// count are the boots of a proven slot; on trial it is as it was found.
	count memory.Count

	noting sync.Mutex // held while the history gets a line

	log *trialLog // nil on a proven slot

	folder memory.Folder // of tests; nil: the one at Memory
}

// slot is the one that runs.
func (b *Boot) slot() bootloader.Slot { return bootloader.Slot(b.Facts.Slot) }

// remembered is what the node remembers of its updates.
func (b *Boot) remembered() memory.Folder {
	if b.folder != nil {
		return b.folder
	}
	return memory.In(b.Memory)
}

// file is a file beside that.
func (b *Boot) file(name string) string { return filepath.Join(b.Memory, name) }

// Conclude says, at the start of a boot, what became of the release that was armed
// last. A cut at any point of it has the next boot come to the same end: the trial is
// forgotten last, and counts once in the memory of failures. Only a cut in the middle of
// arming it once more may count as that trial, over before it began: then the release waits
// for somebody to forget its failure. In a fleet of several votes nothing is armed once more: it
// waits for somebody who may.
func (b *Boot) Conclude() error {
	if b.Memory == "" || b.loader == nil {
		return nil
	}
	r, mine := b.count, b.slot()
	if b.Facts.Trial && r.Armed == mine && r.Holds(b.state.Of(mine)) {
		why := fmt.Sprintf("by the node itself: slot %s had %d boots in a row without a good assessment", r.Slot, r.Bad)
		b.Degraded.Add("history of boots", b.note(memory.Event{Kind: memory.KindArmed, Slot: mine, Release: b.Facts.Version, Why: why}))
	}
	t, found, err := memory.ReadTrial(b.remembered())
	if err != nil || !found {
		return err
	}
	boots, err := b.history()
	b.Degraded.Add("history of boots", err)
	failures, err := memory.ReadFailures(b.remembered())
	if err != nil {
		return err
	}
	before := 0
	if f, known := failures.Find(t.Release, t.Digest); known && f.Verdict == memory.Unproven && f.Arming != t.Number {
		before = f.Times
	}
	e := b.collect(&t)
	e.Log = readLog(b.file(logFile))
	c := memory.Conclude(t, mine, b.state, boots, e, before)
	switch c.Stage {
	case memory.TrialPassed:
		_, _, err := memory.Settle(b.remembered())
		return err
	case memory.TrialStale:
		return memory.EndTrial(b.remembered())
	case memory.TrialOver:
		return b.endTrial(t, c, failures)
	}
	return nil
}

// endTrial remembers what became of a trial, and tells.
func (b *Boot) endTrial(t memory.Trial, c memory.Conclusion, failures memory.Failures) error {
	b.Say(fmt.Sprintf("kogge: release %s %s", t.Release, c))
	if err := memory.WriteFailures(b.remembered(), failures.Add(t, c, time.Now())); err != nil {
		return err
	}
	e := memory.Event{Kind: memory.KindVerdict, Slot: t.Slot, Release: t.Release, Verdict: c.Verdict, Why: c.Why}
	b.Degraded.Add("history of boots", b.note(e))
	if why := b.others(); c.Rearm && why != "" {
		b.Say(fmt.Sprintf("kogge: release %s is not armed once more by the node itself: %s", t.Release, why))
		c.Rearm = false
	}
	if !c.Rearm {
		return memory.EndTrial(b.remembered())
	}
	err := b.Part.Edit(func(v *fat.Volume) error {
		_, err := memory.Rearm(v, b.loader, b.remembered(), t, time.Now())
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("arm release %s once more: %w", t.Release, err), memory.EndTrial(b.remembered()))
	}
	b.Say(fmt.Sprintf("kogge: release %s is armed once more: the next boot tries it", t.Release))
	e = memory.Event{Kind: memory.KindArmed, Slot: t.Slot, Release: t.Release, Why: "once more, because it has not been proven bad"}
	return b.note(e)
}

// others says why it is not for this node alone to arm a release; "": it is. What was permitted for
// the arming that is over is used up.
func (b *Boot) others() string {
	votes, err := memory.ReadVotes(b.remembered())
	switch {
	case err != nil:
		return "it is not known how many votes its fleet has: " + err.Error()
	case votes > 1:
		return fmt.Sprintf("its fleet has %d votes, and an arming wants a permit of its own: kogge node update", votes)
	}
	return ""
}

// passTrial finishes the trial of a slot that has just been blessed.
func (b *Boot) passTrial() error {
	if b.Memory == "" || !b.Facts.Trial {
		return nil
	}
	return memory.Pass(b.remembered(), b.slot())
}

// history are the boots before this one.
func (b *Boot) history() ([]memory.Boot, error) {
	if b.Memory == "" {
		return nil, nil
	}
	boots, err := memory.LoadHistory(b.file(memory.HistoryFile))
	return slices.DeleteFunc(boots, func(one memory.Boot) bool { return one.ID == b.ID }), err
}

// Trace begins to keep the log of a trial, and returns who listens to its
// services; nil on a proven slot.
func (b *Boot) Trace() func(service string) io.WriteCloser {
	if !b.Facts.Trial || b.Memory == "" {
		return nil
	}
	entry := b.state.Of(b.slot())
	log, err := openLog(b.file(logFile), entry.Done <= 1)
	if err != nil {
		b.Degraded.Add("log of the trial", err)
		return nil
	}
	b.log = log
	log.add("init", fmt.Appendf(nil, "%s, %d tries left, boot %s\n", b.Facts, entry.Left, b.ID))
	guard.Go("log of the trial", func() {
		if err := log.followKernel("/dev/kmsg"); err != nil {
			guard.Kmsg("log of the trial: " + err.Error())
		}
	})
	return func(service string) io.WriteCloser { return serviceLog{log, service} }
}
