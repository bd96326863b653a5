package bootloader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/golden"
)

var when = time.Date(2026, 11, 28, 20, 0, 0, 0, time.UTC)

const volumeSize = 96 << 10

// loaders are all that there are, by the name that boards know them by.
var loaders = []boards.Bootloader{boards.SystemdBoot, boards.UBoot}

func loader(t testing.TB, name boards.Bootloader) Loader {
	t.Helper()
	l, err := For(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fresh returns the bytes of the boot partition of a fresh image of release 1.0.
func fresh(t testing.TB, l Loader) []byte {
	t.Helper()
	files := append(l.Fresh("1.0"), fat.File{Path: "kogge/node.yaml", Size: 9, Data: strings.NewReader("hostname:")})
	for _, name := range l.BootFiles() {
		p, err := l.Path(A, name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fat.File{Path: p, Size: 700, Data: bytes.NewReader(kernel("1.0", name))})
	}
	d := crashdisk.New(make([]byte, volumeSize), 1<<20)
	if err := fat.Format(d, fat.Spec{Size: volumeSize, Label: "KOGGE", Serial: 1, When: when, Tiny: true}, files); err != nil {
		t.Fatal(err)
	}
	return d.AfterCut(1)
}

// kernel is the content of a boot file.
func kernel(version, name string) []byte {
	return bytes.Repeat([]byte(version+name+"."), 300)[:700]
}

func open1(t testing.TB, d *crashdisk.Disk) *fat.Volume {
	t.Helper()
	v, err := fat.Open(d, 0, volumeSize)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// verb is one call of a Loader as a test names it.
type verb struct {
	name string
	call func(Loader, Files) error
}

func stage(slot Slot, version string) verb {
	return verb{fmt.Sprintf("stage %s %s", slot, version), func(l Loader, f Files) error {
		if err := l.Retire(f, slot); err != nil {
			return err
		}
		for _, name := range l.BootFiles() {
			if err := l.Install(f, slot, name, 700, bytes.NewReader(kernel(version, name)), when); err != nil {
				return err
			}
		}
		return nil
	}}
}

func retire(slot Slot) verb {
	return verb{fmt.Sprintf("retire %s", slot), func(l Loader, f Files) error { return l.Retire(f, slot) }}
}

func arm(slot Slot, version string, tries int) verb {
	return verb{fmt.Sprintf("arm %s %s with %d tries", slot, version, tries), func(l Loader, f Files) error { return l.Arm(f, slot, version, tries, when) }}
}

func bless(slot Slot) verb {
	return verb{fmt.Sprintf("bless %s", slot), func(l Loader, f Files) error { return l.Bless(f, slot, when) }}
}

func count(slot Slot) verb {
	return verb{fmt.Sprintf("count a try of %s", slot), func(l Loader, f Files) error { return l.Count(f, slot, when) }}
}

func markBad(slot Slot) verb {
	return verb{fmt.Sprintf("mark %s bad", slot), func(l Loader, f Files) error { return l.MarkBad(f, slot, when) }}
}

// boot is the loader's part of a boot.
var boot = verb{"boot", func(l Loader, f Files) error { _, err := startSlot(l, f); return err }}

// startSlot does what the real loader does at a boot: it counts, and starts a slot.
func startSlot(l Loader, f Files) (Slot, error) {
	switch l := l.(type) {
	case systemdBoot:
		return l.countTry(f)
	case uBoot:
		return l.countTry(f)
	}
	return "", errors.New("no model of this loader")
}

// countTry counts in kogge.env what the script counts.
func (l uBoot) countTry(f Files) (Slot, error) {
	d, err := l.read(f)
	if err != nil {
		return "", err
	}
	if d.env.try != "" && d.env.left > 0 {
		next := d.env
		next.left--
		if err := f.WriteFile(envFile, next.bytes(), when); err != nil {
			return "", err
		}
	}
	slot, _ := d.starts()
	return slot, nil
}

// countTry renames the entry that it starts, as systemd-boot does. What the firmware's
// FAT driver makes of the rename is the power-cut tests' business.
func (l systemdBoot) countTry(f Files) (Slot, error) {
	all, err := l.entries(f)
	if err != nil {
		return "", err
	}
	if all = present(all); len(all) == 0 {
		return "", errors.New("no entry")
	}
	first := all[0]
	for _, t := range all {
		if loaderOrder(t, first) < 0 {
			first = t
		}
	}
	if !first.Counted || first.Left == 0 {
		return first.slot, nil
	}
	text, err := f.ReadFile(entriesDir + "/" + first.name)
	if err != nil {
		return "", err
	}
	next := first.Entry
	next.Left, next.Done = next.Left-1, next.Done+1
	if exists(f, entriesDir+"/"+entryName(first.slot, next)) {
		return "", errors.New("the loader cannot count: a file has that name, and the firmware renames nothing onto one")
	}
	if err := f.WriteFile(entriesDir+"/"+entryName(first.slot, next), text, when); err != nil {
		return "", err
	}
	return first.slot, f.Remove(entriesDir + "/" + first.name)
}

// listing shows every file but the kernels with its content.
func listing(t testing.TB, v *fat.Volume) string {
	t.Helper()
	var out strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := v.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name)
			if e.Dir {
				walk(name)
				continue
			}
			content, err := v.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			content, _, padded := bytes.Cut(content, []byte{0})
			text := strings.ReplaceAll(strings.TrimSuffix(string(content), "\n"), "\n", " | ")
			if len(text) > 400 {
				text = text[:8] + "…"
			}
			if padded {
				text += " (padded)"
			}
			fmt.Fprintf(&out, "    %-34s %5d  %s\n", name, e.Size, text)
		}
	}
	walk("")
	return out.String()
}

