package clock

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

func date(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

var (
	image = date("2026-03-01")
	saved = date("2026-06-01")
	truth = date("2026-07-01")
)

// TestStep shows what each set of answers makes of clocks that are right, in 1970
// and in 2090.
func TestStep(t *testing.T) {
	var out strings.Builder
	for _, clock := range []struct {
		name string
		now  time.Time
	}{{"right", truth}, {"1970, raised to the floor", saved}, {"2090", date("2090-01-01")}} {
		for _, floor := range []Floor{NewFloor(saved, image), NewFloor(date("2029-01-01"), image)} {
			fmt.Fprintf(&out, "clock %s, image of %s, saved %s\n", clock.name, floor.Hard.Format(time.DateOnly), floor.Saved.Format(time.DateOnly))
			at := func(server string, says time.Time) Sample {
				return Sample{Server: server, Offset: says.Sub(clock.now), Error: 20 * time.Millisecond}
			}
			for _, c := range []struct {
				name       string
				configured int
				samples    []Sample
			}{
				{"no servers", 0, nil},
				{"all silent", 3, nil},
				{"one configured", 1, []Sample{at("a", truth)}},
				{"one of two answers", 2, []Sample{at("a", truth)}},
				{"two agree", 2, []Sample{at("a", truth), at("b", truth.Add(30*time.Millisecond))}},
				{"two differ", 2, []Sample{at("a", truth), at("b", truth.Add(time.Hour))}},
				{"two honest, one liar", 3, []Sample{at("liar", date("2031-01-01")), at("a", truth), at("b", truth.Add(time.Millisecond))}},
				{"two against two", 4, []Sample{at("a", truth), at("b", truth), at("x", truth.AddDate(1, 0, 0)), at("y", truth.AddDate(1, 0, 0))}},
				{"all say 2019", 2, []Sample{at("x", date("2019-01-01")), at("y", date("2019-01-01"))}},
				{"all say 2050", 2, []Sample{at("x", date("2050-01-01")), at("y", date("2050-01-01"))}},
			} {
				s, a := State{Floor: floor}.Step(clock.now, c.configured, c.samples)
				verb := string(a.Verb)
				if a.Verb == Set || a.Verb == Slew {
					verb += " to " + clock.now.Add(a.Offset).Format(time.DateOnly)
				}
				fmt.Fprintf(&out, "  %-20s → %-18s save %-5v synced %-5v %s\n", c.name, verb, a.Save, s.IsSynced(clock.now.Add(a.Offset)), a.Source)
				if a.Why != "" {
					fmt.Fprintf(&out, "  %20s   %s\n", "", a.Why)
				}
			}
		}
	}
	golden.Compare(t, "step.txt", out.String())
}

// TestByHand shows what a person's word makes of clocks.
func TestByHand(t *testing.T) {
	var out strings.Builder
	for _, clock := range []struct {
		name  string
		now   time.Time
		state State
	}{
		{"raised to the floor", saved, State{Floor: NewFloor(saved, image)}},
		{"of a release alone", image, State{Floor: NewFloor(time.Time{}, image)}},
		{"saved far ahead", date("2035-01-01"), State{Floor: NewFloor(date("2035-01-01"), image)}},
		{"synced", truth, State{Floor: NewFloor(saved, image), Synced: truth}},
		{"synced two days ago", truth, State{Floor: NewFloor(saved, image), Synced: truth.AddDate(0, 0, -2)}},
	} {
		fmt.Fprintf(&out, "clock %s\n", clock.name)
		for _, to := range []time.Time{date("2020-01-01"), image, date("2026-05-01"), truth, truth.AddDate(0, 0, -2).Add(time.Hour), date("2070-01-01"), date("2250-01-01")} {
			for _, back := range []bool{false, true} {
				s, a := clock.state.ByHand(clock.now, to, back)
				fmt.Fprintf(&out, "  %s back %-5v → %-6s save %-5v floor %s, synced %v: %s\n", to.Format(time.DateOnly), back, a.Verb, a.Save,
					s.Floor.Time().Format(time.DateOnly), s.IsSynced(clock.now.Add(a.Offset)), a.Why)
			}
		}
	}
	golden.Compare(t, "byhand.txt", out.String())
}

// TestHand has people set the clock of a service without servers, over its socket.
func TestHand(t *testing.T) {
	dir := t.TempDir()
	clock := clockAt(image)
	paths := Paths{Saved: filepath.Join(dir, "clock"), Run: dir, Socket: filepath.Join(dir, "sock")}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, nodeconfig.Config{}, Options{Floor: NewFloor(time.Time{}, image), Clock: clock, Paths: paths})
	}()
	waitStatus(t, paths.Run, func(control.Clock) bool { return true })
	ask := func(to time.Time, back bool) (control.ClockSet, error) {
		return control.AskClock(ctx, paths.Socket, control.SetClock{To: to, Back: back})
	}
	// The socket comes after the status, and its file before somebody listens.
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", paths.Socket)
		if err == nil {
			conn.Close()
		}
		if err == nil || time.Now().After(end) {
			break
		}
	}
	for line, want := range map[string]string{"{}\n": "request has no time", "{\"to\":7}\n": "read request", strings.Repeat("x", 5000): "longer than"} {
		conn, err := net.Dial("unix", paths.Socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(line))
		answer := make([]byte, 512)
		n, _ := conn.Read(answer)
		if conn.Close(); !strings.Contains(string(answer[:n]), want) {
			t.Errorf("%.20q: %s", line, answer[:n])
		}
	}
	set, err := ask(truth, false)
	if err != nil || set.Now.Sub(truth).Abs() > time.Minute || set.Was.Sub(image).Abs() > time.Minute {
		t.Errorf("set: %+v, %v", set, err)
	}
	status := waitStatus(t, paths.Run, func(s control.Clock) bool { return !s.ByHand.IsZero() })
	if status.Synced || status.SavedAt.IsZero() || clock.rtc.Sub(truth).Abs() > time.Minute {
		t.Errorf("status %+v, hardware clock %s", status, clock.rtc)
	}
	if _, err := ask(image.Add(time.Hour), false); err == nil || !strings.Contains(err.Error(), "the last time that the node saved") {
		t.Errorf("back, unasked: %v", err)
	}
	if _, err := ask(image.Add(time.Hour), true); err != nil || clock.Now().Sub(image) > 2*time.Hour {
		t.Errorf("back: %v, clock %s", err, clock.Now())
	}
	if on, err := load(paths.Saved); err != nil || on.Sub(image) > 2*time.Hour {
		t.Errorf("saved %s, %v", on, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// fakeClock runs beside the machine's clock and is never the machine's.
type fakeClock struct {
	mu   sync.Mutex // guards what follows
	off  time.Duration
	sets int
	rtc  time.Time
}

func clockAt(t time.Time) *fakeClock { return &fakeClock{off: time.Until(t)} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.off)
}

func (c *fakeClock) Set(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off, c.sets = t.Sub(time.Now().Round(0)), c.sets+1
	return nil
}

func (c *fakeClock) Slew(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
	return nil
}

func (c *fakeClock) SaveRTC(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rtc = t
	return nil
}

// ntpServer answers on a loopback address at one port for all; kind says how.
func ntpServer(t *testing.T, address string, port int, kind string, source func() time.Time) int {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	port = conn.LocalAddr().(*net.UDPAddr).Port
	if kind == "dead" {
		conn.Close() // who asks is refused
		return port
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, peer, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			if n < 48 || kind == "silent" {
				continue
			}
			stamp := func(t time.Time) uint64 {
				s := t.Sub(date("1900-01-01"))
				return uint64(s/time.Second)<<32 | uint64(s%time.Second)<<32/uint64(time.Second)
			}
			now := source()
			reply := make([]byte, 48)
			reply[0], reply[1], reply[2], reply[3] = 4<<3|4, 2, 6, 0xec
			copy(reply[24:32], buf[40:48])
			binary.BigEndian.PutUint64(reply[16:], stamp(now.Add(-time.Minute)))
			binary.BigEndian.PutUint64(reply[32:], stamp(now))
			binary.BigEndian.PutUint64(reply[40:], stamp(now))
			kind, code, _ := strings.Cut(kind, " ")
			switch kind {
			case "kiss":
				reply[1] = 0
				copy(reply[12:], code)
			case "router": // set by one upstream server, whatever address it is asked at
				copy(reply[12:], "\x0a\x01\x02\x03")
				binary.BigEndian.PutUint64(reply[16:], stamp(truth.Add(-time.Minute+123456789)))
			case "unsynced":
				reply[0] |= 3 << 6
			case "garbage":
				reply = buf[:20]
			case "replay":
				reply[24] ^= 1
			}
			_, _ = conn.WriteToUDP(reply, peer)
		}
	}()
	return port
}

