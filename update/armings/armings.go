// Package armings counts how often a node's slots were armed. What is signed for one arming,
// as a permit is, names its number.
//
// In come the folder in which the node remembers, on STATE, and what its loader knows; out
// goes a number that never comes twice. The loader's own numbers do not do: that of a slot
// which is retired is gone, and comes again. What is armed, and by whose right, is
// update/slot's.
package armings

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"

	"kogge.example/update/bootloader"
	"kogge.example/update/fleet/document"
	"kogge.example/update/memory"
)

// File is the count, in the folder. One that cannot be read is an error, because what was
// signed for one arming must not serve for another; [Anew] begins another one.
const File = "armings.json"

// ErrLost is of a count that the disk has made something else of.
var ErrLost = errors.New("how often this node was armed is not known any more")

type file struct {
	Version int   `json:"version"` // 1
	Highest int64 `json:"highest"`
}

const version = 1

// Next is the number of the next arming: above those of all that were, as far as this node
// remembers or its loader knows. It is a count of its own: an entry of the loader may get a
// lower number. The error wraps [ErrLost], or [document.ErrNewer]; then the number is 0, which
// no arming has.
func Next(m memory.Folder, s bootloader.State) (int64, error) {
	highest, err := read(m)
	if err != nil {
		return 0, err
	}
	return 1 + max(highest, int64(s.A.Number), int64(s.B.Number)), nil
}

// A count that begins anew does so between these, at random: above where one that began with 1
// comes in a life, where two such counts hardly ever meet, and exact in what reads JSON's
// numbers as floats.
const (
	anewFrom = 1 << 40
	anewTo   = 1 << 52
)

// Anew begins the count anew where it is lost, and returns why; nil: it was not. Numbers need
// not follow each other, but none may come again. After a cut there is the damaged count or a new
// one; it is for good once Anew returns.
func Anew(m memory.Folder) (why, err error) {
	_, why = read(m)
	if !errors.Is(why, ErrLost) {
		return nil, why
	}
	return why, write(m, anewFrom+rand.Int64N(anewTo-anewFrom))
}

// Keep remembers how many armings there were, before the loader forgets one. At a cut it is
// remembered or not; it never gets lower.
func Keep(m memory.Folder, s bootloader.State) error {
	next, err := Next(m, s)
	if err != nil {
		return err
	}
	return keep(m, next-1)
}

// Use is the number of the arming that begins now, and no other one gets it: it is remembered
// once Use returns. At a cut before that it is, or is not.
func Use(m memory.Folder, s bootloader.State) (int64, error) {
	next, err := Next(m, s)
	if err != nil {
		return 0, err
	}
	return next, keep(m, next)
}

func read(m memory.Folder) (int64, error) {
	raw, err := m.Read(File)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var f file
	if err == nil {
		f, err = document.DecodeExact[file](raw, version)
	}
	if err == nil && (f.Highest < 0 || f.Highest == math.MaxInt64) {
		err = fmt.Errorf("%d armings", f.Highest)
	}
	switch {
	case errors.Is(err, document.ErrNewer):
		return 0, fmt.Errorf("how often this node was armed: %s: %w", File, err)
	case err != nil:
		return 0, fmt.Errorf("%w: %s: %w", ErrLost, File, err)
	}
	return f.Highest, nil
}

func keep(m memory.Folder, highest int64) error {
	before, err := read(m)
	if err != nil || before >= highest {
		return err
	}
	return write(m, highest)
}

func write(m memory.Folder, highest int64) error {
	raw, err := document.Encode(file{version, highest})
	if err != nil {
		return err
	}
	if err := m.Replace(File, raw); err != nil {
		return fmt.Errorf("remember how often this node was armed: %w", err)
	}
	return nil
}