func stateText(t testing.TB, l Loader, f Files) string {
	t.Helper()
	s, err := l.State(f)
	if err != nil {
		t.Fatal(err)
	}
	starts := "nothing"
	if slot, ok := s.Next(); ok {
		starts = "slot " + string(slot)
	}
	return fmt.Sprintf("  A: %v\n  B: %v\n  starts next: %s\n", s.A, s.B, starts)
}

// TestStory walks a node through its life; golden are the boot partition and the state
// after each verb.
func TestStory(t *testing.T) {
	story := []verb{
		retire(B),
		bless(B),
		arm(B, "1.1", 3),
		stage(B, "1.1"),
		arm(B, "1.1 evil\nefi /x", 3),
		arm(B, "1.1", 4),
		arm(B, "1.1", 3),
		stage(B, "1.1"), // again, before it is booted
		arm(B, "1.1", 3),
		boot,
		bless(B),
		bless(B),
		stage(A, "1.2"),
		boot,
		retire(B),
		arm(A, "1.2", 3),
		boot, boot, boot,
		boot, // falls back
		arm(A, "1.2", 1),
		markBad(A),
		boot,
		stage(A, "1.3"),
		arm(A, "1.3", 3),
		boot,
		bless(A),
		arm(B, "1.1", 3), // roll back
		boot,
		bless(B),
		markBad(B),
		boot,
		markBad(A),
		boot, // both bad: still something starts
		stage(B, "1.3"),
		count(B), // it is not armed
		arm(B, "1.3", 2),
		count(B), // as the loader would
		boot,
		count(B), // none is left
		bless(B),
		count(B), // it is proven
	}
	for _, name := range loaders {
		t.Run(string(name), func(t *testing.T) {
			l := loader(t, name)
			d := crashdisk.New(fresh(t, l), 1<<20)
			var out strings.Builder
			fmt.Fprintf(&out, "fresh image\n%s%s", stateText(t, l, open1(t, d)), listing(t, open1(t, d)))
			for _, verb := range story {
				v := open1(t, d)
				fmt.Fprintf(&out, "\n%s\n", verb.name)
				if err := verb.call(l, v); err != nil {
					fmt.Fprintf(&out, "  error: %v\n", err)
				}
				v = open1(t, d)
				fmt.Fprintf(&out, "%s%s", stateText(t, l, v), listing(t, v))
				if report, err := v.Check(); err != nil || !report.Clean() {
					t.Errorf("%s: %v, %v", verb.name, report, err)
				}
			}
			golden.Compare(t, "story-"+string(name)+".txt", out.String())
		})
	}
}

