package clock

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"kogge.example/init/control"
)

// latest is far beyond the life of a node, and within what every clock can hold.
var latest = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// ByHand says what a person's word for the time makes of the clock: the answer for a
// node without a battery and without time servers. It counts until servers agree.
//
// A clock set by hand is not synced, so it refuses no certificate by its dates: a
// wrong year would lock out everybody who could set it right. It is saved, however
// far it jumps: it was asked for. Going back below the time that was saved last, or below
// what certificates say, takes back, for that may be somebody's wrong year.
func (s State) ByHand(now, to time.Time, back bool) (State, Action) {
	refuse := func(format string, args ...any) (State, Action) {
		return s, Action{Verb: Refuse, Save: s.saves(now), Why: fmt.Sprintf(format, args...)}
	}
	stamp := to.UTC().Format(time.RFC3339)
	switch {
	case s.IsSynced(now) && !now.Before(s.Floor.Witnessed):
		return refuse("the clock follows time servers and is not set by hand")
	case to.Before(s.Floor.Hard):
		return refuse("%s is before %s, when this release was made", stamp, s.Floor.Hard.UTC().Format(time.RFC3339))
	case !to.Before(latest):
		return refuse("%s is after %s: too far in the future", stamp, latest.Format(time.RFC3339))
	case to.Before(s.Floor.Saved) && !back:
		refused, a := refuse("%s is before %s, the last time that the node saved", stamp, s.Floor.Saved.UTC().Format(time.RFC3339))
		a.BeforeSaved = true
		return refused, a
	case to.Before(s.Floor.Witnessed) && !back:
		refused, a := refuse("%s is before %s, when a certificate of the fleet begins", stamp, s.Floor.Witnessed.UTC().Format(time.RFC3339))
		a.BeforeSaved = true
		return refused, a
	}
	s.Floor.Saved, s.Synced, s.Single = to, time.Time{}, false
	if to.Before(s.Floor.Witnessed) {
		s.Floor = s.Floor.takenBack()
	}
	if to.Before(s.Floor.Passed) {
		s.Floor.Passed = to
	}
	return s, Action{Verb: Set, Offset: to.Sub(now), Save: true, Why: fmt.Sprintf("clock set by hand, by %s", to.Sub(now).Round(time.Millisecond))}
}

// hand is a person's word, for the loop to answer.
type hand struct {
	control.SetClock
	answer chan<- control.ClockSet // room for one
}

// handTimeout is what a client has for its line and for the answer.
const handTimeout = 10 * time.Second

// listenHands opens the socket for people's words and passes them to out, one client
// at a time, until it is closed.
func listenHands(path string, out chan<- hand) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for manual settings: %w", err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				log.Printf("clock: accept: %v", err)
				time.Sleep(time.Second) // out of descriptors: others may give some back
				continue
			}
			serveHand(conn, out)
		}
	}()
	return l, nil
}

func serveHand(conn net.Conn, out chan<- hand) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(handTimeout))
	var answer control.ClockSet
	line, err := bufio.NewReaderSize(conn, control.MaxRequest).ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return
	}
	request, err := control.ParseSetClock(line)
	if err != nil {
		answer.Error = err.Error()
	} else {
		answers := make(chan control.ClockSet, 1)
		select {
		case out <- hand{request, answers}:
			answer = <-answers
		case <-time.After(handTimeout): // the service ends
			return
		}
	}
	if text, err := json.Marshal(answer); err == nil {
		_, _ = conn.Write(append(text, '\n')) // who has gone needs no answer
	}
}

// setByHand carries out a person's word.
func (s *service) setByHand(h control.SetClock) control.ClockSet {
	answer := control.ClockSet{Was: s.o.Clock.Now().UTC()}
	s.ran()
	if !h.Passed.IsZero() {
		return s.witness(h.Passed)
	}
	next, a := s.state.ByHand(answer.Was, h.To, h.Back)
	if a.Verb == Refuse {
		return control.ClockSet{Error: a.Why, BeforeSaved: a.BeforeSaved}
	}
	if err := s.carryOut(a); err != nil {
		return control.ClockSet{Error: err.Error()}
	}
	log.Printf("clock: %s", a.Why)
	s.state, s.polls, s.good = next, 0, true
	answer.Now = s.o.Clock.Now().UTC()
	s.status.Synced, s.status.Single, s.status.Source = false, false, ""
	s.status.Jump, s.status.JumpAt = a.Offset.Round(time.Microsecond).String(), answer.Now.Truncate(time.Second)
	s.status.ByHand = s.status.JumpAt
	s.write(answer.Now)
	return answer
}

// witness takes a time that has passed, by certificates that the agent has verified. A clock
// that is behind it is wrong.
func (s *service) witness(t time.Time) control.ClockSet {
	now := s.o.Clock.Now()
	floor, err := s.state.Floor.Witness(t)
	if err != nil {
		return control.ClockSet{Error: err.Error()}
	}
	answer := control.ClockSet{Was: now.UTC()}
	s.state.Floor = floor
	if to, wrong := Start(now, Floor{Witnessed: floor.Witnessed}); wrong && !s.state.IsSynced(now) {
		if err := s.o.Clock.Set(to); err != nil {
			return control.ClockSet{Error: err.Error()}
		}
		log.Printf("clock: set to %s, which has passed by the fleet's certificates", to.UTC().Format(time.RFC3339))
		s.begin()
	}
	s.write(time.Time{})
	answer.Now = s.o.Clock.Now().UTC()
	return answer
}
