package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"kogge.example/boards"
	"kogge.example/init/mount"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/fat"
	"kogge.example/update/verdict"
)

// tries is what PID 1 knows of the slots. Its zero value is a machine without a boot
// loader, whose kernel was started directly: nothing is counted there.
type tries struct {
	loader bootloader.Loader
	part   bootpart.Partition
	state  bootloader.State // as it was at the start of the boot

	mu sync.Mutex // guards record, and is held while that is written
	// record counts the boots of a proven slot; on trial it is as it was found.
	record verdict.Record
}

// countBoot reads what the boot loader knows, and counts this boot of a proven slot: it
// is one without a good assessment until it has one. At the third in a row the other
// slot is armed, if that was proven once, and the error says so and ends the boot. All
// of it comes before STATE, which may be what the boots fail at.
func (n *node) countBoot() (moved error, err error) {
	if n.boot.Loader == "" || n.disk.Name == "" {
		return nil, nil
	}
	loader, err := bootloader.For(boards.Bootloader(n.boot.Loader))
	if err != nil {
		return nil, err
	}
	part, err := bootPartition(n.disk)
	if err != nil {
		return nil, err
	}
	n.tries.loader, n.tries.part = loader, part
	if n.boot.Trial { // counted by the loader, and nothing is written until it is good
		err = part.Read(func(v *fat.Volume) error {
			var err error
			n.tries.state, n.tries.record, err = readTries(loader, v)
			return err
		})
		return nil, errors.Join(err, n.tellTrial())
	}
	var why string
	err = part.Edit(func(v *fat.Volume) error {
		n.tellDamage(v.Found())
		var err error
		if n.tries.state, n.tries.record, err = readTries(loader, v); err != nil {
			return err
		}
		if mine := n.tries.state.Of(n.slot()); mine.Counted && mine.Left > 0 {
			return n.countTrial(loader, v)
		}
		if err := n.markUnstarted(loader, v); err != nil {
			return err
		}
		n.tries.record = n.tries.record.Begin(n.slot())
		var other bootloader.Slot
		if other, why, err = fallBack(loader, v, n.tries.state, &n.tries.record, time.Now()); other != "" {
			moved = fmt.Errorf("%s: slot %s is tried", why, other)
		}
		return err
	})
	n.tellFallback(moved, why)
	if n.boot.Trial {
		err = errors.Join(err, n.tellTrial())
	}
	return moved, err
}

// tellDamage tells of what no repair of the boot partition can mend. The traces of a power
// cut are none of it.
func (n *node) tellDamage(found fat.Report) {
	damage := strings.Join(append(slices.Clone(found.Damage), found.BadCopy), "; ")
	if damage = strings.Trim(damage, "; "); damage != "" {
		n.degraded.Add("file system of the boot partition", fmt.Errorf("it is damaged (%s): keep a copy of node.yaml, and write the medium anew or replace it", damage))
	}
}

// tellTrial tells programs of the node that this slot is on trial.
func (n *node) tellTrial() error {
	n.boot.TriesLeft = n.tries.state.Of(n.slot()).Left
	return n.boot.publish()
}

// countTrial counts a try that the loader could not count, or that the firmware has
// started without it: nobody else would see that this slot is on trial, and its tries
// would have no end.
func (n *node) countTrial(loader bootloader.Loader, v *fat.Volume) error {
	n.boot.Trial = true
	n.say("kogge: slot " + n.boot.Slot + " is on trial, and nobody has counted this try: it is counted now")
	if err := loader.Count(v, n.slot(), time.Now()); err != nil {
		return err
	}
	var err error
	n.tries.state, err = loader.State(v)
	return err
}

// markUnstarted has the loader pass the other slot over from now on, if it could not
// start it: else it would set out to at each boot, and the firmware would have to help.
func (n *node) markUnstarted(loader bootloader.Loader, v *fat.Volume) error {
	other := n.slot().Other()
	if starts, found := n.tries.state.Next(); !found || starts != other {
		return nil
	}
	if loader.TellsByEFI() {
		// Somebody may have chosen the slot that runs at the loader's menu.
		l, err := mount.ReadLoader()
		if err != nil || l.SelectedSlot() != string(other) {
			return nil
		}
	}
	why := fmt.Sprintf("the boot loader could not start slot %s, release %s: it is passed over from now on", other, n.tries.state.Of(other).Version)
	n.say("kogge: " + why)
	n.degraded.Add("slot "+string(other), errors.New(why))
	return loader.MarkBad(v, other, time.Now())
}

