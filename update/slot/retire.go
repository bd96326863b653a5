package slot

import (
	"fmt"

	"kogge.example/update/armings"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// Retire has nobody start what lies in the slot that does not run: for a node that is about to
// keep what the release there could not read. What the node could fall back to is gone, so it
// wants the right that Stage wants, and refuses with [ErrOnTrial] while the running slot has not
// proven itself. At a cut the slot is as it was, but for what is remembered of it, or retired.
// Retire may be repeated:
//
//  1. the number of armings, remembered, which the loader forgets at step 3
//  2. what lies in the slot, forgotten: from here on nobody takes it for whole
//  3. the loader's Retire, and the trial forgotten
func Retire(d Disk, m memory.Folder, by Authorisation) error {
	if err := d.giveUp(m, by); err != nil {
		return fmt.Errorf("retire slot %s: %w", d.target(), err)
	}
	return nil
}

func (d Disk) giveUp(m memory.Folder, by Authorisation) error {
	if err := d.permit(m, "", by); err != nil {
		return err
	}
	if d.Trial {
		return ErrOnTrial
	}
	var state bootloader.State
	err := d.Boot.Read(func(v *fat.Volume) (err error) {
		state, err = d.Loader.State(v)
		return err
	})
	if err == nil {
		err = armings.Keep(m, state)
	}
	if err != nil {
		return err
	}
	records, err := memory.ReadStaged(m)
	if err == nil && records[d.target()] != nil {
		delete(records, d.target())
		err = memory.WriteStaged(m, records)
	}
	if err != nil {
		return err
	}
	return d.forget(m)
}

// forget is the loader's Retire, and the end of the trial that was armed there.
func (d Disk) forget(m memory.Folder) error {
	if err := d.Boot.Edit(func(v *fat.Volume) error { return d.Loader.Retire(v, d.target()) }); err != nil {
		return err
	}
	t, armed, err := memory.ReadTrial(m)
	if err != nil || !armed || t.Slot != d.target() {
		return err
	}
	return memory.EndTrial(m)
}
