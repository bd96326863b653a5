package door

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// Limits of the work for those who have shown nothing yet: handshakes, and the requests
// that are refused after them.
const (
	// maxTurn is the longest that one of them is worked for before the next one's turn,
	// whether or not it is done.
	maxTurn = 250 * time.Millisecond
	// maxEarly is what a stranger may send before the handshake is over, in bytes. Ours
	// takes 3 KiB; a chain of certificates that is only there to be read takes more.
	maxEarly = 8 << 10
	// maxRefused is how many requests a stranger may make in vain on one connection.
	maxRefused = 8
)

// turn is the work for what one stranger's connection has sent:
//
//	waiting ─next─▶ working ─over─▶ resting ─rested─▶ gone
//	    └──────────────┴────────────────────────────────▲
//
// While it rests its room stays empty for as long as it worked: strangers get half of the
// time of a processor, however many they are and however slow it is. One of a familiar
// address needs no rest.
type turn struct {
	from     origin
	familiar bool // a caller of the fleet came from there
	began    time.Time
	start    chan struct{} // closed when it may work
	waits    []*share      // of its networks, while it waits
}

// turns says whose turn it is. It waits for nothing and reads no clock.
type turns struct {
	rooms   int // for strangers who work or rest; a familiar one has one more
	working []*turn
	waiting []*turn // in the order in which they came
	waits   crowd   // of those
	count   int     // of turns
}

// Arrive lets t wait.
func (s *turns) Arrive(t *turn) {
	if s.waits == nil {
		s.waits = crowd{}
	}
	s.waiting = append(s.waiting, t)
	t.waits = s.waits.add(t.from)
}

// Next gives a room to one of those who wait: a familiar one before the others, then of the
// widest network that has had its turn the longest ago, of that in it which has, and so on to
// the host, the first to come. nil: nobody can work now.
func (s *turns) Next(now time.Time) *turn {
	var next *turn
	for _, t := range s.waiting {
		switch {
		case next == nil, t.familiar && !next.familiar:
			next = t
		case t.familiar == next.familiar && earlier(t.waits, next.waits):
			next = t
		}
	}
	rooms := s.rooms
	if next != nil && next.familiar {
		rooms++
	}
	if next == nil || len(s.working) >= rooms {
		return nil
	}
	s.stop(next)
	s.working = append(s.working, next)
	next.began = now
	s.count++
	s.waits.turn(next.from, s.count)
	return next
}

// Over ends the work of t, and returns for how long its room stays empty.
func (s *turns) Over(t *turn, now time.Time) time.Duration {
	if t.familiar || !slices.Contains(s.working, t) {
		return 0
	}
	return min(now.Sub(t.began), maxTurn)
}

// Leave forgets t.
func (s *turns) Leave(t *turn) {
	s.stop(t)
	s.working = slices.DeleteFunc(s.working, func(o *turn) bool { return o == t })
}

// stop has t wait no longer.
func (s *turns) stop(t *turn) {
	if t.waits != nil {
		s.waiting = slices.DeleteFunc(s.waiting, func(o *turn) bool { return o == t })
		s.waits.remove(t.from)
		t.waits = nil
	}
}

// gate carries out what [turns] says.
type gate struct {
	mu    sync.Mutex // guards turns
	turns turns
}

func newGate() *gate { return &gate{turns: turns{rooms: max(1, runtime.GOMAXPROCS(0)/2)}} }

// enter waits until what has come from there may be worked on; nil if gone is closed
// before.
func (g *gate) enter(from origin, familiar bool, gone <-chan struct{}) *turn {
	t := &turn{from: from, familiar: familiar, start: make(chan struct{})}
	g.mu.Lock()
	g.turns.Arrive(t)
	g.fill()
	g.mu.Unlock()
	select {
	case <-t.start:
		return t
	case <-gone:
		g.leave(t)
		return nil
	}
}

// over ends a turn, if it is not over yet.
func (g *gate) over(t *turn) {
	g.mu.Lock()
	rest := g.turns.Over(t, time.Now())
	g.mu.Unlock()
	if rest > 0 {
		time.AfterFunc(rest, func() { g.leave(t) })
		return
	}
	g.leave(t)
}

func (g *gate) leave(t *turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turns.Leave(t)
	g.fill()
}

// fill lets all work that can. The caller holds mu.
func (g *gate) fill() {
	for {
		t := g.turns.Next(time.Now())
		if t == nil {
			return
		}
		close(t.start)
		time.AfterFunc(maxTurn, func() { g.leave(t) }) // nothing of ours takes that long
	}
}
