package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/etcd/membership"
	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

// TestUpkeep is the table of what a leader's node does about databases. Each is SIZE/IN USE in MiB,
// of a quota of 256; "-" does not answer, "l" is a learner's, "d" was done. This node is the first.
func TestUpkeep(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name, databases string
		full            []int
		compacted       bool
	}{
		{"all is well", "20/15 20/15 20/15", nil, false},
		{"waste, and little", "40/10 20/1 20/15", nil, false},
		{"waste of another", "100/90 100/40 100/40", nil, false},
		{"waste of this one", "100/40 41/40 41/40", nil, false},
		{"waste of this one, alone", "100/40", nil, false},
		{"waste of this one, others are silent", "100/40 - -", nil, false},
		{"waste of this one, beside a learner", "100/40 20/15l", nil, false},
		{"full", "256/255 256/255 256/255", []int{1, 2}, false},
		{"full, compacted", "256/20 256/20 256/20", []int{1, 2}, true},
		{"full, one is done", "256/20 21/20 256/20", []int{1, 2}, true},
		{"full, this one is left", "256/20 21/20 21/20", []int{1, 2}, true},
		{"full, all are done", "21/20 21/20 21/20", []int{1, 2}, true},
		{"full of what counts", "256/255d 256/255d 256/255d", []int{1, 2}, true},
		{"full, another is too", "21/20d 21/20d 256/255", []int{1, 2}, true},
		{"full, another was done too early", "21/20d 21/20d 256/100d", []int{1, 2}, true},
		{"full, and silent", "21/20 - 21/20", []int{2}, true},
		{"full, and not in the list any more", "21/20 21/20", []int{7}, true},
	} {
		var all []usage
		for i, word := range strings.Fields(c.databases) {
			u := usage{Seat: i + 1, Answers: word != "-", Voter: !strings.HasSuffix(word, "l"), Done: strings.HasSuffix(word, "d")}
			fmt.Sscanf(word, "%d/%d", &u.Size, &u.InUse)
			u.Size, u.InUse = u.Size<<20, u.InUse<<20
			all = append(all, u)
		}
		do := upkeep(1, 256<<20, all, c.full, c.compacted)
		fmt.Fprintf(&b, "%-38s %-28s full %-6v compacted=%-5v  %s %d %s\n", c.name, c.databases, c.full, c.compacted, do.Do, do.Seat, do.Why)
	}
	golden.Compare(t, "upkeep.txt", b.String())
}

