package supervise

import (
	"slices"
	"strings"
	"sync"

	"kogge.example/init/control"
)

// Degraded records what did not work and was no reason to end the boot. The zero
// value is an empty record, ready for use from any goroutine.
type Degraded struct {
	mu      sync.Mutex // guards the fields below
	list    []control.Degraded
	changes int
}

// Add records that what is not as it should be, because of err; nil is ignored.
// A later reason for the same thing takes the place of the earlier one.
func (d *Degraded) Add(what string, err error) {
	if err == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	why := strings.ReplaceAll(err.Error(), "\n", " ") // joined errors have lines
	entry := control.Degraded{What: what, Why: printable(why, maxWhy)}
	i := slices.IndexFunc(d.list, func(e control.Degraded) bool { return e.What == what })
	switch {
	case i < 0 && len(d.list) < maxDegraded:
		d.list = append(d.list, entry)
	case i >= 0 && d.list[i] != entry:
		d.list[i] = entry
	default:
		return
	}
	d.changes++
}

// Clear takes what off the record, when it works again.
func (d *Degraded) Clear(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.list)
	d.list = slices.DeleteFunc(d.list, func(e control.Degraded) bool { return e.What == what })
	if len(d.list) != before {
		d.changes++
	}
}

// List returns a copy of the record, in the order of its first entries.
func (d *Degraded) List() []control.Degraded {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.list)
}

// changed is a number that is another one after each change.
func (d *Degraded) changed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

const (
	maxDegraded = 64
	maxWhy      = 512
)
