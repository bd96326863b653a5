package fsync

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMeasure: a disk is judged by its slowest writes; one that cannot be written is none.
func TestMeasure(t *testing.T) {
	times := func(n int, all time.Duration, last time.Duration) (d []time.Duration) {
		for range n - 1 {
			d = append(d, all)
		}
		return append(d, last)
	}
	for _, c := range []struct {
		name  string
		times []time.Duration
		fit   bool
	}{
		{"a good one", times(64, time.Millisecond, 6*time.Millisecond), true},
		{"an SD card", times(64, 30*time.Millisecond, 100*time.Millisecond), true},
		{"a bad one", times(64, 30*time.Millisecond, 800*time.Millisecond), false},
		{"a dead one", times(3, 3*time.Second, 4*time.Second), false},
	} {
		if d := Summary(c.times); (d.Unfit(250*time.Millisecond) == "") != c.fit {
			t.Errorf("%s: %+v: %q", c.name, d, d.Unfit(250*time.Millisecond))
		}
	}
	if d := Measure(t.TempDir()); d.Writes == 0 || d.Error != "" || d.P99 == 0 {
		t.Errorf("this disk: %+v", d)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := Measure(file); d.Unfit(250*time.Millisecond) == "" {
		t.Errorf("no folder: %+v", d)
	}
}
