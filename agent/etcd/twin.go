package etcd

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// twin is what a node hears of another machine that runs etcd as its seat. Two that vote, and
// acknowledge entries, as one make others believe what is not so. So the one that comes second
// does not begin: what runs already it never stops.
type twin struct {
	first, last time.Time // when all others said that etcd of this seat speaks to them
	was         bool      // another machine did: the data here is older than what the seat has said
	told        string
}

// outdated is the word for data on which this seat is not to begin any more.
const outdated = "another machine has run etcd as this seat, and knows what the data here does not"

// stale is how long others may hear etcd of a seat that has ended: they give a stream up after
// silence.
const stale = 2 * silence

// holds says why etcd is not to begin here now; "": it may. speaks says that others hear etcd of
// this seat. One that was surely there has to be gone for the grace, as for all that replaces it.
func (t *twin) holds(speaks bool, now time.Time, grace time.Duration) string {
	switch {
	case speaks && t.first.IsZero():
		t.first, t.last = now, now
	case speaks:
		t.last = now
	case t.last.Sub(t.first) < stale || now.Sub(t.last) >= grace:
		t.first, t.last = time.Time{}, time.Time{}
		return ""
	}
	if t.last.Sub(t.first) < stale {
		return "the others still hear etcd of this seat"
	}
	t.was = true
	return "another machine runs etcd with the key of this node's seat: if the disk of one is a copy of the other's, kogge node reset makes one of the two a new node"
}

// held says why etcd is not to begin here now, by what others have just said; "": it may.
func (m *member) held() string {
	why := m.twin.holds(m.ears.hear(m.c.Seat), time.Now(), m.facts.Grace)
	if why != m.twin.told && why != "" {
		say(m.c, why)
	}
	m.twin.told = why
	return why
}

// hear says whether others hear etcd of a seat: all that answer and run it.
func (e *ears) hear(seat int) bool {
	some := false
	for _, h := range e.all {
		if !h.ok || !h.last.Running {
			continue
		}
		if !slices.Contains(h.last.Hears, seat) {
			return false
		}
		some = true
	}
	return some
}

// streams are those of etcd by which other members speak to the one here now, by seat.
type streams struct {
	mu   sync.Mutex // guards open
	open map[int]int
}

// hears are the seats that speak.
func (s *streams) hears() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.open))
}

func (s *streams) note(seat, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[int]int)
	}
	if s.open[seat] += more; s.open[seat] == 0 {
		delete(s.open, seat)
	}
}

// count notes a stream that a seat has begun, until it ends.
func (s *streams) count(seat int, by http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		answer, err := by.RoundTrip(r)
		if err == nil && answer.StatusCode == http.StatusOK {
			s.note(seat, 1)
			answer.Body = &counted{answer.Body, sync.OnceFunc(func() { s.note(seat, -1) })}
		}
		return answer, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// counted is the body of a stream.
type counted struct {
	io.ReadCloser
	over func()
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil {
		c.over()
	}
	return n, err
}

func (c *counted) Close() error {
	c.over()
	return c.ReadCloser.Close()
}
