// Package clock keeps the node's clock sane on machines without a battery, with a
// broken one, and with time servers that lie.
//
// In come floors (times that have certainly passed: the image's commit, the seed,
// the last saved time, what certificates say) and samples of NTP servers; out go
// the system clock, the hardware clock, the saved time on STATE, and [control.Clock] in
// /run/kogge.
//
// It asks no server that neither node.yaml nor DHCP names. Nothing about booting,
// falling back or voting looks at the clock; this package makes it right for
// certificates and for people.
package clock

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Floor is the earliest that the time can be. Servers may go below what they said
// themselves: whoever is on their way can answer for them. What was signed only a person
// takes back.
type Floor struct {
	Hard time.Time // of the image
	// Witnessed is when a certificate begins that the fleet's CA signed, by what was verified
	// so far. Zero: none was.
	Witnessed time.Time
	// Doubted is how far of that a person took back: what begins no later does not count.
	// Zero: nothing.
	Doubted time.Time
	// Passed is what has passed by the word of servers that agreed, and by the hours that the
	// node ran since then or since Witnessed: enough to call what ended before it over.
	// Zero: nobody said.
	Passed time.Time
	Saved  time.Time // last saved time, which may be that of a broken clock; zero without one
}

// NewFloor returns the floor of a node: the latest of the times that are certain,
// and the saved time. Zero times are unknown and do not count.
func NewFloor(saved time.Time, certain ...time.Time) Floor {
	f := Floor{Saved: saved}
	for _, t := range certain {
		if t.After(f.Hard) {
			f.Hard = t
		}
	}
	return f
}

// Time is the floor as a time: no clock starts below it.
func (f Floor) Time() time.Time { return later(f.Certain(), f.Saved) }

// Certain is the floor without the saved time: who was not let in because of a clock that
// was wrong could not set it right.
func (f Floor) Certain() time.Time { return later(f.signed(), f.Passed) }

// signed is the floor by signatures: no server is believed below it.
func (f Floor) signed() time.Time { return later(f.Hard, f.Witnessed) }

// Run is the floor after the node ran for so long.
func (f Floor) Run(d time.Duration) Floor {
	if at := f.Certain(); d > 0 && !at.IsZero() {
		f.Passed = at.Add(d)
	}
	return f
}

// maxWitness is how far a certificate of a fleet may raise the floor at a time. Whoever signs it
// may have a wrong clock, or somebody else's key. They live for a year: what is signed today is
// not over by that.
const maxWitness = 300 * 24 * time.Hour

