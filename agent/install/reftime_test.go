package install

import (
	"testing"
	"time"

	"kogge.example/init/control"
)

// TestRefTime: the time by which signatures are over does not stand still while the node
// runs, and a clock that nobody vouches for does not move it.
func TestRefTime(t *testing.T) {
	day := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	image, saved, now := day("2026-01-01"), day("2027-05-16"), day("2027-06-01")
	for _, c := range []struct {
		name  string
		clock control.Clock
		want  time.Time
	}{
		{"of the image", control.Clock{Floor: image}, image},
		{"saved", control.Clock{Floor: image, SavedAt: saved}, saved},
		{"synced", control.Clock{Floor: image, SavedAt: saved, Synced: true}, now},
		{"a floor ahead of the clock", control.Clock{Floor: day("2028-01-01"), Synced: true}, day("2028-01-01")},
	} {
		dir := t.TempDir()
		if err := c.clock.Write(dir); err != nil {
			t.Fatal(err)
		}
		i := &Installer{Run: dir, Now: func() time.Time { return now }}
		if got := i.refTime(); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
