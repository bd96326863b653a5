package keyring

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
)

// First is a record 1 of the fleet that owner keys signed from this folder, or that was made
// the fleet's there.
type First struct {
	Record  document.Hash `json:"record"`
	Owners  []int         `json:"owners"` // numbers of the keys that signed it here
	Noted   time.Time     `json:"noted"`
	GivenUp *time.Time    `json:"givenUp,omitempty"` // for another one; nil: it counts
}

// ErrOtherFirst is of a second record 1: a fleet has one, and nodes that are shown two stop.
var ErrOtherFirst = errors.New("another first record was signed here")

// First is the record 1 that counts in this folder; the zero one: none was signed here.
func (k *Keyring) First() (First, error) {
	all, err := firstList.all(k)
	if i := slices.IndexFunc(all, func(f First) bool { return f.GivenUp == nil }); i >= 0 {
		return all[i], err
	}
	return First{}, err
}

// NoteFirst notes, durably, that owner keys sign a record 1: nobody is to see the signatures
// before it has returned. Which folder has signed what is all that anybody can know of it: a
// signature on its way is good for ever. So a folder signs one record 1. Another one wraps
// [ErrOtherFirst], unless instead names the one that counts, which is given up by that.
func (k *Keyring) NoteFirst(record document.Hash, owners []int, instead document.Hash, now time.Time) error {
	err := firstList.edit(k, func(all []First) ([]First, error) {
		return withFirst(all, record, owners, instead, now.UTC().Truncate(time.Second))
	})
	if err != nil {
		return fmt.Errorf("fleet %s: record 1, %s: %w", k.Genesis.Name, record.Short(), err)
	}
	return nil
}

func withFirst(all []First, record document.Hash, owners []int, instead document.Hash, now time.Time) ([]First, error) {
	at := -1
	for i := range all {
		switch {
		case all[i].Record == record:
			at = i
		case all[i].GivenUp != nil:
		case all[i].Record == instead:
			all[i].GivenUp = &now
		default:
			return nil, fmt.Errorf("%w: %s, on %s", ErrOtherFirst, all[i].Record.Short(), all[i].Noted.Format(time.DateOnly))
		}
	}
	if at < 0 {
		at, all = len(all), append(all, First{Record: record, Noted: now})
	}
	all[at].GivenUp = nil
	all[at].Owners = append(all[at].Owners, owners...)
	slices.Sort(all[at].Owners)
	all[at].Owners = slices.Compact(all[at].Owners)
	return all, nil
}

// firstsFile is firsts.json.
type firstsFile struct {
	Version int     `json:"version"`
	Firsts  []First `json:"firsts"`
}

const firstsVersion = 1

var firstList = list[First]{name: firstsName, most: 1 << 20, parse: parseFirsts, file: func(all []First) any { return firstsFile{firstsVersion, all} }}

func parseFirsts(raw []byte) ([]First, error) {
	var file firstsFile
	if err := document.Decode(raw, firstsVersion, &file); err != nil {
		return nil, err
	}
	count := 0
	for _, f := range file.Firsts {
		if f.Record.IsZero() {
			return nil, errors.New("a record has no hash")
		}
		if f.GivenUp == nil {
			count++
		}
	}
	if count > 1 {
		return nil, fmt.Errorf("%d records 1 count", count)
	}
	return file.Firsts, nil
}
