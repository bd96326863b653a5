// Package fsync measures how fast a disk keeps what is written and synced, as etcd does with its
// log.
//
// In comes a folder of the disk; out come how long some synced writes took, and whether that does.
// The package writes one file there, which is gone afterwards.
package fsync

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Times are how long synced writes took.
type Times struct {
	Writes int           `json:"writes"` // of 4 KiB, each synced before the next
	Median time.Duration `json:"median"`
	P99    time.Duration `json:"p99"` // of few writes the slowest
	Error  string        `json:"error,omitempty"`
}

const (
	probeWrites = 64
	probeBytes  = 4096
	// probeLimit cuts a probe short. A disk that has not done leastWrites by then is too slow
	// whatever they took.
	probeLimit  = 10 * time.Second
	leastWrites = 8
)

// Unfit says why a disk is none for a member of etcd if a synced write may take as long as slowest;
// "": it is one.
func (t Times) Unfit(slowest time.Duration) string {
	switch {
	case t.Error != "":
		return "its disk could not be probed: " + t.Error
	case t.Writes < leastWrites:
		return fmt.Sprintf("its disk took %s for %d synced writes", probeLimit, t.Writes)
	case t.P99 > slowest:
		return fmt.Sprintf("its disk takes up to %s for a synced write, and %s is the most for a member", t.P99.Round(time.Millisecond), slowest)
	}
	return ""
}

// Measure measures the disk of a folder.
func Measure(dir string) Times {
	all, err := measure(dir)
	t := Summary(all)
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// Summary is what so many times come to.
func Summary(times []time.Duration) Times {
	t := Times{Writes: len(times)}
	if slices.Sort(times); len(times) > 0 {
		t.Median, t.P99 = times[len(times)/2], times[min(len(times)-1, len(times)*99/100)]
	}
	return t
}

func measure(dir string) (times []time.Duration, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "probe")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(name)
	defer f.Close()
	// As etcd does with its log. A file system that cannot allocates as it writes.
	_ = unix.Fallocate(int(f.Fd()), 0, 0, probeWrites*probeBytes)
	block := make([]byte, probeBytes)
	for began := time.Now(); len(times) < probeWrites && time.Since(began) < probeLimit; {
		block[len(times)]++
		at := time.Now()
		if _, err := f.Write(block); err != nil {
			return times, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return times, err
		}
		times = append(times, time.Since(at))
	}
	return times, nil
}
