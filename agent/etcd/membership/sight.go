package membership

import "time"

// Sight is what the leader's node has seen of another seat, look by look. What was not seen counts
// for nothing: silence begins at the first look at which a node was missed, and a node that was not
// looking begins anew.
type Sight struct {
	At     time.Time // of the last look
	Silent time.Time // of the first of the looks in a row at which it did not answer; zero: it did
	Idle   time.Time // of the first in a row at which its etcd did not run, if it answered or not
	Learns time.Time // of the first in a row at which it was a learner
}

// Blind is how long after a look what was seen then counts no more. A look waits for answers, and
// for one step.
const Blind = 20 * time.Second

// Look is a look at a seat.
func (s Sight) Look(now time.Time, answers, runs, learner bool) Sight {
	if now.Sub(s.At) > Blind {
		s = Sight{}
	}
	s.At = now
	s.Silent = first(s.Silent, now, !answers)
	s.Idle = first(s.Idle, now, !answers || !runs)
	s.Learns = first(s.Learns, now, learner)
	return s
}

func first(before, now time.Time, is bool) time.Time {
	switch {
	case !is:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}

// Peer is how the seat stands by what was seen of it.
func (s Sight) Peer() Peer {
	return Peer{Silent: since(s.Silent, s.At), Idle: since(s.Idle, s.At), Learns: since(s.Learns, s.At)}
}

// since is how long ago something was, but never 0, which would be never.
func since(began, now time.Time) time.Duration {
	if began.IsZero() {
		return 0
	}
	return max(now.Sub(began), time.Nanosecond)
}
