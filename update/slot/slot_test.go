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
	"kogge.example/update/crashdisk"
	"kogge.example/update/golden"
	"kogge.example/update/verity"
)

// TestStep prints the answer to every phase and event, for the slot that runs and the one
// that does not.
func TestStep(t *testing.T) {
	var out strings.Builder
	for _, runs := range []bool{false, true} {
		fmt.Fprintf(&out, "the slot that runs: %v\n", runs)
		for _, p := range phases {
			for _, e := range events {
				next, action := p.Step(e, runs)
				if action == ActionRefuse {
					if next != p {
						t.Errorf("%s %s is refused and leads to %s", p, e, next)
					}
					continue
				}
				fmt.Fprintf(&out, "    %-8s %-7s → %-8s %s\n", p, e, next, action)
			}
		}
	}
	fmt.Fprintln(&out, "everything else is refused")
	golden.Compare(t, "steps.txt", out.String())
}

// TestPhase prints where a slot stands by what is remembered and what the loader says.
func TestPhase(t *testing.T) {
	var out strings.Builder
	for _, record := range []struct {
		name string
		*Record
	}{{"nothing", nil}, {"some of a release", &Record{}}, {"a whole release", &Record{Whole: true}}} {
		fmt.Fprintf(&out, "remembered: %s\n", record.name)
		for _, e := range []bootloader.Entry{
			{},
			{Present: true, Version: "1.1", Number: 2},
			{Present: true, Version: "1.1", Number: 2, Counted: true, Left: 3},
			{Present: true, Version: "1.1", Number: 2, Counted: true, Left: 1, Done: 2},
			{Present: true, Version: "1.1", Number: 2, Counted: true, Done: 3},
		} {
			fmt.Fprintf(&out, "    %-58s %-8s  if it runs: %s\n", e, phaseOf(record.Record, e, false), phaseOf(record.Record, e, true))
		}
	}
	golden.Compare(t, "phases.txt", out.String())
}

