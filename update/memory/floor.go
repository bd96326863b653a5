package memory

import (
	"errors"

	"kogge.example/update/bootloader"
)

// Floor is how far back a node may go.
type Floor struct {
	// Lowest is the counter below which no release may be staged or armed. It never gets
	// lower.
	Lowest uint64 `json:"floor"`
	// Blessed is the counter of the release that was blessed last, and Digest its name.
	Blessed uint64 `json:"blessed"`
	Digest  string `json:"digest"`
}

// floorFile is floor.json.
type floorFile struct {
	Version int `json:"version"`
	Floor
}

// ReadFloor returns how far back this node may go; the zero value where nothing was
// blessed yet but what an image brought.
func ReadFloor(m Folder) (Floor, error) {
	var file floorFile
	_, err := read(m, FloorFile, &file)
	return file.Floor, err
}

func writeFloor(m Folder, f Floor) error { return write(m, FloorFile, floorFile{format, f}) }

// StartFloor remembers the release that an image brought as the first one that was
// blessed, so that the second update raises the floor to it.
func StartFloor(m Folder, counter uint64) error {
	f, err := ReadFloor(m)
	if err != nil || f != (Floor{}) || counter == 0 {
		return err
	}
	return writeFloor(m, Floor{Blessed: counter})
}

// Anew has the floor begin anew as f where it is damaged, and returns why; nil: it was not. f is by
// the counter of the release that runs, and has proven itself: nothing older comes back. One that
// does not say its counter does not do. A cut leaves the damaged floor or f.
func (f Floor) Anew(m Folder) (why, err error) {
	_, why = ReadFloor(m)
	if !errors.Is(why, errDamaged) || f.Lowest == 0 {
		return nil, why
	}
	return why, writeFloor(m, f)
}

// after is the floor once a release was blessed: that of the release before it, so that
// one can always go back one step. Going back does not raise it above where one went.
func (f Floor) after(counter uint64, digest string) Floor {
	if digest == f.Digest {
		return f
	}
	return Floor{Lowest: max(f.Lowest, min(f.Blessed, counter)), Blessed: counter, Digest: digest}
}

// Pass is Settle for the slot that runs, and for no other one that was armed.
func Pass(m Folder, running bootloader.Slot) error {
	t, ok, err := ReadTrial(m)
	if err != nil || !ok || t.Slot != running {
		return err
	}
	_, _, err = Settle(m)
	return err
}

// Settle remembers that the slot on trial is blessed: call it once the loader's Bless has
// returned. It reads nothing but the Folder, and may be repeated: after a cut at any
// point of it, at the next boot, it comes to the same end. Without a trial it does nothing.
//
//  1. the floor, which begins anew with this release where it is damaged
//  2. the trial forgotten
func Settle(m Folder) (Trial, bool, error) {
	t, ok, err := ReadTrial(m)
	if err != nil || !ok {
		return Trial{}, false, err
	}
	floor, err := ReadFloor(m)
	damaged := errors.Is(err, errDamaged)
	if err != nil && !damaged {
		return t, true, err
	}
	next := floor.after(t.Counter, t.Digest)
	if damaged { // it was armed, so it was not below the floor
		next = Floor{Lowest: t.Counter, Blessed: t.Counter, Digest: t.Digest}
	}
	if damaged || next != floor {
		if err := writeFloor(m, next); err != nil {
			return t, true, err
		}
	}
	return t, true, EndTrial(m)
}