// TestInstall writes boot files where that is allowed, and reads them back.
func TestInstall(t *testing.T) {
	for _, name := range loaders {
		t.Run(string(name), func(t *testing.T) {
			l := loader(t, name)
			v := open1(t, crashdisk.New(fresh(t, l), 1<<20))
			file := l.BootFiles()[0]
			if err := l.Install(v, A, file, 1, strings.NewReader("x"), when); !errors.Is(err, ErrInUse) {
				t.Errorf("into the running slot: %v", err)
			}
			if err := l.Retire(v, A); !errors.Is(err, ErrLast) {
				t.Errorf("retire the only slot: %v", err)
			}
			if err := l.Install(v, B, "../boot", 1, strings.NewReader("x"), when); err == nil {
				t.Error("a file that the loader does not know was written")
			}
			if err := l.Install(v, B, file, 1<<20, bytes.NewReader(make([]byte, 1<<20)), when); !errors.Is(err, fat.ErrFull) {
				t.Errorf("too large: %v", err)
			}
			if err := l.Install(v, B, file, 700, bytes.NewReader(make([]byte, 699)), when); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("too short: %v", err)
			}
			if err := l.Install(v, B, file, 700, bytes.NewReader(make([]byte, 701)), when); err == nil {
				t.Error("too long, and no error")
			}
			if err := l.Arm(v, B, "1.1", 3, when); !errors.Is(err, ErrEmpty) {
				t.Errorf("arm a slot without a kernel: %v", err)
			}
			want := kernel("1.1", file)
			if err := l.Install(v, B, file, 700, bytes.NewReader(want), when); err != nil {
				t.Fatal(err)
			}
			r, err := l.Open(v, B, file)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read back %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestPowerCut cuts the power at every write of every verb: the loader starts the slot
// it would have started before, or the one it starts after it; the other slot's entry
// is what it was; and the verb can be called again.
func TestPowerCut(t *testing.T) {
	for _, name := range loaders {
		l := loader(t, name)
		for _, c := range []struct {
			before []verb
			verb   verb
		}{
			{nil, stage(B, "1.1")},
			{[]verb{stage(B, "1.1")}, arm(B, "1.1", 3)},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3)}, stage(B, "1.2")},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3), boot}, bless(B)},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3), boot}, markBad(B)},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3)}, count(B)},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3), boot, bless(B)}, stage(A, "1.2")},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3), boot, bless(B)}, arm(A, "1.0", 3)},
			{[]verb{stage(B, "1.1"), arm(B, "1.1", 3), boot, bless(B)}, markBad(B)},
		} {
			label := string(name)
			for _, verb := range append(c.before, c.verb) {
				label += "/" + verb.name
			}
			t.Run(label, func(t *testing.T) { testPowerCut(t, l, c.before, c.verb) })
		}
	}
}

func testPowerCut(t *testing.T, l Loader, before []verb, verb verb) {
	d := crashdisk.New(fresh(t, l), 1<<20)
	for _, b := range before {
		if err := b.call(l, open1(t, d)); err != nil {
			t.Fatal(err)
		}
	}
	start := d.AfterCut(1)
	done := crashdisk.New(start, 1<<20)
	if err := verb.call(l, open1(t, done)); err != nil {
		t.Fatal(err)
	}
	old, next := mustState(t, l, start), mustState(t, l, done.AfterCut(1))
	touched := A
	if old.A == next.A {
		touched = B
	}
	for writes := 0; ; writes++ {
		d := crashdisk.New(start, writes)
		err := verb.call(l, open1(t, d))
		if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
			t.Fatalf("writes=%d: %v", writes, err)
		}
		for seed := range uint64(24) {
			cut := d.AfterCut(seed)
			s := mustState(t, l, cut)
			// A cut may take the entry of a slot on trial away, and with it what was to be
			// counted or marked: the other slot starts then.
			lost := (verb.name == count(B).name || verb.name == markBad(B).name) && old.B.Counted && !s.B.Present
			if s.Starts != old.Starts && s.Starts != next.Starts && !(lost && s.Starts == A) {
				t.Fatalf("writes=%d seed=%d: starts %q, before %q, after %q", writes, seed, s.Starts, old.Starts, next.Starts)
			}
			if s.Of(touched.Other()) != old.Of(touched.Other()) {
				t.Fatalf("writes=%d seed=%d: slot %s is %v, was %v", writes, seed, touched.Other(), s.Of(touched.Other()), old.Of(touched.Other()))
			}
			again := crashdisk.New(cut, 1<<20)
			v := open1(t, again)
			if _, err := v.Repair(); err != nil {
				t.Fatal(err)
			}
			if err := verb.call(l, v); lost && errors.Is(err, ErrEmpty) {
				continue
			} else if err != nil {
				t.Fatalf("writes=%d seed=%d: again: %v", writes, seed, err)
			}
			if report, err := open1(t, again).Check(); err != nil || !report.Clean() {
				t.Fatalf("writes=%d seed=%d: again leaves %v, %v", writes, seed, report, err)
			}
			got := mustState(t, l, again.AfterCut(1))
			if verb.name == count(B).name && got.B.Left == next.B.Left-1 {
				continue // two starts are two tries
			}
			if !alike(got, next) {
				t.Fatalf("writes=%d seed=%d: again makes\n%v, want\n%v", writes, seed, got, next)
			}
		}
		if err == nil {
			t.Logf("%d writes", writes)
			return
		}
	}
}