// TestAuthorisation: nobody but a lone voter can make one in this release.
func TestAuthorisation(t *testing.T) {
	for voters, want := range map[int]string{
		1:  "",
		0:  "nobody has authorised it: this fleet has 0 voters: an update needs the certificate of their vote",
		3:  "nobody has authorised it: this fleet has 3 voters: an update needs the certificate of their vote",
		-1: "nobody has authorised it: this fleet has -1 voters: an update needs the certificate of their vote",
	} {
		a, err := LoneVoter(voters, "shelf")
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && (err != nil || a.String() != "the only voter of fleet shelf") {
			t.Errorf("%d voters: %v, %v", voters, a, err)
		}
	}
	if _, err := LoneVoter(1, "a\nb"); err == nil {
		t.Error("a name of two lines")
	}
	if _, err := Certificate([]byte("x")); !errors.Is(err, ErrUnauthorised) {
		t.Errorf("certificate: %v", err)
	}
	if _, err := BreakGlass([]byte("x")); !errors.Is(err, ErrUnauthorised) {
		t.Errorf("break-glass: %v", err)
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
		{"another release", func(_ *world, _ *Disk, digest *string, _ *Authorisation) { *digest = "sha256:1.2" }, ErrNotStaged},
		{"on trial", func(_ *world, d *Disk, _ *string, _ *Authorisation) { d.Trial = true }, ErrOnTrial},
		{"failed since", func(_ *world, d *Disk, _ *string, _ *Authorisation) {
			d.Refused = func(string, string) (string, bool) { return "kernel panic", true }
		}, ErrFailedBefore},
		{"the floor rose since", func(w *world, _ *Disk, _ *string, _ *Authorisation) {
			if err := w.memory().Replace(floorFile, []byte(`{"version": 1, "floor": 3}`)); err != nil {
				t.Fatal(err)
			}
		}, ErrBelowFloor},
		{"the running release changed its schema", func(_ *world, d *Disk, _ *string, _ *Authorisation) {
			d.Schema = Schema{Reads: [2]int{2, 3}, Writes: 2}
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
				f, floorErr := ReadFloor(w.memory())
				if floorErr != nil {
					t.Fatal(floorErr)
				}
				if err != nil {
					fmt.Fprintf(&out, "%-30s %v\n", what, err)
				}
				fmt.Fprintf(&out, "%-30s runs %s from slot %s, floor %d, blessed %d\n", what, b.version, b.slot, f.Floor, f.Blessed)
				if _, ok, err := ReadTrial(w.memory()); ok || err != nil {
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
	show(stagedFile)
	show(trialFile)
	b := running(t, w, whole)
	if err := w.good(b); err != nil {
		t.Fatal(err)
	}
	show(floorFile)
	golden.Compare(t, "memory.txt", out.String())
}

// TestMemoryReleased reads what releases of Kogge have written: every later one does.
func TestMemoryReleased(t *testing.T) {
	m := Folder(filepath.Join("testdata", "released-1"))
	records, err := ReadRecords(m)
	if err != nil || len(records) != 2 || !records[bootloader.B].Whole || records[bootloader.B].Counter != 2 {
		t.Errorf("%s: %+v, %v", stagedFile, records, err)
	}
	trial, ok, err := ReadTrial(m)
	if err != nil || !ok || trial.Slot != bootloader.B || trial.Number != 2 || trial.Tries != 3 || trial.Verity.Blocks != 9 || trial.By != "the only voter of fleet shelf" {
		t.Errorf("%s: %+v, %v, %v", trialFile, trial, ok, err)
	}
	floor, err := ReadFloor(m)
	if want := (Floor{Floor: 0, Blessed: 2, Digest: "sha256:1.1"}); err != nil || floor != want {
		t.Errorf("%s: %+v, %v", floorFile, floor, err)
	}
}

// TestMemoryRefuses reads what no release has written.
func TestMemoryRefuses(t *testing.T) {
	m := Folder(t.TempDir())
	for _, c := range []struct{ name, text, want string }{
		{floorFile, `{"version": 2, "floor": 5}`, "version 2; this release reads version 1"},
		{floorFile, `{"floor": 5}`, "version 0"},
		{floorFile, `{"version": 1, "flor": 5}`, `unknown field "flor"`},
		{floorFile, `{"version": 1, "floor": -1}`, "floor"},
		{floorFile, ``, "end of JSON"},
		{floorFile, strings.Repeat(" ", maxMemory+1), "bytes are more than"},
		{stagedFile, `{"version": 2, "slots": {"A": {}}}`, "version 2; this release reads version 1: a newer one wrote it"},
		{trialFile, `{"version": 2}`, "version 2"},
		// Damaged: forgotten.
		{stagedFile, `{"version": 1, "slots": {"C": {}}}`, ""},
		{stagedFile, `{"version": 1, "slots": {"A": null}}`, ""},
		{stagedFile, `{"version": 1, "slots": {"A": {"verity": "x"}}}`, ""},
		{stagedFile, `{"version": 1, "slots": {"A": {"verity": "` + strings.Repeat("0", 64) + ":" + strings.Repeat("0", 64) + `:1", "written": 8192}}}`, ""},
		{stagedFile, "\x00\x00\x00", ""},
		{trialFile, `{"version": 1, "slot": "C"}`, ""},
		{trialFile, `{"version": 1, "slot": "A", "verity": "x"}`, ""},
		{trialFile, ``, ""},
	} {
		if err := m.Replace(c.name, []byte(c.text)); err != nil {
			t.Fatal(err)
		}
		var err error
		var found bool
		switch c.name {
		case floorFile:
			_, err = ReadFloor(m)
		case stagedFile:
			var records map[bootloader.Slot]*Record
			records, err = ReadRecords(m)
			found = len(records) > 0
		case trialFile:
			_, found, err = ReadTrial(m)
		}
		switch {
		case c.want == "" && (err != nil || found):
			t.Errorf("%s %.60s: %v, %v", c.name, c.text, found, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.name)):
			t.Errorf("%s %.60s: %v", c.name, c.text, err)
		}
		if err := m.Remove(c.name); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := ReadTrial(m); ok || err != nil {
		t.Errorf("nothing: %v, %v", ok, err)
	}
	if err := EndTrial(m); err != nil {
		t.Errorf("end no trial: %v", err)
	}
	if _, err := m.Read("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzMemory reads any bytes for what is remembered: no panic, and what is accepted is
// written back as something that is accepted.
func FuzzMemory(f *testing.F) {
	for _, name := range []string{stagedFile, trialFile, floorFile} {
		data, err := os.ReadFile(filepath.Join("testdata", "released-1", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := remembered{crashdisk.NewFiles(map[string][]byte{stagedFile: data, trialFile: data, floorFile: data}, crashdisk.NewPower(forEver))}
		if s, err := readStaged(m); err == nil {
			if err := write(m, stagedFile, s); err != nil {
				t.Fatal(err)
			}
			if _, err := readStaged(m); err != nil && len(data) < maxMemory/4 {
				t.Errorf("what was written is refused: %v", err)
			}
		}
		if trial, ok, err := ReadTrial(m); err == nil && ok {
			if trial.Armed.Year() < 0 || trial.Armed.Year() > 9999 {
				return // JSON has no such times
			}
			if err := writeTrial(m, trial); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ReadTrial(m); err != nil && len(data) < maxMemory/4 {
				t.Errorf("what was written is refused: %v", err)
			}
		}
		if floor, err := ReadFloor(m); err == nil {
			if next := floor.after(floor.Blessed+1, "sha256:next"); next.Floor < floor.Floor {
				t.Errorf("the floor went from %d to %d", floor.Floor, next.Floor)
			}
		}
	})
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
