package etcd

import (
	"testing"
	"time"
)

// TestProbePause: a disk that was busy while the node booted is not left out for long, and one
// that is slow is not worn by probes.
func TestProbePause(t *testing.T) {
	for slow, want := range map[int]time.Duration{
		1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute, 5: 16 * time.Minute, 6: 30 * time.Minute, 1 << 30: 30 * time.Minute,
	} {
		if got := probePause(slow); got != want {
			t.Errorf("after %d: %s, want %s", slow, got, want)
		}
	}
}
