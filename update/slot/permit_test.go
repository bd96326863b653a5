package slot

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestOwners updates a node of a founded fleet by its owner's permit: for the release, the
// node and the arming that it names, and no other.
func TestOwners(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	state := f.Log.State()
	seat, _ := state.Roster.Seat(2)
	l := loaders(t)["systemd-boot"]
	old, newer, newest := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9), release(t, l, "1.2", 3, 11)
	whole := map[string]made{"1.0": old, "1.1": newer, "1.2": newest}
	w := on(l, flash(t, l, old), forEver)
	from := running(t, w, whole)
	permit := func(seat int, release string, arming int, height int64, signers int) ledger.Permit {
		p := ledger.Permit{Version: 1, Seat: seat, Release: release, Arming: arming, Height: height}
		for i := 1; i <= signers; i++ {
			p.Owners = append(p.Owners, ledger.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), p.Bytes(state.Fleet())))
		}
		return p
	}
	first := armings(t, w) + 1
	for name, p := range map[string]ledger.Permit{
		"nobody's": {}, "of one key": permit(2, newer.Digest, first, 1, 1), "for another seat": permit(3, newer.Digest, first, 1, 2),
		"of another height": permit(2, newer.Digest, first, 2, 2), "changed": func() ledger.Permit {
			p := permit(2, newest.Digest, first, 1, 2)
			p.Release = newer.Digest
			return p
		}(),
	} {
		if a, err := Owners(state, seat, p); !errors.Is(err, ErrUnauthorised) || !errors.Is(err, ledger.ErrPermit) || a.String() != "" {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
	good, err := Owners(state, seat, permit(2, newer.Digest, first, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	d := w.as(from)
	before := w.off(1)
	if err := Stage(t.Context(), d, w.memory(), newest.Release, good, nil); !errors.Is(err, ErrUnauthorised) || w.off(1).sum() != before.sum() {
		t.Errorf("another release: %v", err)
	}
	if err := Stage(t.Context(), d, w.memory(), newer.Release, good, nil); err != nil {
		t.Fatal(err)
	}
	late, err := Owners(state, seat, permit(2, newer.Digest, first+1, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Arm(d, w.memory(), newer.Digest, late, time.Now()); !errors.Is(err, ErrUnauthorised) {
		t.Errorf("for a later arming: %v", err)
	}
	trial, err := Arm(d, w.memory(), newer.Digest, good, time.Now())
	if err != nil || trial.Number != first || trial.By != "the permit of owner hanse" {
		t.Fatalf("%+v, %v", trial, err)
	}
	if _, err := Arm(d, w.memory(), newer.Digest, good, time.Now()); !errors.Is(err, ErrUnauthorised) {
		t.Errorf("once more: %v", err)
	}
}

// armings is the highest number of an arming that the loader knows.
func armings(t *testing.T, w *world) int {
	t.Helper()
	var state bootloader.State
	err := w.Read(func(v *fat.Volume) (err error) {
		state, err = w.loader.State(v)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return max(state.A.Number, state.B.Number)
}
