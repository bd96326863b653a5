package bootloader

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"kogge.example/update/fat"
)

// uBoot is U-Boot with our boot script. A slot is a folder, A or B, with kernel, initrd
// and cmdline (and dtb, where the board needs one), and up to two small texts: proven,
// written when the slot is blessed, and armed, written when it is armed. Which slot is
// started lies in kogge.env:
//
//	kogge_slot  A or B: the proven slot to start
//	kogge_try   A or B: the slot on trial; absent: none
//	kogge_left  3 to 1: tries of kogge_try that are left; 0: none
//
// The script counts a try down in place, before it starts the slot: one sector, which a
// cut may tear. So it starts kogge_try only with a number that makes sense, written back
// without an error; else kogge_slot if that is proven, else a proven slot, A first; and
// only where none is proven, or its files do not load, whatever there is, A first.
type uBoot struct{}

const (
	envFile = "kogge.env"
	envSize = 512 // bytes, always: U-Boot rewrites them where they lie
)

func (uBoot) BootFiles() []string { return []string{"kernel", "initrd", "cmdline"} }

func (uBoot) TellsByEFI() bool { return false }

func (uBoot) Direct() string { return "" }

func (uBoot) Path(slot Slot, name string) (string, error) {
	switch name {
	case "kernel", "initrd", "cmdline", "dtb":
		return string(slot) + "/" + name, nil
	}
	return "", fmt.Errorf("boot file %q: U-Boot starts kernel, initrd, cmdline and dtb", name)
}

func (uBoot) Fresh(version string) []fat.File {
	note := note{version: version, number: 1, tries: Tries}.String()
	env := env{slot: A}.bytes()
	return []fat.File{
		{Path: provenFile(A), Size: int64(len(note)), Data: strings.NewReader(note)},
		{Path: envFile, Size: int64(len(env)), Data: bytes.NewReader(env)},
	}
}

func provenFile(slot Slot) string { return string(slot) + "/proven" }
func armedFile(slot Slot) string  { return string(slot) + "/armed" }

// env is kogge.env. What is not in it is zero.
type env struct {
	slot, try Slot
	left      int
}

// bytes is the file as U-Boot's "env export -t -s" writes it: sorted, padded with zeros.
func (e env) bytes() []byte {
	text := fmt.Sprintf("kogge_left=%d\n", e.left)
	if e.slot != "" {
		text += fmt.Sprintf("kogge_slot=%s\n", e.slot)
	}
	if e.try != "" {
		text += fmt.Sprintf("kogge_try=%s\n", e.try)
	}
	b := make([]byte, envSize)
	copy(b, text)
	return b
}

// parseEnv reads the file as the script does: any bytes will do, and what is foreign in
// them is not there. Of two entries about one thing the first counts.
func parseEnv(b []byte) env {
	var e env
	seen := map[string]bool{}
	for name, value := range entries(b) {
		if seen[name] {
			continue
		}
		seen[name] = true
		value = word(value)
		switch name {
		case "kogge_slot":
			e.slot, _ = ParseSlot(value)
		case "kogge_try":
			e.try, _ = ParseSlot(value)
		case "kogge_left":
			if n, err := parseNumber(value); err == nil && len(value) == 1 && n <= Tries {
				e.left = n
			}
		}
	}
	return e
}

// entries are the names and values in the bytes that "env import -t" is given, as U-Boot
// finds them. An entry ends at a line feed or at a zero, and an empty one is skipped or is
// the end of all: a zero where an entry would begin. In a value a backslash takes the next
// byte as it is, a line feed too. An entry that has a value and no name ends the import.
//
// Source: himport_r in lib/hashtable.c of U-Boot.
func entries(b []byte) iter.Seq2[string, string] {
	at := func(i int) byte { // behind the end are zeros
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	text := func(from, to int) string { return string(b[min(from, to, len(b)):min(to, len(b))]) }
	ends := func(c byte) bool { return c == 0 || c == '\n' }
	return func(yield func(name, value string) bool) {
		for i := 0; ; {
			for at(i) == ' ' || at(i) == '\t' {
				i++
			}
			start := i
			comment := at(i) == '#'
			for !ends(at(i)) && (comment || at(i) != '=') {
				i++
			}
			name, value := text(start, i), i+1
			if at(i) == '=' {
				for i++; !ends(at(i)); i++ {
					if at(i) == '\\' && at(i+1) != 0 {
						i++
					}
				}
			}
			said := unescaped(text(value, i))
			i++ // the entry's end
			switch {
			case comment:
			case name == "" && said != "", !yield(name, said):
				return
			}
			if at(i) == 0 {
				return
			}
		}
	}
}

// word is what the script's shell makes of a value in double quotes: it puts the value between
// single quotes and reads that once more, so those in the value end and begin them, and it takes the
// backslashes away again. Quotes that do not pair off are an error, and nothing is equal to that.
//
// Source: make_string and run_pipe_real in common/cli_hush.c of U-Boot.
func word(value string) string {
	if strings.Count(value, "'")%2 != 0 {
		return ""
	}
	return unescaped(strings.ReplaceAll(value, "'", ""))
}

// unescaped takes away each backslash that has a byte behind it, and leaves that byte.
func unescaped(text string) string {
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		out = append(out, text[i])
	}
	return string(out)
}

