// Package events is what happened on this node lately.
//
// In come events from whoever makes or sees them, and what the keeper of the containers
// and PID 1 report one after the other, which becomes events by comparison; out go the
// newest thousand, to any number of readers. Nobody who adds one ever waits: a reader
// who does not keep up misses some and is told how many. Nothing is stored: the logs
// of the services and of the kernel say more, and for longer.
package events

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind is what an event is about.
type Kind string

// The kinds of events.
const (
	Container Kind = "container"
	Command   Kind = "command" // in a container, by an operator
	Project   Kind = "project"
	Image     Kind = "image"
	Registry  Kind = "registry"
	Service   Kind = "service" // of the node
	Operator  Kind = "operator"
	Node      Kind = "node" // and its settings
)

// Kinds are all of them, those of the work first.
var Kinds = []Kind{Container, Command, Project, Image, Registry, Service, Operator, Node}

// Event is one thing that happened.
type Event struct {
	Number uint64    // since the agent started, from 1
	Time   time.Time // with a monotonic clock: that of a node may jump
	Kind   Kind
	Object string // its name
	What   string // "started"
	By     string // the operator who asked for it, if one did
	Text   string // why, or what else there is to say
}

// maxText is the longest text of an event, in bytes.
const maxText = 400

// size is how many events are kept: some hundred KiB.
const size = 1000

// Ring keeps the newest events. Its zero value is ready.
type Ring struct {
	mu      sync.Mutex // guards what follows
	events  []Event    // the oldest first
	last    uint64
	changed chan struct{}
}

// Add numbers an event, and stamps it unless it has a time.
func (r *Ring) Add(all ...Event) {
	if len(all) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range all {
		r.last++
		e.Number = r.last
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		e.Object, e.What, e.By, e.Text = cut(e.Object), cut(e.What), cut(e.By), cut(e.Text)
		r.events = append(r.events, e)
	}
	if over := len(r.events) - size; over > 0 {
		r.events = slices.Delete(r.events, 0, over)
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// cut keeps a text short, on one line and valid.
func cut(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
}

// After returns the events after the number n, how many of them are not kept any more,
// and a channel that is closed when there are newer ones.
func (r *Ring) After(n uint64) (events []Event, missed uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	first := r.last - uint64(len(r.events)) + 1
	if n+1 < first {
		missed = first - 1 - n
	}
	from := uint64(0)
	if n+1 > first {
		from = min(n+1-first, uint64(len(r.events)))
	}
	return slices.Clone(r.events[from:]), missed, r.changed
}
