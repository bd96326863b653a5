package trial

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/init/supervise"
	"kogge.example/init/watchdog"
	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// disks are what a node holds while it is off: boot partition, what it remembers of its
// updates, and the history of boots.
type disks struct {
	boot    []byte
	files   map[string][]byte
	history []byte
}

// crashPart is a boot partition that loses power.
type crashPart struct{ *crashdisk.Disk }

func (p crashPart) Read(read func(*fat.Volume) error) error {
	v, err := fat.Open(p.Disk, 0, tinyBoot)
	if err != nil {
		return err
	}
	return read(v)
}

func (p crashPart) Edit(edit func(*fat.Volume) error) error {
	return p.Read(func(v *fat.Volume) error {
		if _, err := v.Repair(); err != nil {
			return err
		}
		return edit(v)
	})
}

// crashFolder is a folder of STATE that loses power.
type crashFolder struct{ *crashdisk.Files }

func (f crashFolder) Read(name string) ([]byte, error) { return f.ReadFile(name) }
func (f crashFolder) Replace(name string, data []byte) error {
	return durable.ReplaceIn(f.Files, name, data, 0o600)
}

// run is one boot of a node until its trial is concluded, for which the power lasts so many
// writes. It returns the slot that ran, and what is on the disks after a cut, by seed.
func (s disks) run(t *testing.T, name boards.Bootloader, id string, writes int) (slot bootloader.Slot, after func(seed uint64) disks, err error) {
	t.Helper()
	l, err := bootloader.For(name)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	history := filepath.Join(dir, memory.HistoryFile)
	if err := os.WriteFile(history, s.history, 0o600); err != nil {
		t.Fatal(err)
	}
	disk := crashdisk.New(s.boot, 1<<30)
	part := crashPart{disk}
	trial := false
	err = part.Edit(func(v *fat.Volume) error { // the boot loader
		state, err := l.State(v)
		if err != nil {
			return err
		}
		slot, _ = state.Next()
		if trial = state.Of(slot).Counted; trial {
			err = l.Count(v, slot, noon)
		}
		return err
	})
	release := map[bootloader.Slot]string{"A": "1.A", "B": "1.1"}[slot]
	b := &Boot{Node: Node{
		Facts: &control.Boot{Slot: string(slot), Version: release, Trial: trial, Loader: string(name)}, Run: filepath.Join(dir, "run"), ID: id, Part: part, Memory: dir,
		Dog: watchdog.None(nil), Degraded: &supervise.Degraded{}, Say: func(string) {},
		Selected: func() (string, error) { return string(slot), nil }, Pstore: func() (string, error) { return "", nil },
	}}
	_, countErr := b.Count()
	if err := errors.Join(err, countErr, b.NoteUp()); err != nil {
		t.Fatal(err)
	}
	power := crashdisk.NewPower(writes)
	disk, files := crashdisk.NewOn(disk.AfterCut(1), power), crashdisk.NewFiles(s.files, power)
	b.Part, b.folder = crashPart{disk}, crashFolder{files}
	err = b.Conclude()
	text, readErr := os.ReadFile(history)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return slot, func(seed uint64) disks { return disks{disk.AfterCut(seed), files.AfterCut(seed), text} }, err
}

// triedOut is a node whose slot B has used up its tries. assessed says that each was bad.
func triedOut(t *testing.T, name boards.Bootloader, assessed bool) disks {
	t.Helper()
	l, err := bootloader.For(name)
	if err != nil {
		t.Fatal(err)
	}
	disk, files := crashdisk.New(bootDisk(t, l), 1<<30), crashdisk.NewFiles(nil, crashdisk.NewPower(1<<30))
	history := filepath.Join(t.TempDir(), memory.HistoryFile)
	note := func(events ...memory.Event) error {
		var errs []error
		for _, e := range events {
			e.Time = noon
			errs = append(errs, memory.Append(history, e))
		}
		return errors.Join(errs...)
	}
	err = note(
		memory.Event{Boot: "0", Kind: memory.KindUp, Slot: "A", Release: "1.A"},
		memory.Event{Boot: "0", Kind: memory.KindAssessed, Assessment: memory.Good},
		memory.Event{Boot: "0", Kind: memory.KindDown, End: "reboot"})
	err = errors.Join(err, crashPart{disk}.Edit(func(v *fat.Volume) error {
		errs := []error{l.Arm(v, "B", "1.1", bootloader.Tries, noon)}
		state, err := l.State(v)
		errs = append(errs, err, memory.WriteTrial(crashFolder{files}, memory.Trial{
			Slot: "B", Release: "1.1", Digest: "sha256:11", Number: state.B.Number, Tries: bootloader.Tries, Armed: noon, By: "the only voter",
		}))
		for i := range bootloader.Tries {
			id := fmt.Sprintf("try %d", i+1)
			errs = append(errs, l.Count(v, "B", noon), note(memory.Event{Boot: id, Kind: memory.KindUp, Slot: "B", Release: "1.1", Trial: true}))
			if assessed {
				errs = append(errs, note(
					memory.Event{Boot: id, Kind: memory.KindAssessed, Assessment: memory.Bad, Why: "agent not ready"},
					memory.Event{Boot: id, Kind: memory.KindDown, End: "reboot"}))
			}
		}
		return errors.Join(errs...)
	}))
	text, readErr := os.ReadFile(history)
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	return disks{disk.AfterCut(1), files.AfterCut(1), text}
}

