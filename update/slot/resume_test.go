package slot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/verity"
)

// TestStageResumes breaks off at many places, and counts what the next attempt asks for.
func TestStageResumes(t *testing.T) {
	l := loaders(t)["systemd-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	image := flash(t, l, old)
	size := len(newer.content[RootPart])
	for stop := 0; stop < size; stop += 3000 {
		w := on(l, image, forEver)
		from := running(t, w, whole)
		broken := newer.openAs(RootPart, reads(func(b []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(b[:min(stop, len(b))]), iotest.ErrReader(errPulled))
		}, newer.content[RootPart]))
		if err := stage(context.Background(), w.as(from), w.memory(), broken, nil, quick); !errors.Is(err, errPulled) {
			t.Fatalf("stop=%d: %v", stop, err)
		}
		opened := map[string]int64{}
		again := newer.Release
		again.Parts = bytesOf(again.Parts)
		for i, p := range again.Parts {
			again.Parts[i].Open = func(ctx context.Context, offset int64) (io.ReadCloser, error) {
				if _, twice := opened[p.Name]; twice {
					t.Errorf("stop=%d: %s is opened twice", stop, p.Name)
				}
				opened[p.Name] = offset
				return p.Open(ctx, offset)
			}
		}
		var last int64
		tell := func(_ string, done, total int64) {
			if done < last || done > total {
				t.Errorf("stop=%d: progress goes from %d to %d of %d", stop, last, done, total)
			}
			last = done
		}
		if err := stage(context.Background(), w.as(from), w.memory(), again, tell, quick); err != nil {
			t.Fatalf("stop=%d: again: %v", stop, err)
		}
		if want := int64(stop / verity.BlockSize * verity.BlockSize); want > verity.BlockSize && opened[RootPart] != want {
			t.Errorf("stop=%d: goes on at %d, want %d", stop, opened[RootPart], want)
		}
		if _, ok := opened["uki"]; ok && stop > 2*verity.BlockSize {
			t.Errorf("stop=%d: the uki is fetched again", stop)
		}
		if got, want := last, totalSize(again); got != want {
			t.Errorf("stop=%d: progress ends at %d of %d", stop, got, want)
		}
		// The same release once more: nothing is opened, nothing is written.
		clear(opened)
		used := w.power.Used()
		if err := stage(context.Background(), w.as(from), w.memory(), again, nil, quick); err != nil || len(opened) > 0 || w.power.Used() != used {
			t.Errorf("stop=%d: a third time: %v, opened %v, %d writes", stop, err, opened, w.power.Used()-used)
		}
	}
	// What lies there was changed in between: found, and all of it fetched again.
	w := on(l, image, forEver)
	from := running(t, w, whole)
	broken := newer.openAs(RootPart, reads(func(b []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(b[:10000]), iotest.ErrReader(errPulled))
	}, newer.content[RootPart]))
	if err := stage(context.Background(), w.as(from), w.memory(), broken, nil, quick); !errors.Is(err, errPulled) {
		t.Fatal(err)
	}
	if _, err := w.disk.WriteAt([]byte("decay"), rootAt("B")+9000); err != nil {
		t.Fatal(err)
	}
	if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
		t.Errorf("after decay: %+v, %v", b, err)
	}
}

func totalSize(r Release) (sum int64) {
	for _, p := range r.Parts {
		sum += p.Size
	}
	return sum
}

// TestStageCancelled ends with its context, at once, and can go on.
func TestStageCancelled(t *testing.T) {
	l := loaders(t)["u-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	w := on(l, flash(t, l, old), forEver)
	from := running(t, w, whole)
	for stop := int64(0); ; stop += 2000 {
		ctx, cancel := context.WithCancelCause(context.Background())
		err := stage(ctx, w.as(from), w.memory(), newer.Release, func(_ string, done, _ int64) {
			if done >= stop {
				cancel(nil)
			}
		}, quick)
		cancel(nil)
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stop=%d: %v", stop, err)
		}
	}
	if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestCutsWhileStaging cuts the power 200 times while staging, at one place or another:
// nothing is lost on the boot partition, and then the update still fits and installs.
func TestCutsWhileStaging(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old := release(t, l, "1.0", 1, 7)
			whole := map[string]made{"1.0": old}
			var next []made
			for i := range 4 {
				m := release(t, l, fmt.Sprintf("1.%d", i+1), uint64(i+2), 6+i)
				whole[m.Version] = m
				next = append(next, m)
			}
			random := rand.New(rand.NewPCG(1, 2))
			c := flash(t, l, old)
			for round, cuts := 0, 0; cuts < 200; round++ {
				w := on(l, c, random.IntN(60))
				b, err := w.boot(whole)
				if err == nil {
					err = stage(context.Background(), w.as(b), w.memory(), next[round/7%4].Release, nil, quick)
				}
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("after %d cuts: %v", cuts, err)
				}
				if err != nil {
					cuts++
				}
				c = w.off(uint64(random.IntN(1000)))
			}
			w := on(l, c, forEver)
			if err := w.Edit(func(*fat.Volume) error { return nil }); err != nil {
				t.Fatal(err)
			}
			clean(t, "after 200 cuts", w)
			from := running(t, w, whole)
			if from.version != "1.0" || from.trial {
				t.Fatalf("runs %+v", from)
			}
			if b, err := w.update(t, from, next[3], whole); err != nil || b.version != "1.4" {
				t.Fatalf("the next update: %+v, %v", b, err)
			}
			clean(t, "after the update", w)
		})
	}
}
