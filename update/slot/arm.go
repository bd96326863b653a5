package slot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/verity"
)

// Authorisation is the right to arm a slot. Only the functions below make one.
type Authorisation struct{ by string }

// String says who gave it.
func (a Authorisation) String() string { return a.by }

// LoneVoter is the right of whoever operates a fleet of one voter: what that one wants
// is what the fleet has voted. fleet names it; it may be "" before a node has one.
func LoneVoter(voters int, fleet string) (Authorisation, error) {
	if voters != 1 {
		return Authorisation{}, fmt.Errorf("%w: this fleet has %d voters: an update needs the certificate of their vote", ErrUnauthorised, voters)
	}
	if strings.ContainsFunc(fleet, func(r rune) bool { return r < ' ' }) || len(fleet) > 128 {
		return Authorisation{}, fmt.Errorf("%w: %q is not the name of a fleet", ErrUnauthorised, fleet)
	}
	if fleet == "" {
		return Authorisation{"the only voter"}, nil
	}
	return Authorisation{"the only voter of fleet " + fleet}, nil
}

// Certificate is the right that a fleet's vote gives. No release of Kogge votes yet.
func Certificate([]byte) (Authorisation, error) {
	return Authorisation{}, fmt.Errorf("%w: this release does not understand certificates of a vote", ErrUnauthorised)
}

// BreakGlass is the right of owners in an emergency, for which their keys are needed. No
// release of Kogge has these yet.
func BreakGlass([]byte) (Authorisation, error) {
	return Authorisation{}, fmt.Errorf("%w: this release does not understand break-glass orders", ErrUnauthorised)
}

// Arm has the loader start, at the next boot, the release of that digest, which Stage has
// put into the slot that does not run, or which an update has left there. It asks
// again what Stage asked. At a cut the slot is armed or not; from step 2 on the loader
// counts its tries, and the running slot is what it falls back to:
//
//  1. what is armed, remembered
//  2. the loader's Arm
func Arm(d Disk, m Memory, digest string, by Authorisation, now time.Time) (Trial, error) {
	records, err := readStaged(m)
	if err != nil {
		return Trial{}, fmt.Errorf("arm slot %s: %w", d.target(), err)
	}
	r := records.Slots[d.target()]
	if r == nil || r.Digest != digest {
		return Trial{}, fmt.Errorf("arm slot %s: %w: stage %s first", d.target(), ErrNotStaged, digest)
	}
	t, err := d.arm(m, r, bootloader.Tries, by, now)
	if err != nil {
		return Trial{}, fmt.Errorf("arm release %s in slot %s: %w", r.Release, d.target(), err)
	}
	return t, nil
}

// Rollback arms what the slot that does not run holds, staged or proven, without staging
// it anew.
func Rollback(d Disk, m Memory, by Authorisation, now time.Time) (Trial, error) {
	records, err := readStaged(m)
	if err != nil {
		return Trial{}, fmt.Errorf("roll back to slot %s: %w", d.target(), err)
	}
	r := records.Slots[d.target()]
	if r == nil { // what an image brought: the loader knows its name, and that is all
		var s bootloader.State
		err := d.Boot.Read(func(v *fat.Volume) (err error) {
			s, err = d.Loader.State(v)
			return err
		})
		if err != nil {
			return Trial{}, fmt.Errorf("roll back to slot %s: %w", d.target(), err)
		}
		e := s.Of(d.target())
		if !e.Present {
			return Trial{}, fmt.Errorf("roll back to slot %s: %w: it holds no release", d.target(), ErrNotStaged)
		}
		r = &Record{Release: e.Version, Board: d.Board, Whole: true}
	}
	t, err := d.arm(m, r, bootloader.Tries, by, now)
	if err != nil {
		return Trial{}, fmt.Errorf("roll back to release %s in slot %s: %w", r.Release, d.target(), err)
	}
	return t, nil
}

func (d Disk) arm(m Memory, r *Record, tries int, by Authorisation, now time.Time) (Trial, error) {
	if by.by == "" {
		return Trial{}, ErrUnauthorised
	}
	if d.Trial {
		return Trial{}, ErrOnTrial
	}
	floor, err := readFloor(m)
	if err != nil {
		return Trial{}, err
	}
	if r.Counter < floor.Floor {
		return Trial{}, fmt.Errorf("%w: its counter is %d, the floor is %d", ErrBelowFloor, r.Counter, floor.Floor)
	}
	if d.Refused != nil {
		if why, refused := d.Refused(r.Release, r.Digest); refused {
			return Trial{}, fmt.Errorf("%w: %s", ErrFailedBefore, why)
		}
	}
	if err := compatible(r.Schema, d.Schema); err != nil {
		return Trial{}, err
	}
	t := Trial{
		Slot: d.target(), Release: r.Release, Digest: r.Digest, Counter: r.Counter,
		Tries: tries, Armed: now, By: by.by,
	}
	if r.Verity != "" {
		if t.Verity, err = verity.ParseParams(r.Verity); err != nil {
			return Trial{}, err
		}
		if leads, err := verity.Leads(d.Roots[t.Slot], t.Verity); err != nil {
			return Trial{}, fmt.Errorf("root partition: %w", err)
		} else if !leads {
			return Trial{}, fmt.Errorf("%w: its root partition holds something else", ErrNotStaged)
		}
	}
	return t, d.Boot.Edit(func(v *fat.Volume) error { return d.armIn(v, m, r, &t, now) })
}

func (d Disk) armIn(v *fat.Volume, m Memory, r *Record, t *Trial, now time.Time) error {
	before, err := d.Loader.State(v)
	if err != nil {
		return err
	}
	phase := phaseOf(r, before.Of(t.Slot), false)
	if _, action := phase.Step(EventArm, false); action != ActionArm {
		return fmt.Errorf("%w: the slot is %s", ErrNotStaged, phase)
	}
	if before.Starts != d.Running && before.Starts != t.Slot {
		return fmt.Errorf("the loader starts neither slot: there is nothing to fall back to")
	}
	t.Number = 1 + max(before.A.Number, before.B.Number)
	if err := writeTrial(m, *t); err != nil {
		return err
	}
	if err := d.Loader.Arm(v, t.Slot, t.Release, t.Tries, now); err != nil {
		return err
	}
	after, err := d.Loader.State(v)
	if err != nil {
		return err
	}
	if after.Starts != t.Slot {
		return errors.New("the loader would start the running slot: look for entries with a higher number")
	}
	if number := after.Of(t.Slot).Number; number != t.Number { // of an entry without its image
		t.Number = number
		return writeTrial(m, *t)
	}
	return nil
}
