package bootloader

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/golden"
)

// envs are what kogge.env may hold, ours and not ours.
var envs = []struct{ name, text string }{
	{"none", ""},
	{"slot A", "kogge_left=0\nkogge_slot=A\n"},
	{"slot B", "kogge_left=0\nkogge_slot=B\n"},
	{"slot A, try B, 3 left", "kogge_left=3\nkogge_slot=A\nkogge_try=B\n"},
	{"slot A, try B, 1 left", "kogge_left=1\nkogge_slot=A\nkogge_try=B\n"},
	{"slot A, try B, 0 left", "kogge_left=0\nkogge_slot=A\nkogge_try=B\n"},
	{"slot B, try A, 2 left", "kogge_left=2\nkogge_slot=B\nkogge_try=A\n"},
	{"try B alone", "kogge_left=2\nkogge_try=B\n"},
	{"tries without a number", "kogge_slot=A\nkogge_try=B\n"},
	{"more tries than there are", "kogge_left=4\nkogge_slot=A\nkogge_try=B\n"},
	{"tries of two digits", "kogge_left=03\nkogge_slot=A\nkogge_try=B\n"},
	{"negative tries", "kogge_left=-1\nkogge_slot=A\nkogge_try=B\n"},
	{"slot C", "kogge_left=0\nkogge_slot=C\n"},
	{"try C", "kogge_left=3\nkogge_slot=A\nkogge_try=C\n"},
	{"lower case", "kogge_left=3\nkogge_slot=a\nkogge_try=b\n"},
	{"torn in the middle", "kogge_left=3\nkogge_sl"},
	{"torn over an older one", "kogge_left=0\nkogge_slot=B\nogge_slot=A\nkogge_try=B\n"},
	{"carriage returns", "kogge_left=3\r\nkogge_slot=A\r\nkogge_try=B\r\n"},
	{"what lies behind 512 bytes", strings.Repeat("x=1\n", 128) + "kogge_left=3\nkogge_slot=A\nkogge_try=B\n"},
	{"a command in the slot", "kogge_left=0\nkogge_slot=B; reset\n"},
	{"a quote in the slot", "kogge_left=0\nkogge_slot=\"B\n"},
	{"single quotes in the slot", "kogge_left=0\nkogge_slot=B''\n"},
	{"a slot in single quotes", "kogge_left=0\nkogge_slot='B'\n"},
	{"a slot in two parts", "kogge_left=0\nkogge_slot=B'A'\n"},
	{"three single quotes in the slot", "kogge_left=0\nkogge_slot=B'''\n"},
	{"tries and a try in single quotes", "kogge_left='3'\nkogge_slot=A\nkogge_try=''B\n"},
	{"a backslash before a single quote", "kogge_left=0\nkogge_slot=B\\\\''\n"},
	{"a single quote in the slot", "kogge_left=0\nkogge_slot='B\n"},
	{"a command behind a single quote", "kogge_left=0\nkogge_slot=B'; reset; '\n"},
	{"a condition behind a single quote", "kogge_left=3\nkogge_try=x' = x -o 'B\n"},
	{"words in the slot", "kogge_left=0\nkogge_slot=B -o 1 = 1\n"},
	{"a command in the try", "kogge_left=3\nkogge_slot=B\nkogge_try=A\" || reset\n"},
	{"a variable in the try", "kogge_left=3\nkogge_slot=B\nkogge_try=${kogge_slot}\n"},
	{"a backslash in the tries", "kogge_left=3\\\nkogge_slot=B\nkogge_try=A\n"},
	{"a backslash before the slot", "kogge_left=0\nkogge_slot=\\B\n"},
	{"two backslashes before the slot", "kogge_left=0\nkogge_slot=\\\\B\n"},
	{"a backslash at the end", "kogge_left=0\nkogge_slot=B\\"},
	{"a backslash before a zero", "kogge_left=0\nkogge_slot=B\\\x00kogge_try=A\n"},
	{"a zero between entries", "kogge_left=3\x00kogge_slot=B\x00kogge_try=A\n"},
	{"a zero at the front", "\x00kogge_slot=B\n"},
	{"two zeros", "kogge_slot=A\x00\x00kogge_slot=B\nkogge_left=3\nkogge_try=B\n"},
	{"empty lines", "\n\nkogge_slot=B\n\n"},
	{"a comment", "#kogge_slot=A\n # x\nkogge_slot=B\n"},
	{"a value without a name", "kogge_left=3\n=x\nkogge_slot=B\nkogge_try=A\n"},
	{"a name without a value", "kogge_slot\nkogge_slot=B\n"},
	{"no value for the slot", "kogge_slot=\nkogge_slot=B\n"},
	{"variables of the loader", "bootargs=x\nkernel_addr_r=0\nkogge_left=0\nkogge_part=mmc 0\nkogge_slot=B\n"},
	{"slot twice", "kogge_left=0\nkogge_slot=B\nkogge_slot=A\n"},
	{"try twice, first nobody's", "kogge_left=3\nkogge_slot=A\nkogge_try=C\nkogge_try=B\n"},
	{"blanks before the slot", "kogge_left=0\n \tkogge_slot=B\n"},
	{"noise", "\xff\xfe\x01\x02kogge_try=B"},
}

