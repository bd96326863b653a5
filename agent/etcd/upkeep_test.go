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
// of a quota of 256; "-" does not answer, "l" is a learner's, "d" was done, "D" too often. This node is
// the first.
func TestUpkeep(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name, databases string
		full            []int
		compacted       bool
		gone            int
	}{
		{"all is well", "20/15 20/15 20/15", nil, false, 0},
		{"waste, and little", "40/10 20/1 20/15", nil, false, 0},
		{"waste of another", "100/90 100/40 100/40", nil, false, 0},
		{"waste of this one", "100/40 41/40 41/40", nil, false, 0},
		{"waste of this one, alone", "100/40", nil, false, 0},
		{"waste of this one, others are silent", "100/40 - -", nil, false, 0},
		{"waste of this one, beside a learner", "100/40 20/15l", nil, false, 0},
		{"full", "256/255 256/255 256/255", []int{1, 2}, false, 0},
		{"full, compacted", "256/20 256/20 256/20", []int{1, 2}, true, 0},
		{"full, one is done", "256/20 21/20 256/20", []int{1, 2}, true, 0},
		{"full, this one is left", "256/20 21/20 21/20", []int{1, 2}, true, 0},
		{"full, all are done", "21/20 21/20 21/20", []int{1, 2}, true, 0},
		{"full of what counts", "256/255d 256/255d 256/255d", []int{1, 2}, true, 0},
		{"full, another is too", "21/20d 21/20d 256/255", []int{1, 2}, true, 0},
		{"full, another was done too early", "21/20d 21/20d 256/100d", []int{1, 2}, true, 0},
		{"full, another says so after it was done", "21/20d 21/20d 256/255d", []int{3}, true, 0},
		{"another says that it wastes, for ever", "20/15 256/0D 20/15", nil, false, 0},
		{"full, and it says so for ever", "21/20 256/0D 20/15", []int{2}, true, 0},
		{"an alarm of one that is gone", "20/15 20/15 20/15", nil, false, 1},
		{"full, and one is gone", "256/255 20/15 20/15", []int{1}, false, 1},
		{"full, and silent", "21/20 - 21/20", []int{2}, true, 0},
	} {
		var all []usage
		for i, word := range strings.Fields(c.databases) {
			u := usage{Seat: i + 1, Answers: word != "-", Voter: !strings.HasSuffix(word, "l"), Done: strings.HasSuffix(word, "d"), Often: mostDone * strings.Count(word, "D")}
			fmt.Sscanf(word, "%d/%d", &u.Size, &u.InUse)
			u.Size, u.InUse = u.Size<<20, u.InUse<<20
			all = append(all, u)
		}
		do := upkeep(1, 256<<20, all, c.full, c.gone, c.compacted)
		fmt.Fprintf(&b, "%-40s %-28s full %-6v gone %d compacted=%-5v  %s %d %s\n", c.name, c.databases, fmt.Sprint(c.full), c.gone, c.compacted, do.Do, do.Seat, do.Why)
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

// plenty is room for everything.
const plenty = 1 << 40

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
	ordered := 0 // the generation that others know of
	order := func(f *folder) error {
		_, _, m := f.look()
		if err := f.place(nil, m.Generation, func() error { ordered = m.Generation + 1; return nil }); err != nil {
			return err
		}
		_, err := f.restore(plenty)
		return err
	}
	for name, do := range map[string]func(*folder) error{
		"aside, damaged": func(f *folder) error { _, _, m := f.look(); return f.setAside(membership.Damaged, m) },
		"aside, foreign": func(f *folder) error {
			f.mine.Fleet = document.HashOf([]byte("other"))
			what, _, m := f.look()
			return f.setAside(what, m)
		},
		"order": order,
		"order twice": func(f *folder) error {
			if err := order(f); err != nil {
				return err
			}
			return order(f)
		},
	} {
		for left := 0; ; left++ {
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.CopyFS(dir, os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
			budget := left
			ordered = 0
			f := &folder{dir: dir, disk: cutDisk{left: &budget}, mine: mine}
			err := do(f)
			f.disk = machine{}
			if strings.Contains(name, "order") { // the next start goes on
				_, _, before := f.look()
				_, there := os.Stat(f.path(restoreName))
				if _, again := f.restore(plenty); again != nil {
					t.Errorf("%s, cut after %d: %v", name, left, again)
				}
				_, _, m := f.look()
				if m.Generation > ordered || there == nil && m.Generation != ordered || there != nil && m != before {
					t.Errorf("%s, cut after %d: generation %d after %d, and %d was ordered", name, left, m.Generation, before.Generation, ordered)
				}
				if want := map[string]int{"order": 1, "order twice": 2}[name]; err == nil && m.Generation != want {
					t.Errorf("%s: generation %d", name, m.Generation)
				}
				if names := f.all(); len(names) != 1 {
					t.Errorf("%s, cut after %d: %v", name, left, names)
				}
			}
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

// TestFolder is the table of what a folder holds that is not as it was left: what this node may have
// promised is not forgotten, and what cannot be looked at is not gone.
func TestFolder(t *testing.T) {
	t.Parallel()
	data, mine := etcdData(t)
	for _, c := range []struct {
		name       string
		change     func(dir string) error
		what       membership.Folder
		generation int
	}{
		{"as it was left", func(string) error { return nil }, membership.Mine, 0},
		{"without a mark", func(dir string) error { return os.Remove(filepath.Join(dir, markName)) }, membership.Damaged, 0},
		{"without a mark, after restores", func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "data.0"), filepath.Join(dir, "data.3")), os.Remove(filepath.Join(dir, markName)))
		}, membership.Damaged, 3},
		{"with a mark of other bytes", func(dir string) error { return os.WriteFile(filepath.Join(dir, markName), []byte("x"), 0o600) }, membership.Damaged, 0},
		{"with a log that cannot be listed", func(dir string) error {
			log := filepath.Join(dir, "data.0", "member", "wal")
			return errors.Join(os.Rename(log, log+".not"), os.WriteFile(log, nil, 0o600))
		}, membership.Damaged, 0},
		{"without its log", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "data.0", "member", "wal")) }, membership.Absent, 0},
		{"without its database", func(dir string) error { return os.Remove(filepath.Join(dir, "data.0", "member", "snap", "db")) }, membership.Damaged, 0},
	} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(dir, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
		f := &folder{dir: dir, disk: machine{}, mine: mine}
		if what, why, _ := f.look(); what != membership.Mine {
			t.Fatalf("%s: before that: %s, %s", c.name, what, why)
		}
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		what, why, m := f.look()
		if what != c.what || m.Generation != c.generation || !m.Begun {
			t.Errorf("%s: %s of generation %d, begun %v: %s", c.name, what, m.Generation, m.Begun, why)
		}
		if what != membership.Damaged {
			continue
		}
		if err := f.setAside(what, m); err != nil {
			t.Fatal(err)
		}
		if what, why, m := f.look(); what != membership.Absent || m.Generation != c.generation || !m.Begun {
			t.Errorf("%s: aside: %s of generation %d, begun %v: %s", c.name, what, m.Generation, m.Begun, why)
		}
		if _, err := os.Stat(filepath.Join(dir, asideName, "member")); err != nil {
			t.Errorf("%s: nothing was kept: %v", c.name, err)
		}
	}
}

