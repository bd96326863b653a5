// Package reset makes a node new again: a STATE without data and identity.
//
// In comes a wish, which an operator or a person with the boot partition in a laptop
// leaves there; out goes a file on that partition, and at the next boot the order in
// which it is fulfilled. The package decides nothing: whoever calls has asked.
//
// A wish that an operator makes may carry the settings that the new STATE begins with.
// They lie on the boot partition meanwhile, like the node.yaml that a new node comes
// with, so that no cut loses both.
package reset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// The files on the boot partition.
const (
	Folder   = "kogge"
	File     = Folder + "/reset-state"
	JoinFile = Folder + "/join.yaml"
	// begun is there while a wish is fulfilled.
	begun = Folder + "/reset-begun"
)

// Wish is what the file asks for. The zero Wish is a new STATE and nothing else.
type Wish struct {
	// Keep says that the new STATE begins with Settings, a node.yaml, and with the
	// record that the seed of hash Imported was taken over already.
	Keep     bool
	Settings []byte
	Imported string
	// Beside is the version of the release in the other slot, if that mounts a STATE with
	// quotas; "": it may not. Only releases that do know the field, and refuse a wish with
	// fields that they do not know.
	Beside string
	// Slots is what STATE remembers of the release in the other slot, by the name of that slot,
	// if it reads a fleet with a ledger; nil: it may not. The new STATE remembers it too: else
	// nobody could say whether such a fleet may be kept there. Only releases that do read one
	// know the field.
	Slots map[bootloader.Slot]*memory.Staged
}

// version of the file.
const version = 1

type file struct {
	Version  int    `json:"version"`
	Keep     bool   `json:"keep-config"`
	Settings []byte `json:"node.yaml,omitempty"`
	Imported string `json:"imported,omitempty"`
	Beside   string `json:"beside,omitempty"`

	Slots map[bootloader.Slot]*memory.Staged `json:"slots,omitempty"`
}

// Parse reads the file. Whatever a person writes into it is a plain wish; what we write
// begins with a brace. A wish that cannot be read is an error, and nothing may be lost
// for it.
func Parse(text []byte) (Wish, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if bytes.Contains(text, []byte("keep-config")) {
			return Wish{}, errors.New(`it asks for keep-config without the settings: kogge node reset --keep-config writes both`)
		}
		return Wish{}, nil
	}
	var f file
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Wish{}, err
	}
	if f.Version != version {
		return Wish{}, fmt.Errorf("it has version %d, this release reads %d", f.Version, version)
	}
	return Wish{f.Keep, f.Settings, f.Imported, f.Beside, f.Slots}, nil
}

// Text is the file.
func (w Wish) Text() []byte {
	text, err := json.Marshal(file{version, w.Keep, w.Settings, w.Imported, w.Beside, w.Slots})
	if err != nil {
		panic("reset: " + err.Error()) // there is nothing in it that JSON cannot hold
	}
	return append(text, '\n')
}

// Ask leaves the wish on the boot partition, and before it a join.yaml for the node
// that it will be (nil: none). A cut at any point leaves the wish whole or not there:
//
//  1. what cuts before have left over is repaired
//  2. an earlier wish goes, for a file that is replaced may be there twice after a cut
//  3. the join.yaml
//  4. the wish
func Ask(v *fat.Volume, w Wish, join []byte, now time.Time) error {
	if _, err := v.Repair(); err != nil {
		return err
	}
	if err := v.MkdirAll(Folder, now); err != nil {
		return err
	}
	if err := Forget(v); err != nil {
		return err
	}
	if join != nil {
		if err := v.WriteFile(JoinFile, join, now); err != nil {
			return err
		}
	}
	return v.WriteFile(File, w.Text(), now)
}

// Begin proves, before anything is lost, that the wish can be taken away: on a boot
// partition that takes no writes it would be fulfilled at every boot.
func Begin(v *fat.Volume, now time.Time) error {
	return v.WriteFile(begun, []byte("STATE is formatted.\n"), now)
}

// Forget takes the wish away, and any second one of its name. After a cut it is there,
// whole, or gone.
func Forget(v *fat.Volume) error {
	return errors.Join(remove(v, begun), remove(v, File))
}

func remove(v *fat.Volume, name string) error {
	for {
		if err := v.Remove(name); errors.Is(err, fat.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Node is what a wish is fulfilled on.
type Node interface {
	Reformat(beside string) error                      // an empty STATE, not mounted; beside is Wish.Beside
	Mount() error                                      // STATE
	Remember(map[bootloader.Slot]*memory.Staged) error // Wish.Slots, on STATE, durably
	Restore(settings []byte, imported string) error    // to STATE, durably
	Forget() error                                     // the wish
}

// Fulfil makes STATE anew and leaves it mounted. A cut at any point begins again at the
// next boot, since the wish goes last:
//
//  1. an empty STATE
//  2. it is mounted
//  3. what is known of the other slot
//  4. the settings that are kept
//  5. the wish goes
func (w Wish) Fulfil(n Node) error {
	if err := n.Reformat(w.Beside); err != nil {
		return err
	}
	if err := n.Mount(); err != nil {
		return err
	}
	if len(w.Slots) > 0 {
		if err := n.Remember(w.Slots); err != nil {
			return err
		}
	}
	if w.Keep {
		if err := n.Restore(w.Settings, w.Imported); err != nil {
			return err
		}
	}
	return n.Forget()
}
