package shutdown

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

// node is a machine in memory. Its clock moves only when somebody waits.
type node struct {
	log      strings.Builder
	clock    time.Duration
	living   int // processes
	stubborn int // of them do not mind SIGTERM
	immortal int // of them do not mind SIGKILL
	mounted  []string
	busy     map[string]time.Duration // until when a mount cannot be unmounted
	slow     time.Duration            // each sync takes
}

func (n *node) did(format string, a ...any) {
	fmt.Fprintf(&n.log, "%6.2fs  %s\n", n.clock.Seconds(), fmt.Sprintf(format, a...))
}

func (n *node) now() time.Time        { return time.Unix(0, 0).Add(n.clock) }
func (n *node) pause(d time.Duration) { n.clock += d }

func (n *node) processes() (names []string, err error) {
	for i := range n.living {
		names = append(names, fmt.Sprintf("p[%d]", i))
	}
	return names, nil
}

func (n *node) terminate() error {
	n.did("SIGTERM to %d", n.living)
	n.living = n.stubborn
	return nil
}

func (n *node) kill() error {
	n.did("SIGKILL to %d", n.living)
	n.living = n.immortal
	return nil
}

func (n *node) sync(limit time.Duration) error {
	n.did("sync, at most %v", limit)
	n.clock += min(n.slow, limit)
	if n.slow > limit {
		return errors.New("not done")
	}
	return nil
}

func (n *node) mounts() ([]string, error) { return n.mounted, nil }

func (n *node) unmount(target string, limit time.Duration) error {
	if n.clock < n.busy[target] {
		return errors.New("device or resource busy")
	}
	n.did("unmount %s", target)
	var rest []string
	for _, m := range n.mounted {
		if m != target {
			rest = append(rest, m)
		}
	}
	n.mounted = rest
	return nil
}

func (n *node) readonly(target string, limit time.Duration) error {
	n.did("remount %s read-only", target)
	return nil
}

func (n *node) patience() error      { n.did("watchdog: longest time"); return nil }
func (n *node) reboot(how How) error { n.did("reboot(%s)", how); return nil }

// TestOrder prints what a shutdown does, and when, on four nodes.
func TestOrder(t *testing.T) {
	mounted := []string{"/", "/proc", "/sys", "/sys/fs/cgroup", "/dev", "/run", "/state", "/boot",
		"/run/kogge/containerd/rootfs", "/run/netns/web"}
	for name, n := range map[string]*node{
		"quiet":    {mounted: mounted},
		"usual":    {mounted: mounted, living: 12, stubborn: 10, slow: 3 * time.Second, busy: map[string]time.Duration{"/state": 14 * time.Second}},
		"hopeless": {mounted: mounted, living: 3, stubborn: 3, immortal: 1, slow: time.Hour, busy: map[string]time.Duration{"/state": time.Hour}},
		"late":     {mounted: mounted, clock: 2 * Total, slow: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			budget := &Budget{}
			budget.Start(time.Unix(0, 0)) // the services have used what the clock shows
			end(n, Reboot, Options{State: "/state", Budget: budget, Say: func(s string) { n.did("says: %s", s) }})
			golden.Compare(t, name+".txt", n.log.String())
		})
	}
}

func TestBudget(t *testing.T) {
	start := time.Unix(100, 0)
	var b Budget
	if got := b.Share(start, time.Minute); got != time.Minute {
		t.Errorf("first share %v", got)
	}
	b.Start(start.Add(time.Hour)) // too late to buy time
	for after, want := range map[time.Duration]time.Duration{
		30 * time.Second: time.Minute,
		60 * time.Second: 30 * time.Second,
		Total:            0,
		time.Hour:        0,
	} {
		if got := b.Share(start.Add(after), time.Minute); got != want {
			t.Errorf("share after %v is %v, want %v", after, got, want)
		}
	}
}

// TestNotPID1 shows that a test can never end the machine it runs on.
func TestNotPID1(t *testing.T) {
	if os.Getpid() == 1 {
		t.Fatal("this test runs as PID 1: start it from a shell or an init")
	}
	k := kernel{}
	for what, err := range map[string]error{"kill": k.kill(), "terminate": k.terminate(), "reboot": k.reboot(Reboot)} {
		if err == nil {
			t.Fatalf("%s worked", what)
		}
	}
	if living, err := k.processes(); err != nil || len(living) == 0 {
		t.Errorf("processes: %v, %v", living, err)
	}
	if err := within(time.Millisecond, func() error { select {} }); err == nil {
		t.Error("a call that hangs did not run out of time")
	}
}
