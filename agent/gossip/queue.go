package gossip

import "kogge.example/agent/gossip/wire"

// What waits to be sent, at most.
const (
	maxQueue      = 64       // turns of the engine, to one peer
	maxQueueBytes = 1 << 20  // to one peer
	maxAllQueued  = 16 << 20 // to all of them
)

// send sends what comes into the queue, until it is closed or the session fails.
func (s *session) send() {
	for frames := range s.queue {
		size := 0
		for _, f := range frames {
			size += len(f)
		}
		if s.conn.Send(frames) != nil {
			s.conn.Close() // which the other goroutine finds out
			for range s.queue {
			}
			return
		}
		s.queued.Add(-int64(size))
	}
}

// say adds a frame to what is sent at the end of the engine's turn.
func (s *session) say(f wire.Frame) { s.sayRaw(wire.Encode(f)) }

func (s *session) sayRaw(raw []byte) {
	s.out = append(s.out, raw)
	s.pending += len(raw)
}

// flush hands to the sessions what was said in this turn. A peer that does not read is dropped,
// and nobody waits for it; if all of them together read too slowly, the slowest is.
func (e *Engine) flush() {
	for _, s := range e.sessions {
		if len(s.asks) > 0 {
			s.say(s.asks)
			s.asks = nil
		}
		if len(s.out) == 0 {
			continue
		}
		e.stats.Sent += uint64(s.pending)
		if s.queued.Add(int64(s.pending)) > maxQueueBytes {
			e.drop(s, reasonSlow)
			continue
		}
		select {
		case s.queue <- s.out:
			s.out, s.pending = nil, 0
		default:
			e.drop(s, reasonSlow)
		}
	}
	var slowest *session
	e.queued = 0
	for _, s := range e.sessions {
		queued := s.queued.Load()
		e.queued += queued
		if slowest == nil || queued > slowest.queued.Load() {
			slowest = s
		}
	}
	if e.queued > maxAllQueued {
		e.drop(slowest, reasonSlow)
	}
}
