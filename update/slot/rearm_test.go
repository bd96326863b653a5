package slot

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// TestRearmPowerCut arms a release once more whose tries ran out, and cuts the power at
// every write of that. Each time the node comes up whole, and what it remembers is the
// loader's arming, or one that the loader does not know.
func TestRearmPowerCut(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
			whole := map[string]made{"1.0": old, "1.1": newer}
			w := on(l, flash(t, l, old), forEver)
			b, err := w.boot(whole)
			if err != nil {
				t.Fatal(err)
			}
			if err := stage(context.Background(), w.as(b), w.memory(), newer.Release, nil, quick); err != nil {
				t.Fatal(err)
			}
			first, err := Arm(w.as(b), w.memory(), newer.Digest, lone(t), when)
			if err != nil {
				t.Fatal(err)
			}
			for range first.Tries {
				if b, err := w.boot(whole); err != nil || b.slot != bootloader.B || !b.trial {
					t.Fatalf("%+v, %v", b, err)
				}
			}
			start, seen := w.off(1), map[uint64]bool{}
			for writes := 0; ; writes++ {
				w := on(l, start, writes)
				b, err := w.boot(whole)
				if err == nil {
					if b.slot != bootloader.A || b.trial {
						t.Fatalf("after its tries %+v runs", b)
					}
					err = w.Edit(func(v *fat.Volume) error {
						again, err := memory.Rearm(v, l, w.memory(), first, when)
						if err == nil && again.Number <= first.Number {
							err = fmt.Errorf("arming %d after %d", again.Number, first.Number)
						}
						return err
					})
				}
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("%d writes: %v", writes, err)
				}
				for seed := range uint64(64) {
					where := fmt.Sprintf("writes=%d seed=%d", writes, seed)
					cut := w.off(seed)
					if seen[cut.sum()] {
						continue
					}
					seen[cut.sum()] = true
					after := on(l, cut, forEver)
					remembered, found, readErr := memory.ReadTrial(after.memory())
					var state bootloader.State
					stateErr := after.Read(func(v *fat.Volume) (err error) {
						state, err = l.State(v)
						return err
					})
					if readErr != nil || stateErr != nil || !found {
						t.Fatalf("%s: trial %v, %v; state %v", where, found, readErr, stateErr)
					}
					e := state.Of(bootloader.B)
					if err == nil && (e.Left != first.Tries || e.Number != remembered.Number) {
						t.Fatalf("%s: armed, and yet %+v, remembered %+v", where, e, remembered)
					}
					if e.Left > 0 && e.Number < remembered.Number {
						t.Fatalf("%s: an old arming is alive: %+v, remembered %+v", where, e, remembered)
					}
					givesUp(t, where, l, cut, whole)
					comesUp(t, where, l, cut, whole)
				}
				if err == nil {
					break
				}
			}
			w = on(l, start, forEver)
			stale := first
			stale.Number += 5
			err = w.Edit(func(v *fat.Volume) error {
				_, err := memory.Rearm(v, l, w.memory(), stale, when)
				return err
			})
			if !errors.Is(err, memory.ErrArmedSince) {
				t.Errorf("another arming than the loader's: %v", err)
			}
		})
	}
}
