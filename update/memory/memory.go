// Package memory is what a node remembers of its updates and boots, and what it concludes
// from that: which release failed, whether a release may go back to an older one, and when
// a proven slot has gone bad.
//
// In come what Stage and Arm of update/slot do, the lines that PID 1 notes at each boot, the
// boot loader's state, and what a crash left behind (pstore, the reason of the reset, the
// log of the trial). Out come the history for people, the verdict on a release that was
// tried, the lowest release that may still be installed, and the decision to try the other
// slot. Everything that decides is a pure function; what writes says what a power cut leaves.
// What lies where:
//
//	staged.json, trial.json, floor.json   in [Dir]: what is in the slots, what was armed, how far back
//	failures.json, history.jsonl          in [Dir]: releases that did not stay, boots
//	votes.json                            in [Dir]: how many votes decide in the node's fleet
//	kogge/boots.rec                       on the boot partition: boots without a good assessment
//
// Boot partition, devices and clock are the caller's; a release's bytes are update/slot's.
package memory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"kogge.example/update/durable"
)

// Dir is where a node remembers its updates and boots, on STATE.
const Dir = "/state/kogge/update"

// Folder is the folder in which a node remembers. [In] makes one, tests have others.
type Folder interface {
	// Read returns a file; the error wraps fs.ErrNotExist where there is none.
	Read(name string) ([]byte, error)
	// Replace writes a file, whole or not at all, and for good once it returns nil.
	Replace(name string, data []byte) error
	// Remove removes a file. At a cut it may come back.
	Remove(name string) error
}

// In is the Folder at a path of STATE ([Dir]), which is made with the first file.
func In(path string) Folder { return folder(path) }

type folder string

// maxFile is above what any file of the folder can take, in bytes.
const maxFile = 4 << 20

func (f folder) Read(name string) ([]byte, error) {
	return durable.Read(filepath.Join(string(f), name), maxFile)
}

func (f folder) Replace(name string, data []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(string(f), name), data, 0o600)
}

func (f folder) Remove(name string) error { return os.Remove(filepath.Join(string(f), name)) }

// Files of a Folder. Each has a version of its own, and a reader of another version
// refuses it: a node that does not understand what it remembers must not guess. Where
// the disk has made something else of a file, what lies in the slots, what was armed and
// what failed count as forgotten: nobody could repair them by hand, and a node must not
// refuse every update over it. A floor that is damaged begins anew with the release that
// runs, so that nothing older comes back: see [Floor.Anew]. Votes that cannot be read are an
// error. The folder also has the count of update/armings.
const (
	StagedFile   = "staged.json"
	TrialFile    = "trial.json"
	FloorFile    = "floor.json"
	failuresName = "failures.json"
	HistoryFile  = "history.jsonl" // a JSON object per line
)

const (
	// format is the version of each of them, and of a line of the history.
	format    = 1
	maxMemory = 64 << 10 // bytes of a file
)

// errDamaged is a file that no release has written.
var errDamaged = errors.New("damaged")

// decayed says whether the disk, or its file system, does not have any more what was written.
//
// Source: EFSBADCRC and EFSCORRUPTED in fs/ext4/ext4.h of the kernel's tree
func decayed(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EUCLEAN)
}

// read decodes a file, and tells whether there is one.
func read(m Folder, name string, into any) (bool, error) {
	data, err := m.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if decayed(err) {
		err = fmt.Errorf("%s: %w: %w", name, errDamaged, err)
	}
	if err == nil && len(data) > maxMemory {
		err = fmt.Errorf("%s: %w: %d bytes are more than %d", name, errDamaged, len(data), maxMemory)
	}
	if err == nil {
		err = decode(name, data, into)
	}
	if err != nil {
		return false, fmt.Errorf("what this node remembers: %w", err)
	}
	return true, nil
}

func decode(name string, data []byte, into any) error {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%s: %w: %w", name, errDamaged, err)
	}
	if head.Version < format {
		return fmt.Errorf("%s: %w: version %d", name, errDamaged, head.Version)
	}
	if head.Version > format {
		return fmt.Errorf("%s: version %d; this release reads version %d: a newer one wrote it", name, head.Version, format)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w: %w", name, errDamaged, err)
	}
	return nil
}

func write(m Folder, name string, from any) error {
	data, err := json.MarshalIndent(from, "", "  ")
	if err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	if err := m.Replace(name, append(data, '\n')); err != nil {
		return fmt.Errorf("remember: %w", err)
	}
	return nil
}
