package bootloader

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"kogge.example/update/fat"
)

// systemdBoot is systemd-boot on UEFI. A slot is a unified kernel image
// EFI/kogge/{a,b}.efi and a Type #1 entry, loader/entries/kogge-b.conf. The name of an
// entry that is counted tells its tries, kogge-b+2-1.conf: two left, one done. The
// loader renames it before it starts it, unless there is a file of the new name: the
// firmware refuses that, and the loader starts an entry that it cannot count all the
// same. So a counted entry never lies beside another one of its slot.
//
// Among its entries the loader starts the one with the highest "version", which is the
// arming number here, those with no tries left behind all others. An entry whose image
// is missing is none.
//
// Source: uapi-group.org/specifications/specs/boot_loader_specification;
// boot_entry_compare and what renames in src/boot/boot.c of systemd 257; FatSetFileInfo
// in FatPkg/EnhancedFatDxe/Info.c of edk2.
type systemdBoot struct{}

const (
	entriesDir = "loader/entries"
	maxEntry   = 4096 // bytes; ours have a hundred
)

// typeOne is one file of loader/entries that is ours.
type typeOne struct {
	name string // in loader/entries, as it is spelled there
	slot Slot
	Entry
}

func (systemdBoot) BootFiles() []string { return []string{"uki"} }

func (systemdBoot) TellsByEFI() bool { return true }

func (systemdBoot) Direct() string { return "uki" }

// SlotOfEntry is the slot of an entry of systemd-boot, by its file's name. One that is not
// ours has none.
func SlotOfEntry(name string) (slot Slot, ours bool) {
	t, ours := parseEntryName(name)
	if !ours {
		return "", false
	}
	return t.slot, true
}

func (systemdBoot) Path(slot Slot, name string) (string, error) {
	if name != "uki" {
		return "", fmt.Errorf("boot file %q: systemd-boot starts only a uki", name)
	}
	return "EFI/kogge/" + lower(slot) + ".efi", nil
}

func lower(slot Slot) string { return strings.ToLower(string(slot)) }

func (l systemdBoot) Fresh(version string) []fat.File {
	text := entryText(A, version, 1)
	return []fat.File{{Path: entriesDir + "/" + entryName(A, Entry{}), Size: int64(len(text)), Data: strings.NewReader(text)}}
}

// entryText is the content of an entry.
func entryText(slot Slot, version string, number int) string {
	return fmt.Sprintf("title Kogge %s (slot %s)\nsort-key kogge\nversion %d\nefi /EFI/kogge/%[2]s.efi\n", version, lower(slot), number)
}

func entryName(slot Slot, e Entry) string {
	if !e.Counted {
		return "kogge-" + lower(slot) + ".conf"
	}
	return fmt.Sprintf("kogge-%s+%d-%d.conf", lower(slot), e.Left, e.Done)
}

// parseEntryName reads what entryName writes, and what the loader may make of it.
func parseEntryName(name string) (typeOne, bool) {
	rest, ours := strings.CutPrefix(strings.ToLower(name), "kogge-")
	rest, conf := strings.CutSuffix(rest, ".conf")
	id, tries, counted := strings.Cut(rest, "+")
	slot, err := ParseSlot(strings.ToUpper(id))
	if !ours || !conf || err != nil {
		return typeOne{}, false
	}
	t := typeOne{name: name, slot: slot, Entry: Entry{Counted: counted}}
	if !counted {
		return t, true
	}
	left, done, both := strings.Cut(tries, "-")
	var leftErr, doneErr error
	t.Left, leftErr = parseNumber(left)
	if both {
		t.Done, doneErr = parseNumber(done)
	}
	return t, leftErr == nil && doneErr == nil
}

// parseNumber reads digits, and nothing else that Go takes for a number.
func parseNumber(text string) (int, error) {
	if text == "" || len(text) > 9 || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return strconv.Atoi(text)
}

// parseEntryText takes release and arming number from an entry; what it does not find
// stays zero.
func (t *typeOne) parseEntryText(text string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		switch key {
		case "title":
			version, ours := strings.CutPrefix(value, "Kogge ")
			version, _ = strings.CutSuffix(version, " (slot "+lower(t.slot)+")")
			if ours && CheckVersion(version) == nil {
				t.Version = version
			}
		case "version":
			if n, err := parseNumber(value); err == nil {
				t.Number = n
			}
		}
	}
}