// TestRun lets the service ask real servers over UDP.
func TestRun(t *testing.T) {
	elapsed := time.Now()
	real := func() time.Time { return truth.Add(time.Since(elapsed)) }
	lie := func() time.Time { return date("2031-01-01").Add(time.Since(elapsed)) }
	for _, c := range []struct {
		name   string
		start  time.Time
		kinds  []string
		synced bool
		saves  bool
		single bool
	}{
		{"1970", image, []string{"good", "good"}, true, true, false},
		{"2090 comes back", date("2090-01-01"), []string{"good", "good"}, true, true, false},
		{"2090 stays without servers, unsaved", date("2090-01-01"), []string{"silent", "silent"}, false, false, false},
		{"liar outvoted", image, []string{"liar", "good", "good"}, true, true, false},
		{"alone against a liar", image, []string{"liar", "good"}, false, false, false},
		{"kiss of death and nonsense", image, []string{"kiss RATE", "unsynced", "garbage", "replay", "good"}, false, false, false},
		{"single", image, []string{"good"}, true, true, true},
		{"one of two is dead", image, []string{"dead", "good"}, true, true, true},
		{"one router by two addresses", image, []string{"router", "router"}, true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Floor: NewFloor(time.Time{}, image), Clock: clockAt(c.start), first: time.Millisecond,
				Paths: Paths{Saved: filepath.Join(dir, "clock"), Run: dir}}
			var cfg nodeconfig.Config
			for i, kind := range c.kinds {
				source := real
				if kind == "liar" {
					source = lie
				}
				address := fmt.Sprintf("127.0.0.%d", i+1)
				o.port = ntpServer(t, address, o.port, kind, source)
				cfg.Time.Servers = append(cfg.Time.Servers, address)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- Run(ctx, cfg, o) }()
			status := waitStatus(t, o.Paths.Run, func(s control.Clock) bool {
				return s.Synced || !c.synced && len(s.Servers) > 0 && s.Received > 0 || c.kinds[0] == "silent" && len(s.Servers) > 0
			})
			cancel()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			clock := o.Clock.(*fakeClock)
			if near := clock.Now().Sub(real()).Abs() < 10*time.Minute; near != c.synced || status.Synced != c.synced {
				t.Errorf("clock is at %s, status %+v", clock.Now(), status)
			}
			if c.synced && (clock.rtc.IsZero() || status.Single != c.single) {
				t.Errorf("hardware clock %s, status %+v", clock.rtc, status)
			}
			on, err := load(o.Paths.Saved)
			if err != nil {
				t.Fatal(err)
			}
			if c.saves && on.Sub(real()).Abs() > 10*time.Minute || !c.saves && on.After(truth) {
				t.Errorf("saved %s", on)
			}
		})
	}
}

