package memory

import (
	"errors"
	"fmt"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
)

// ErrArmedSince says that a trial is not the last arming of its slot any more.
var ErrArmedSince = errors.New("was armed for something else since")

// Rearm arms a trial once more whose tries ran out without a verdict: by the right that
// armed it first, if that still holds, which [ReadVotes] says. A cut leaves the slot armed or not, and what is remembered names no
// arming that the loader does not know, or an old one that is over.
func Rearm(v *fat.Volume, l bootloader.Loader, m Folder, t Trial, now time.Time) (Trial, error) {
	state, err := l.State(v)
	if err != nil {
		return t, err
	}
	if e := state.Of(t.Slot); !e.Present || e.Number != t.Number {
		return t, fmt.Errorf("slot %s %w", t.Slot, ErrArmedSince)
	}
	t.Number, t.Armed = 1+max(state.A.Number, state.B.Number), now
	if err := WriteTrial(m, t); err != nil {
		return t, err
	}
	if err := l.Arm(v, t.Slot, t.Release, t.Tries, now); err != nil {
		return t, err
	}
	if state, err = l.State(v); err != nil {
		return t, err
	}
	if number := state.Of(t.Slot).Number; number != t.Number {
		t.Number = number
		return t, WriteTrial(m, t)
	}
	return t, nil
}
