package slot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"kogge.example/update/armings"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// Authorisation is the right to write a release into a slot and to arm it. Stage asks for
// it before its first write, which destroys what the node could fall back to, and Arm asks
// once more, with the same value. Only this package makes one, out of what it was shown:
// LoneVoter and Owners are the ways there are. A decision of a fleet that votes is to be
// another one here.
type Authorisation struct {
	by      string
	bound   bool // to what follows
	release string
	arming  int64
}

// String says who gave it.
func (a Authorisation) String() string { return a.by }

// check wants one that somebody gave: where it is bound, for that release and for the arming
// that comes next.
func (a Authorisation) check(release string, next int64) error {
	switch {
	case a.by == "":
		return ErrUnauthorised
	case !a.bound:
		return nil
	case release == "":
		return fmt.Errorf("%w: this release has no name here that somebody could sign", ErrUnauthorised)
	case a.release != release:
		return fmt.Errorf("%w: %s is for release %s, and this is %s", ErrUnauthorised, a.by, a.release, release)
	case a.arming != next:
		return fmt.Errorf("%w: %s is for arming %d, and the next is arming %d", ErrUnauthorised, a.by, a.arming, next)
	}
	return nil
}

// nameOf is what a permit calls the release in a slot: by its digest, or by its root hash
// where an image brought it. "": it has no name.
func nameOf(r *memory.Staged) string {
	if r.Digest != "" {
		return r.Digest
	}
	if root, _, ok := strings.Cut(r.Verity, ":"); ok {
		return ledger.RootName(root)
	}
	return ""
}

// Owners is the right that the owner of a node gave by a permit, in the state of a ledger: for
// one release, and for one arming. The node is named by the key of its seat. The error wraps
// [ErrUnauthorised].
func Owners(s ledger.State, node signed.Key, p ledger.Permit) (Authorisation, error) {
	owner, err := s.OwnerFor(node)
	if err == nil {
		err = s.Permits(p, node)
	}
	if err != nil {
		return Authorisation{}, fmt.Errorf("%w: %w", ErrUnauthorised, err)
	}
	return Authorisation{by: "the permit of owner " + owner.Name, bound: true, release: p.Release, arming: p.Arming}, nil
}

// LoneVoter is the right of whoever operates a fleet of one voter: what that one wants
// is what the fleet has voted. fleet names it; it may be "" before a node has one.
func LoneVoter(voters int, fleet string) (Authorisation, error) {
	if voters != 1 {
		return Authorisation{}, fmt.Errorf("%w: this fleet has %d voters: an update needs the owner's permit", ErrUnauthorised, voters)
	}
	if strings.ContainsFunc(fleet, func(r rune) bool { return r < ' ' }) || len(fleet) > 128 {
		return Authorisation{}, fmt.Errorf("%w: %q is not the name of a fleet", ErrUnauthorised, fleet)
	}
	if fleet == "" {
		return Authorisation{by: "the only voter"}, nil
	}
	return Authorisation{by: "the only voter of fleet " + fleet}, nil
}

// Arm has the loader start, at the next boot, the release of that digest, which Stage has
// put into the slot that does not run, or which an update has left there. It asks
// again what Stage asked. At a cut the slot is armed or not; from step 3 on the loader
// counts its tries, and the running slot is what it falls back to:
//
//  1. the number of the arming, remembered: what permits this one is used up
//  2. what is armed, remembered
//  3. the loader's Arm
func Arm(d Disk, m memory.Folder, digest string, by Authorisation, now time.Time) (memory.Trial, error) {
	records, err := memory.ReadStaged(m)
	if err != nil {
		return memory.Trial{}, fmt.Errorf("arm slot %s: %w", d.target(), err)
	}
	r := records[d.target()]
	if r == nil || r.Digest != digest {
		return memory.Trial{}, fmt.Errorf("arm slot %s: %w: stage %s first", d.target(), ErrNotStaged, digest)
	}
	t, err := d.arm(m, r, bootloader.Tries, by, now)
	if err != nil {
		return memory.Trial{}, fmt.Errorf("arm release %s in slot %s: %w", r.Release, d.target(), err)
	}
	return t, nil
}

