package slot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/durable"
	"kogge.example/update/verity"
)

// Dir is where a node remembers its updates.
const Dir = "/state/kogge/update"

// Memory is the folder in which a node remembers its updates.
type Memory interface {
	// Read returns a file; the error wraps fs.ErrNotExist where there is none.
	Read(name string) ([]byte, error)
	// Replace writes a file, whole or not at all, and for good once it returns nil.
	Replace(name string, data []byte) error
	// Remove removes a file. At a cut it may come back.
	Remove(name string) error
}

// Folder is the Memory in a folder of STATE, which is made with the first file.
func Folder(dir string) Memory { return folder(dir) }

type folder string

func (f folder) Read(name string) ([]byte, error) { return os.ReadFile(filepath.Join(string(f), name)) }

func (f folder) Replace(name string, data []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(string(f), name), data, 0o600)
}

func (f folder) Remove(name string) error { return os.Remove(filepath.Join(string(f), name)) }

// The files of a Memory. Each has a version of its own, and a reader of another version
// refuses it: a node that does not understand what it remembers must not guess. Where
// the disk has made something else of a file, what lies in the slots and what was armed
// count as forgotten, for a release that is staged anew sets both right and nobody could
// repair them by hand; a floor that cannot be read is an error.
const (
	stagedFile = "staged.json"
	trialFile  = "trial.json"
	floorFile  = "floor.json"

	format    = 1
	maxMemory = 64 << 10 // bytes of a file
)

// Record is what is remembered of the release in a slot.
type Record struct {
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

// staged is staged.json: what Stage put into the slots. A slot that is not in it holds
// what an image brought, or nothing.
type staged struct {
	Version int                         `json:"version"`
	Slots   map[bootloader.Slot]*Record `json:"slots"`
}

// Trial is what is remembered of a slot that was armed.
type Trial struct {
	Slot    bootloader.Slot
	Release string // version
	Digest  string
	Counter uint64
	Verity  verity.Params
	Number  int // of the arming, as the loader has it
	Tries   int
	Armed   time.Time
	By      string // who authorised it
}

type trialJSON struct {
	Version int             `json:"version"`
	Slot    bootloader.Slot `json:"slot"`
	Release string          `json:"release"`
	Digest  string          `json:"digest"`
	Counter uint64          `json:"counter"`
	Verity  string          `json:"verity"`
	Number  int             `json:"number"`
	Tries   int             `json:"tries"`
	Armed   time.Time       `json:"armed"`
	By      string          `json:"by"`
}

// Floor is how far back a node may go.
type Floor struct {
	// Floor is the lowest counter of a release that may be staged or armed. It never
	// gets lower.
	Floor uint64
	// Blessed is the counter of the release that was blessed last, and Digest its name.
	Blessed uint64
	Digest  string
}

type floorJSON struct {
	Version int    `json:"version"`
	Floor   uint64 `json:"floor"`
	Blessed uint64 `json:"blessed"`
	Digest  string `json:"digest"`
}

// read decodes a file, and tells whether there is one.
func read(m Memory, name string, into any) (bool, error) {
	data, err := m.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("what this node remembers: %w", err)
	}
	if err := decode(data, into); err != nil {
		return false, fmt.Errorf("what this node remembers: %s: %w", name, err)
	}
	return true, nil
}

// errDamaged is a file that no release has written.
var errDamaged = errors.New("damaged")

