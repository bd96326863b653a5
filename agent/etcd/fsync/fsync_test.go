package fsync

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMeasure: a disk is judged by what 99 in 100 of its writes take; one that cannot be written is none.
func TestMeasure(t *testing.T) {
	times := func(n int, all time.Duration, last ...time.Duration) []time.Duration {
		return append(slices.Repeat([]time.Duration{all}, n-len(last)), last...)
	}
	const ms, stall = time.Millisecond, 900 * time.Millisecond
	for _, c := range []struct {
		name  string
		times []time.Duration
		says  string // "": it is fit
	}{
		{"a good one", times(200, ms, 6*ms), ""},
		{"an SD card", times(200, 30*ms, 100*ms), ""},
		{"a good one of a busy host", times(200, 2*ms, stall, stall), ""},
		{"one that stalls often", times(200, 2*ms, stall, stall, 800*ms), "of 200 synced writes of 4 KiB, half took up to 2ms, 99 in 100 up to 800ms and the slowest 900ms: 250ms is the most for 99 in 100"},
		{"a bad one", times(200, 30*ms, slices.Repeat([]time.Duration{800 * ms}, 20)...), "99 in 100 up to 800ms"},
		{"one that is too slow to be measured for long", times(40, 240*ms, 300*ms), "of 40 synced writes"},
		{"a dead one", times(3, 3*time.Second, 4*time.Second), "3 synced writes in 10s"},
		{"none", nil, "0 synced writes in 10s"},
	} {
		if d := Summary(c.times); (d.Unfit(250*ms) == "") != (c.says == "") || !strings.Contains(d.Unfit(250*ms), c.says) {
			t.Errorf("%s: %+v: %q", c.name, d, d.Unfit(250*ms))
		}
	}
	if d := Summary(times(100, ms, stall)); d.P99 != ms || d.Slowest != stall {
		t.Errorf("of a hundred, one is beyond the 99: %+v", d)
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

// TestDisk: a disk that is too slow says what was measured, and that it is measured again.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	d := Disk{Slowest: time.Nanosecond}
	d.Probe(dir)
	if why := d.Unfit(); !strings.Contains(why, "synced writes") || !strings.HasSuffix(why, "; it is measured again after 15s") {
		t.Error(why)
	}
	if d.Probe(dir); d.slow != 1 {
		t.Errorf("at once: %d probes", d.slow)
	}
	d.at = d.at.Add(-16 * time.Second)
	if d.Probe(dir); d.slow != 2 || !strings.HasSuffix(d.Unfit(), "after 30s") {
		t.Errorf("after 16 s: %d probes: %s", d.slow, d.Unfit())
	}
	d.Slowest, d.at = time.Minute, d.at.Add(-31*time.Second)
	if d.Probe(dir); d.Unfit() != "" {
		t.Error(d.Unfit())
	}
}

// TestAskedMore: of a disk that was fit more is asked than before. It is measured again, and not judged by
// old figures for ever.
func TestAskedMore(t *testing.T) {
	dir := t.TempDir()
	d := Disk{Slowest: time.Minute}
	if d.Probe(dir); d.Unfit() != "" || d.slow != 0 {
		t.Fatalf("%d probes: %s", d.slow, d.Unfit())
	}
	before := d.at.Add(-time.Hour)
	d.Slowest, d.at = time.Nanosecond, before
	if d.Probe(dir); d.slow != 1 || d.at.Equal(before) || !strings.HasSuffix(d.Unfit(), "after 15s") {
		t.Errorf("%d probes, again: %t: %s", d.slow, !d.at.Equal(before), d.Unfit())
	}
}

// TestRest: a disk that was busy while the node booted is not left out for long, and one
// that is slow is not worn by probes.
func TestRest(t *testing.T) {
	for slow, want := range map[int]time.Duration{
		1: 15 * time.Second, 2: 30 * time.Second, 3: time.Minute, 7: 16 * time.Minute, 8: 30 * time.Minute, 1 << 30: 30 * time.Minute,
	} {
		if got := rest(slow); got != want {
			t.Errorf("after %d: %s, want %s", slow, got, want)
		}
	}
}