// Rollback arms what the slot that does not run holds, staged or proven, without staging
// it anew.
func Rollback(d Disk, m memory.Folder, by Authorisation, now time.Time) (memory.Trial, error) {
	records, err := memory.ReadStaged(m)
	if err != nil {
		return memory.Trial{}, fmt.Errorf("roll back to slot %s: %w", d.target(), err)
	}
	r := records[d.target()]
	if r == nil { // what an image brought: the loader knows its name, and that is all
		var s bootloader.State
		err := d.Boot.Read(func(v *fat.Volume) (err error) {
			s, err = d.Loader.State(v)
			return err
		})
		if err != nil {
			return memory.Trial{}, fmt.Errorf("roll back to slot %s: %w", d.target(), err)
		}
		e := s.Of(d.target())
		if !e.Present {
			return memory.Trial{}, fmt.Errorf("roll back to slot %s: %w: it holds no release", d.target(), ErrNotStaged)
		}
		r = &memory.Staged{Release: e.Version, Board: d.Board, Whole: true}
	}
	t, err := d.arm(m, r, bootloader.Tries, by, now)
	if err != nil {
		return memory.Trial{}, fmt.Errorf("roll back to release %s in slot %s: %w", r.Release, d.target(), err)
	}
	return t, nil
}

func (d Disk) arm(m memory.Folder, r *memory.Staged, tries int, by Authorisation, now time.Time) (memory.Trial, error) {
	if err := d.permit(m, nameOf(r), by); err != nil {
		return memory.Trial{}, err
	}
	if d.Trial {
		return memory.Trial{}, ErrOnTrial
	}
	floor, err := memory.ReadFloor(m)
	if err != nil {
		return memory.Trial{}, err
	}
	if r.Counter < floor.Lowest {
		return memory.Trial{}, fmt.Errorf("%w: its counter is %d, the floor is %d", ErrBelowFloor, r.Counter, floor.Lowest)
	}
	if d.Refused != nil {
		if why, refused := d.Refused(r.Release, r.Digest); refused {
			return memory.Trial{}, fmt.Errorf("%w: %s", ErrFailedBefore, why)
		}
	}
	if err := compatible(r.Schema, d.Schema); err != nil {
		return memory.Trial{}, err
	}
	t := memory.Trial{
		Slot: d.target(), Release: r.Release, Digest: r.Digest, Counter: r.Counter,
		Tries: tries, Armed: now, By: by.by,
	}
	if t.Verity = r.Verity; t.Verity != "" {
		params, err := verity.ParseParams(t.Verity)
		if err != nil {
			return memory.Trial{}, err
		}
		if leads, err := verity.Leads(d.Roots[t.Slot], params); err != nil {
			return memory.Trial{}, fmt.Errorf("root partition: %w", err)
		} else if !leads {
			return memory.Trial{}, fmt.Errorf("%w: its root partition holds something else", ErrNotStaged)
		}
	}
	return t, d.Boot.Edit(func(v *fat.Volume) error { return d.armIn(v, m, r, &t, by, now) })
}

// permit asks for the right to a release before anything is done about it.
func (d Disk) permit(m memory.Folder, release string, by Authorisation) error {
	if !by.bound { // nothing that a disk could fail at comes before a plain no, or yes
		return by.check(release, 0)
	}
	return d.Boot.Read(func(v *fat.Volume) error {
		state, err := d.Loader.State(v)
		if err != nil {
			return err
		}
		next, err := armings.Next(m, state)
		if err != nil {
			return err
		}
		return by.check(release, next)
	})
}

func (d Disk) armIn(v *fat.Volume, m memory.Folder, r *memory.Staged, t *memory.Trial, by Authorisation, now time.Time) error {
	before, err := d.Loader.State(v)
	if err != nil {
		return err
	}
	if !r.Whole && !before.Of(t.Slot).Present {
		return fmt.Errorf("%w: only some of it was written", ErrNotStaged)
	}
	if before.Starts != d.Running && before.Starts != t.Slot {
		return fmt.Errorf("the loader starts neither slot: there is nothing to fall back to")
	}
	t.Number = 1 + max(before.A.Number, before.B.Number)
	number, err := armings.Use(m, before)
	if err != nil {
		return err
	}
	if err := by.check(nameOf(r), number); err != nil { // somebody else has armed since
		return err
	}
	if err := memory.WriteTrial(m, *t); err != nil {
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
		return memory.WriteTrial(m, *t)
	}
	return nil
}
