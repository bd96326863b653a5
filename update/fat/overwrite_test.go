package fat

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"kogge.example/update/crashdisk"
)

// TestOverwrite cuts the power at the write, and wants the rest of the volume as it was.
func TestOverwrite(t *testing.T) {
	before, after := bytes.Repeat([]byte("old "), 128), bytes.Repeat([]byte("new "), 128)
	start := small(t, text("kogge/boots.rec", string(before)), text("other", "stays"), text("long", strings.Repeat("x", 513)))
	for writes := range 3 {
		d := crashdisk.New(start, writes)
		err := openSmall(t, d).Overwrite("kogge/boots.rec", after)
		if cut := errors.Is(err, crashdisk.ErrPowerCut); cut != (writes == 0) {
			t.Fatalf("%d writes: %v", writes, err)
		}
		for seed := range uint64(64) {
			left := d.AfterCut(seed)
			v := openSmall(t, crashdisk.New(left, 0))
			got, err := v.ReadFile("kogge/boots.rec")
			if err != nil {
				t.Fatal(err)
			}
			front := 0
			for front < len(got) && got[front] == after[front] {
				front++
			}
			if writes > 0 && front < len(got) || !bytes.Equal(got[front:], before[front:]) {
				t.Fatalf("%d writes, seed %d: %q", writes, seed, got)
			}
			if other, err := v.ReadFile("other"); err != nil || string(other) != "stays" {
				t.Fatalf("%q, %v", other, err)
			}
			if r, err := v.Check(); err != nil || !r.Clean() {
				t.Fatalf("%v, %v", r, err)
			}
		}
	}
	v := openSmall(t, crashdisk.New(start, 0)) // the first write would be a cut
	for name, content := range map[string][]byte{"kogge/boots.rec": after[1:], "long": after, "gone": after, "kogge": after} {
		if err := v.Overwrite(name, content); err == nil || errors.Is(err, crashdisk.ErrPowerCut) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func text(name, content string) File {
	return File{Path: name, Size: int64(len(content)), Data: strings.NewReader(content)}
}
