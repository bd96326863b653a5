package slot

import (
	"errors"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// starts says whether anybody could start slot B.
func (w *world) starts(t *testing.T) (starts bool) {
	t.Helper()
	err := w.Read(func(v *fat.Volume) (err error) {
		starts, err = bootloader.Starts(w.loader, v, bootloader.B)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return starts
}

// TestRetire has nobody start the other slot, whether it was proven, armed or half written: not
// without the right, and not while it is what there is to fall back to.
func TestRetire(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old, newer, _, whole := permitted(t, l)
			w := on(l, flash(t, l, old), forEver)
			from := running(t, w, whole)
			if err := stage(t.Context(), w.as(from), w.memory(), newer.Release, nil, quick); err != nil {
				t.Fatal(err)
			}
			trial, err := Arm(w.as(from), w.memory(), newer.Digest, lone(t), when)
			if err != nil {
				t.Fatal(err)
			}
			before := w.off(1)
			onTrial := w.as(from)
			onTrial.Trial = true
			for what, c := range map[string]struct {
				disk Disk
				by   Authorisation
				want error
			}{"by nobody": {w.as(from), Authorisation{}, ErrUnauthorised}, "by a permit": {w.as(from), Authorisation{by: "a permit", bound: true, release: newer.Digest, arming: 1}, ErrUnauthorised},
				"on trial": {onTrial, lone(t), ErrOnTrial}} {
				if err := Retire(c.disk, w.memory(), c.by); !errors.Is(err, c.want) || w.off(1).sum() != before.sum() {
					t.Errorf("%s: %v", what, err)
				}
			}
			for range 2 {
				if err := Retire(w.as(from), w.memory(), lone(t)); err != nil {
					t.Fatal(err)
				}
				_, armed, err := memory.ReadTrial(w.memory())
				records, stagedErr := memory.ReadStaged(w.memory())
				if w.starts(t) || armed || err != nil || stagedErr != nil || records[bootloader.B] != nil {
					t.Fatalf("starts %v, armed %v, %v, remembered as %+v, %v", w.starts(t), armed, err, records[bootloader.B], stagedErr)
				}
			}
			if n := next(t, w); n <= int64(trial.Number) {
				t.Errorf("arming %d comes once more", n)
			}
			if b := running(t, w, whole); b.version != "1.0" || b.slot != bootloader.A {
				t.Errorf("%+v runs", b)
			}
			// The next update fills it.
			if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
				t.Errorf("%+v, %v", b, err)
			}
		})
	}
}

// TestRetirePowerCut cuts the power at each write of that: the node comes up with what ran, and
// once more is always right.
func TestRetirePowerCut(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old, newer, _, whole := permitted(t, l)
			w := on(l, flash(t, l, old), forEver)
			from, err := w.update(t, running(t, w, whole), newer, whole) // the image's release is beside it
			if err != nil {
				t.Fatal(err)
			}
			if from, err = w.rollback(t, from, whole); err != nil || from.slot != bootloader.A {
				t.Fatalf("%+v, %v", from, err)
			}
			start, first := w.off(1), next(t, w)
			for writes := 0; ; writes++ {
				w := on(l, start, writes)
				err := Retire(w.as(from), w.memory(), lone(t))
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("writes=%d: %v", writes, err)
				}
				for seed := range uint64(16) {
					after := on(l, w.off(seed), forEver)
					b, bootErr := after.boot(whole)
					if bootErr != nil || b.version != "1.0" || b.trial {
						t.Fatalf("writes=%d seed=%d: %+v, %v", writes, seed, b, bootErr)
					}
					if err == nil && after.starts(t) {
						t.Fatalf("writes=%d seed=%d: it still starts", writes, seed)
					}
					if err := Retire(after.as(b), after.memory(), lone(t)); err != nil || after.starts(t) {
						t.Fatalf("writes=%d seed=%d: again: %v", writes, seed, err)
					}
					if n := next(t, after); n < first {
						t.Fatalf("writes=%d seed=%d: arming %d after %d", writes, seed, n, first-1)
					}
				}
				if err == nil {
					return
				}
			}
		})
	}
}
