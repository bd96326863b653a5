package slot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// seeds is how many outcomes of each cut are looked at: KOGGE_CUT_SEEDS, or as many as
// `make test` has time for; with -short a few.
func seeds(t *testing.T) uint64 {
	text := os.Getenv("KOGGE_CUT_SEEDS")
	switch {
	case text == "" && testing.Short():
		return 8
	case text == "":
		return 64
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		t.Fatalf("KOGGE_CUT_SEEDS: %q is no number of seeds", text)
	}
	return n
}

// TestUpdatePowerCut cuts the power at every write of a whole update: retire, stage, arm,
// the loader's count, bless; of the disk and of the files on STATE at the same instant.
// Each time the node has to come up within four boots, with the old release or the whole
// new one; and then the update can be made again.
func TestUpdatePowerCut(t *testing.T) {
	for name, l := range loaders(t) {
		old, newer, newest := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9), release(t, l, "1.2", 3, 6)
		whole := map[string]made{"1.0": old, "1.1": newer, "1.2": newest}
		image := flash(t, l, old)
		first := func(w *world, from booted) (booted, error) { return w.update(t, from, newer, whole) }
		for _, c := range []struct {
			name   string
			before []func(*world, booted) (booted, error)
			do     func(*world, booted) (booted, error)
			from   string
			also   string // may come up too
			to     string
		}{
			{"first update", nil, first, "1.0", "", "1.1"},
			{
				"second update", []func(*world, booted) (booted, error){first},
				func(w *world, from booted) (booted, error) { return w.update(t, from, newest, whole) }, "1.1", "", "1.2",
			},
			{
				"rollback", []func(*world, booted) (booted, error){first},
				func(w *world, from booted) (booted, error) { return w.rollback(t, from, whole) }, "1.1", "", "1.0",
			},
			{
				"another one before the reboot", nil, func(w *world, from booted) (booted, error) {
					if err := stage(t.Context(), w.as(from), w.memory(), newer.Release, nil, quick); err != nil {
						return from, err
					}
					if _, err := Arm(w.as(from), w.memory(), newer.Digest, lone(t), when); err != nil {
						return from, err
					}
					return w.update(t, from, newest, whole)
				}, "1.0", "1.1", "1.2",
			},
			{
				"a release that has failed", []func(*world, booted) (booted, error){
					func(w *world, from booted) (booted, error) {
						if err := stage(t.Context(), w.as(from), w.memory(), newer.Release, nil, quick); err != nil {
							return from, err
						}
						_, err := Arm(w.as(from), w.memory(), newer.Digest, lone(t), when)
						for range bootloader.Tries {
							if err == nil {
								_, err = w.boot(whole)
							}
						}
						return from, err
					},
				},
				func(w *world, from booted) (booted, error) { return w.rollback(t, from, whole) }, "1.0", "", "1.1",
			},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				start := image
				for _, before := range c.before {
					w := on(l, start, forEver)
					b, err := w.boot(whole)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := before(w, b); err != nil {
						t.Fatal(err)
					}
					start = w.off(1)
				}
				cutEverywhere(t, l, start, whole, []string{c.from, c.also}, c.to, c.do)
			})
		}
	}
}

func cutEverywhere(t *testing.T, l bootloader.Loader, start content, whole map[string]made, from []string, to string, do func(*world, booted) (booted, error)) {
	t.Helper()
	seeds := seeds(t)
	seen := map[uint64]bool{}
	ends := map[string]int{}
	for writes := 0; ; writes++ {
		w := on(l, start, writes)
		b, err := w.boot(whole)
		if err == nil {
			b, err = do(w, b)
		}
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatalf("writes=%d: %v", writes, err)
		}
		if err == nil && b.version != to {
			t.Fatalf("the update came to %+v", b)
		}
		for seed := range seeds {
			cut := w.off(seed)
			sum := cut.sum()
			if seen[sum] {
				continue
			}
			seen[sum] = true
			where := fmt.Sprintf("writes=%d seed=%d", writes, seed)
			givesUp(t, where, l, cut, whole)
			w, b := comesUp(t, where, l, cut, whole)
			if !slices.Contains(from, b.version) && b.version != to || err == nil && b.version != to {
				t.Fatalf("%s: came up with release %q", where, b.version)
			}
			ends[b.version]++
			if b.version == from[0] && seed < 4 {
				if b, err := do(w, b); err != nil || b.version != to {
					t.Fatalf("%s: once more: %+v, %v", where, b, err)
				}
				clean(t, where, w)
			}
		}
		if err == nil {
			t.Logf("%d writes, %d different outcomes; old and new: %v", writes, len(seen), ends)
			return
		}
	}
}

