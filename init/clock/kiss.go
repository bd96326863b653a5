package clock

import (
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kogge.example/init/control"
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
	// denyPause is to one that wants none. Its rules may be others by then, and one question
	// a day disturbs nobody.
	denyPause = 24 * time.Hour
	// easeAfter is after how many good answers in a row a server is asked twice as often.
	easeAfter = 8
	// early is how long before its time a server may be asked, to be asked with others.
	early = time.Minute
)

// good is what a server says that says the time.
const good = "good"

// manners are how a server is asked; the zero value: at each poll.
type manners struct {
	code string        // what it said last, but for the time
	most time.Duration // not more often than this
	next time.Duration // the next time, since the service began
	good int           // good answers in a row
}

// denied says whether the server wants no questions.
func (m manners) denied() bool { return m.code == deny || m.code == rstr }

// after is m once the server was asked, and said this: a kiss, [good] or "" for nothing. now
// is since the service began.
//
// Those that want fewer questions are asked at whole multiples of their pause. Each is a power
// of two of the shortest, so that they are asked together, whenever they said it: two that are
// never asked at once never agree.
func (m manners) after(said string, now time.Duration) manners {
	switch {
	case said == rate:
		m = manners{code: rate, most: min(max(2*m.most, longPause), mostPause)}
	case said == deny || said == rstr:
		return manners{code: said, most: denyPause, next: now + denyPause}
	case m.code != rate:
		return manners{}
	case said == good:
		if m.good++; m.good%easeAfter == 0 {
			m.most /= 2
		}
	default:
		m.good = 0
	}
	if m.most < longPause {
		return manners{}
	}
	m.next = (now + m.most - early + m.most - 1).Truncate(m.most)
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

// place is where servers were asked, as far as the node can tell.
type place struct {
	servers string
	links   string // "": not known
}

// placeOf is the place of a node with these servers and links. changes says how often a link
// was plugged in or out. Links that containers make lead nowhere else.
func placeOf(servers []string, network control.Network, changes func(link string) string) place {
	var links []string
	for _, i := range network.Interfaces {
		if !i.Foreign {
			links = append(links, fmt.Sprint(i.Name, i.Carrier, changes(i.Name)))
		}
	}
	slices.Sort(links)
	return place{strings.Join(slices.Sorted(slices.Values(servers)), " "), strings.Join(links, " ")}
}

// carrierChanges is how often a link was plugged in or out since it is there, by the kernel's
// count; "" where it has none.
//
// Source: Documentation/ABI/testing/sysfs-class-net in the kernel tree.
func carrierChanges(link string) string {
	text, err := os.ReadFile(filepath.Join("/sys/class/net", link, "carrier_changes"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// moved takes where the node is now. What servers wanted elsewhere is forgotten: there may be
// other machines here with their names and addresses.
func (s *service) moved(to place) {
	if to.links == "" {
		to.links = s.place.links
	}
	if to != s.place {
		clear(s.manners)
	}
	s.place = to
}

// due are those of the servers that may be asked now. If there is none, wait is how long to the first one.
func (s *service) due(servers []string, now time.Time) (due []string, wait time.Duration) {
	at := now.Sub(s.began)
	wait = retryPause // there may be other servers by then
	for _, name := range servers {
		if m := s.manners[name]; at >= m.next {
			due = append(due, name)
		} else {
			wait = min(wait, m.next-at)
		}
	}
	return due, wait
}

// told takes what servers that were asked said of how they are asked.
func (s *service) told(p poll, now time.Time) {
	for _, name := range p.asked {
		before := s.manners[name]
		said := p.kisses[name]
		if slices.ContainsFunc(p.samples, func(a Sample) bool { return a.Server == name }) {
			said = good
		}
		m := before.after(said, now.Sub(s.began))
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

// partial says whether the answers of a poll are to wait for those of others: no two agree,
// and a server was not asked that wants fewer questions, but answers them.
func (s *service) partial(p poll) bool {
	if sources(agreeing(p.samples)) > 1 {
		return false
	}
	for name, m := range s.manners {
		if m.good > 0 && !slices.Contains(p.asked, name) {
			return true
		}
	}
	return false
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