// waitStatus waits until the status file is as wanted, two minutes at most.
func waitStatus(t *testing.T, run string, ok func(control.Clock) bool) control.Clock {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s, err := control.ReadClock(run)
		if err == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain, status %+v, %v", s, err)
		}
	}
}

// TestServers: those of node.yaml before those of the network, and none that is link-local
// without its link.
func TestServers(t *testing.T) {
	network := control.Network{
		NTP:        []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::2%eth1")},
		Interfaces: []control.Interface{{Name: "eth0"}, {Name: "eth1", Carrier: true}},
	}
	for _, c := range []struct {
		set  []string
		in   control.Network
		want string
	}{
		{nil, network, "[192.0.2.1 fe80::2%eth1]"},
		{[]string{"ntp.example", "fe80::1", "fe80::1%eth0", "169.254.1.1"}, network, "[ntp.example fe80::1%eth1 fe80::1%eth0 169.254.1.1]"},
		{[]string{"fe80::1"}, control.Network{}, "[fe80::1]"},
		{[]string{"ntp.example", "NTP.example.", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1", "FE80:0::1", "fe80::1%Eth0"}, control.Network{}, "[ntp.example 192.0.2.1 fe80::1 fe80::1%Eth0]"},
		{nil, control.Network{}, "[]"},
	} {
		if got := fmt.Sprint(servers(c.set, c.in)); got != c.want {
			t.Errorf("%v: %s, want %s", c.set, got, c.want)
		}
	}
}

func TestSetFloor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	c := clockAt(date("1970-01-01"))
	f, err := SetFloor(c, file, image, time.Time{})
	if err != nil || f.Time() != image || c.sets != 1 || c.Now().Before(image) {
		t.Errorf("without a saved time: %v, %v, clock %s", f, err, c.Now())
	}
	if err := save(file, saved); err != nil {
		t.Fatal(err)
	}
	if f, err = SetFloor(c, file, image); err != nil || !f.Time().Equal(saved) || c.Now().Before(saved) {
		t.Errorf("with a saved time: %v, %v, clock %s", f, err, c.Now())
	}
	// A clock that is ahead stays: who knows.
	c = clockAt(date("2090-01-01"))
	if _, err = SetFloor(c, file, image); err != nil || c.sets != 0 {
		t.Errorf("clock in 2090: %v, set %d times", err, c.sets)
	}
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = clockAt(date("1970-01-01"))
	if f, err = SetFloor(c, file, image); err == nil || f.Time() != image || c.Now().Before(image) {
		t.Errorf("garbage as saved time: %v, %v, clock %s", f, err, c.Now())
	}
}
