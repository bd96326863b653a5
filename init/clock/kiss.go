package clock

import (
	"fmt"
	"log"
	"maps"
	"slices"
	"time"
)

// Words of a server to a client that it does not want as it is ("kiss of death").
//
// Source: RFC 5905, section 7.4.
const (
	rate = "RATE" // asked too often: less each time that it says so
	deny = "DENY"
	rstr = "RSTR" // as deny, by a rule of the server's
)

const (
	// mostPause is the longest to a server that wants fewer questions.
	mostPause = 8 * longPause
	// denyPause is to one that wants none. It may be another machine by then, or its rules
	// others; one question a day disturbs nobody.
	denyPause = 24 * time.Hour
)

// manners are how a server is asked; the zero value: at each poll.
type manners struct {
	code string        // what it said last
	most time.Duration // not more often than this
	next time.Time     // the next time
}

func (m manners) due(now time.Time) bool { return !now.Before(m.next) }

// denied says whether the server wants no questions.
func (m manners) denied() bool { return m.code == deny || m.code == rstr }

// after is m once the server was asked, and said this; "": the time, or nothing.
func (m manners) after(code string, now time.Time) manners {
	switch {
	case code == rate:
		m.code, m.most = rate, min(max(2*m.most, longPause), mostPause)
	case code == deny || code == rstr:
		m.code, m.most = code, denyPause
	case m.denied():
		m = manners{}
	}
	if m.most > 0 {
		m.next = now.Add(m.most)
	}
	return m
}

// String says what the server wants; "" if that is nothing.
func (m manners) String() string {
	switch {
	case m.denied():
		return fmt.Sprintf("refuses to say the time (%s): it is asked again in %s", m.code, m.most)
	case m.code != "":
		return fmt.Sprintf("wants fewer questions (%s): it is asked again in %s", m.code, m.most)
	}
	return ""
}

// due are those of the servers that may be asked now. What others once wanted is forgotten.
// If there is none, wait is how long to the first one.
func (s *service) due(servers []string, now time.Time) (due []string, wait time.Duration) {
	maps.DeleteFunc(s.manners, func(name string, _ manners) bool { return !slices.Contains(servers, name) })
	wait = retryPause // there may be other servers by then
	for _, name := range servers {
		if m := s.manners[name]; m.due(now) {
			due = append(due, name)
		} else {
			wait = min(wait, m.next.Sub(now))
		}
	}
	return due, wait
}

// told takes what servers that were asked said of how they are asked.
func (s *service) told(p poll, now time.Time) {
	for _, name := range p.asked {
		before := s.manners[name]
		m := before.after(p.kisses[name], now)
		if m == (manners{}) {
			delete(s.manners, name)
			continue
		}
		s.manners[name] = m
		if p.kisses[name] != "" && m.String() != before.String() {
			log.Printf("clock: %s %s", name, m)
		}
	}
}

// unwelcome says which servers want to be asked less, in words.
func (s *service) unwelcome() string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(s.manners)) {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("%s %s", name, s.manners[name])
	}
	return text
}
