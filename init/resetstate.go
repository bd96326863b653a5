package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kogge.example/boards"
	"kogge.example/init/change"
	"kogge.example/init/control"
	"kogge.example/init/mount"
	"kogge.example/init/reset"
	"kogge.example/update/blank"
	"kogge.example/update/bootloader"
	"kogge.example/update/durable"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/partition"
)

// askReset leaves on the boot partition what the next boot makes of STATE. kept is the
// node.yaml of the request that keeps it.
func (n *node) askReset(r control.Request, kept []byte) error {
	switch {
	case n.disk.Name == "":
		return errors.New("the node has no boot disk that it may write to")
	case r.KeepConfig && !n.persist:
		return errors.New("STATE is not on the disk, so there are no settings to keep")
	case r.File != "" && readOptional(fwcfgJoin) != nil:
		return errors.New("QEMU hands over a join.yaml (fw_cfg), which comes before the one on the boot partition: change that file on the host")
	}
	var w reset.Wish
	if r.KeepConfig {
		imported, err := readRecord(configHash)
		if err != nil {
			return fmt.Errorf("the node cannot tell which node.yaml was taken over last, so that the one on the boot partition might replace the present one: %w; without --keep-config the reset is possible", err)
		}
		w = reset.Wish{Keep: true, Settings: kept, Imported: imported}
	}
	beside := n.beside()
	w.Beside, w.Slots = beside.Beside, beside.Slots
	var join []byte
	if r.File != "" {
		var err error
		if join, err = change.ReadFile(runDir, r); err != nil {
			return err
		}
	}
	n.asking.Lock()
	defer n.asking.Unlock()
	err := editBootPartition(n.disk, func(v *fat.Volume) error { return reset.Ask(v, w, join, time.Now()) })
	if err != nil {
		return fmt.Errorf("boot partition: %w", err)
	}
	n.say("kogge: the next boot formats STATE, as requested")
	return nil
}

// resetState makes STATE anew if somebody asked for that on the boot partition, and
// says whether it is mounted then. A wish that cannot be read costs no data.
func (n *node) resetState(ctx context.Context) (mounted bool, err error) {
	text, err := readBootPartition(n.disk, reset.File)
	n.degraded.Add("boot partition", err)
	if text == nil {
		return false, nil
	}
	w, err := reset.Parse(text)
	if err != nil {
		n.degraded.Add("reset of STATE", fmt.Errorf("not done: %s on the boot partition: %w", reset.File, err))
		return false, nil
	}
	if err := editBootPartition(n.disk, func(v *fat.Volume) error { return reset.Begin(v, time.Now()) }); err != nil {
		n.degraded.Add("reset of STATE", fmt.Errorf("not done, as %s could not be removed: %w", reset.File, err))
		return false, nil
	}
	n.say("kogge: STATE is formatted: the boot partition has the file " + reset.File)
	return true, w.Fulfil(&resetting{n, ctx})
}

// beside is what a wish says of the release in the other slot while STATE, which remembers it, is
// still there.
func (n *node) beside() (w reset.Wish) {
	other, _, err := n.otherSlot()
	if err != nil || n.trial.Memory == "" {
		return w
	}
	staged, err := memory.ReadStaged(memory.In(n.trial.Memory))
	if err != nil {
		return w
	}
	slot := bootloader.Slot(n.boot.Slot).Other()
	s := staged[slot]
	if s == nil || s.Release != other.Version || !s.Reads(partition.SealedState, true) {
		return w
	}
	if w.Beside = s.Release; s.Whole && s.Reads(partition.FleetState, true) {
		w.Slots = map[bootloader.Slot]*memory.Staged{slot: s}
	}
	return w
}

// blankFor is the file of which STATE is made anew: one with quotas where nobody can start
// the other slot, or what is in it is still the release that is known to mount such a one.
func (n *node) blankFor(beside string) string {
	other, starts, err := n.otherSlot()
	if err == nil && (!starts || beside != "" && other.Version == beside) {
		return blank.File
	}
	return blank.PlainFile
}

// otherSlot is what the boot loader knows of the slot that does not run, and whether anybody
// could start that.
func (n *node) otherSlot() (other bootloader.Entry, starts bool, err error) {
	board, err := boards.Find(n.boot.Board)
	if err != nil {
		return other, true, err
	}
	loader, err := bootloader.For(board.Bootloader)
	if err != nil {
		return other, true, err
	}
	p, err := bootPartition(n.disk)
	if err != nil {
		return other, true, err
	}
	slot := bootloader.Slot(n.boot.Slot).Other()
	err = p.Read(func(v *fat.Volume) error {
		state, err := loader.State(v)
		if err != nil {
			return err
		}
		other = state.Of(slot)
		starts, err = bootloader.Starts(loader, v, slot)
		return err
	})
	return other, starts, err
}

// resetting is the node while STATE is made anew.
type resetting struct {
	*node
	ctx context.Context
}

func (r *resetting) Reformat(beside string) error { return r.reformat(beside) }

func (r *resetting) Mount() error { return mount.MountState(r.ctx, r.disk, r.check) }

// Remember remembers only what is still there: between the wish and now somebody may have written
// into the slot.
func (r *resetting) Remember(slots map[bootloader.Slot]*memory.Staged) error {
	return r.remember(memory.In(memory.Dir), slots)
}

func (r *resetting) remember(m memory.Folder, slots map[bootloader.Slot]*memory.Staged) error {
	slot := bootloader.Slot(r.boot.Slot).Other()
	s := slots[slot]
	if other, _, err := r.otherSlot(); err != nil || s == nil || !other.Present || s.Release != other.Version {
		return nil
	}
	return memory.WriteStaged(m, map[bootloader.Slot]*memory.Staged{slot: s})
}

func (r *resetting) Restore(settings []byte, imported string) error {
	if err := os.MkdirAll(ownDir, 0o700); err != nil {
		return err
	}
	if err := durable.Replace(configCopy, settings, 0o600); err != nil || imported == "" {
		return err
	}
	return durable.Replace(configHash, []byte(imported+"\n"), 0o600)
}

// Forget failing is no reason to do without STATE.
func (r *resetting) Forget() error {
	r.degraded.Add("boot partition", editBootPartition(r.disk, reset.Forget))
	return nil
}
