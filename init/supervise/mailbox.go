package supervise

import (
	"fmt"
	"sync"
)

// mailbox holds lines between the loop, which must not wait, and a listener that
// may be a slow serial line. When it is full, new lines are counted and dropped.
type mailbox struct {
	mu      sync.Mutex // guards dropped and closed
	dropped int
	closed  bool
	lines   chan string
}

func newMailbox(room int) *mailbox { return &mailbox{lines: make(chan string, room)} }

func (m *mailbox) put(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	if m.dropped > 0 {
		select {
		case m.lines <- fmt.Sprintf("%d lines left out", m.dropped):
			m.dropped = 0
		default:
		}
	}
	select {
	case m.lines <- line:
	default:
		m.dropped++
	}
}

// deliver calls to for each line until the mailbox is closed and empty.
func (m *mailbox) deliver(to func(string)) {
	for line := range m.lines {
		if to != nil {
			to(line)
		}
	}
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	close(m.lines)
}