// alike compares but for the arming number: an interrupted arming may have used one.
func alike(a, b State) bool {
	a.A.Number, a.B.Number, b.A.Number, b.B.Number = 0, 0, 0, 0
	return a == b
}

func mustState(t testing.TB, l Loader, volume []byte) State {
	t.Helper()
	s, err := l.State(open1(t, crashdisk.New(volume, 0)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFor(t *testing.T) {
	if l, err := For("lilo"); err == nil {
		t.Errorf("lilo: %v", l)
	}
	for _, b := range boards.All {
		if _, err := For(b.Bootloader); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

func TestParseSlot(t *testing.T) {
	for text, want := range map[string]Slot{"A": A, "B": B, "a": "", "": "", "AB": ""} {
		if got, err := ParseSlot(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if A.Other() != B || B.Other() != A {
		t.Error("Other")
	}
}

func TestSlotOfEntry(t *testing.T) {
	for name, want := range map[string]Slot{
		"kogge-a.conf": A, "KOGGE-B+0-3.CONF": B, "kogge-b+3.conf": B,
		"": "", "kogge-c.conf": "", "kogge-b": "", "kogge-b+x.conf": "", "b.conf": "", "somebody.conf": "", "kogge-ab.conf": "",
	} {
		if got, ours := SlotOfEntry(name); got != want || ours != (want != "") {
			t.Errorf("%q: %q, %v", name, got, ours)
		}
	}
}

// TestEveryLoader wants an answer of each boot loader that a board can have, and an error
// for any other.
func TestEveryLoader(t *testing.T) {
	for _, name := range boards.Bootloaders {
		l, err := For(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, file := range append(slices.Clone(l.BootFiles()), l.Direct()) {
			if file == "" {
				continue // the firmware starts none of them
			}
			if path, err := l.Path(A, file); err != nil || path == "" {
				t.Errorf("%s: %q, %v", name, path, err)
			}
		}
	}
	for _, name := range []boards.Bootloader{"", "third"} {
		if l, err := For(name); err == nil || !strings.Contains(err.Error(), "is unknown here") {
			t.Errorf("%q: %v, %v", name, l, err)
		}
	}
}

// TestStarts: a slot is empty once neither the loader nor firmware finds what to start in it.
func TestStarts(t *testing.T) {
	for _, name := range loaders {
		l := loader(t, name)
		v := open1(t, crashdisk.New(fresh(t, l), 1<<20))
		is := func(when string, slot Slot, want bool) {
			t.Helper()
			if got, err := Starts(l, v, slot); err != nil || got != want {
				t.Errorf("%s: %s: slot %s starts: %v, %v", name, when, slot, got, err)
			}
		}
		is("fresh", A, true)
		is("fresh", B, false)
		for _, step := range []verb{stage(B, "1.1"), arm(B, "1.1", 1), boot, markBad(B)} {
			if err := step.call(l, v); err != nil {
				t.Fatal(step.name, err)
			}
			is(step.name, B, true)
		}
		if err := l.Retire(v, B); err != nil {
			t.Fatal(err)
		}
		is("retired", B, false)
	}
}