func readEnv(f Files) (env, error) {
	b, err := readFront(f, envFile)
	return parseEnv(b), err
}

// readFront returns the first envSize bytes of a file, which is all that ours have. One
// that is not there, or whose clusters cannot be followed, has none: so U-Boot sees it.
func readFront(f Files, name string) ([]byte, error) {
	r, err := f.Reader(name)
	if err != nil {
		return nil, nil
	}
	b := make([]byte, min(r.Size(), envSize))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// note is the text of proven and armed.
type note struct {
	version string
	number  int
	tries   int
}

func (n note) String() string {
	return fmt.Sprintf("release %s\narming %d\ntries %d\n", n.version, n.number, n.tries)
}

func parseNote(text string) note {
	n := note{tries: Tries}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		number, err := parseNumber(value)
		switch {
		case key == "release" && CheckVersion(value) == nil:
			n.version = value
		case key == "arming" && err == nil:
			n.number = number
		case key == "tries" && err == nil && number >= 1 && number <= Tries:
			n.tries = number
		}
	}
	return n
}

// folder is what lies in a slot's folder.
type folder struct {
	files         bool // all that U-Boot loads
	proven, armed bool
	note          note // of the text that counts
	Entry
}

// uBootDisk is all that the script looks at.
type uBootDisk struct {
	env    env
	folder map[Slot]folder
}

func (l uBoot) read(f Files) (uBootDisk, error) {
	e, err := readEnv(f)
	if err != nil {
		return uBootDisk{}, err
	}
	d := uBootDisk{env: e, folder: map[Slot]folder{}}
	for _, slot := range []Slot{A, B} {
		if d.folder[slot], err = l.readFolder(f, slot, e); err != nil {
			return uBootDisk{}, err
		}
	}
	return d, nil
}

func (l uBoot) readFolder(f Files, slot Slot, e env) (folder, error) {
	d := folder{files: true, proven: exists(f, provenFile(slot)), armed: exists(f, armedFile(slot))}
	for _, name := range l.BootFiles() {
		path, err := l.Path(slot, name)
		if err != nil {
			return d, err
		}
		d.files = d.files && exists(f, path)
	}
	trial := e.try == slot
	d.Counted = trial || !d.proven
	from := provenFile(slot)
	if d.armed && d.Counted {
		from = armedFile(slot)
	}
	text, err := readFront(f, from)
	if err != nil {
		return d, err
	}
	d.note = parseNote(string(text))
	d.Present = d.files && (d.proven || d.armed)
	d.Version, d.Number = d.note.version, d.note.number
	if trial {
		d.Left = e.left
	}
	if d.Counted {
		d.Done = max(0, d.note.tries-d.Left)
	}
	if !d.Present {
		d.Entry = Entry{}
	}
	return d, nil
}

// starts is the script's decision, and whether it tells the slot that it is on trial.
func (d uBootDisk) starts() (slot Slot, trial bool) {
	if d.env.try != "" && d.env.left > 0 && d.folder[d.env.try].files {
		return d.env.try, true
	}
	for _, slot := range []Slot{d.env.slot, A, B} {
		if slot != "" && d.folder[slot].proven && d.folder[slot].files {
			return slot, false
		}
	}
	for _, slot := range []Slot{A, B} {
		if d.folder[slot].files {
			return slot, true
		}
	}
	return "", false
}

func (l uBoot) State(f Files) (State, error) {
	d, err := l.read(f)
	if err != nil {
		return State{}, fmt.Errorf("state of U-Boot: %w", err)
	}
	slot, _ := d.starts()
	return State{A: d.folder[A].Entry, B: d.folder[B].Entry, Starts: slot}, nil
}

// Retire leaves, at a cut, the slot as it was, or not to be started by the environment,
// or without its texts and with or without its boot files:
//
//  1. the environment names the other slot alone
//  2. proven removed, then armed
//  3. the boot files removed
func (l uBoot) Retire(f Files, slot Slot) error {
	if err := l.retire(f, slot); err != nil {
		return fmt.Errorf("retire slot %s: %w", slot, err)
	}
	return nil
}

