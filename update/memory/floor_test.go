package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
)

// decaying is a Folder one of whose files the disk does not give out any more, until it is
// written anew.
type decaying struct {
	Folder
	name string
	err  error
}

func (d *decaying) Read(name string) ([]byte, error) {
	if name == d.name && d.err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: d.err}
	}
	return d.Folder.Read(name)
}

func (d *decaying) Replace(name string, data []byte) error {
	if name == d.name {
		d.err = nil
	}
	return d.Folder.Replace(name, data)
}

// TestDecay: a file that the disk does not give out any more is one that it has made something
// else of. What else keeps it from being read passes, and is an error.
func TestDecay(t *testing.T) {
	for _, c := range []struct {
		err     error
		forgets bool
	}{{syscall.EIO, true}, {syscall.EBADMSG, true}, {syscall.EUCLEAN, true}, {syscall.EMFILE, false}, {syscall.EACCES, false}} {
		of := func(name string) *decaying { return &decaying{In(t.TempDir()), name, c.err} }
		_, staged := ReadStaged(of(StagedFile))
		_, _, trial := ReadTrial(of(TrialFile))
		_, failures := ReadFailures(of(failuresName))
		for name, err := range map[string]error{StagedFile: staged, TrialFile: trial, failuresName: failures} {
			if (err == nil) != c.forgets {
				t.Errorf("%v: %s: %v", c.err, name, err)
			}
		}
		_, floor := ReadFloor(of(FloorFile))
		_, votes := ReadVotes(of(votesName))
		if floor == nil || votes == nil {
			t.Errorf("%v: %s: %v; %s: %v", c.err, FloorFile, floor, votesName, votes)
		}
		m := of(FloorFile)
		if why, err := (Floor{Lowest: 7, Blessed: 7}).Anew(m); (err == nil) != c.forgets || (why != nil) != c.forgets {
			t.Errorf("%v: the floor: %v, %v", c.err, why, err)
		} else if f, err := ReadFloor(m); c.forgets && (err != nil || f != Floor{Lowest: 7, Blessed: 7}) {
			t.Errorf("%v: the floor is %+v, %v", c.err, f, err)
		}
	}
	m := In(t.TempDir())
	if err := m.Replace(failuresName, make([]byte, maxFailuresFile+1)); err != nil {
		t.Fatal(err)
	}
	if failures, err := ReadFailures(m); err != nil || len(failures) > 0 {
		t.Errorf("a memory of failures that is far too large: %v, %v", failures, err)
	}
}

// TestFloorAnew: only a damaged floor begins anew, and by a release that says its counter.
func TestFloorAnew(t *testing.T) {
	const good = `{"version": 1, "floor": 3, "blessed": 5}`
	for text, c := range map[string]struct {
		counter uint64
		lowest  uint64 // 0: it is an error
		anew    bool
	}{
		good: {9, 3, false}, "\x00": {9, 9, true}, "{}": {9, 9, true}, `{"version": 1, "floor": -1}`: {9, 9, true},
		"": {0, 0, false}, `{"version": 2, "floor": 3}`: {9, 0, false},
	} {
		m := In(t.TempDir())
		if err := m.Replace(FloorFile, []byte(text)); err != nil {
			t.Fatal(err)
		}
		why, err := (Floor{Lowest: c.counter, Blessed: c.counter}).Anew(m)
		f, readErr := ReadFloor(m)
		if (why != nil) != c.anew || (err != nil) != (c.lowest == 0) || (readErr != nil) != (c.lowest == 0) || c.lowest > 0 && f.Lowest != c.lowest {
			t.Errorf("%q: %v, %v; the floor is %+v, %v", text, why, err, f, readErr)
		}
	}
	if why, err := (Floor{Lowest: 9, Blessed: 9}).Anew(In(t.TempDir())); why != nil || err != nil {
		t.Errorf("a node that was never updated: %v, %v", why, err)
	}
}

// TestSettleDamaged: a slot that was blessed ends its trial whatever became of the floor, which
// begins anew with it. Each write of that may be the last one before a cut.
func TestSettleDamaged(t *testing.T) {
	for _, trial := range []Trial{
		{Slot: bootloader.B, Release: "1.1", Digest: "sha256:1.1", Counter: 6, Tries: 3},
		{Slot: bootloader.B, Release: "1.0", Counter: 4, Tries: 3}, // what an image brought
	} {
		for writes := 0; ; writes++ {
			start := crashdisk.NewFiles(map[string][]byte{FloorFile: []byte("\x00")}, crashdisk.NewPower(forEver))
			if err := WriteTrial(remembered{start}, trial); err != nil {
				t.Fatal(err)
			}
			files := crashdisk.NewFiles(start.AfterCut(1), crashdisk.NewPower(writes))
			_, _, err := Settle(remembered{files})
			if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
				t.Fatal(err)
			}
			for seed := range uint64(16) {
				where := fmt.Sprintf("release %s, writes=%d seed=%d", trial.Release, writes, seed)
				m := remembered{crashdisk.NewFiles(files.AfterCut(seed), crashdisk.NewPower(forEver))}
				if _, _, err := Settle(m); err != nil {
					t.Fatalf("%s: again: %v", where, err)
				}
				f, err := ReadFloor(m)
				_, armed, trialErr := ReadTrial(m)
				if want := (Floor{Lowest: trial.Counter, Blessed: trial.Counter, Digest: trial.Digest}); err != nil || f != want || armed || trialErr != nil {
					t.Fatalf("%s: the floor is %+v, %v; armed %v, %v", where, f, err, armed, trialErr)
				}
			}
			if err == nil {
				break
			}
		}
	}
}
