package memory

import (
	"errors"

	"kogge.example/update/bootloader"
	"kogge.example/update/verity"
)

// Schema says which formats of what lies on STATE a release reads, and which one it
// writes. State never goes back: a release is installed only if the one beside it reads
// what it writes.
type Schema struct {
	Reads  [2]int `json:"reads"` // the lowest and the highest
	Writes int    `json:"writes"`
}

// Staged is what is remembered of the release in a slot.
type Staged struct {
	Release string `json:"release"` // its version, for people
	Digest  string `json:"digest"`  // its name
	Board   string `json:"board"`
	Counter uint64 `json:"counter"`
	Verity  string `json:"verity"` // as verity.Params writes it
	Schema  Schema `json:"schema"`
	// Whole says that everything was read back. Until then the first Written bytes of
	// the root are known to be on the disk but for the first block, which is First and
	// is written last.
	Whole   bool   `json:"whole"`
	Written int64  `json:"written,omitempty"`
	First   []byte `json:"first,omitempty"`
}

// Reads says whether whatever may lie in the slot reads a format of STATE. s may be nil:
// nothing is remembered. starts says whether a boot loader or the firmware could start it.
func (s *Staged) Reads(format int, starts bool) bool {
	if s == nil {
		return !starts
	}
	return s.Schema.Reads[0] <= format && format <= s.Schema.Reads[1]
}

// stagedFile is staged.json.
type stagedFile struct {
	Version int                         `json:"version"`
	Slots   map[bootloader.Slot]*Staged `json:"slots"`
}

// ReadStaged returns what Stage put into the slots. A slot that is not in it holds what
// an image brought, or nothing.
func ReadStaged(m Folder) (map[bootloader.Slot]*Staged, error) {
	var s stagedFile
	_, err := read(m, StagedFile, &s)
	if errors.Is(err, errDamaged) || err == nil && !s.sound() {
		s, err = stagedFile{}, nil
	}
	if err != nil {
		return nil, err
	}
	if s.Slots == nil {
		s.Slots = map[bootloader.Slot]*Staged{}
	}
	return s.Slots, nil
}

// sound tells whether a release may have written it.
func (s stagedFile) sound() bool {
	for slot, r := range s.Slots {
		if _, err := bootloader.ParseSlot(string(slot)); err != nil || r == nil {
			return false
		}
		if _, err := verity.ParseParams(r.Verity); err != nil || r.Written < 0 || r.Written > 0 && len(r.First) != verity.BlockSize {
			return false
		}
	}
	return true
}

// WriteStaged remembers what is in both slots, in one write.
func WriteStaged(m Folder, slots map[bootloader.Slot]*Staged) error {
	return write(m, StagedFile, stagedFile{format, slots})
}