// TestConcludePowerCut cuts the power at every write of the end of a trial, and goes on
// booting. Each time the node comes to the same verdict, which counts once; a release that
// is not proven to be bad may be tried once more, and no release more often.
func TestConcludePowerCut(t *testing.T) {
	for _, name := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		for want, assessed := range map[memory.Verdict]bool{memory.Failed: true, memory.Unproven: false} {
			t.Run(fmt.Sprintf("%s/%s", name, want), func(t *testing.T) {
				start, seen := triedOut(t, name, assessed), map[string]bool{}
				for writes := 0; ; writes++ {
					slot, after, err := start.run(t, name, "cut", writes)
					if slot != "A" || err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
						t.Fatalf("%d writes: slot %s, %v", writes, slot, err)
					}
					for seed := range uint64(16) {
						cut := after(seed)
						key := fmt.Sprintf("%q %q", cut.boot, cut.files)
						if !seen[key] {
							seen[key] = true
							endsWell(t, fmt.Sprintf("%d writes, seed %d", writes, seed), name, cut, want)
						}
					}
					if err == nil {
						return
					}
				}
			})
		}
	}
}

// TestConcludeVotes: where several votes decide, or nobody knows how many, PID 1 arms nothing once
// more, whatever cuts it. The release waits, and is not refused.
func TestConcludeVotes(t *testing.T) {
	for _, name := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		for votes, c := range map[string]struct {
			text  string
			tries int
		}{
			"one": {`{"version": 1, "votes": 1}`, bootloader.Tries}, "four": {`{"version": 1, "votes": 4}`, 0},
			"damaged": {"\x00", 0}, "of a later release": {`{"version": 2, "votes": 1}`, 0},
		} {
			t.Run(fmt.Sprintf("%s/%s", name, votes), func(t *testing.T) {
				start, seen := triedOut(t, name, false), map[string]bool{}
				start.files["votes.json"] = []byte(c.text)
				writes := 0
				if c.tries > 0 { // TestConcludePowerCut cuts that
					writes = 1 << 30
				}
				for ; ; writes++ {
					_, after, cut := start.run(t, name, "cut", writes)
					if cut != nil && !errors.Is(cut, crashdisk.ErrPowerCut) {
						t.Fatalf("%d writes: %v", writes, cut)
					}
					for seed := range uint64(8) {
						d := after(seed)
						key := fmt.Sprintf("%q %q", d.boot, d.files)
						if seen[key] {
							continue
						}
						seen[key] = true
						tried := 0
						for boot := range 6 {
							slot, next, err := d.run(t, name, fmt.Sprintf("after %d", boot), 1<<30)
							if err != nil {
								t.Fatal(err)
							}
							if d = next(1); slot == "B" {
								tried++
							}
						}
						failures, err := memory.ReadFailures(crashFolder{crashdisk.NewFiles(d.files, crashdisk.NewPower(1<<30))})
						switch {
						case err != nil || len(failures) != 1 || failures[0].Verdict != memory.Unproven:
							t.Fatalf("%d writes, seed %d: remembered as %+v, %v", writes, seed, failures, err)
						case c.tries == 0 && (tried > 0 || failures[0].Refused()):
							t.Fatalf("%d writes, seed %d: tried %d times more, and remembered as %+v", writes, seed, tried, failures)
						case tried != c.tries:
							t.Fatalf("%d writes, seed %d: tried %d times more", writes, seed, tried)
						}
					}
					if cut == nil {
						return
					}
				}
			})
		}
	}
}

// endsWell boots a node until nothing is left of its trial.
func endsWell(t *testing.T, where string, name boards.Bootloader, d disks, want memory.Verdict) {
	t.Helper()
	tried := 0
	for boot := 1; ; boot++ {
		slot, after, err := d.run(t, name, fmt.Sprintf("after %d", boot), 1<<30)
		if err != nil {
			t.Fatalf("%s: boot %d: %v", where, boot, err)
		}
		if d = after(1); slot == "B" {
			tried++
			continue
		}
		folder := crashFolder{crashdisk.NewFiles(d.files, crashdisk.NewPower(1<<30))}
		_, there, trialErr := memory.ReadTrial(folder)
		failures, err := memory.ReadFailures(folder)
		if trialErr != nil || err != nil || boot > 10 {
			t.Fatalf("%s: boot %d: %v, %v", where, boot, trialErr, err)
		}
		if there {
			continue
		}
		if len(failures) != 1 || failures[0].Verdict != want {
			t.Fatalf("%s: remembered as %+v", where, failures)
		}
		once, twice := failures[0].Times == 1, failures[0].Times == 2
		switch {
		case tried == 0 && once: // for good, if it has failed; the cut forgot to arm it, if not
		case tried == 0 && twice && want == memory.Unproven: // armed by half
		case tried == bootloader.Tries && twice && want == memory.Unproven:
		default:
			t.Fatalf("%s: tried %d times more, and remembered as %+v", where, tried, failures)
		}
		return
	}
}
