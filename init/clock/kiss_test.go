package clock

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// TestKiss: a server that asks for fewer questions, or for none, gets no more of them, and
// the others go on.
func TestKiss(t *testing.T) {
	for _, c := range []struct {
		code     string
		asked    int32  // while the other one is asked ten times; 0: every time
		problem  string // where there is no other
		single   bool
		answered bool
	}{
		{code: "RATE", asked: 1, problem: "127.0.0.1 wants fewer questions (RATE): it is asked again in 17m4s", single: true},
		{code: "DENY", asked: 1, problem: "127.0.0.1 refuses to say the time (DENY): it is asked again in 24h0m0s", single: true},
		{code: "RSTR", asked: 1, problem: "127.0.0.1 refuses to say the time (RSTR): it is asked again in 24h0m0s", single: true},
		{code: "XABC", single: true},
	} {
		for _, other := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, another one %v", c.code, other), func(t *testing.T) {
				began := time.Now()
				var kissed, good atomic.Int32
				count := func(n *atomic.Int32) func() time.Time {
					return func() time.Time { n.Add(1); return truth.Add(time.Since(began)) }
				}
				o := Options{Floor: NewFloor(time.Time{}, image), Clock: clockAt(image), first: time.Millisecond, Paths: Paths{Run: t.TempDir()}}
				o.port = ntpServer(t, "127.0.0.1", 0, "kiss "+c.code, count(&kissed))
				var cfg nodeconfig.Config
				cfg.Time.Servers = []string{"127.0.0.1"}
				if other {
					ntpServer(t, "127.0.0.2", o.port, "good", count(&good))
					cfg.Time.Servers = append(cfg.Time.Servers, "127.0.0.2")
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				ended := make(chan error)
				go func() { ended <- Run(ctx, cfg, o) }()
				status := waitStatus(t, o.Paths.Run, func(s control.Clock) bool {
					if other {
						return s.Synced && good.Load() >= 10
					}
					return s.Problem == c.problem && kissed.Load() > 0
				})
				cancel()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if n := kissed.Load(); c.asked > 0 && n != c.asked || n == 0 {
					t.Errorf("asked %d times", n)
				}
				if other && status.Single != c.single {
					t.Errorf("status %+v", status)
				}
			})
		}
	}
}

// TestManners is what becomes of a server over time: asked (a) or not (.) at each of the
// shortest pauses, and what it answers.
func TestManners(t *testing.T) {
	for _, c := range []struct {
		answers []string // one for each time that it is asked; "": good
		want    string
	}{
		{[]string{""}, "aaaaaaaa"},
		{[]string{"RATE", ""}, "aaaaaaaaaaaa"},
		{[]string{"RATE", "RATE", ""}, "aa..a.a.a.a.a.a.a.a.a.a.a"},
		{[]string{"RATE", "good"}, "aaaaaaaaa"},
		{[]string{"RATE", "RATE", "good"}, "aa..a.a.a.a.a.a.a.aaaaaaa"},
		{[]string{"RATE", "RATE", "good", "good", "good", "good", "", "good"}, "aa..a.a.a.a.a.a.a.a.a.a.a.a.aaaa"},
		{[]string{"RATE", "RATE", "RATE", "RATE", "RATE", ""}, "aa..a...a.......a.......a.......a"},
		{[]string{"INIT", "XXXX"}, "aaaa"},
		{[]string{"DENY", ""}, "a" + strings.Repeat(".", 84) + "aaaa"},
		{[]string{"RSTR"}, "a" + strings.Repeat(".", 84) + "a" + strings.Repeat(".", 84) + "a"},
	} {
		now := time.Duration(0)
		var m manners
		got, n := "", 0
		for range c.want {
			if now >= m.next {
				got += "a"
				m = m.after(c.answers[min(n, len(c.answers)-1)], now)
				n++
			} else {
				got += "."
			}
			now += longPause
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.answers, got, c.want)
		}
	}
}

// day is a service among servers that answer by a script, with a clock that is told what
// time it is.
type day struct {
	t     *testing.T
	s     *service
	clock *fakeClock
	now   time.Time // by a clock that nobody sets
	asked map[string][]time.Duration
	good  int           // polls after which the clock was synced by several
	first time.Duration // the first of them
	bad   []string      // problems since
}

func newDay(t *testing.T, servers ...string) *day {
	d := &day{t: t, clock: clockAt(image), now: time.Now(), asked: make(map[string][]time.Duration)}
	d.s = newService(nodeconfig.Config{}, Options{Clock: d.clock, Floor: NewFloor(time.Time{}, image)}, d.now)
	d.s.status.Servers = servers
	d.s.begin()
	return d
}