// entries returns our entries, those that cannot be started included.
func (l systemdBoot) entries(f Files) ([]typeOne, error) {
	files, err := list(f, entriesDir)
	if err != nil {
		return nil, err
	}
	var all []typeOne
	for _, file := range files {
		t, ours := parseEntryName(file.Name)
		if !ours || file.Dir {
			continue
		}
		// What the loader cannot follow, it passes over. What only we could not read has a
		// number all the same, which must not be given again.
		if r, err := f.Reader(entriesDir + "/" + file.Name); err == nil && r.Size() > 0 && r.Size() <= maxEntry {
			text, err := io.ReadAll(r)
			if err != nil {
				return nil, fmt.Errorf("read %s/%s: %w", entriesDir, file.Name, err)
			}
			uki, _ := l.Path(t.slot, "uki")
			t.Present = exists(f, uki)
			t.parseEntryText(string(text))
		}
		all = append(all, t)
	}
	return all, nil
}

// loaderOrder sorts as the loader does: the first of those present is started.
func loaderOrder(a, b typeOne) int {
	last := func(t typeOne) int {
		if t.Counted && t.Left == 0 {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(last(a), last(b)),
		cmp.Compare(b.Number, a.Number),
		cmp.Compare(b.slot, a.slot), // by name, downwards
		cmp.Compare(b.Left, a.Left),
		cmp.Compare(a.Done, b.Done),
	)
}

func present(all []typeOne) []typeOne {
	return slices.DeleteFunc(slices.Clone(all), func(t typeOne) bool { return !t.Present })
}

func starts(all []typeOne) Slot {
	if all = present(all); len(all) > 0 {
		return slices.MinFunc(all, loaderOrder).slot
	}
	return ""
}

// newest is what a slot's entries say together. A cut may leave two: the one that was
// armed last counts, and of one arming the one that is proven.
func newest(all []typeOne, slot Slot) (typeOne, bool) {
	all = slices.DeleteFunc(present(all), func(t typeOne) bool { return t.slot != slot })
	if len(all) == 0 {
		return typeOne{}, false
	}
	return slices.MinFunc(all, func(a, b typeOne) int {
		counted := func(t typeOne) int {
			if t.Counted {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(b.Number, a.Number), cmp.Compare(counted(a), counted(b)), loaderOrder(a, b))
	}), true
}

func (l systemdBoot) State(f Files) (State, error) {
	all, err := l.entries(f)
	if err != nil {
		return State{}, fmt.Errorf("state of systemd-boot: %w", err)
	}
	a, _ := newest(all, A)
	b, _ := newest(all, B)
	return State{A: a.Entry, B: b.Entry, Starts: starts(all)}, nil
}

// Retire leaves, at a cut, the slot as it was, or without its entry and with or
// without its image:
//
//  1. the entries removed
//  2. the image removed
func (l systemdBoot) Retire(f Files, slot Slot) error {
	if err := l.retire(f, slot); err != nil {
		return fmt.Errorf("retire slot %s: %w", slot, err)
	}
	return nil
}

func (l systemdBoot) retire(f Files, slot Slot) error {
	all, err := l.entries(f)
	if err != nil {
		return err
	}
	if _, other := newest(all, slot.Other()); !other {
		return ErrLast
	}
	if err := l.keep(f, all, slot, ""); err != nil {
		return err
	}
	uki, err := l.Path(slot, "uki")
	if err != nil {
		return err
	}
	return remove(f, uki)
}

// keep removes all entries of a slot but the one of that name.
func (systemdBoot) keep(f Files, all []typeOne, slot Slot, name string) error {
	for _, t := range all {
		if t.slot == slot && !strings.EqualFold(t.name, name) {
			if err := remove(f, entriesDir+"/"+t.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l systemdBoot) Install(f Files, slot Slot, name string, size int64, r io.Reader, when time.Time) error {
	all, err := l.entries(f)
	if err != nil {
		return fmt.Errorf("install in slot %s: %w", slot, err)
	}
	used := slices.ContainsFunc(all, func(t typeOne) bool { return t.slot == slot })
	return install(l, f, slot, name, used, size, r, when)
}

// install is the part of Install that all loaders share.
func install(l Loader, f Files, slot Slot, name string, used bool, size int64, r io.Reader, when time.Time) error {
	path, err := l.Path(slot, name)
	if err == nil && used {
		err = ErrInUse
	}
	if err == nil {
		err = f.MkdirAll(path[:strings.LastIndexByte(path, '/')], when)
	}
	if err == nil {
		err = f.Write(path, size, r, when)
	}
	if err != nil {
		return fmt.Errorf("install in slot %s: %w", slot, err)
	}
	return nil
}

func (l systemdBoot) Open(f Files, slot Slot, name string) (*io.SectionReader, error) {
	return open(l, f, slot, name)
}

func open(l Loader, f Files, slot Slot, name string) (*io.SectionReader, error) {
	path, err := l.Path(slot, name)
	if err != nil {
		return nil, err
	}
	return f.Reader(path)
}

// Arm leaves, at a cut, the slot's entries as they were, or without those that are
// counted, or the new one, which has the highest number, beside the uncounted one or
// alone.
func (l systemdBoot) Arm(f Files, slot Slot, version string, tries int, when time.Time) error {
	if err := l.arm(f, slot, version, tries, when); err != nil {
		return fmt.Errorf("arm slot %s: %w", slot, err)
	}
	return nil
}

func (l systemdBoot) arm(f Files, slot Slot, version string, tries int, when time.Time) error {
	if err := checkArming(version, tries); err != nil {
		return err
	}
	all, err := l.entries(f)
	if err != nil {
		return err
	}
	for _, name := range l.BootFiles() {
		if _, err := l.Open(f, slot, name); err != nil {
			return fmt.Errorf("%w: %w", ErrEmpty, err)
		}
	}
	e := Entry{Present: true, Version: version, Number: 1, Counted: true, Left: tries}
	for _, t := range all {
		e.Number = max(e.Number, t.Number+1)
	}
	if e.Number > 999_999_999 {
		return errors.New("no arming number is left: remove the entry with the highest one in " + entriesDir)
	}
	return l.put(f, all, slot, e, when)
}

// put gives a slot one entry in place of those that it has. In place of a counted one a
// counted one comes late rather than early: without any the slot is not started, which
// costs the slot that does not run no more than another arming.
func (l systemdBoot) put(f Files, all []typeOne, slot Slot, e Entry, when time.Time) error {
	if err := f.MkdirAll(entriesDir, when); err != nil {
		return err
	}
	name := entryName(slot, e)
	if e.Counted {
		counted := slices.DeleteFunc(slices.Clone(all), func(t typeOne) bool { return !t.Counted })
		if err := l.keep(f, counted, slot, ""); err != nil {
			return err
		}
	}
	if err := f.WriteFile(entriesDir+"/"+name, []byte(entryText(slot, e.Version, e.Number)), when); err != nil {
		return err
	}
	return l.keep(f, all, slot, name)
}

// Bless leaves, at a cut, the counted entry, or the uncounted one beside it, or that one
// alone. Where there are both, State calls the slot proven; the loader may count once
// more what is counted, and a second Bless tidies up.
func (l systemdBoot) Bless(f Files, slot Slot, when time.Time) error {
	return l.change(f, slot, "bless", when, func(e Entry) (Entry, error) { return Entry{Version: e.Version, Number: e.Number}, nil })
}

// Count leaves, at a cut, the entry as it was, or none, or the next one.
func (l systemdBoot) Count(f Files, slot Slot, when time.Time) error {
	return l.change(f, slot, "count a try of", when, func(e Entry) (Entry, error) {
		if !e.Counted || e.Left == 0 {
			return e, ErrNoTry
		}
		return Entry{Version: e.Version, Number: e.Number, Counted: true, Left: e.Left - 1, Done: e.Done + 1}, nil
	})
}

// MarkBad leaves, at a cut, a proven entry as it was, or with the bad one beside it, or
// that one alone; one on trial as it was, or none, or the bad one.
func (l systemdBoot) MarkBad(f Files, slot Slot, when time.Time) error {
	return l.change(f, slot, "mark bad", when, func(e Entry) (Entry, error) {
		return Entry{Version: e.Version, Number: e.Number, Counted: true, Done: Tries}, nil
	})
}

func (l systemdBoot) change(f Files, slot Slot, verb string, when time.Time, next func(Entry) (Entry, error)) error {
	all, err := l.entries(f)
	if err != nil {
		return fmt.Errorf("%s slot %s: %w", verb, slot, err)
	}
	t, ok := newest(all, slot)
	if !ok {
		return fmt.Errorf("%s slot %s: %w", verb, slot, ErrEmpty)
	}
	if t.Version == "" {
		t.Version = "unknown" // an entry that somebody edited
	}
	want, err := next(t.Entry)
	switch {
	case err != nil:
	case entryName(slot, want) != strings.ToLower(t.name):
		err = l.put(f, all, slot, want, when)
	default:
		err = l.keep(f, all, slot, t.name)
	}
	if err != nil {
		return fmt.Errorf("%s slot %s: %w", verb, slot, err)
	}
	return nil
}