// TestOrderWaits: an order to restore waits for room, and nothing is changed before there is; one
// that will never do is kept beside.
func TestOrderWaits(t *testing.T) {
	t.Parallel()
	data, mine := etcdData(t)
	f := &folder{dir: data, disk: machine{}, mine: mine}
	order := f.path(restoreName)
	if err := PlaceRestore(data, nil, 0, told); err != nil {
		t.Fatal(err)
	}
	if did, err := f.restore(leastFree()); did || !mayPass(err) {
		t.Errorf("without room: %v, %v", did, err)
	}
	if _, err := os.Stat(order); err != nil {
		t.Errorf("the order is gone: %v", err)
	}
	if what, _, m := f.look(); what != membership.Mine || m.Generation != 0 {
		t.Errorf("without room: %s of generation %d", what, m.Generation)
	}
	if did, err := f.restore(plenty); !did || err != nil {
		t.Errorf("with room: %v, %v", did, err)
	}
	if what, _, m := f.look(); what != membership.Mine || m.Generation != 1 {
		t.Errorf("restored: %s of generation %d", what, m.Generation)
	}
	if err := PlaceRestore(data, strings.NewReader(strings.Repeat("x", 1024+32)), 1, told); err != nil {
		t.Fatal(err)
	}
	if did, err := f.restore(plenty); did || !errors.Is(err, errBad) {
		t.Errorf("no snapshot: %v, %v", did, err)
	}
	if _, err := os.Stat(order + ".bad"); err != nil {
		t.Error(err)
	}
	if why := f.refused(mark{Generation: 1}); !strings.Contains(why, "no whole snapshot") {
		t.Errorf("why: %q", why)
	}
	if why := f.refused(mark{Generation: 2}); why != "" {
		t.Errorf("etcd has begun anew without it: %q", why)
	}
	untold := errors.New("nobody can be told")
	if err := PlaceRestore(data, nil, 1, func() error { return untold }); !errors.Is(err, untold) {
		t.Errorf("an order of which nobody is told: %v", err)
	}
	if did, err := f.restore(plenty); did || err != nil {
		t.Errorf("it is carried out: %v, %v", did, err)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "data.*.new")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestSnapshots: the newest ones are kept, also where another etcd counts from the start, and those of
// another fleet are none of ours.
func TestSnapshots(t *testing.T) {
	ours := &folder{dir: t.TempDir(), disk: machine{}, mine: mark{First: document.HashOf([]byte("1")), Seat: 1}}
	theirs := &folder{dir: ours.dir, disk: machine{}, mine: mark{First: document.HashOf([]byte("2")), Seat: 1}}
	keep := func(f *folder, generation int, revision int64) {
		t.Helper()
		if err := f.keep(generation, revision, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	keep(theirs, 9, 9)
	for revision := int64(100); revision < 104; revision++ {
		keep(ours, 0, revision)
	}
	keep(ours, 1, 5)
	var got []string
	for _, s := range ours.snapshots() {
		got = append(got, fmt.Sprintf("%d/%d", s.Generation, s.Revision))
	}
	if text := fmt.Sprint(got); text != "[0/102 0/103 1/5]" {
		t.Error(text)
	}
	if err := theirs.write(mark{Begun: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(ours.data(9), "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	what, _, m := ours.look()
	if err := ours.setAside(what, m); what != membership.Foreign || err != nil {
		t.Fatalf("%s, %v", what, err)
	}
	if kept, _ := filepath.Glob(ours.path(asideCopies + "/*")); len(kept) != 4 || len(ours.snapshots()) != 0 {
		t.Errorf("kept %v, here %v", kept, ours.snapshots())
	}
}

// TestMayCopy: another member cannot have this node copy its database again and again.
func TestMayCopy(t *testing.T) {
	var m member
	at := time.Unix(0, 0)
	for n := range 3 * mostDone {
		if may := m.mayCopy(at.Add(time.Duration(n) * time.Minute)); may != (n < 2*mostDone) {
			t.Errorf("%d: %v", n, may)
		}
	}
	if !m.mayCopy(at.Add(time.Hour)) {
		t.Error("not an hour later")
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
	f.Add([]byte(`{"version":1,"seat":2,"generation":4611686018427387904,"running":true,"leader":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseStatus(raw)
		if err == nil && (s.Seat < 1 || s.Generation < 0 || s.Generation > maxGeneration || len(raw) > maxStatus) {
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
