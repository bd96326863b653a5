package trial

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kogge.example/boards"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// Count reads what the boot loader knows, and counts this boot of a proven slot: it
// is one without a good assessment until it has one. At the third in a row the other
// slot is armed, if that was proven once, and the error says so and ends the boot. All
// of it comes before STATE, which may be what the boots fail at.
func (b *Boot) Count() (moved error, err error) {
	if b.Facts.Loader == "" || b.Part == nil {
		return nil, nil
	}
	loader, err := bootloader.For(boards.Bootloader(b.Facts.Loader))
	if err != nil {
		return nil, err
	}
	b.loader = loader
	if b.Facts.Trial { // counted by the loader, and nothing is written until it is good
		err = b.Part.Read(func(v *fat.Volume) error {
			var err error
			b.state, b.count, err = readCount(loader, v)
			return err
		})
		return nil, errors.Join(err, b.tellTrial())
	}
	var why string
	err = b.Part.Edit(func(v *fat.Volume) error {
		b.tellDamage(v.Found())
		var err error
		if b.state, b.count, err = readCount(loader, v); err != nil {
			return err
		}
		if mine := b.state.Of(b.slot()); mine.Counted && mine.Left > 0 {
			return b.countTrial(loader, v)
		}
		if err := b.markUnstarted(loader, v); err != nil {
			return err
		}
		b.count = b.count.Begin(b.slot())
		var other bootloader.Slot
		if other, why, err = fallBack(loader, v, b.state, &b.count, time.Now()); other != "" {
			moved = fmt.Errorf("%s: slot %s is tried", why, other)
		}
		return err
	})
	b.tellFallback(moved, why)
	if b.Facts.Trial {
		err = errors.Join(err, b.tellTrial())
	}
	return moved, err
}

// tellDamage tells of what no repair of the boot partition can mend. The traces of a power
// cut are none of it.
func (b *Boot) tellDamage(found fat.Report) {
	damage := strings.Join(append(slices.Clone(found.Damage), found.BadCopy), "; ")
	if damage = strings.Trim(damage, "; "); damage != "" {
		b.Degraded.Add("file system of the boot partition", fmt.Errorf("it is damaged (%s): keep a copy of node.yaml, and write the medium again or replace it", damage))
	}
}

// tellTrial tells programs of the node that this slot is on trial.
func (b *Boot) tellTrial() error {
	b.Facts.TriesLeft = b.state.Of(b.slot()).Left
	return b.Facts.Write(b.Run)
}

// countTrial counts a try that the loader could not count, or that the firmware has
// started without it: nobody else would see that this slot is on trial, and its tries
// would have no end.
func (b *Boot) countTrial(loader bootloader.Loader, v *fat.Volume) error {
	b.Facts.Trial = true
	b.Say("kogge: slot " + b.Facts.Slot + " is on trial, and this try was not counted: counting it now")
	if err := loader.Count(v, b.slot(), time.Now()); err != nil {
		return err
	}
	var err error
	b.state, err = loader.State(v)
	return err
}

// markUnstarted has the loader pass the other slot over from now on, if it could not
// start it: else it would set out to at each boot, and the firmware would have to help.
func (b *Boot) markUnstarted(loader bootloader.Loader, v *fat.Volume) error {
	other := b.slot().Other()
	if starts, found := b.state.Next(); !found || starts != other {
		return nil
	}
	if loader.TellsByEFI() {
		// Somebody may have chosen the slot that runs at the loader's menu.
		if selected, err := b.Selected(); err != nil || selected != string(other) {
			return nil
		}
	}
	why := fmt.Sprintf("the boot loader could not start slot %s, release %s: it is skipped from now on", other, b.state.Of(other).Version)
	b.Say("kogge: " + why)
	b.Degraded.Add("slot "+string(other), errors.New(why))
	return loader.MarkBad(v, other, time.Now())
}

// CountAgain decides once more, when the clock is as good as it gets before the
// services run: a machine without a clock of its own has it from STATE. A last arming at a
// time that cannot have been, such as one before the release was built, is taken for one of this very moment.
func (b *Boot) CountAgain(built time.Time) (moved error, err error) {
	if b.loader == nil || b.Facts.Trial {
		return nil, nil
	}
	now := time.Now()
	dated := b.count.Dated(built, now)
	if other, _ := dated.Fallback(b.state, now); dated == b.count && other == "" {
		return nil, nil
	}
	b.count = dated
	var why string
	err = b.Part.Edit(func(v *fat.Volume) error {
		other, reason, err := fallBack(b.loader, v, b.state, &b.count, time.Now())
		if other != "" {
			why, moved = reason, fmt.Errorf("%s: slot %s is tried", reason, other)
		}
		return err
	})
	b.tellFallback(moved, why)
	return moved, err
}

