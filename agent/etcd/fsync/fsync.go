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
	P99    time.Duration `json:"p99"` // 99 in 100 took this long at most; of fewer than 100, all
	// Slowest is the one that took longest. It says nothing about the disk: a host that is busy
	// with something else (a boot, other nodes on the same disk) stalls a write now and then.
	Slowest time.Duration `json:"slowest,omitempty"`
	Error   string        `json:"error,omitempty"`
}

const (
	// probeWrites leaves two stalled writes out of the 99 in 100. Of 64 writes every stall counted,
	// and a busy host kept its nodes from founding a fleet, or from coming back to it.
	probeWrites = 200
	probeBytes  = 4096
	// probeLimit cuts a probe short. A disk that has not done leastWrites by then is too slow
	// whatever they took.
	probeLimit  = 10 * time.Second
	leastWrites = 8
)

// Unfit says why a disk is none for a member of etcd if 99 in 100 writes may take as long as slowest;
// "": it is one.
func (t Times) Unfit(slowest time.Duration) string {
	switch {
	case t.Error != "":
		return "its disk could not be probed: " + t.Error
	case t.Writes < leastWrites:
		return fmt.Sprintf("its disk is too slow for etcd, or busy: it did %s in %s", writes(t.Writes), probeLimit)
	case t.P99 > slowest:
		return fmt.Sprintf("its disk is too slow for etcd, or busy: of %s of %d KiB, half took up to %s, 99 in 100 up to %s and the slowest %s: %s is the most for 99 in 100",
			writes(t.Writes), probeBytes>>10, short(t.Median), short(t.P99), short(max(t.Slowest, t.P99)), slowest)
	}
	return ""
}

func writes(n int) string { return fmt.Sprintf("%d synced writes", n) }

// short is a time as people read it.
func short(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

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
		t.Median, t.P99, t.Slowest = times[len(times)/2], times[(len(times)*99+99)/100-1], times[len(times)-1]
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
		block[len(times)%probeBytes]++
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

// Disk is a disk that is to be a member's. Its zero value was not measured yet.
type Disk struct {
	Slowest time.Duration // see [Times.Unfit]
	Times   Times         // when it was measured last

	at   time.Time
	slow int // how often in a row it was found unfit
}

// A disk that is not fit rests until it is measured again: Soon at first, Rest at last.
const Soon, Rest = 15 * time.Second, 30 * time.Minute

// Probe measures the disk of a folder if it was not measured, or was not fit and has rested: it may
// only have been busy, as it is while a node boots.
func (d *Disk) Probe(dir string) {
	if !d.at.IsZero() && (d.slow == 0 || time.Since(d.at) < rest(d.slow)) {
		return
	}
	d.Times, d.at = Measure(dir), time.Now()
	if d.slow++; d.Times.Unfit(d.Slowest) == "" {
		d.slow = 0
	}
}

// Unfit says why the disk may not hold data now, and when it is measured again; "": it may.
func (d *Disk) Unfit() string {
	why := d.Times.Unfit(d.Slowest)
	if why == "" {
		return ""
	}
	return fmt.Sprintf("%s; it is measured again after %s", why, rest(d.slow))
}

// rest is how long a disk is left alone that was not fit so often in a row: probes wear it.
func rest(slow int) time.Duration {
	pause := Soon
	for ; slow > 1 && pause < Rest; slow-- {
		pause *= 2
	}
	return min(pause, Rest)
}