// TestUBootDecision prints what the script has to do with each kogge.env and each pair
// of proven slots. The tests with a real U-Boot hold it to this table.
func TestUBootDecision(t *testing.T) {
	l := uBoot{}
	var out strings.Builder
	for _, e := range envs {
		fmt.Fprintf(&out, "%s %q\n", e.name, e.text)
		for _, proven := range []string{"", "A", "B", "AB"} {
			for _, files := range []string{"AB", "A", "B"} {
				d := uBootDisk{env: parseEnv([]byte(e.text)[:min(len(e.text), envSize)]), folder: map[Slot]folder{}}
				for _, slot := range []Slot{A, B} {
					d.folder[slot] = folder{files: strings.Contains(files, string(slot)), proven: strings.Contains(proven, string(slot))}
				}
				slot, trial := d.starts()
				mark := ""
				if trial {
					mark = " on trial"
				}
				fmt.Fprintf(&out, "    proven %-2s  files in %-2s  starts %s%s\n", proven, files, slot, mark)
			}
		}
	}
	golden.Compare(t, "uboot-decisions.txt", out.String())

	// What a disk holds leads to the same decision.
	for _, e := range envs {
		v := open1(t, crashdisk.New(fresh(t, l), 1<<20))
		if err := v.WriteFile(envFile, []byte(e.text), when); err != nil {
			t.Fatal(err)
		}
		s, err := l.State(v)
		if want := A; err != nil || s.Starts != want {
			t.Errorf("%s: with nothing in slot B it starts %q, %v", e.name, s.Starts, err)
		}
	}
}

// TestEnvBytes holds the file to what U-Boot exports.
func TestEnvBytes(t *testing.T) {
	for _, c := range []struct {
		env  env
		want string
	}{
		{env{}, "kogge_left=0\n"},
		{env{slot: A}, "kogge_left=0\nkogge_slot=A\n"},
		{env{slot: A, try: B, left: 3}, "kogge_left=3\nkogge_slot=A\nkogge_try=B\n"},
	} {
		b := c.env.bytes()
		if len(b) != envSize || string(bytes.TrimRight(b, "\x00")) != c.want {
			t.Errorf("%+v: %d bytes, %q", c.env, len(b), b)
		}
		if got := parseEnv(b); got != c.env {
			t.Errorf("%+v becomes %+v", c.env, got)
		}
	}
}

// FuzzUBoot reads any bytes for the texts of a slot and for kogge.env. Slot A, proven
// and whole, is started unless the bytes say in so many words that B is on trial.
func FuzzUBoot(f *testing.F) {
	l := uBoot{}
	start := fresh(f, l)
	for _, e := range envs {
		f.Add([]byte(e.text), []byte("release 1.1\narming 2\ntries 3\n"))
	}
	f.Add([]byte{0}, []byte("release a b\narming -1\ntries 99999999999\n"))
	f.Fuzz(func(t *testing.T, envText, note []byte) {
		if len(envText) > 4096 || len(note) > 4096 {
			return
		}
		v := open1(t, crashdisk.New(start, 1<<20))
		for name, content := range map[string][]byte{envFile: envText, armedFile(B): note, "B/kernel": {1}, "B/initrd": {1}, "B/cmdline": {1}} {
			if err := v.MkdirAll("B", when); err != nil {
				t.Fatal(err)
			}
			if err := v.WriteFile(name, content, when); err != nil {
				t.Fatal(err)
			}
		}
		s, err := l.State(v)
		if err != nil {
			t.Fatal(err)
		}
		trial := s.B.Left > 0
		if want := map[bool]Slot{true: B, false: A}[trial]; s.Starts != want || s.A.Version != "1.0" || s.B.Proven() {
			t.Errorf("%q: %+v", envText, s)
		}
		if s.B.Left < 0 || s.B.Left > Tries || s.B.Done < 0 || s.B.Done > Tries {
			t.Errorf("tries: %+v", s.B)
		}
		// Whatever lies there, the verbs make it right again.
		if err := l.Retire(v, B); err != nil {
			t.Fatal(err)
		}
		if s, err = l.State(v); err != nil || s.Starts != A || s.B.Present {
			t.Errorf("retired: %+v, %v", s, err)
		}
	})
}

// FuzzSystemdBoot reads any name and content for an entry.
func FuzzSystemdBoot(f *testing.F) {
	l := systemdBoot{}
	start := fresh(f, l)
	f.Add("kogge-b+3-0.conf", []byte(entryText(B, "1.1", 2)))
	f.Add("kogge-b+3.conf", []byte("title Kogge  (slot b)\nversion 99999999999999999999\n"))
	f.Add("KOGGE-B+-1-1.CONF", []byte("\x00\xff\n\n  version  7 \n"))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if len(text) > 8192 {
			return
		}
		v := open1(t, crashdisk.New(start, 1<<20))
		if err := v.WriteFile("EFI/kogge/b.efi", []byte{1}, when); err != nil {
			t.Fatal(err)
		}
		if strings.EqualFold(name, "kogge-a.conf") || strings.Contains(name, "/") || v.WriteFile(entriesDir+"/"+name, text, when) != nil {
			return
		}
		s, err := l.State(v)
		if err != nil || s.Starts == "" || s.A.Left < 0 || s.B.Left < 0 {
			t.Fatalf("%q: %+v, %v", name, s, err)
		}
		if err := l.Retire(v, B); err != nil {
			t.Fatal(err)
		}
		if s, err = l.State(v); err != nil || s.Starts != A || s.B.Present {
			t.Errorf("%q: retired: %+v, %v", name, s, err)
		}
	})
}

var _ Files = (*fat.Volume)(nil)