// run lets the time go by. answer says what a server answers to its nth question, from 0:
// "" is the right time, "-" nothing, "+" a wrong time, the rest a kiss.
func (d *day) run(long time.Duration, answer func(server string, n int) string) {
	began := d.now
	for at := time.Duration(0); at < long; at = d.now.Sub(began) {
		due, wait := d.s.due(d.s.status.Servers, d.now)
		if len(due) > 0 {
			p := poll{asked: due, kisses: make(map[string]string)}
			for _, name := range due {
				offset := truth.Add(at).Sub(d.clock.Now())
				switch said := answer(name, len(d.asked[name])); said {
				case "":
					p.samples = append(p.samples, Sample{Server: name, Offset: offset})
				case "+":
					p.samples = append(p.samples, Sample{Server: name, Offset: offset + time.Hour})
				case "-":
				default:
					p.kisses[name] = said
				}
				d.asked[name] = append(d.asked[name], at)
			}
			d.s.told(p, d.now)
			d.s.polled(p)
			if d.s.status.Synced && !d.s.status.Single {
				if d.good++; d.good == 1 {
					d.first = at
				}
			}
			if d.good > 0 && d.s.status.Problem != "" {
				d.bad = append(d.bad, fmt.Sprintf("%s: %s", at, d.s.status.Problem))
			}
			wait = d.s.pause(d.now)
		}
		d.now = d.now.Add(wait)
		_ = d.clock.Slew(wait)
	}
}

// TestRateAtDifferentPolls: servers that want fewer questions are still asked together, and
// one of them makes nobody doubt the others.
func TestRateAtDifferentPolls(t *testing.T) {
	// kisses says RATE to a server's questions of these numbers.
	kisses := func(m map[string][]int) func(string, int) string {
		return func(server string, n int) string {
			for _, k := range m[server] {
				if k == n {
					return "RATE"
				}
			}
			if server == "dead" {
				return "-"
			}
			return ""
		}
	}
	for _, c := range []struct {
		name    string
		servers []string
		rate    map[string][]int
		within  time.Duration // until two agree
		doubts  int           // polls after that in which one alone answers, and the other says RATE
	}{
		{"none", []string{"a", "b"}, nil, time.Second, 0},
		{"at different polls", []string{"a", "b"}, map[string][]int{"a": {0}, "b": {1}}, time.Hour, 0},
		{"far apart", []string{"a", "b"}, map[string][]int{"a": {0}, "b": {40}}, time.Hour, 2},
		{"one, once", []string{"a", "b"}, map[string][]int{"a": {0}}, time.Hour, 0},
		{"one, twice", []string{"a", "b"}, map[string][]int{"a": {0, 1}}, 2 * time.Hour, 0},
		{"one often, one once", []string{"a", "b"}, map[string][]int{"a": {0, 1, 2, 3, 4}, "b": {2}}, 10 * time.Hour, 0},
		{"both at different paces", []string{"a", "b"}, map[string][]int{"a": {0, 1}, "b": {1, 2, 3}}, 6 * time.Hour, 0},
		{"three", []string{"a", "b", "c"}, map[string][]int{"a": {0}, "b": {1}, "c": {2}}, time.Hour, 2},
		{"beside a dead one", []string{"a", "b", "dead"}, map[string][]int{"a": {0, 1}}, 2 * time.Hour, 0},
		{"after days", []string{"a", "b"}, map[string][]int{"a": {100}, "b": {150}}, time.Second, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDay(t, c.servers...)
			d.run(72*time.Hour, kisses(c.rate))
			if d.good == 0 || d.first > c.within || !d.s.status.Synced || d.s.status.Single {
				t.Errorf("%d polls good, the first after %s, status %+v", d.good, d.first, d.s.status)
			}
			if len(d.bad) > c.doubts {
				t.Errorf("%d problems since: %q", len(d.bad), d.bad)
			}
			for name, asked := range d.asked {
				if name != "dead" && len(asked) > 310 {
					t.Errorf("%s was asked %d times", name, len(asked))
				}
			}
			if len(d.s.manners) > 0 {
				t.Errorf("after days of good answers: %s", d.s.unwelcome())
			}
		})
	}
}

// TestRateKeepsItsPace: who wants fewer questions gets them, whatever the others do.
func TestRateKeepsItsPace(t *testing.T) {
	d := newDay(t, "a", "b")
	d.run(72*time.Hour, func(server string, n int) string {
		if server == "a" {
			return "RATE"
		}
		return ""
	})
	pause := longPause
	for n, at := range d.asked["a"][1:] {
		if gap := at - d.asked["a"][n]; gap < pause-time.Minute {
			t.Errorf("question %d after %s, not %s", n+1, gap, pause)
		}
		pause = min(2*pause, mostPause)
	}
	if !d.s.status.Synced || !d.s.status.Single {
		t.Errorf("status %+v", d.s.status)
	}
}

