package fat

import (
	"bytes"
	"errors"
	"testing"

	"kogge.example/update/crashdisk"
)

// TestCrossLinked has two slots' kernels share clusters, and updates one of them: the
// other, which may be the one that runs, has to read as before to the last byte.
func TestCrossLinked(t *testing.T) {
	sound := small(t, file("a", 2000), file("b", 2000), file("c", 600))
	tests := []struct {
		name          string
		link          func(t *testing.T, d damaged)
		victim, stays string
	}{
		{"the second runs into the first", func(t *testing.T, d damaged) { d.link(d.first(t, "b"), d.first(t, "a")+1) }, "b", "a"},
		{"the first runs into the second", func(t *testing.T, d damaged) { d.link(d.first(t, "a"), d.first(t, "b")+1) }, "a", "b"},
		// c is whole by its size, and looks as if its chain was too long.
		{"one ends within the other", func(t *testing.T, d damaged) {
			d.link(d.first(t, "c"), d.first(t, "b")+1)
			d.link(d.first(t, "a"), endOfChain) // there is other damage
		}, "c", "b"},
		{"the first ends within the second", func(t *testing.T, d damaged) {
			d.entry(t, "a")[28], d.entry(t, "a")[29] = 0x58, 2 // 600 bytes
			d.link(d.first(t, "a"), d.first(t, "b")+1)
		}, "a", "b"},
	}
	edits := map[string]func(v *Volume, name string) error{
		"remove":  func(v *Volume, name string) error { return v.Remove(name) },
		"replace": func(v *Volume, name string) error { return v.WriteFile(name, content("replaced", 600), when) },
	}
	for _, test := range tests {
		b := bytes.Clone(sound)
		test.link(t, damaged{openSmall(t, crashdisk.New(b, 0)), b})
		want, err := openSmall(t, crashdisk.New(b, 0)).ReadFile(test.stays)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		for name, edit := range edits {
			d := crashdisk.New(b, 1<<20)
			v := openSmall(t, d)
			report, err := v.Repair()
			if err != nil || len(report.Damage) == 0 {
				t.Fatalf("%s: %v, %v", test.name, report, err)
			}
			if err := edit(v, test.victim); err != nil {
				t.Fatalf("%s, %s: %v", test.name, name, err)
			}
			// Every cluster that is free now gets another file's bytes.
			if err := v.WriteFile("new", content("new", int(v.free()-1)*sectorSize), when); err != nil {
				t.Fatalf("%s, %s: %v", test.name, name, err)
			}
			if err := v.WriteFile("newer", make([]byte, 2*sectorSize), when); !errors.Is(err, ErrFull) {
				t.Errorf("%s, %s: room for a file more: %v", test.name, name, err)
			}
			for _, v := range []*Volume{v, openSmall(t, d.Again(0, 0))} {
				if got, err := v.ReadFile(test.stays); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %s: %s does not read as before: %v", test.name, name, test.stays, err)
				}
			}
		}
	}
}
