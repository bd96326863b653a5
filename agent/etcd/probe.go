package etcd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is how fast a disk keeps what etcd writes.
type Probe struct {
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

	// Slowest is what a synced write may take where a member's log is. etcd's makers want 10 ms
	// of disks in a data centre, for throughput. Here some writes a minute are all there is,
	// and SD cards and eMMC, with 10 to 100 ms, have to do. What may not happen is that a
	// leader looks dead: it sends no heartbeat while it writes, so a write has to be over well
	// within the time of an election. A fifth of that leaves room for a network and a busy card.
	Slowest = election / 5
)

// Unfit says why a disk is none for etcd if a synced write may take as long as slowest; "": it is
// one.
func (p Probe) Unfit(slowest time.Duration) string {
	switch {
	case p.Error != "":
		return "its disk could not be probed: " + p.Error
	case p.Writes < leastWrites:
		return fmt.Sprintf("its disk took %s for %d synced writes", probeLimit, p.Writes)
	case p.P99 > slowest:
		return fmt.Sprintf("its disk takes up to %s for a synced write, and %s is the most for a member", p.P99.Round(time.Millisecond), slowest)
	}
	return ""
}

// ProbeDisk measures the disk of a folder.
func ProbeDisk(dir string) Probe {
	times, err := probe(dir)
	p := summary(times)
	if err != nil {
		p.Error = err.Error()
	}
	return p
}

func summary(times []time.Duration) Probe {
	p := Probe{Writes: len(times)}
	if slices.Sort(times); len(times) > 0 {
		p.Median, p.P99 = times[len(times)/2], times[min(len(times)-1, len(times)*99/100)]
	}
	return p
}

func probe(dir string) (times []time.Duration, err error) {
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
