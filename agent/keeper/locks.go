package keeper

import "sync"

// locks has a queue for each instance: of several workers that are to start or take it
// away one works at a time, in the order in which they were told to.
type locks struct {
	mu   sync.Mutex               // guards what follows
	last map[string]chan struct{} // closed when whoever came last is done
}

// queue puts the caller behind all who work on an instance or wait to, at once. The
// function that it returns waits for them, and returns what ends the caller's own work:
// call both.
func (l *locks) queue(name string) (lock func() (unlock func())) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, own := l.last[name], make(chan struct{})
	if l.last == nil {
		l.last = make(map[string]chan struct{})
	}
	l.last[name] = own
	return func() func() {
		if before != nil {
			<-before
		}
		return func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			close(own)
			if l.last[name] == own {
				delete(l.last, name)
			}
		}
	}
}
