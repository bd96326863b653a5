package etcd

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/etcd/fsync"
	"kogge.example/agent/etcd/membership"
)

// TestClone: a copy of a member's disk runs on another machine while the member does. It does not
// begin, and says why; the member goes on. Once that is gone for good, the copy takes its place, but
// not with its data, which is older than what the member has said.
func TestClone(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	f.put(1, "a", "1")
	original, clone := f.leader(1, 2, 3), 9
	others := []int{original%3 + 1, (original+1)%3 + 1}
	f.stop(original)
	copied := *f.setups[original]
	home := filepath.Join(f.dir, fmt.Sprint(clone))
	copied.Dir, copied.Run, copied.Status = filepath.Join(home, "state"), filepath.Join(home, "run"), filepath.Join(home, "status")
	copied.Listen = strings.Replace(copied.Listen, fmt.Sprintf(".%d:", original), ".99:", 1)
	if err := os.CopyFS(copied.Dir, os.DirFS(f.setups[original].Dir)); err != nil {
		t.Fatal(err)
	}
	f.setups[clone] = &copied
	f.start(original)
	f.whole(1, 2, 3)
	f.put(others[0], "b", "2")
	f.until("the others hear it", func() bool {
		return slices.Contains(f.status(others[0]).Hears, original) && slices.Contains(f.status(others[1]).Hears, original)
	})
	f.start(clone)
	f.until("the copy is held back", func() bool { return strings.Contains(f.status(clone).Problem, "another machine runs etcd") })
	f.whole(1, 2, 3)
	if f.status(clone).Running {
		t.Error("the copy runs")
	}
	f.kill(original)
	f.world.Facts.Addresses[original] = []netip.AddrPort{netip.MustParseAddrPort(copied.Listen)}
	f.tell()
	f.until("the copy begins", func() bool {
		s := f.status(clone)
		return s.Running && s.Leader != 0 && sameVoters(s.Members, []int{1, 2, 3})
	})
	aside(t, f, clone)
	if got := f.get(clone, "b"); got != "2" {
		t.Errorf("the copy has %q", got)
	}
	if log, err := os.ReadFile(f.log(original)); err != nil || strings.Contains(string(log), "another machine") {
		t.Errorf("the member says that it is the copy: %v", err)
	}
}

// TestTwinIsPast: that another machine ran etcd as this seat says something of the data that lay here
// then, and nothing of what this seat begins with.
func TestTwinIsPast(t *testing.T) {
	t.Chdir(t.TempDir()) // and back: tunnels have the process stand elsewhere
	f := newTestFleet(t, 1, 0, 1)
	s := f.setups[1]
	all, guests := &conns{}, &guests{}
	m := &member{
		c: Config{Dir: s.Dir, Run: s.Run, Seat: 1}, conns: all, facts: f.world.Facts, dial: newDialer(Config{}, all, guests.admit), twin: membership.Twin{Was: true},
		folder: &folder{dir: s.Dir, disk: machine{}, mine: mark{Fleet: f.world.Facts.Fleet, First: f.world.Facts.First, Seat: 1}},
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.tunnels, err = openTunnels(filepath.Join(s.Run, "peers"), m.dial); err != nil {
		t.Fatal(err)
	}
	defer m.tunnels.close()
	if err := m.start(membership.Own{Seat: 1}, mark{}, membership.Step{Do: membership.New}); err != nil {
		t.Fatal(err)
	}
	defer m.stop()
	if m.twin != (membership.Twin{}) {
		t.Error("the data that it has just begun with counts as outdated")
	}
}

// TestNotAlone: the only member of etcd has lost its data. It begins by itself what comes next,
// unless another one was ordered to: then that may be there.
func TestNotAlone(t *testing.T) {
	f := newTestFleet(t, 1, 1, 1)
	all, guests := &conns{}, &guests{}
	d := newDialer(Config{}, all, guests.admit)
	for ordered, want := range map[int]membership.Action{0: membership.Renew, 2: membership.Renew, 3: membership.Refuse} {
		m := &member{c: Config{Dir: t.TempDir(), Seat: 1}, disk: fsync.Disk{Slowest: time.Minute}, facts: f.world.Facts, dial: d, ears: &ears{dial: d}}
		m.facts.Ordered = ordered
		own := m.own(t.Context(), membership.Absent, "", mark{Generation: 2, Begun: true, Only: true})
		if step := membership.Begin(own); step.Do != want {
			t.Errorf("generation %d was ordered, and 2 was here: %s", ordered, step)
		}
	}
}
