package watchdog

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hardware is a timer in memory that counts.
type hardware struct {
	status int        // why the last reset was
	mu     sync.Mutex // guards the fields below
	pings  int
	time   time.Duration
	most   time.Duration // longest time it takes; zero: the time is fixed
	silent bool          // cannot tell its time
	dead   error         // of every ping
}

func (h *hardware) ping() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pings++
	return h.dead
}

func (h *hardware) setTimeout(t time.Duration) error {
	if t > h.most {
		return unix.EINVAL
	}
	h.time = t
	return nil
}

func (h *hardware) bootStatus() (int, error) { return h.status, nil }

func (h *hardware) timeout() (time.Duration, error) {
	if h.silent {
		return 0, unix.EOPNOTSUPP
	}
	return h.time, nil
}

func (h *hardware) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pings
}

func dog(h *hardware, timeout time.Duration) *Dog {
	d := &Dog{hw: h, fd: -1}
	d.start(timeout)
	return d
}

func TestVerdict(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		age   time.Duration
		stuck []string
		why   string
	}{
		{0, nil, ""},
		{5 * time.Second, nil, ""},
		{15 * time.Second, nil, ""},
		{-time.Hour, nil, ""}, // clocks are monotonic; if not, a live loop counts for more
		{16 * time.Second, nil, "the supervisor's last beat is 16s old, the timeout is 15s"},
		{0, []string{"containerd", "agent"}, "vital services cannot be killed: containerd, agent"},
		{time.Hour, []string{"agent"}, "the supervisor's last beat is 1h0m0s old, the timeout is 15s"},
	} {
		ping, why := Verdict(Beat{At: now.Add(-c.age), Stuck: c.stuck}, now, 15*time.Second)
		if ping != (c.why == "") || why != c.why {
			t.Errorf("beat %v old, stuck %v: %v, %q, want %q", c.age, c.stuck, ping, why, c.why)
		}
	}
}

func TestStart(t *testing.T) {
	for _, c := range []struct {
		name              string
		hw                *hardware
		ask               time.Duration
		timeout, interval time.Duration
	}{
		{"obeys", &hardware{most: time.Hour}, 15 * time.Second, 15 * time.Second, 5 * time.Second},
		{"fixed", &hardware{time: 9 * time.Second}, 15 * time.Second, 9 * time.Second, 3 * time.Second},
		{"as it is", &hardware{time: 30 * time.Second, most: time.Hour}, 0, 30 * time.Second, 10 * time.Second},
		{"silent", &hardware{most: time.Hour, silent: true}, time.Minute, 10 * time.Second, 10 * time.Second / 3},
		{"silent and fixed", &hardware{silent: true}, 0, time.Second, time.Second / 3},
	} {
		d := dog(c.hw, c.ask)
		if d.Timeout() != c.timeout || d.Interval() != c.interval || c.hw.pings != 1 || d.Missing() != nil {
			t.Errorf("%s: timeout %v, interval %v, %d pings, missing %v", c.name, d.Timeout(), d.Interval(), c.hw.pings, d.Missing())
		}
	}
}

// TestKeep pings once for each good beat and never without one.
func TestKeep(t *testing.T) {
	h := &hardware{most: time.Hour}
	d := dog(h, time.Minute)
	beats, said := make(chan Beat), make(chan string, 10)
	over := make(chan struct{})
	go func() { defer close(over); d.Keep(beats, func(line string) { said <- line }) }()
	good := func() Beat { return Beat{At: time.Now()} }
	bad := func() Beat { return Beat{At: time.Now(), Stuck: []string{"agent"}} }
	for _, b := range []Beat{good(), good(), bad(), bad(), good(), bad(), {At: time.Now().Add(-time.Hour)}} {
		beats <- b
	}
	close(beats)
	<-over
	close(said)
	var lines []string
	for line := range said {
		lines = append(lines, line)
	}
	if got := h.count() - 1; got != 3 { // one is from the start
		t.Errorf("%d pings, want 3", got)
	}
	if len(lines) != 3 || !strings.Contains(lines[2], "old, the timeout is 1m0s") {
		t.Errorf("said: %q", lines)
	}
}

// TestKeepDeadHardware says once that the device does not take pings.
func TestKeepDeadHardware(t *testing.T) {
	d := dog(&hardware{most: time.Hour, dead: unix.EIO}, time.Minute)
	beats := make(chan Beat, 5)
	for range cap(beats) {
		beats <- Beat{At: time.Now()}
	}
	close(beats)
	var said []string
	d.Keep(beats, func(line string) { said = append(said, line) })
	if len(said) != 1 || said[0] != "watchdog: no ping: ping watchdog: input/output error" {
		t.Errorf("said: %q", said)
	}
}

// TestWhile pings until the work is done, or has taken too long.
func TestWhile(t *testing.T) {
	h := &hardware{most: time.Hour}
	d := dog(h, time.Minute)
	d.timeout = 3 * time.Millisecond // pings each of them
	start := func(_ string, f func()) { go f() }
	d.While(time.Hour, start, func() {
		for before := h.count(); h.count() < before+5; {
			time.Sleep(time.Millisecond)
		}
	})
	after := h.count()
	d.While(time.Nanosecond, start, func() {
		for before := h.count(); h.count() <= before; {
			time.Sleep(time.Millisecond)
		}
	})
	if got := h.count() - after; got > 5 {
		t.Errorf("%d pings though the time was over", got)
	}
	func() { // the pings end also with a panic
		defer func() { _ = recover() }()
		d.While(time.Hour, start, func() { panic("work") })
	}()
	if h.count() == 0 {
		t.Error("no pings")
	}
}

func TestSetMax(t *testing.T) {
	for _, c := range []struct {
		name string
		hw   *hardware
		want time.Duration
	}{
		{"takes all", &hardware{most: time.Hour}, Maximum},
		{"i6300esb", &hardware{most: 2046 * time.Second}, Maximum},
		{"at most a minute", &hardware{most: time.Minute}, 45 * time.Second},
		{"fixed", &hardware{time: 16 * time.Second}, 16 * time.Second},
		{"has most already", &hardware{most: 15 * time.Second}, 15 * time.Second},
	} {
		d := dog(c.hw, 15*time.Second)
		before := c.hw.pings
		if err := d.SetMax(); err != nil || d.Timeout() < c.want || d.Timeout() > max(c.want, c.hw.most) || c.hw.pings != before+1 {
			t.Errorf("%s: %v, timeout %v, want %v or a little more; %d pings", c.name, err, d.Timeout(), c.want, c.hw.pings-before)
		}
	}
}

// TestNone is a machine without a watchdog: everything works and does nothing.
func TestNone(t *testing.T) {
	why := errors.New("no such device")
	d := None(why)
	beats := make(chan Beat, 1)
	beats <- Beat{}
	close(beats)
	d.Keep(beats, func(line string) { t.Error(line) })
	if d.Missing() != why || d.Ping() != nil || d.SetMax() != nil || d.Timeout() != 0 || d.Interval() <= 0 {
		t.Errorf("%+v", d)
	}
	if d := Open(t.TempDir()+"/watchdog", time.Second); !errors.Is(d.Missing(), os.ErrNotExist) {
		t.Errorf("Open: missing %v", d.Missing())
	}
}
