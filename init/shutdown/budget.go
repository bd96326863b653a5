package shutdown

import (
	"sync"
	"time"
)

// How is the way in which the machine ends.
type How string

const (
	Reboot   How = "reboot"
	Poweroff How = "poweroff"
)

// Total is the time a whole shutdown may take: services, processes, disks.
const Total = 90 * time.Second

// Budget is the time of one shutdown. It is made at boot, starts to run when
// somebody asks for the end, and is spent top down: who comes later gets what is
// left. The zero Budget is [Total], not yet started.
type Budget struct {
	mu    sync.Mutex // guards end
	end   time.Time
	Total time.Duration // zero: [Total]
}

// Start lets the budget run. Further calls change nothing: the first who asks
// for the end sets its time.
func (b *Budget) Start(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.end.IsZero() {
		return
	}
	total := b.Total
	if total == 0 {
		total = Total
	}
	b.end = now.Add(total)
}

// Share is the part of at most want that is left at now; never negative. It
// starts a budget that has not been started.
func (b *Budget) Share(now time.Time, want time.Duration) time.Duration {
	b.Start(now)
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, min(want, b.end.Sub(now)))
}