// TestSnapshotDue is the table of when a copy is made.
func TestSnapshotDue(t *testing.T) {
	last := Snapshot{Revision: 1000}
	for _, c := range []struct {
		name          string
		last          Snapshot
		revision      int64
		running, made time.Duration
		free          int64
		want          bool
	}{
		{"just started", Snapshot{}, 5, time.Minute, 0, 1 << 40, false},
		{"the first one", Snapshot{}, 5, 10 * time.Minute, 0, 1 << 40, true},
		{"nothing new", last, 1000, time.Hour, 100 * time.Hour, 1 << 40, false},
		{"a little new", last, 1001, time.Hour, 23 * time.Hour, 1 << 40, false},
		{"a little new, a day old", last, 1001, time.Hour, 24 * time.Hour, 1 << 40, true},
		{"much new", last, 6000, time.Hour, 59 * time.Minute, 1 << 40, false},
		{"much new, an hour old", last, 6000, time.Hour, time.Hour, 1 << 40, true},
		{"another history", last, 10, time.Hour, time.Hour, 1 << 40, true},
		{"no room", last, 6000, time.Hour, time.Hour, 300 << 20, false},
	} {
		if got := snapshotDue(c.last, c.revision, c.running, c.made, c.free, 100<<20); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestProbe: a disk is judged by its slowest writes; one that cannot be written is none.
func TestProbe(t *testing.T) {
	times := func(n int, all time.Duration, last time.Duration) (d []time.Duration) {
		for range n - 1 {
			d = append(d, all)
		}
		return append(d, last)
	}
	for _, c := range []struct {
		name  string
		times []time.Duration
		fit   bool
	}{
		{"a good one", times(64, time.Millisecond, 6*time.Millisecond), true},
		{"an SD card", times(64, 30*time.Millisecond, 100*time.Millisecond), true},
		{"a bad one", times(64, 30*time.Millisecond, 800*time.Millisecond), false},
		{"a dead one", times(3, 3*time.Second, 4*time.Second), false},
	} {
		if p := summary(c.times); (p.Unfit(Slowest) == "") != c.fit {
			t.Errorf("%s: %+v: %q", c.name, p, p.Unfit(Slowest))
		}
	}
	if p := ProbeDisk(t.TempDir()); p.Writes == 0 || p.Error != "" || p.P99 == 0 {
		t.Errorf("this disk: %+v", p)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if p := ProbeDisk(file); p.Unfit(Slowest) == "" {
		t.Errorf("no folder: %+v", p)
	}
}

var errCut = errors.New("power cut")

// cutDisk is this machine's disk until the power goes, at any call.
type cutDisk struct {
	machine
	left *int
}

func (c cutDisk) step() error {
	if *c.left--; *c.left < 0 {
		return errCut
	}
	return nil
}

func (c cutDisk) Replace(name string, data []byte) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.machine.Replace(name, data)
}

func (c cutDisk) Rename(from, to string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.machine.Rename(from, to)
}

func (c cutDisk) RemoveAll(name string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.machine.RemoveAll(name)
}

// etcdData makes real data of etcd in a folder, as a member of one leaves it.
func etcdData(t *testing.T) (dir string, mine mark) {
	f := newTestFleet(t, 1, 0, 1)
	f.start(1)
	f.whole(1)
	f.put(1, "a", "1")
	f.stop(1)
	return f.setups[1].Dir, mark{Fleet: f.world.Facts.Fleet, First: f.world.Facts.First, Seat: 1}
}

// TestFolderPowerCut cuts the power at each step of what is done to a folder: what it holds after
// that is never taken for what it is not, and its only data is never gone.
func TestFolderPowerCut(t *testing.T) {
	t.Parallel()
	data, mine := etcdData(t)
	order := func(f *folder) error {
		if err := PlaceRestore(f.dir, nil, 0); err != nil {
			return err
		}
		_, err := f.restore()
		return err
	}
	for name, do := range map[string]func(*folder) error{
		"aside, damaged": func(f *folder) error { _, _, m := f.look(); return f.setAside(membership.Damaged, m) },
		"aside, foreign": func(f *folder) error {
			f.mine.Fleet = document.HashOf([]byte("other"))
			what, _, m := f.look()
			return f.setAside(what, m)
		},
		"restore": order,
		"twice":   func(f *folder) error { return errors.Join(order(f), order(f)) },
	} {
		for left := 0; ; left++ {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(dir, os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
			budget := left
			f := &folder{dir: dir, disk: cutDisk{left: &budget}, mine: mine}
			err := do(f)
			f.disk = machine{}
			what, why, m := f.look()
			_, kept := os.Stat(filepath.Join(dir, asideName, "member", "wal"))
			switch what {
			case membership.Mine:
				if err := check(f.data(m.Generation)); err != nil {
					t.Errorf("%s, cut after %d: %v", name, left, err)
				}
			case membership.Foreign:
				if f.mine.Fleet == mine.Fleet {
					t.Errorf("%s, cut after %d: %s", name, left, why)
				}
			case membership.Absent:
				if kept != nil {
					t.Errorf("%s, cut after %d: the data is gone", name, left)
				}
				if f.mine.Fleet == mine.Fleet && !m.Begun {
					t.Errorf("%s, cut after %d: it forgets that it has begun", name, left)
				}
			default:
				t.Errorf("%s, cut after %d: %s, %s", name, left, what, why)
			}
			if err == nil {
				if left < 3 {
					t.Errorf("%s: %d steps", name, left)
				}
				break
			}
		}
	}
}

// TestMark: a mark is read as it was written, and no other bytes are one.
func TestMark(t *testing.T) {
	m := mark{Version: 1, Fleet: document.HashOf([]byte("f")), First: document.HashOf([]byte("1")), Seat: 3, Generation: 2, Begun: true, Starts: 1}
	golden.Compare(t, "v1/mark.json", string(m.format()))
	raw := m.format()
	if again, err := parseMark(raw); err != nil || again != m {
		t.Errorf("%+v, %v", again, err)
	}
	for i := range raw {
		raw[i] ^= 1
		if _, err := parseMark(raw); err == nil {
			t.Errorf("byte %d changed, and it is read", i)
		}
		raw[i] ^= 1
	}
}

// TestSeatOf: only what peerURL writes is a seat.
func TestSeatOf(t *testing.T) {
	for url, want := range map[string]int{
		"unix://seat1:1": 1, "unix://seat16384:1": 16384, "unix://seat01:1": 0, "unix://seat-1:1": 0, "unix://seat:1": 0,
		"https://seat1:1": 0, "unix://seat1:2": 0, "http://10.0.0.1:2380": 0, "": 0,
	} {
		if got := seatOf([]string{url}); got != want {
			t.Errorf("%q: %d", url, got)
		}
	}
	if seatOf(nil) != 0 || seatOf([]string{peerURL(1), peerURL(2)}) != 0 {
		t.Error("none and two")
	}
}

// FuzzStatus: what another member says is read or refused, and never more than it may be.
func FuzzStatus(f *testing.F) {
	f.Add([]byte(`{"version":1,"seat":2,"generation":0,"running":true,"leader":2,"members":[{"id":1,"seat":2}],"probe":{"writes":64}}`))
	f.Add([]byte(`{"version":1,"seat":-1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseStatus(raw)
		if err == nil && (s.Seat < 1 || s.Generation < 0 || len(raw) > maxStatus) {
			t.Errorf("%+v", s)
		}
	})
}

// FuzzMark: so is what lies on the disk.
func FuzzMark(f *testing.F) {
	f.Add(mark{Version: 1, Seat: 1}.format())
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := parseMark(raw); err == nil && (m.Seat < 1 || m.Generation < 0) {
			t.Errorf("%+v", m)
		}
	})
}
