package supervise

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kogge.example/init/guard"
	"kogge.example/init/shutdown"
	"kogge.example/init/watchdog"
)

// TestBounded has services that would take an hour to stop, and half a second.
func TestBounded(t *testing.T) {
	stubborn := service("stubborn")
	stubborn.Notify, stubborn.StopTimeout = true, time.Hour
	below := as("below", service("good"))
	above := as("above", service("stubborn"))
	above.Notify, above.StopTimeout, above.After = true, time.Hour, []string{"below"}
	waits := as("waits", service("good"))
	waits.After = []string{"never"}
	never := as("never", service("good"))
	never.Notify = true
	n := run(t, func(c *Config) { c.Budget.Total = 500 * time.Millisecond }, stubborn, below, above, never, waits)
	pids := []int{n.reaches("stubborn", Running).PID, n.reaches("above", Running).PID, n.reaches("below", Running).PID}
	if err := n.client.Poweroff(context.Background()); err != nil {
		t.Fatal(err)
	}
	<-n.over
	if n.how != shutdown.Poweroff {
		t.Errorf("Run = %v, %v", n.how, n.err)
	}
	if left := n.budget.Share(time.Now(), time.Hour); left > 500*time.Millisecond {
		t.Errorf("the budget has %v left", left)
	}
	for _, pid := range pids {
		for end := time.Now().Add(limit); !gone(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %d outlived the shutdown", pid)
			}
		}
	}
}

// TestSignals ends by the signals that PID 1 gets.
func TestSignals(t *testing.T) {
	for sig, want := range map[syscall.Signal]shutdown.How{
		syscall.SIGTERM: shutdown.Reboot, syscall.SIGINT: shutdown.Reboot,
		syscall.SIGPWR: shutdown.Poweroff, syscall.SIGUSR2: shutdown.Poweroff,
	} {
		n := run(t, nil, service("good"))
		n.reaches("good", Running)
		must(syscall.Kill(os.Getpid(), syscall.SIGHUP)) // means nothing to us
		must(syscall.Kill(os.Getpid(), sig))
		<-n.over
		if n.how != want || n.err != nil {
			t.Errorf("%v: Run = %v, %v", sig, n.how, n.err)
		}
	}
}

// TestPanic ends in order when a goroutine of PID 1 panics.
func TestPanic(t *testing.T) {
	n := run(t, nil, service("good"))
	n.reaches("good", Running)
	guard.Go("test", func() { panic("as it must") })
	<-n.over
	if n.how != shutdown.Reboot || n.err == nil || !strings.Contains(n.err.Error(), "panic in test: as it must") {
		t.Errorf("Run = %v, %v", n.how, n.err)
	}
	if !n.heard("service good: stopped") {
		t.Error("the service was not stopped")
	}
}

// TestWrong is refused before anything starts.
func TestWrong(t *testing.T) {
	if _, err := Run(context.Background(), Config{Services: []Service{{Name: "x"}}}); err == nil {
		t.Error("ran")
	}
}

// TestDegraded has nowhere to put its sockets and keeps its services running.
func TestDegraded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(os.WriteFile(file, nil, 0o600))
	var degraded Degraded
	degraded.Add("nothing", nil)
	degraded.Add("state", errors.New("bad\x1b"))
	degraded.Add("state", errors.New("worse"))
	s := service("good")
	s.Notify = true // it will not be asked for what it cannot say
	said := make(chan string, 100)
	over := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, err := Run(ctx, Config{Services: []Service{s}, Dir: filepath.Join(file, "run"), Degraded: &degraded,
			InputDir: t.TempDir(), LogDir: filepath.Join(file, "log"), Say: func(line string) { said <- line }})
		over <- err
	}()
	for line := range said {
		if strings.HasPrefix(line, "service good: running") {
			break
		}
	}
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	var what []string
	for _, d := range degraded.List() {
		what = append(what, d.What)
		if d.What == "state" && d.Why != "worse" {
			t.Errorf("state: %s", d.Why)
		}
	}
	if got := strings.Join(what, ", "); got != "state, run-time folder, cgroups, sd_notify, control socket, announce the end" {
		t.Errorf("degraded: %s", got)
	}
	before := degraded.changed()
	degraded.Clear("state")
	degraded.Clear("state")
	if len(degraded.List()) != len(what)-1 || degraded.changed() != before+1 {
		t.Errorf("after Clear: %v", degraded.List())
	}
}

// TestBeat names the vital services that cannot be killed.
func TestBeat(t *testing.T) {
	now := time.Now()
	s, err := prepare(Config{Services: []Service{
		{Name: "vital", Path: "/x", Vital: true}, {Name: "other", Path: "/x"}, {Name: "fresh", Path: "/x", Vital: true}}})
	must(err)
	for _, u := range s.units {
		u.life.Killed = now.Add(-2 * stuckAfter)
	}
	s.byName["fresh"].life.Killed = now.Add(-time.Second)
	s.beat(now.Add(-time.Second))
	s.beat(now) // the one before was not fetched
	if b := <-s.beats; len(b.Stuck) != 1 || b.Stuck[0] != "vital" || !b.At.Equal(now) {
		t.Errorf("beat: %+v", b)
	}
	if ping, _ := watchdog.Verdict(watchdog.Beat{At: now, Stuck: []string{"vital"}}, now, time.Minute); ping {
		t.Error("a stuck vital service earned a ping")
	}
}

// TestPowerKey presses the key of a device that has one; the other is not read.
func TestPowerKey(t *testing.T) {
	dir, sys := t.TempDir(), t.TempDir()
	event := func(kind, code uint16, value uint32) []byte {
		b := make([]byte, eventSize)
		binary.NativeEndian.PutUint16(b[eventSize-8:], kind)
		binary.NativeEndian.PutUint16(b[eventSize-6:], code)
		binary.NativeEndian.PutUint32(b[eventSize-4:], value)
		return b
	}
	for name, caps := range map[string]string{"event0": "10000000000000 0\n", "event1": "ffff 0 0 0\n", "event2": "nonsense"} {
		must(os.MkdirAll(filepath.Join(sys, name, "device/capabilities"), 0o755))
		must(os.WriteFile(filepath.Join(sys, name, "device/capabilities/key"), []byte(caps), 0o644))
		must(syscall.Mkfifo(filepath.Join(dir, name), 0o600)) // one that is opened would block
	}
	device, err := os.OpenFile(filepath.Join(dir, "event0"), os.O_RDWR, 0)
	must(err)
	defer device.Close()
	out, done, over := make(chan shutdown.How, 1), make(chan struct{}), make(chan struct{})
	go func() { defer close(over); watchPower(dir, sys, out, done) }()
	for _, e := range [][]byte{event(0, 0, 0), event(1, 30, 1), event(1, 116, 0)} { // sync, a letter, key up
		_, err := device.Write(e)
		must(err)
	}
	_, err = device.Write(append(event(1, 30, 0), event(1, 116, 1)...))
	must(err)
	if how := <-out; how != shutdown.Poweroff {
		t.Errorf("power key: %v", how)
	}
	close(done)
	<-over
}

func TestPressed(t *testing.T) {
	if pressed(nil) || pressed(make([]byte, eventSize-1)) || pressed(make([]byte, 3*eventSize)) {
		t.Error("pressed without an event")
	}
	for bitmap, want := range map[string]bool{"": false, "0": false, "10000000000000 0": true, "8000 10000000000000 0": true, "x 0": false} {
		if got := hasKey(bitmap, keyPower); got != want {
			t.Errorf("hasKey(%q) = %v", bitmap, got)
		}
	}
}
