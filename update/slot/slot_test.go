package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/golden"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// TestAuthorisation: where there is more than one voter, none of them can make one alone.
func TestAuthorisation(t *testing.T) {
	for voters, want := range map[int]string{
		1:  "",
		0:  "nobody has authorised it: this fleet has 0 voters: an update needs the owner's permit",
		3:  "nobody has authorised it: this fleet has 3 voters: an update needs the owner's permit",
		-1: "nobody has authorised it: this fleet has -1 voters: an update needs the owner's permit",
	} {
		a, err := LoneVoter(voters, "shelf")
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && (err != nil || a.String() != "the only voter of fleet shelf") {
			t.Errorf("%d voters: %v, %v", voters, a, err)
		}
	}
	if _, err := LoneVoter(1, "a\nb"); err == nil {
		t.Error("a name of two lines")
	}
}

// TestStageUnauthorised: without a right not a byte is written.
func TestStageUnauthorised(t *testing.T) {
	l := loaders(t)["systemd-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	w := on(l, flash(t, l, old), forEver)
	from := running(t, w, map[string]made{"1.0": old})
	before := w.off(1)
	err := Stage(t.Context(), w.as(from), w.memory(), newer.Release, Authorisation{}, nil)
	if !errors.Is(err, ErrUnauthorised) {
		t.Errorf("got %v, want %v", err, ErrUnauthorised)
	}
	if w.off(1).sum() != before.sum() {
		t.Error("and yet something was written")
	}
}

// TestArm asks for what must not be armed: no entry, no trial.
func TestArm(t *testing.T) {
	l := loaders(t)["u-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	w := on(l, flash(t, l, old), forEver)
	from := running(t, w, whole)
	if _, err := Rollback(w.as(from), w.memory(), lone(t), when); !errors.Is(err, ErrNotStaged) {
		t.Errorf("back to an empty slot: %v", err)
	}
	if err := stage(t.Context(), w.as(from), w.memory(), newer.Release, nil, quick); err != nil {
		t.Fatal(err)
	}
	staged := w.off(1)
	for _, c := range []struct {
		name   string
		change func(*world, *Disk, *string, *Authorisation)
		want   error
	}{
		{"by nobody", func(_ *world, _ *Disk, _ *string, a *Authorisation) { *a = Authorisation{} }, ErrUnauthorised},
		{"only some of it is written", func(w *world, _ *Disk, _ *string, _ *Authorisation) {
			records, err := memory.ReadStaged(w.memory())
			if err != nil {
				t.Fatal(err)
			}
			records["B"].Whole = false
			if err := memory.WriteStaged(w.memory(), records); err != nil {
				t.Fatal(err)
			}
		}, ErrNotStaged},
		{"another release", func(_ *world, _ *Disk, digest *string, _ *Authorisation) { *digest = "sha256:1.2" }, ErrNotStaged},
		{"on trial", func(_ *world, d *Disk, _ *string, _ *Authorisation) { d.Trial = true }, ErrOnTrial},
		{"failed since", func(_ *world, d *Disk, _ *string, _ *Authorisation) {
			d.Refused = func(string, string) (string, bool) { return "kernel panic", true }
		}, ErrFailedBefore},
		{"the floor rose since", func(w *world, _ *Disk, _ *string, _ *Authorisation) {
			if err := w.memory().Replace(memory.FloorFile, []byte(`{"version": 1, "floor": 3}`)); err != nil {
				t.Fatal(err)
			}
		}, ErrBelowFloor},
		{"the running release changed its schema", func(_ *world, d *Disk, _ *string, _ *Authorisation) {
			d.Schema = memory.Schema{Reads: [2]int{2, 3}, Writes: 2}
		}, ErrSchema},
		{"the root was overwritten since", func(w *world, _ *Disk, _ *string, _ *Authorisation) {
			if _, err := w.disk.WriteAt(make([]byte, 4096), rootAt("B")); err != nil {
				t.Fatal(err)
			}
		}, ErrNotStaged},
		{"a kernel was lost since", func(w *world, d *Disk, _ *string, _ *Authorisation) { d.Loader = without{d.Loader} }, bootloader.ErrEmpty},
	} {
		w := on(l, staged, forEver)
		d, digest, by := w.as(from), newer.Digest, lone(t)
		c.change(w, &d, &digest, &by)
		if _, err := Arm(d, w.memory(), digest, by, when); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if b := running(t, w, whole); b.version != "1.0" || b.trial {
			t.Errorf("%s: and yet it starts %+v", c.name, b)
		}
	}
}

// without is a loader that finds no boot files when it arms.
type without struct{ bootloader.Loader }

func (w without) Arm(bootloader.Files, bootloader.Slot, string, int, time.Time) error {
	return bootloader.ErrEmpty
}

// TestLife goes up and down through releases: each boots what was armed, and the floor
// follows one step behind.
func TestLife(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			whole := map[string]made{}
			var all []made
			for i, blocks := range []int{10, 6, 8, 7} {
				m := release(t, l, fmt.Sprintf("1.%d", i), uint64(i+1), blocks)
				whole[m.Version], all = m, append(all, m)
			}
			w := on(l, flash(t, l, all[0]), forEver)
			b := running(t, w, whole)
			var out strings.Builder
			note := func(what string, err error) {
				f, floorErr := memory.ReadFloor(w.memory())
				if floorErr != nil {
					t.Fatal(floorErr)
				}
				if err != nil {
					fmt.Fprintf(&out, "%-30s %v\n", what, err)
				}
				fmt.Fprintf(&out, "%-30s runs %s from slot %s, floor %d, blessed %d\n", what, b.version, b.slot, f.Lowest, f.Blessed)
				if _, ok, err := memory.ReadTrial(w.memory()); ok || err != nil {
					t.Errorf("%s: a trial is left: %v", what, err)
				}
				clean(t, what, w)
			}
			update := func(i int) {
				next, err := w.update(t, b, all[i], whole)
				if err == nil {
					b = next
				}
				note("update to "+all[i].Version, err)
			}
			back := func() {
				next, err := w.rollback(t, b, whole)
				if err == nil {
					b = next
				}
				note("roll back", err)
			}
			note("fresh", nil)
			update(1)
			back() // to what the image brought
			back() // forward again
			update(1)
			update(0) // older, by staging
			update(1)
			update(2)
			update(0) // below the floor
			update(1)
			update(2)
			update(3)
			back()
			update(3)
			golden.Compare(t, "life-"+name+".txt", out.String())
		})
	}
}

