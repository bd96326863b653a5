package clock

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address), Port: port})
	if err != nil {
		t.Fatal(err)
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
			switch kind {
			case "kiss":
				reply[1] = 0
				copy(reply[12:], "RATE")
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
	return conn.LocalAddr().(*net.UDPAddr).Port
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
	}{
		{"1970", image, []string{"good", "good"}, true, true},
		{"2090 comes back", date("2090-01-01"), []string{"good", "good"}, true, true},
		{"2090 stays without servers, unsaved", date("2090-01-01"), []string{"silent", "silent"}, false, false},
		{"liar outvoted", image, []string{"liar", "good", "good"}, true, true},
		{"alone against a liar", image, []string{"liar", "good"}, false, false},
		{"kiss of death and nonsense", image, []string{"kiss", "unsynced", "garbage", "replay", "good"}, false, false},
		{"single", image, []string{"good"}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Floor: NewFloor(time.Time{}, image), Clock: clockAt(c.start), first: time.Millisecond,
				Paths: Paths{Saved: filepath.Join(dir, "clock"), Status: filepath.Join(dir, "clock.json"), Network: filepath.Join(dir, "network.json")}}
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
			status := waitStatus(t, o.Paths.Status, func(s Status) bool {
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
			if c.synced && (clock.rtc.IsZero() || status.Single != (len(c.kinds) == 1)) {
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
func waitStatus(t *testing.T, file string, ok func(Status) bool) Status {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var s Status
		data, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(data, &s) == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain, status %s", data)
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