func (l uBoot) retire(f Files, slot Slot) error {
	d, err := l.read(f)
	if err != nil {
		return err
	}
	if !d.folder[slot.Other()].Present {
		return ErrLast
	}
	if err := l.passOver(f, d.env, slot); err != nil {
		return err
	}
	for _, name := range []string{"proven", "armed", "cmdline", "kernel", "initrd", "dtb"} {
		if err := remove(f, string(slot)+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// passOver sees to it that the environment does not name the slot.
func (uBoot) passOver(f Files, e env, slot Slot) error {
	want := e
	if want.slot == slot || want.slot == "" {
		want.slot = slot.Other()
	}
	if want.try == slot {
		want.try, want.left = "", 0
	}
	if want == e {
		return nil
	}
	return f.WriteFile(envFile, want.bytes(), time.Time{}) // nobody asks when
}

func (l uBoot) Install(f Files, slot Slot, name string, size int64, r io.Reader, when time.Time) error {
	d, err := l.read(f)
	if err != nil {
		return fmt.Errorf("install in slot %s: %w", slot, err)
	}
	used := d.folder[slot].proven || d.folder[slot].armed || d.env.try == slot || d.env.slot == slot
	return install(l, f, slot, name, used, size, r, when)
}

func (l uBoot) Open(f Files, slot Slot, name string) (*io.SectionReader, error) {
	return open(l, f, slot, name)
}

// Arm leaves, at a cut, the slot as it was, or on trial:
//
//  1. armed written, which nobody looks at yet
//  2. the environment, whole or not at all
//  3. proven removed, if the slot was
func (l uBoot) Arm(f Files, slot Slot, version string, tries int, when time.Time) error {
	if err := l.arm(f, slot, version, tries, when); err != nil {
		return fmt.Errorf("arm slot %s: %w", slot, err)
	}
	return nil
}

func (l uBoot) arm(f Files, slot Slot, version string, tries int, when time.Time) error {
	if err := checkArming(version, tries); err != nil {
		return err
	}
	d, err := l.read(f)
	if err != nil {
		return err
	}
	for _, name := range l.BootFiles() {
		if _, err := l.Open(f, slot, name); err != nil {
			return fmt.Errorf("%w: %w", ErrEmpty, err)
		}
	}
	n := note{version: version, number: 1 + max(d.folder[A].note.number, d.folder[B].note.number), tries: tries}
	if err := f.WriteFile(armedFile(slot), []byte(n.String()), when); err != nil {
		return err
	}
	// The other slot is what is left when the tries are over.
	want := env{slot: slot.Other(), try: slot, left: tries}
	if err := f.WriteFile(envFile, want.bytes(), when); err != nil {
		return err
	}
	return remove(f, provenFile(slot))
}

// Count leaves, at a cut, the environment as it was, or with one try less.
func (l uBoot) Count(f Files, slot Slot, when time.Time) error {
	d, err := l.read(f)
	if err == nil && (d.env.try != slot || d.env.left == 0) {
		err = ErrNoTry
	}
	if err == nil {
		next := d.env
		next.left--
		err = f.WriteFile(envFile, next.bytes(), when)
	}
	if err != nil {
		return fmt.Errorf("count a try of slot %s: %w", slot, err)
	}
	return nil
}

// Bless leaves, at a cut, the slot on trial or proven:
//
//  1. proven written
//  2. the environment, whole or not at all: from here on the slot is proven
//  3. armed removed
func (l uBoot) Bless(f Files, slot Slot, when time.Time) error {
	if err := l.bless(f, slot, when); err != nil {
		return fmt.Errorf("bless slot %s: %w", slot, err)
	}
	return nil
}

func (l uBoot) bless(f Files, slot Slot, when time.Time) error {
	d, err := l.read(f)
	if err != nil {
		return err
	}
	s := d.folder[slot]
	if !s.Present {
		return ErrEmpty
	}
	if s.note.version == "" {
		s.note.version = "unknown" // a text that somebody edited
	}
	if s.Counted || !s.proven {
		if err := f.WriteFile(provenFile(slot), []byte(s.note.String()), when); err != nil {
			return err
		}
	}
	if want := (env{slot: slot}); d.env != want {
		if err := f.WriteFile(envFile, want.bytes(), when); err != nil {
			return err
		}
	}
	return remove(f, armedFile(slot))
}

// MarkBad leaves, at a cut, the slot as it was, or bad:
//
//  1. armed written, if the slot was proven, to say what it holds
//  2. the environment names the other slot alone
//  3. proven removed
func (l uBoot) MarkBad(f Files, slot Slot, when time.Time) error {
	if err := l.markBad(f, slot, when); err != nil {
		return fmt.Errorf("mark bad slot %s: %w", slot, err)
	}
	return nil
}

func (l uBoot) markBad(f Files, slot Slot, when time.Time) error {
	d, err := l.read(f)
	if err != nil {
		return err
	}
	s := d.folder[slot]
	if !s.Present {
		return ErrEmpty
	}
	bad := s.note
	bad.tries = Tries
	if text, err := readFront(f, armedFile(slot)); err != nil {
		return err
	} else if string(text) != bad.String() {
		if err := f.WriteFile(armedFile(slot), []byte(bad.String()), when); err != nil {
			return err
		}
	}
	if err := l.passOver(f, d.env, slot); err != nil {
		return err
	}
	return remove(f, provenFile(slot))
}
