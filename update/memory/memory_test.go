package memory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
)

// remembered is a Folder in memory.
type remembered struct{ files *crashdisk.Files }

func (r remembered) Read(name string) ([]byte, error) { return r.files.ReadFile(name) }
func (r remembered) Replace(name string, data []byte) error {
	return durable.ReplaceIn(r.files, name, data, 0o600)
}
func (r remembered) Remove(name string) error { return r.files.Remove(name) }

const forEver = 1 << 30 // writes

// TestReleased reads what releases of Kogge have written: every later one does.
func TestReleased(t *testing.T) {
	m := In(filepath.Join("testdata", "released-1"))
	staged, err := ReadStaged(m)
	if err != nil || len(staged) != 2 || !staged[bootloader.B].Whole || staged[bootloader.B].Counter != 2 {
		t.Errorf("%s: %+v, %v", StagedFile, staged, err)
	}
	trial, ok, err := ReadTrial(m)
	if err != nil || !ok || trial.Slot != bootloader.B || trial.Number != 2 || trial.Tries != 3 || !strings.HasSuffix(trial.Verity, ":9") || trial.By != "the only voter of fleet shelf" {
		t.Errorf("%s: %+v, %v, %v", TrialFile, trial, ok, err)
	}
	floor, err := ReadFloor(m)
	if want := (Floor{Lowest: 0, Blessed: 2, Digest: "sha256:1.1"}); err != nil || floor != want {
		t.Errorf("%s: %+v, %v", FloorFile, floor, err)
	}
}

// TestRefuses reads what no release has written.
func TestRefuses(t *testing.T) {
	m := In(t.TempDir())
	for _, c := range []struct{ name, text, want string }{
		{FloorFile, `{"version": 2, "floor": 5}`, "version 2; this release reads version 1"},
		{FloorFile, `{"floor": 5}`, "version 0"},
		{FloorFile, `{"version": 1, "flor": 5}`, `unknown field "flor"`},
		{FloorFile, `{"version": 1, "floor": -1}`, "floor"},
		{FloorFile, ``, "end of JSON"},
		{FloorFile, strings.Repeat(" ", maxMemory+1), "bytes are more than"},
		{StagedFile, `{"version": 2, "slots": {"A": {}}}`, "version 2; this release reads version 1: a newer one wrote it"},
		{TrialFile, `{"version": 2}`, "version 2"},
		{votesName, `{"version": 2, "votes": 1}`, "version 2"},
		{votesName, `{"version": 1}`, "0 votes"},
		{votesName, `{"version": 1, "votes": -3}`, "-3 votes"},
		{votesName, `{"version": 1, "votes": 1.5}`, "votes"},
		{votesName, "", "end of JSON"},
		{votesName, "\x00\x00", "damaged"},
		// Damaged: forgotten.
		{StagedFile, `{"version": 1, "slots": {"C": {}}}`, ""},
		{StagedFile, `{"version": 1, "slots": {"A": null}}`, ""},
		{StagedFile, `{"version": 1, "slots": {"A": {"verity": "x"}}}`, ""},
		{StagedFile, `{"version": 1, "slots": {"A": {"verity": "` + strings.Repeat("0", 64) + ":" + strings.Repeat("0", 64) + `:1", "written": 8192}}}`, ""},
		{StagedFile, "\x00\x00\x00", ""},
		{TrialFile, `{"version": 1, "slot": "C"}`, ""},
		{TrialFile, `{"version": 1, "slot": "A", "verity": "x"}`, ""},
		{TrialFile, ``, ""},
	} {
		if err := m.Replace(c.name, []byte(c.text)); err != nil {
			t.Fatal(err)
		}
		var err error
		var found bool
		switch c.name {
		case FloorFile:
			_, err = ReadFloor(m)
		case StagedFile:
			var staged map[bootloader.Slot]*Staged
			staged, err = ReadStaged(m)
			found = len(staged) > 0
		case TrialFile:
			_, found, err = ReadTrial(m)
		case votesName:
			_, err = ReadVotes(m)
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
	for _, want := range []Votes{1, 4, 1} {
		if votes, err := ReadVotes(m); err != nil || votes != want {
			t.Errorf("%d votes, %v: want %d", votes, err, want)
		}
		if err := (5 - want).Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Read("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzMemory reads any bytes for what is remembered: no panic, and what is accepted is
// written back as something that is accepted.
func FuzzMemory(f *testing.F) {
	for _, name := range []string{StagedFile, TrialFile, FloorFile} {
		data, err := os.ReadFile(filepath.Join("testdata", "released-1", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := remembered{crashdisk.NewFiles(map[string][]byte{StagedFile: data, TrialFile: data, FloorFile: data, votesName: data}, crashdisk.NewPower(forEver))}
		if s, err := ReadStaged(m); err == nil {
			if err := WriteStaged(m, s); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadStaged(m); err != nil && len(data) < maxMemory/4 {
				t.Errorf("what was written is refused: %v", err)
			}
		}
		if trial, ok, err := ReadTrial(m); err == nil && ok {
			if trial.Armed.Year() < 0 || trial.Armed.Year() > 9999 {
				return // JSON has no such times
			}
			if err := WriteTrial(m, trial); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ReadTrial(m); err != nil && len(data) < maxMemory/4 {
				t.Errorf("what was written is refused: %v", err)
			}
		}
		if votes, err := ReadVotes(m); err == nil && votes < 1 {
			t.Errorf("%d votes", votes)
		}
		if floor, err := ReadFloor(m); err == nil {
			if next := floor.after(floor.Blessed+1, "sha256:next"); next.Lowest < floor.Lowest {
				t.Errorf("the floor went from %d to %d", floor.Lowest, next.Lowest)
			}
		}
	})
}