// comesUp boots a world until it works, at most four times, and has it do what a node does
// then.
func comesUp(t *testing.T, where string, l bootloader.Loader, c content, whole map[string]made) (*world, booted) {
	t.Helper()
	w := on(l, c, forEver)
	noMixed(t, where, w, whole)
	var errs []error
	for range 4 {
		b, err := w.boot(whole)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := w.Edit(func(*fat.Volume) error { return nil }); err != nil {
			t.Fatalf("%s: repair: %v", where, err)
		}
		known(t, where, w, b)
		if err := w.good(b); err != nil {
			t.Fatalf("%s: bless %+v: %v", where, b, err)
		}
		b.trial = false
		return w, b
	}
	t.Fatalf("%s: dead: %v", where, errors.Join(errs...))
	return nil, booted{}
}

// givesUp boots a world whose slot on trial is so bad that it does not live to say so: a
// proven slot has to run after no more tries than a slot has.
func givesUp(t *testing.T, where string, l bootloader.Loader, c content, whole map[string]made) {
	t.Helper()
	w := on(l, c, forEver)
	var boots []booted
	for range bootloader.Tries + 1 {
		b, err := w.boot(whole)
		if err != nil {
			t.Fatalf("%s: after %+v: %v", where, boots, err)
		}
		boots = append(boots, b)
		var state bootloader.State
		err = w.Read(func(v *fat.Volume) (err error) {
			state, err = l.State(v)
			return err
		})
		if err != nil {
			t.Fatalf("%s: after %+v: %v", where, boots, err)
		}
		if state.Of(b.slot).Proven() {
			return
		}
	}
	t.Fatalf("%s: a bad release is not given up: %+v", where, boots)
}

// noMixed wants both slots to hold the whole of whatever stage 0 would take them for.
func noMixed(t *testing.T, where string, w *world, whole map[string]made) {
	t.Helper()
	for _, slot := range []bootloader.Slot{bootloader.A, bootloader.B} {
		dev := window{w.disk, rootAt(slot), rootSize}
		for version, m := range whole {
			leads, err := verity.Leads(dev, m.Verity)
			if err == nil && leads {
				err = verity.Verify(dev, m.Verity)
			}
			if err != nil {
				t.Fatalf("%s: slot %s is taken for release %s: %v", where, slot, version, err)
			}
		}
	}
}

// known wants a boot on trial to be one that the node remembers.
func known(t *testing.T, where string, w *world, b booted) {
	t.Helper()
	if !b.trial {
		return
	}
	trial, ok, err := memory.ReadTrial(w.memory())
	if err != nil || !ok || trial.Slot != b.slot || trial.Release != b.version {
		t.Fatalf("%s: on trial is %+v, remembered %+v, %v, %v", where, b, trial, ok, err)
	}
	err = w.Read(func(v *fat.Volume) error {
		s, err := w.loader.State(v)
		if e := s.Of(b.slot); e.Counted && e.Number != trial.Number {
			t.Fatalf("%s: arming %d is remembered, the loader has %d", where, trial.Number, e.Number)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// clean wants a boot partition on which nothing is lost.
func clean(t *testing.T, where string, w *world) {
	t.Helper()
	v, err := fat.Open(w.disk, 0, bootSize)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := v.Check(); err != nil || !report.Clean() {
		t.Fatalf("%s: boot partition: %v, %v", where, report, err)
	}
}
