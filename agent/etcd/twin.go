package etcd

import (
	"maps"
	"slices"
	"time"
)

// outdated is the word for data on which this seat is not to begin any more.
const outdated = "another machine has run etcd as this seat, and knows what the data here does not"

// held says why etcd is not to begin here now, by what others have just said; "": it may.
func (m *member) held() string {
	why := m.twin.Holds(m.ears.hear(m.c.Seat), time.Now(), m.facts.Grace)
	if why != "" {
		m.once(why)
	}
	return why
}

// hear says whether others hear etcd of a seat: all that answer and run it.
func (e *ears) hear(seat int) bool {
	said, all := false, true
	for _, h := range e.all {
		if h.ok && h.last.Running {
			said, all = true, all && slices.Contains(h.last.Hears, seat)
		}
	}
	return said && all
}

// hears are the seats whose etcd speaks to the one here now.
func (d *dialer) hears() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.speak))
}

// note notes that a stream of a seat has begun, or ended.
func (d *dialer) note(seat, more int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.speak[seat] += more; d.speak[seat] == 0 {
		delete(d.speak, seat)
	}
}