// TestRateAndALiar: a server is not believed alone because the one that contradicts it wants
// fewer questions.
func TestRateAndALiar(t *testing.T) {
	d := newDay(t, "a", "liar")
	d.run(72*time.Hour, func(server string, n int) string {
		switch {
		case server == "liar":
			return "+"
		case n == 0:
			return "RATE"
		}
		return ""
	})
	if d.s.status.Synced {
		t.Errorf("status %+v", d.s.status)
	}
	// Once it is gone, the other one is.
	d = newDay(t, "a", "b")
	d.run(72*time.Hour, func(server string, n int) string {
		switch {
		case server == "b":
			return ""
		case n == 0:
			return "RATE"
		case n < 3:
			return "+"
		}
		return "-"
	})
	if !d.s.status.Synced || !d.s.status.Single {
		t.Errorf("status %+v", d.s.status)
	}
}

// TestMannersOfAnotherPlace: a server that is asked less is the one that said so, at the
// place where it was asked, and not another machine with its name or address.
func TestMannersOfAnotherPlace(t *testing.T) {
	network := func(links ...control.Interface) control.Network { return control.Network{Interfaces: links} }
	eth0, eth1 := control.Interface{Name: "eth0", Carrier: true}, control.Interface{Name: "eth1", Carrier: true}
	down, wg0 := control.Interface{Name: "eth0"}, control.Interface{Name: "wg0", Carrier: true, Foreign: true}
	changed := map[string]string{"eth0": "2", "eth1": "2"}
	flapped := map[string]string{"eth0": "4", "eth1": "2", "wg0": "9"}
	both := []string{"a", "b"}
	for _, c := range []struct {
		name    string
		servers []string
		network control.Network
		changes map[string]string
		asked   string // then
	}{
		{"the same", both, network(eth0), changed, "[b]"},
		{"the same in another order", []string{"b", "a"}, network(eth0), changed, "[b]"},
		{"unplugged and back between two polls", both, network(eth0), flapped, "[a b]"},
		{"unplugged", both, network(down), changed, "[a b]"},
		{"another link", both, network(eth1), changed, "[a b]"},
		{"one more link", both, network(eth0, eth1), changed, "[a b]"},
		{"a container's link", both, network(eth0, wg0), changed, "[b]"},
		{"one more server", []string{"a", "b", "c"}, network(eth0), changed, "[a b c]"},
		{"one less", []string{"a"}, network(eth0), changed, "[a]"},
		{"no facts of the network", both, control.Network{}, changed, "[b]"},
	} {
		for _, code := range []string{"RATE", "DENY", "RSTR"} {
			d := newDay(t, both...)
			count := func(m map[string]string) func(string) string { return func(link string) string { return m[link] } }
			d.s.moved(placeOf(both, network(eth0), count(changed)))
			d.s.told(poll{asked: both, kisses: map[string]string{"a": code}}, d.now)
			d.now = d.now.Add(time.Minute)
			d.s.moved(placeOf(c.servers, c.network, count(c.changes)))
			due, _ := d.s.due(c.servers, d.now)
			if got := fmt.Sprint(due); got != c.asked {
				t.Errorf("%s, %s: asks %s, want %s", c.name, code, got, c.asked)
			}
		}
	}
	// The kernel counts, and does so for each link.
	if carrierChanges("lo") == "" {
		t.Error("no count of lo")
	}
	if got := carrierChanges("none"); got != "" {
		t.Errorf("count of a link that is not there: %q", got)
	}
}

// TestReplugged has the service ask a server that refused again once the node hangs on
// another link.
func TestReplugged(t *testing.T) {
	began := time.Now()
	var kissed atomic.Int32
	o := Options{Floor: NewFloor(time.Time{}, image), Clock: clockAt(image), first: time.Millisecond, Paths: Paths{Run: t.TempDir()}}
	o.port = ntpServer(t, "127.0.0.1", 0, "kiss DENY", func() time.Time { kissed.Add(1); return truth })
	ntpServer(t, "127.0.0.2", o.port, "good", func() time.Time { return truth.Add(time.Since(began)) })
	plug := func(link string) {
		t.Helper()
		n := control.Network{
			NTP:        []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")},
			Interfaces: []control.Interface{{Name: link, Carrier: true}},
		}
		if err := n.Write(o.Paths.Run); err != nil {
			t.Fatal(err)
		}
	}
	plug("eth7")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- Run(ctx, nodeconfig.Config{}, o) }()
	waitStatus(t, o.Paths.Run, func(s control.Clock) bool { return s.Synced })
	if n := kissed.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	plug("eth8")
	waitStatus(t, o.Paths.Run, func(control.Clock) bool { return kissed.Load() == 2 })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
