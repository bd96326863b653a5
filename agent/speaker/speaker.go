// Package speaker says to a fleet what its node says: it decides when something is signed anew,
// under which number, and what to do when others know a newer word of the same seat.
//
// In come what the node wants to be said, and what others have heard of the seat; out go signed
// objects, to a carrier. What is said, and how it travels, is not its matter.
package speaker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
)

// Speaker signs what this node says to its fleet, and says it again when that is due, as
// [notice.Due] says: at once when it changes, a status once an hour while it does not, and above
// what others have heard of this seat that it does not know, as after its disk was restored from
// a copy. Its methods may be called from any goroutine.
type Speaker struct {
	self    signed.Key
	numbers Numbers
	seal    func(kind string, sequence uint64, body []byte) (signed.Envelope, error)

	mu      sync.Mutex // guards what follows
	kinds   map[string]*said
	problem error
	changed chan struct{}
}

// Numbers are the sequence numbers of the node's seat. agent/identity's fit.
type Numbers interface {
	Next() uint64
	Heard(number uint64) bool
}

// said is what is said under a kind.
type said struct {
	want      []byte    // what is to be said
	body      []byte    // what was
	number    uint64    // under which
	at        time.Time // when; zero: never
	overruled int       // by objects of this seat that this run has not signed, in a row
	ruled     time.Time // the last time
	again     time.Time // nothing is said before
	failures  int       // to say it, in a row
}

// ErrTwin is of a seat for which another machine signs, too.
var ErrTwin = errors.New("another machine signs with the key of this node's seat: reset STATE of one of them, and give it a seat of its own")

// twins is how often in an hour somebody else has signed for a seat before that is no restored
// disk.
const twins = 3

// New is a speaker for a seat, which signs with seal.
func New(self signed.Key, numbers Numbers, seal func(kind string, sequence uint64, body []byte) (signed.Envelope, error)) *Speaker {
	return &Speaker{self: self, numbers: numbers, seal: seal, kinds: make(map[string]*said), changed: make(chan struct{}, 1)}
}

// Carrier takes what is said to others. A gossip.Engine fits.
type Carrier interface {
	Publish(signed.Envelope) error
	Object(kind string, by signed.Key) (signed.Envelope, bool)
}

// Say has the node say something under a kind from now on.
func (s *Speaker) Say(kind string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[kind]
	if k == nil {
		k = &said{}
		s.kinds[kind] = k
	}
	if !bytes.Equal(k.want, body) || k.want == nil {
		k.want = bytes.Clone(body)
		s.wake()
	}
}

// Heard takes note of an object that is news to the engine. It returns at once: it fits
// gossip.Config's News.
func (s *Speaker) Heard(object signed.Envelope) {
	if object.By != s.self {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard(object, time.Now())
}

// heard notes what others have of this seat. The caller holds mu.
func (s *Speaker) heard(object signed.Envelope, now time.Time) {
	s.numbers.Heard(object.Sequence)
	k := s.kinds[object.Kind]
	if k == nil || object.Sequence <= k.number {
		return // it is this run's, or nothing is said there yet
	}
	if now.Sub(k.ruled) > notice.Renewal {
		k.overruled = 0
	}
	k.overruled++
	k.ruled, k.number = now, object.Sequence
	k.again = now.Add(notice.Again(k.overruled))
	if k.body, k.at = nil, (time.Time{}); bytes.Equal(object.Body, k.want) {
		k.body, k.at = k.want, now // it is what would be said
	}
	s.wake()
}

// wake has Run look again.
func (s *Speaker) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Problem says what keeps the seat from being heard: the error wraps [ErrTwin], or says why
// nothing can be signed. nil: nothing.
func (s *Speaker) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kinds {
		if k.overruled >= twins && time.Since(k.ruled) <= notice.Renewal {
			return ErrTwin
		}
	}
	return s.problem
}

// Run says what is due, by a carrier, until ctx ends.
func (s *Speaker) Run(ctx context.Context, by Carrier) {
	for {
		wait := s.speak(by, time.Now())
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// speak says what is due, and returns how long until something is.
func (s *Speaker) speak(by Carrier, now time.Time) (wait time.Duration) {
	wait = notice.Renewal
	for _, kind := range s.due(now, &wait) {
		if again := s.say(by, kind, now); again > 0 {
			wait = min(wait, again)
		}
	}
	return wait
}

// due are the kinds of which something is to be said now; of the others, wait is how long that
// takes, if it is longer.
func (s *Speaker) due(now time.Time, wait *time.Duration) (kinds []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, k := range s.kinds {
		left := max(notice.Due(kind, !bytes.Equal(k.want, k.body), k.at, now), k.again.Sub(now))
		if left <= 0 {
			kinds = append(kinds, kind)
			left = notice.Renewal
		}
		*wait = min(*wait, left)
	}
	return kinds
}

// say signs and publishes what is to be said under a kind. If that fails it returns when to try
// again.
func (s *Speaker) say(by Carrier, kind string, now time.Time) (again time.Duration) {
	number := s.numbers.Next()
	s.mu.Lock()
	k := s.kinds[kind]
	body := k.want
	k.number = max(k.number, number)
	s.mu.Unlock()
	e, err := s.seal(kind, number, body)
	if err == nil {
		err = by.Publish(e)
	}
	var newer signed.Envelope
	overruled := false
	if errors.Is(err, notice.ErrOlder) {
		newer, overruled = by.Object(kind, s.self)
	}
	s.mu.Lock() // not before: the carrier, while it is waited for, may itself wait in Heard
	defer s.mu.Unlock()
	if overruled {
		k.number = 0
		s.heard(newer, now)
		return max(time.Millisecond, k.again.Sub(now))
	}
	if s.problem = nil; err != nil {
		s.problem = fmt.Errorf("say %s to the fleet: %w", kind, err)
		again = min(notice.Pause<<min(k.failures, 10), notice.Renewal)
		k.failures, k.again = k.failures+1, now.Add(again)
		return again
	}
	k.body, k.at, k.failures = body, now, 0
	return 0
}