// tellFallback says what came of too many bad boots.
func (b *Boot) tellFallback(moved error, why string) {
	switch {
	case moved != nil:
		b.Say("kogge: " + moved.Error())
	case why != "":
		b.Say("kogge: " + why)
		b.Degraded.Add(degradedCount, errors.New(why))
	}
}

// fallBack writes the record, and before it arms the other slot for one try if the record
// says that it is time. A cut leaves the old record or the new one, and the slot armed or
// not: one that is armed while the record does not say so counts as on trial, and is not
// armed a second time by it.
func fallBack(loader bootloader.Loader, v *fat.Volume, state bootloader.State, r *memory.Count, now time.Time) (bootloader.Slot, string, error) {
	other, why := r.Fallback(state, now)
	if other == "" {
		return "", why, writeCount(v, *r)
	}
	version := state.Of(other).Version
	if version == "" {
		version = "unknown"
	}
	if err := loader.Arm(v, other, version, 1, now); err != nil {
		return "", why, errors.Join(fmt.Errorf("%s: arm slot %s: %w", why, other, err), writeCount(v, *r))
	}
	armed, err := loader.State(v)
	if err != nil {
		return "", why, err
	}
	*r = r.Move(other, armed.Of(other), now)
	return other, why, writeCount(v, *r)
}

// readCount reads the loader's state and the count of boots. A count that is damaged or
// not there is none.
func readCount(loader bootloader.Loader, v *fat.Volume) (bootloader.State, memory.Count, error) {
	state, err := loader.State(v)
	if err != nil {
		return state, memory.Count{}, err
	}
	var r memory.Count
	if text, err := v.ReadFile(memory.CountFile); err == nil {
		if r, err = memory.ParseCount(text); err != nil {
			r = memory.Count{}
		}
	}
	return state, r, nil
}

// writeCount replaces the count in its place; a cut leaves the old or the new one, or
// one that is torn and counts as none. A boot partition without it gets one.
func writeCount(v *fat.Volume, r memory.Count) error {
	err := v.Overwrite(memory.CountFile, r.Text())
	if err == nil || !errors.Is(err, fat.ErrNotExist) && !errors.Is(err, fat.ErrNotSector) {
		return err
	}
	if err := v.MkdirAll("kogge", time.Now()); err != nil {
		return err
	}
	return v.WriteFile(memory.CountFile, r.Text(), time.Now())
}

// bless makes a slot on trial a proven one, and forgets the bad boots of one that was
// proven before. One that runs although its loader knows nothing of it, as nothing else
// could be started, is proven by that, too. It may be repeated.
func (b *Boot) bless() error {
	if b.loader == nil {
		if b.Facts.Trial {
			return errors.New("the boot partition cannot be reached")
		}
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	cleared := b.count.Clear()
	cleared.Slot = b.slot()
	if cleared == b.count && b.state.Of(b.slot()).Present && !b.Facts.Trial {
		return nil
	}
	err := b.Part.Edit(func(v *fat.Volume) error {
		return bless(b.loader, v, cleared, b.Facts.Trial, b.Facts.Version, time.Now())
	})
	if err == nil {
		b.count = cleared
	}
	return err
}

// bless has the loader start the slot of r from now on, and writes r. At a cut the slot is
// on trial, or proven, and with its bad boots counted or not; one that the loader knew
// nothing of may have one try.
func bless(l bootloader.Loader, v *fat.Volume, r memory.Count, trial bool, version string, now time.Time) error {
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
	return writeCount(v, r)
}

// spare forgets the bad boots of a proven slot, this one among them: it may be repeated.
func (b *Boot) spare() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	cleared := b.count.Clear()
	if b.loader == nil || b.Facts.Trial || cleared == b.count {
		return nil
	}
	err := b.Part.Edit(func(v *fat.Volume) error { return writeCount(v, cleared) })
	if err == nil {
		b.count = cleared
	}
	return err
}

// excuse takes this boot out of the count: somebody ends it in order before it could be
// assessed.
func (b *Boot) excuse() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loader == nil || b.Facts.Trial || b.count.Bad == 0 {
		return nil
	}
	return b.Part.Edit(func(v *fat.Volume) error { return writeCount(v, b.count.Excuse()) })
}