// countLater decides once more, when the clock is as good as it gets before the
// services run: a machine without a clock of its own has it from STATE. A last arming at a
// time that cannot have been is taken for one of this very moment.
func (n *node) countLater() (moved error, err error) {
	t := &n.tries
	if t.loader == nil || n.boot.Trial {
		return nil, nil
	}
	now := time.Now()
	dated := t.record.Dated(imageTime(), now)
	if other, _ := dated.Fallback(t.state, now); dated == t.record && other == "" {
		return nil, nil
	}
	t.record = dated
	var why string
	err = t.part.Edit(func(v *fat.Volume) error {
		other, reason, err := fallBack(t.loader, v, t.state, &t.record, time.Now())
		if other != "" {
			why, moved = reason, fmt.Errorf("%s: slot %s is tried", reason, other)
		}
		return err
	})
	n.tellFallback(moved, why)
	return moved, err
}

// tellFallback says what came of too many bad boots.
func (n *node) tellFallback(moved error, why string) {
	switch {
	case moved != nil:
		n.say("kogge: " + moved.Error())
	case why != "":
		n.say("kogge: " + why)
		n.degraded.Add(degradedCount, errors.New(why))
	}
}

// fallBack writes the record, and before it arms the other slot for one try if the record
// says that it is time. A cut leaves the old record or the new one, and the slot armed or
// not: one that is armed while the record does not say so counts as on trial, and is not
// armed a second time by it.
func fallBack(loader bootloader.Loader, v *fat.Volume, state bootloader.State, r *verdict.Record, now time.Time) (bootloader.Slot, string, error) {
	other, why := r.Fallback(state, now)
	if other == "" {
		return "", why, writeRecord(v, *r)
	}
	version := state.Of(other).Version
	if version == "" {
		version = "unknown"
	}
	if err := loader.Arm(v, other, version, 1, now); err != nil {
		return "", why, errors.Join(fmt.Errorf("%s: arm slot %s: %w", why, other, err), writeRecord(v, *r))
	}
	armed, err := loader.State(v)
	if err != nil {
		return "", why, err
	}
	*r = r.Move(other, armed.Of(other), now)
	return other, why, writeRecord(v, *r)
}

// readTries reads the loader's state and the count of boots. A count that is damaged or
// not there is none.
func readTries(loader bootloader.Loader, v *fat.Volume) (bootloader.State, verdict.Record, error) {
	state, err := loader.State(v)
	if err != nil {
		return state, verdict.Record{}, err
	}
	var r verdict.Record
	if text, err := v.ReadFile(verdict.RecordFile); err == nil {
		if r, err = verdict.ParseRecord(text); err != nil {
			r = verdict.Record{}
		}
	}
	return state, r, nil
}

// writeRecord replaces the count in its place; a cut leaves the old or the new one, or
// one that is torn and counts as none. A boot partition without it gets one.
func writeRecord(v *fat.Volume, r verdict.Record) error {
	err := v.Overwrite(verdict.RecordFile, r.Text())
	if err == nil || !errors.Is(err, fat.ErrNotExist) && !errors.Is(err, fat.ErrNotSector) {
		return err
	}
	if err := v.MkdirAll("kogge", time.Now()); err != nil {
		return err
	}
	return v.WriteFile(verdict.RecordFile, r.Text(), time.Now())
}

// bless makes a slot on trial a proven one, and forgets the bad boots of one that was
// proven before. One that runs although its loader knows nothing of it, as nothing else
// could be started, is proven by that, too. It may be repeated.
func (n *node) bless() error {
	t := &n.tries
	if t.loader == nil {
		if n.boot.Trial {
			return errors.New("the boot partition is out of reach")
		}
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	cleared := t.record.Clear()
	cleared.Slot = n.slot()
	if cleared == t.record && t.state.Of(n.slot()).Present && !n.boot.Trial {
		return nil
	}
	err := t.part.Edit(func(v *fat.Volume) error {
		return bless(t.loader, v, cleared, n.boot.Trial, n.boot.Version, time.Now())
	})
	if err == nil {
		t.record = cleared
	}
	return err
}

// bless has the loader start the slot of r from now on, and writes r. At a cut the slot is
// on trial, or proven, and with its bad boots counted or not; one that the loader knew
// nothing of may have one try.
func bless(l bootloader.Loader, v *fat.Volume, r verdict.Record, trial bool, version string, now time.Time) error {
	state, err := l.State(v)
	if err != nil {
		return err
	}
	known := state.Of(r.Slot).Present
	if !known {
		if err := l.Arm(v, r.Slot, version, 1, now); err != nil {
			return err
		}
	}
	if !known || trial {
		if err := l.Bless(v, r.Slot, now); err != nil {
			return err
		}
	}
	return writeRecord(v, r)
}

// excuse takes this boot out of the count: somebody ends it in order before it could be
// assessed.
func (n *node) excuse() error {
	t := &n.tries
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loader == nil || n.boot.Trial || t.record.Bad == 0 {
		return nil
	}
	return t.part.Edit(func(v *fat.Volume) error { return writeRecord(v, t.record.Excuse()) })
}

// slot is the one that runs.
func (n *node) slot() bootloader.Slot { return bootloader.Slot(n.boot.Slot) }
