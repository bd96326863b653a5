package memory

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/bootloader"
	"kogge.example/update/golden"
)

func TestCount(t *testing.T) {
	r := Count{}.Begin("A").Begin("A")
	golden.Compare(t, "count-1.txt", string(r.Text()))
	for _, r := range []Count{r, r.Move("B", bootloader.Entry{Number: 9, Version: "1.1"}, noon), r.Clear(), r.Begin("B"), r.Move("B", bootloader.Entry{Number: 1, Version: "unknown"}, time.Time{})} {
		got, err := ParseCount(r.Text())
		if err != nil || got != r {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
	if r.Bad != 2 || r.Begin("B") != (Count{Slot: "B", Bad: 1}) || r.Excuse().Bad != 1 || r.Clear().Excuse().Bad != 0 {
		t.Error("wrong count")
	}
}

// TestCountFlips changes every byte: the record is damaged then, and says so.
func TestCountFlips(t *testing.T) {
	whole := Count{Slot: "A", Bad: 2, Armed: "B", Number: 4, Release: "1.1", At: noon}.Text()
	for i := range whole {
		for _, bit := range []byte{1, 0x20, 0x80} {
			torn := bytes.Clone(whole)
			torn[i] ^= bit
			if r, err := ParseCount(torn); err == nil {
				t.Fatalf("byte %d flipped: %+v", i, r)
			}
		}
	}
	other := Count{Slot: "A", Bad: 3, Armed: "B", Number: 4, Release: "1.1", At: noon}.Text()
	for cut := range whole { // a torn sector is the front of the one over the rest of the other
		torn := append(bytes.Clone(other[:cut]), whole[cut:]...)
		if r, err := ParseCount(torn); err == nil && r.Bad != 2 && r.Bad != 3 {
			t.Fatalf("torn at %d: %+v", cut, r)
		}
	}
}

// TestFallback prints the decision for each count, state of the other slot and time
// since the last one.
func TestFallback(t *testing.T) {
	a := bootloader.Entry{Present: true, Version: "1.0", Number: 6}
	entries := []struct {
		name string
		bootloader.Entry
	}{
		{"empty", bootloader.Entry{}},
		{"proven", bootloader.Entry{Present: true, Number: 5}},
		{"bad release", bootloader.Entry{Present: true, Number: 7, Counted: true, Done: 3}},
		{"tried by us", bootloader.Entry{Present: true, Version: "1.0", Number: 8, Counted: true, Done: 1}},
		{"staged since", bootloader.Entry{Present: true, Version: "1.2", Number: 8, Counted: true, Done: 3}},
	}
	var b strings.Builder
	for _, bad := range []int{0, maxBad - 1, maxBad, maxBad + 1, 2 * maxBad} {
		for _, e := range entries {
			for _, armed := range []struct {
				name string
				Count
				now time.Time
			}{
				{"never armed", Count{}, noon},
				{"armed an hour ago", Count{Armed: "B", Number: 8, Release: "1.0", At: noon.Add(-time.Hour)}, noon},
				{"armed a day ago", Count{Armed: "B", Number: 8, Release: "1.0", At: noon.Add(-24 * time.Hour)}, noon},
				{"armed in the future", Count{Armed: "B", Number: 8, Release: "1.0", At: noon.Add(24 * 365 * time.Hour)}, noon},
				{"slot A was armed", Count{Armed: "A", Number: 6, Release: "1.0", At: noon}, noon},
			} {
				r := armed.Count
				r.Slot, r.Bad = "A", bad
				other, why := r.Fallback(bootloader.State{A: a, B: e.Entry}, armed.now)
				if other == "" && why == "" {
					if bad >= maxBad {
						t.Errorf("%d bad boots, and nothing is said", bad)
					}
					continue
				}
				act := "stay"
				if other != "" {
					act = "arm " + string(other)
				}
				fmt.Fprintf(&b, "%d bad, B %-12s %-20s %-6s %s\n", bad, e.name+",", armed.name+":", act, why)
			}
		}
	}
	golden.Compare(t, "fallback.txt", b.String())
}

// TestFallbackAgain boots a slot that crashes each time, on a machine whose clock stands. The
// other slot is tried at the third boot, and each time that the boots have doubled.
func TestFallbackAgain(t *testing.T) {
	state := bootloader.State{
		A: bootloader.Entry{Present: true, Version: "1.0", Number: 8, Counted: true, Done: 1},
		B: bootloader.Entry{Present: true, Version: "1.1", Number: 9},
	}
	r := Count{Armed: "A", Number: 8, Release: "1.0", At: noon.Add(-48 * time.Hour)}
	var tries []int
	for range 2000 {
		r = r.Begin("B")
		if other, _ := r.Fallback(state, noon); other != "" {
			tries = append(tries, r.Bad)
			r = r.Move(other, state.A, noon)
		}
		if read, err := ParseCount(r.Text()); err != nil || read != r {
			t.Fatalf("%+v is read as %+v: %v", r, read, err)
		}
	}
	want := []int{3, 6, 12, 24, 48, 96, 192, 384, 768, 1536}
	if !slices.Equal(tries, want) {
		t.Errorf("tried at boots %v, and should be at %v", tries, want)
	}
}

func FuzzCount(f *testing.F) {
	f.Add(Count{Slot: "A", Bad: 2, Armed: "B", Number: 4, Release: "1.1", At: noon}.Text())
	f.Add([]byte(countHead))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseCount(text)
		if err == nil && !bytes.Equal(r.Text(), text) {
			t.Errorf("%q is read as %+v", text, r)
		}
	})
}