func decode(data []byte, into any) error {
	if len(data) > maxMemory {
		return fmt.Errorf("%w: %d bytes are more than %d", errDamaged, len(data), maxMemory)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if head.Version != format {
		return fmt.Errorf("version %d; this release reads version %d: a newer one wrote it", head.Version, format)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

func write(m Memory, name string, from any) error {
	data, err := json.MarshalIndent(from, "", "  ")
	if err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	if err := m.Replace(name, append(data, '\n')); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	return nil
}

func readStaged(m Memory) (staged, error) {
	var s staged
	_, err := read(m, stagedFile, &s)
	if errors.Is(err, errDamaged) || err == nil && !s.sound() {
		s, err = staged{}, nil
	}
	if err != nil {
		return staged{}, err
	}
	if s.Version = format; s.Slots == nil {
		s.Slots = map[bootloader.Slot]*Record{}
	}
	return s, nil
}

// sound tells whether a release may have written it.
func (s staged) sound() bool {
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

// ReadRecords returns what Stage put into the slots. A slot that holds what an image
// brought is not in it.
func ReadRecords(m Memory) (map[bootloader.Slot]*Record, error) {
	s, err := readStaged(m)
	return s.Slots, err
}

// writeRecord remembers a slot's record, or, where it is nil, that there is none.
func writeRecord(m Memory, slot bootloader.Slot, r *Record) error {
	s, err := readStaged(m)
	if err != nil {
		return err
	}
	if s.Slots[slot] = r; r == nil {
		delete(s.Slots, slot)
	}
	return write(m, stagedFile, s)
}

// ReadTrial returns what was armed, and whether something was. Whether it was started,
// and what became of it, the loader's State says.
func ReadTrial(m Memory) (Trial, bool, error) {
	var j trialJSON
	ok, err := read(m, trialFile, &j)
	if errors.Is(err, errDamaged) {
		return Trial{}, false, nil
	}
	if !ok || err != nil {
		return Trial{}, false, err
	}
	p, verityErr := verity.ParseParams(j.Verity)
	if j.Verity == "" { // what an image brought
		verityErr = nil
	}
	if _, err := bootloader.ParseSlot(string(j.Slot)); err != nil || verityErr != nil || j.Tries < 1 || j.Tries > bootloader.Tries {
		return Trial{}, false, nil // damaged, too
	}
	return Trial{
		Slot: j.Slot, Release: j.Release, Digest: j.Digest, Counter: j.Counter, Verity: p,
		Number: j.Number, Tries: j.Tries, Armed: j.Armed, By: j.By,
	}, true, nil
}

func writeTrial(m Memory, t Trial) error {
	j := trialJSON{
		Version: format, Slot: t.Slot, Release: t.Release, Digest: t.Digest, Counter: t.Counter,
		Number: t.Number, Tries: t.Tries, Armed: t.Armed.UTC(), By: t.By,
	}
	if t.Verity != (verity.Params{}) {
		j.Verity = t.Verity.String()
	}
	return write(m, trialFile, j)
}

// EndTrial forgets what was armed. It may come back at a cut; whoever reads it compares
// it with the loader's State.
func EndTrial(m Memory) error {
	if err := m.Remove(trialFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the trial: %w", err)
	}
	return nil
}

func readFloor(m Memory) (Floor, error) {
	var j floorJSON
	_, err := read(m, floorFile, &j)
	return Floor{Floor: j.Floor, Blessed: j.Blessed, Digest: j.Digest}, err
}

// ReadFloor returns how far back this node may go; the zero value where nothing was
// blessed yet but what an image brought.
func ReadFloor(m Memory) (Floor, error) { return readFloor(m) }

func writeFloor(m Memory, f Floor) error {
	return write(m, floorFile, floorJSON{Version: format, Floor: f.Floor, Blessed: f.Blessed, Digest: f.Digest})
}

// startFloor remembers the release that an image brought as the first one that was
// blessed, so that the second update raises the floor to it.
func startFloor(m Memory, counter uint64) error {
	f, err := readFloor(m)
	if err != nil || f != (Floor{}) || counter == 0 {
		return err
	}
	return writeFloor(m, Floor{Blessed: counter})
}

// after is the floor once a release was blessed: that of the release before it, so that
// one can always go back one step. Going back does not raise it above where one went.
func (f Floor) after(counter uint64, digest string) Floor {
	if digest == f.Digest {
		return f
	}
	return Floor{Floor: max(f.Floor, min(f.Blessed, counter)), Blessed: counter, Digest: digest}
}

// Pass is Settle for the slot that runs, and for no other one that was armed.
func Pass(m Memory, running bootloader.Slot) error {
	t, ok, err := ReadTrial(m)
	if err != nil || !ok || t.Slot != running {
		return err
	}
	_, _, err = Settle(m)
	return err
}

// Settle remembers that the slot on trial is blessed: call it once the loader's Bless has
// returned. It reads nothing but the Memory, and may be repeated: after a cut at any
// point of it, at the next boot, it comes to the same end. Without a trial it does nothing.
//
//  1. the floor
//  2. the trial forgotten
func Settle(m Memory) (Trial, bool, error) {
	t, ok, err := ReadTrial(m)
	if err != nil || !ok {
		return Trial{}, false, err
	}
	floor, err := readFloor(m)
	if err != nil {
		return t, true, err
	}
	if next := floor.after(t.Counter, t.Digest); next != floor {
		if err := writeFloor(m, next); err != nil {
			return t, true, err
		}
	}
	return t, true, EndTrial(m)
}