// Witness is the floor once a certificate that the fleet's CA signed says that t has passed.
func (f Floor) Witness(t time.Time) (Floor, error) {
	at := f.Certain()
	switch {
	case !t.After(f.signed()):
		return f, nil
	case !t.After(f.Doubted):
		return f, fmt.Errorf("a certificate begins at %s, which a person took back: it does not count", t.UTC().Format(time.RFC3339))
	case at.IsZero():
		return f, errors.New("the node knows of no time that has passed for sure")
	case t.Sub(at) > maxWitness:
		return f, fmt.Errorf("a certificate begins at %s, over 300 days after %s, which is all that is known to have passed: it does not count: if it is right, a person has to set the clock",
			t.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	f.Witnessed = t
	return f, nil
}

// takenBack is the floor without what is witnessed: a person knows better.
func (f Floor) takenBack() Floor {
	f.Doubted, f.Witnessed = later(f.Doubted, f.Witnessed), f.Hard
	return f
}

func later(t, u time.Time) time.Time {
	if u.After(t) {
		return u
	}
	return t
}

const (
	// farJump is a distance from the floor that no unattended node has seen: a clock
	// that is this far ahead is wrong, or was off for ten years, and then one more
	// boot with an unsaved clock does no harm. It is never saved unasked.
	farJump = 10 * 365 * 24 * time.Hour
	// agreement is how far the truths of two servers may lie apart.
	agreement = 500 * time.Millisecond
	// step is from when on the clock is set instead of slewed: certificates and logs
	// do not mind less.
	step = 500 * time.Millisecond
	// slack is how far below what was signed a server's time may be: the image was
	// built on a machine whose clock was right to the minute.
	slack = 10 * time.Minute
	// lonePolls is after how many polls a server is believed alone though others were
	// asked: one of them that only loses a packet still has its say.
	lonePolls = 3
)

// State is what is known about the clock.
//
//	Unsynced ─servers agree─▶ Synced ─no answer for a day─▶ Unsynced
//
// One server alone is enough where no other is asked, or none answers for a while.
//
// In Unsynced the clock runs from the floor or from the hardware clock. It is saved
// only if it is no far jump ahead of the floor.
type State struct {
	Floor  Floor
	Synced time.Time // by the node's clock, when servers last agreed; zero: never
	Single bool      // by one server alone
	Lone   Lone
}

// Lone are polls in a row in which one server alone answered. Those without any answer do
// not count.
type Lone struct {
	Servers []string // its names, at the last of them
	Polls   int
}

// after is l after one more.
func (l Lone) after(group []Sample) Lone {
	same := slices.ContainsFunc(group, func(s Sample) bool { return slices.Contains(l.Servers, s.Server) })
	if !same {
		l.Polls = 0
	}
	next := Lone{Polls: l.Polls + 1}
	for _, s := range group {
		next.Servers = append(next.Servers, s.Server)
	}
	return next
}

// waits says whether a server that alone answers may soon be believed.
func (l Lone) waits() bool { return l.Polls > 0 && l.Polls < lonePolls }

// stale is how long a node without answers counts as synced.
const stale = 24 * time.Hour

// IsSynced says whether the clock follows servers now.
func (s State) IsSynced(now time.Time) bool {
	return !s.Synced.IsZero() && now.Sub(s.Synced) < stale
}

// Sample is one server's answer: its time as an offset from the node's clock.
type Sample struct {
	Server  string
	Stratum int
	Offset  time.Duration // add to the node's clock
	Error   time.Duration // how wrong Offset may be: half the round trip and the server's own doubt
	Clock   Reference     // of the server; zero: not known
}

// Reference is what a server's clock was last set by, and when. Two answers with the same
// one are of one server, by whatever names and addresses it was asked.
type Reference struct {
	ID   uint32
	Time int64 // in nanoseconds since 1970, by the server's clock
}

// sources is of how many servers the samples are, as far as that can be known.
func sources(samples []Sample) int {
	type source struct {
		Reference
		name string // of a server whose reference is not known
	}
	all := make(map[source]bool)
	for _, s := range samples {
		one := source{Reference: s.Clock}
		if s.Clock == (Reference{}) {
			one.name = s.Server
		}
		all[one] = true
	}
	return len(all)
}

// Verb is what to do about the clock.
type Verb string

const (
	Nothing Verb = "nothing"
	Set     Verb = "set"    // at once
	Slew    Verb = "slew"   // bit by bit
	Refuse  Verb = "refuse" // the servers say what cannot be
)

// Action is what Step wants done.
type Action struct {
	Verb   Verb
	Offset time.Duration
	Save   bool   // the time is good enough to be the next floor
	Source string // the servers that agree, for the status
	Why    string // for the log, where there is something to say
	// BeforeSaved says of a refusal that a person could insist.
	BeforeSaved bool
}

// Step says what the samples of one poll make of the clock. configured is how many
// servers were asked: with two or more, two must agree, unless one server alone answers
// (see lonePolls); a single one is believed. now is the node's clock.
func (s State) Step(now time.Time, configured int, samples []Sample) (State, Action) {
	group := agreeing(samples)
	single := sources(group) == 1
	alone := single && len(group) == len(samples)
	switch {
	case alone:
		s.Lone = s.Lone.after(group)
	case len(samples) > 0:
		s.Lone = Lone{}
	}
	if all := len(samples) == configured; len(group) == 0 || single && !(alone && (all || !s.Lone.waits())) {
		why := ""
		switch {
		case alone:
			why = fmt.Sprintf("of %d servers %s alone answers: if that stays so, it is believed", configured, names(group))
		case len(samples) > 0:
			why = fmt.Sprintf("%d of %d servers answer, and no two agree", len(samples), configured)
		}
		return s, Action{Verb: Nothing, Save: s.saves(now), Why: why}
	}
	offset := middle(group)
	truth := now.Add(offset)
	if floor := s.Floor.signed(); truth.Before(floor.Add(-slack)) {
		why := fmt.Sprintf("%s says %s, which is before %s", names(group), truth.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339))
		if floor.After(s.Floor.Hard) {
			why += ", when a certificate of the fleet begins: if that was made by a wrong clock, a person has to set this one"
		}
		return s, Action{Verb: Refuse, Save: s.saves(now), Why: why}
	}
	s.Synced, s.Single = truth, single
	action := Action{Verb: Slew, Offset: offset, Source: names(group)}
	if offset.Abs() >= step {
		action.Verb = Set
		action.Why = fmt.Sprintf("clock set by %s, as %s says", offset.Round(time.Millisecond), action.Source)
	}
	if s.Single {
		action.Source += " (single source)"
	}
	action.Save = !far(truth, s.Floor)
	if !action.Save {
		action.Why += fmt.Sprintf("; over ten years ahead of %s: not saved", s.Floor.Time().UTC().Format(time.DateOnly))
	}
	if action.Save && truth.Before(s.Floor.Saved) {
		// What was saved is proved wrong; the next save writes the truth.
		s.Floor.Saved = truth
	}
	if action.Save {
		s.Floor.Passed = truth // be it before what was believed until now
	}
	return s, action
}

// saves says whether an unsynced clock may become the next floor.
func (s State) saves(now time.Time) bool {
	return !far(now, s.Floor) && now.After(later(s.Floor.Hard, s.Floor.Saved))
}

// far says whether t is over ten years ahead of the floor. Without any floor
// nothing can be said, and nothing is saved.
func far(t time.Time, f Floor) bool {
	return f.Time().IsZero() || t.Sub(f.Time()) > farJump
}

// agreeing returns the samples of the most servers whose truths lie within their errors,
// or half a second, of one of them. If those of as many others say something else, nobody
// is believed.
func agreeing(samples []Sample) []Sample {
	var best []Sample
	tied := false
	for _, center := range samples {
		var group []Sample
		for _, o := range samples {
			if (o.Offset - center.Offset).Abs() <= agreement+min(o.Error, time.Second)+min(center.Error, time.Second) {
				group = append(group, o)
			}
		}
		switch n, most := sources(group), sources(best); {
		case n > most:
			best, tied = group, false
		case n == most && (middle(group)-middle(best)).Abs() > 2*agreement:
			tied = true
		}
	}
	if tied {
		return nil
	}
	return best
}

// middle is the offset of the sample with the least error.
func middle(group []Sample) time.Duration {
	best := group[0]
	for _, s := range group {
		if s.Error < best.Error {
			best = s
		}
	}
	return best.Offset
}

func names(group []Sample) string {
	text := ""
	for i, s := range group {
		if i > 0 {
			text += ", "
		}
		text += s.Server
	}
	return text
}

// Start says which time a clock is to be set to at boot, before anything asks: a
// clock below the floor is wrong. ok is false if it can stay.
func Start(now time.Time, f Floor) (t time.Time, ok bool) {
	if now.Before(f.Time()) {
		return f.Time(), true
	}
	return now, false
}
