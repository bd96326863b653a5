package memory

import "testing"

// TestReads: whatever may be in a slot reads a format, or nobody can start it.
func TestReads(t *testing.T) {
	of := func(lowest, highest int) *Staged { return &Staged{Schema: Schema{Reads: [2]int{lowest, highest}}} }
	for _, c := range []struct {
		name   string
		starts bool
		slot   *Staged
		want   bool
	}{
		{"empty", false, nil, true},
		{"a release of which a reset has left no record", true, nil, false},
		{"one that reads it", true, of(1, 2), true},
		{"one that does not", true, of(1, 1), false},
		{"one that does not, and is not armed yet", false, of(1, 1), false},
		{"a later one", true, of(2, 4), true},
		{"one that reads it no more", true, of(3, 4), false},
		{"one that says nothing", true, &Staged{}, false},
	} {
		if got := c.slot.Reads(2, c.starts); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