// TestLeftOver puts a short release over a long one, whose hash tree stays behind it, and
// then the long one into the other slot: it must be found there, and not in what is left
// of it.
func TestLeftOver(t *testing.T) {
	for name, l := range loaders(t) {
		long, short, middle := release(t, l, "1.0", 1, 10), release(t, l, "1.1", 2, 5), release(t, l, "1.2", 3, 6)
		whole := map[string]made{"1.0": long, "1.1": short, "1.2": middle}
		w := on(l, flash(t, l, long), forEver)
		b := running(t, w, whole)
		var err error
		for _, next := range []made{short, middle} { // into B, then into A, over the long one
			if b, err = w.update(t, b, next, whole); err != nil {
				t.Fatal(err)
			}
		}
		if b.slot != bootloader.A {
			t.Fatalf("%+v", b)
		}
		// All of it but the first blocks still lies in A.
		tree := long.content[RootPart][10*verity.BlockSize:]
		got := make([]byte, len(tree))
		if _, err := w.disk.ReadAt(got, rootAt("A")+10*verity.BlockSize); err != nil || !bytes.Equal(got, tree) {
			t.Fatal("the test is not about what it says")
		}
		long.Counter = 4
		if b, err = w.update(t, b, long, whole); err != nil || b.version != "1.0" || b.slot != bootloader.B {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}

// TestMemory shows the files that an update leaves on STATE, in the form that later
// releases have to read.
func TestMemory(t *testing.T) {
	l := loaders(t)["systemd-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	w := on(l, flash(t, l, old), forEver)
	from := running(t, w, whole)
	if err := stage(t.Context(), w.as(from), w.memory(), newer.Release, nil, quick); err != nil {
		t.Fatal(err)
	}
	if _, err := Arm(w.as(from), w.memory(), newer.Digest, lone(t), when); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	show := func(name string) {
		data, err := w.memory().Read(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n%s\n", name, data)
	}
	show(memory.StagedFile)
	show(memory.TrialFile)
	b := running(t, w, whole)
	if err := w.good(b); err != nil {
		t.Fatal(err)
	}
	show(memory.FloorFile)
	golden.Compare(t, "memory.txt", out.String())
}

// TestPartition locks a partition against a second update.
func TestPartition(t *testing.T) {
	name := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := OpenPartition(name)
	if err != nil {
		t.Fatal(err)
	}
	if r := p.Root(); r.Size != 1<<20 {
		t.Errorf("%d bytes", r.Size)
	}
	if _, err := OpenPartition(name); !errors.Is(err, ErrBusy) {
		t.Errorf("a second update: %v", err)
	}
	for _, at := range []int64{-1, 1<<20 - 3, 1 << 62} {
		if _, err := p.WriteAt([]byte("four"), at); err == nil {
			t.Errorf("written at %d", at)
		}
	}
	if _, err := p.WriteAt([]byte("four"), 1<<20-4); err != nil {
		t.Error(err)
	}
	got := make([]byte, 4)
	if err := errors.Join(p.Sync(), p.DropCaches()); err != nil {
		t.Error(err)
	}
	if _, err := p.ReadAt(got, 1<<20-4); err != nil || string(got) != "four" {
		t.Errorf("%q, %v", got, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if p, err = OpenPartition(name); err != nil {
		t.Errorf("after it: %v", err)
	} else if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenPartition(name + ".gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no partition: %v", err)
	}
}
