package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/verity"
)

// Trial is what is remembered of a slot that was armed.
type Trial struct {
	Slot    bootloader.Slot `json:"slot"`
	Release string          `json:"release"` // its version, for people
	Digest  string          `json:"digest"`  // its name
	Counter uint64          `json:"counter"`
	Verity  string          `json:"verity"` // as verity.Params writes it; "" of what an image brought
	Number  int             `json:"number"` // of the arming, as the loader has it
	Tries   int             `json:"tries"`  // that it was given
	Armed   time.Time       `json:"armed"`
	By      string          `json:"by"` // who authorised it
}

// trialFile is trial.json.
type trialFile struct {
	Version int `json:"version"`
	Trial
}

// ReadTrial returns what was armed, and whether something was. Whether it was started,
// and what became of it, the loader's State says.
func ReadTrial(m Folder) (Trial, bool, error) {
	var file trialFile
	ok, err := read(m, TrialFile, &file)
	if errors.Is(err, errDamaged) {
		return Trial{}, false, nil
	}
	if !ok || err != nil {
		return Trial{}, false, err
	}
	t := file.Trial
	_, verityErr := verity.ParseParams(t.Verity)
	if t.Verity == "" { // what an image brought
		verityErr = nil
	}
	if _, err := bootloader.ParseSlot(string(t.Slot)); err != nil || verityErr != nil || t.Tries < 1 || t.Tries > bootloader.Tries {
		return Trial{}, false, nil // damaged, too
	}
	return t, true, nil
}

// WriteTrial remembers what is armed next.
func WriteTrial(m Folder, t Trial) error {
	t.Armed = t.Armed.UTC()
	return write(m, TrialFile, trialFile{format, t})
}

// EndTrial forgets what was armed. It may come back at a cut; whoever reads it compares
// it with the loader's State.
func EndTrial(m Folder) error {
	if err := m.Remove(TrialFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the trial: %w", err)
	}
	return nil
}
