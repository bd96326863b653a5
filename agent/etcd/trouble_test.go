package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"kogge.example/agent/etcd/membership"
	"kogge.example/update/fleet"
)

// liar is a node with a seat's key that says what it likes, and does not run etcd.
type liar struct {
	http  *http.Server
	fleet *testFleet

	mu     sync.Mutex // guards what follows
	says   Status
	asked  map[int]int // how often each seat has asked how it stands
	chores int         // how often it was to defragment its database, which it never does
}

// lie has a seat's door answer.
func (f *testFleet) lie(seat int, says Status) *liar {
	f.t.Helper()
	s := f.setups[seat]
	own, err := x509.ParseECPrivateKey(s.Key)
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		f.t.Fatal(err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{s.Certificate}, PrivateKey: own}},
	}
	liar := &liar{fleet: f, asked: make(map[int]int)}
	says.Version, says.Seat = 1, seat
	liar.says = says
	liar.http = &http.Server{Handler: liar}
	go func() { _ = liar.http.Serve(tls.NewListener(l, config)) }()
	f.t.Cleanup(func() { liar.http.Close() })
	return liar
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := l.fleet.world.Keys[fleet.KeyID(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)]
	switch r.URL.Path {
	case statusPath:
		l.mu.Lock()
		l.asked[from]++
		raw, err := json.Marshal(l.says)
		l.mu.Unlock()
		if err == nil {
			_, _ = w.Write(raw)
		}
	case defragmentPath:
		l.mu.Lock()
		l.chores++
		l.mu.Unlock()
		<-r.Context().Done()
	default:
		http.Error(w, "no", http.StatusServiceUnavailable)
	}
}

// say has it say something else.
func (l *liar) say(change func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.says)
}

// heard waits until a seat has asked it so often more.
func (l *liar) heard(seat, more int) {
	l.fleet.t.Helper()
	begun := l.count(seat)
	l.fleet.until(fmt.Sprintf("seat %d has asked %d times more", seat, more), func() bool { return l.count(seat) >= begun+more })
}

func (l *liar) count(seat int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked[seat]
}

// TestReboot: a leader that only reboots keeps its place, however long the others were content before.
func TestReboot(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 1, 3)
	f.world.Facts.Grace = 30 * time.Second
	f.tell()
	f.start(1, 2, 3, 4)
	f.whole(1, 2, 3)
	began := time.Now()
	f.put(1, "a", "1")
	before := f.ids(1)
	f.until("they have been content for longer than the grace", func() bool { return time.Since(began) > f.world.Facts.Grace })
	leader := f.leader(1, 2, 3)
	rest := slices.DeleteFunc([]int{1, 2, 3}, func(n int) bool { return n == leader })
	f.kill(leader)
	f.until("another leads, and has looked", func() bool {
		return slices.ContainsFunc(rest, func(seat int) bool { return f.status(seat).Leader == seat })
	})
	f.start(leader)
	f.whole(1, 2, 3)
	if after := f.ids(1); after != before {
		t.Errorf("members %s after the reboot, %s before", after, before)
	}
}

// ids are the ids of etcd's list, as a member has it: a member that is replaced has another one.
func (f *testFleet) ids(seat int) (text string) {
	for _, m := range f.status(seat).Members {
		text += fmt.Sprintf("%d=%x ", m.Seat, m.ID)
	}
	return text
}

// TestDoesNotRun: a member whose node answers and does not run etcd is replaced like one that is
// silent.
func TestDoesNotRun(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 1, 3)
	idle := f.lie(3, Status{Doing: "waits for room"})
	f.start(1, 2, 4)
	leader := f.leader(1, 2)
	idle.heard(leader, 1)
	t.Logf("a spare in the place of one that does not run: %s", f.whole(1, 2, 4).Round(time.Millisecond))
}

// TestLiar: what one member says of itself takes nobody's data, and blocks nobody's work.
func TestLiar(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.world.Facts.Away[3] = true // it is not replaced
	f.world.Facts.Grace = time.Minute
	f.tell()
	alone := []membership.Member{{ID: 1, Seat: 3, Started: true}}
	f.start(1, 2)
	leader := f.leader(1, 2)
	f.put(1, "a", "1")
	liar := f.lie(3, Status{Running: true, Leader: 3, Generation: 1, Members: alone})
	liar.heard(leader, 3)
	liar.say(func(s *Status) { s.Generation = 1 << 62 })
	liar.heard(leader, 3)
	liar.say(func(s *Status) { s.Generation = 1 })
	other := 3 - leader
	f.stop(other) // one that boots while the liar speaks hears the leader, too
	f.start(other)
	f.until("it is back", func() bool { return f.status(other).Running })
	f.put(other, "b", "2")
	liar.say(func(s *Status) { s.Generation, s.Size, s.InUse, s.Committed = 0, 1e15, 0, 1e9 })
	leader = f.leader(1, 2)
	liar.say(func(s *Status) { s.Leader = leader })
	f.until("it is to defragment what it does not have", func() bool {
		liar.mu.Lock()
		defer liar.mu.Unlock()
		return liar.chores > 0
	})
	liar.heard(leader, 3) // the leader looks on
	f.put(leader, "c", "3")
	for _, seat := range []int{1, 2} {
		if s := f.status(seat); s.Generation != 0 || !s.Running {
			t.Errorf("seat %d: generation %d, running %v: %s", seat, s.Generation, s.Running, s.Doing)
		}
		if _, err := os.Stat(filepath.Join(f.setups[seat].Dir, asideName)); err == nil {
			t.Errorf("seat %d has set its data aside", seat)
		}
	}
	if got := f.get(other, "a"); got != "1" {
		t.Errorf("got %q", got)
	}
}

// TestJoinFails: a founder that was to join what is there, and could not, says so to the leader, and
// never founds another one.
func TestJoinFails(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 2)
	lists := []membership.Member{{ID: 1, Seat: 1, Started: true}, {ID: 2, Seat: 2, Learner: true}}
	leads := f.lie(1, Status{Running: true, Leader: 1, Generation: 1, Members: lists})
	f.start(2)
	f.until("it cannot join", func() bool { return strings.Contains(f.status(2).Problem, "etcd in") })
	f.until("it says that it cannot", func() bool { return strings.Contains(f.status(2).Unfit, "does not start") })
	leads.say(func(s *Status) { s.Members = lists[:1] })
	f.until("it waits to be listed", func() bool { return strings.HasPrefix(f.status(2).Doing, "wait: ") })
	leads.http.Close()
	f.until("it founds nothing", func() bool { return strings.HasPrefix(f.status(2).Doing, string(membership.Refuse)) })
	if s := f.status(2); s.Running || !strings.Contains(s.Problem, "no member answers") {
		t.Errorf("%+v", s)
	}
	if found, err := filepath.Glob(filepath.Join(f.setups[2].Dir, "data.*", "member", "wal", "*.wal")); len(found) > 0 || err != nil {
		t.Errorf("it has begun: %v, %v", found, err)
	}
}

// TestSpareAsks: a spare that waits asks the one that leads, and nobody else.
func TestSpareAsks(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 1, 2, 1)
	another := f.lie(3, Status{Doing: "waits"})
	f.start(1, 2)
	f.whole(1)
	f.until("the spare waits", func() bool { return strings.Contains(f.status(2).Doing, "seat 1 leads") })
	before, since := another.count(2), time.Now()
	f.until("it has waited for a while", func() bool { return time.Since(since) > 2*rare })
	if after := another.count(2); after > before+1 { // one may have been on its way
		t.Errorf("the spare has asked another one %d times", after-before)
	}
}

// TestAloneWithSpare: the only member of a fleet begins anew from what it has, also if there is a
// spare, which has nothing.
func TestAloneWithSpare(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 1, 1, 1)
	f.start(1, 2)
	f.whole(1)
	f.put(1, "a", "1")
	f.until("it is the only one", func() bool {
		m, found, err := (&folder{dir: f.setups[1].Dir}).read()
		return found && err == nil && m.Only
	})
	var backup bytes.Buffer
	if err := Backup(t.Context(), ClientSocket(f.setups[1].Run), &backup); err != nil {
		t.Fatal(err)
	}
	here := &folder{dir: f.setups[1].Dir, disk: machine{}, mine: mark{First: f.world.Facts.First}}
	if err := here.keep(0, 1, &backup); err != nil {
		t.Fatal(err)
	}
	spoil(t, f, 1)
	f.start(1)
	f.until("it has begun anew", func() bool { s := f.status(1); return s.Running && s.Leader == 1 && s.Generation == 1 })
	f.said(1, "cannot be read")
	if got := f.get(1, "a"); got != "1" {
		t.Errorf("got %q", got)
	}
}

// TestSilentAlarm: that a member has no room stops no writes once it is silent; that the data of
// members differs is not taken back without a person.
func TestSilentAlarm(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	f.put(1, "a", "1")
	leader := f.leader(1, 2, 3)
	out := leader%3 + 1
	rest := slices.DeleteFunc([]int{1, 2, 3}, func(n int) bool { return n == out })
	var id uint64
	for _, m := range f.status(leader).Members {
		if m.Seat == out {
			id = m.ID
		}
	}
	f.kill(out)
	raise := func(member uint64, kind pb.AlarmType) {
		t.Helper()
		c := pb.NewMaintenanceClient(f.client(rest[0]).ActiveConnection())
		f.until("an alarm", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: kind})
			return err == nil
		})
	}
	raise(id, pb.AlarmType_NOSPACE)
	t.Logf("a silent member is full, next write: %s", f.put(rest[0], "b", "2").Round(time.Millisecond))
	raise(0, pb.AlarmType_CORRUPT)
	f.until("it says that the data differs", func() bool {
		s := f.status(f.leader(rest...))
		return fmt.Sprint(s.Full, s.Corrupt) == "[] [0]" && strings.Contains(s.Problem, "different data")
	})
}

// TestCorrupt: a member whose data is not that of the others gets theirs.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	f.put(1, "a", "right")
	leader := f.leader(1, 2, 3)
	out := leader%3 + 1
	if got := f.get(out, "a"); got != "right" {
		t.Fatalf("it has %q", got)
	}
	before := f.ids(leader)
	f.stop(out)
	db, err := bolt.Open(filepath.Join(f.setups[out].Dir, "data.0", "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		key, value := tx.Bucket([]byte("key")).Cursor().Last()
		return tx.Bucket([]byte("key")).Put(bytes.Clone(key), bytes.Replace(value, []byte("right"), []byte("wrong"), 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f.start(out)
	f.whole(1, 2, 3)
	if got := f.get(out, "a"); got != "wrong" {
		t.Fatalf("its data was not changed: %q", got)
	}
	c := f.client(leader)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	now, err := c.Put(ctx, "b", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, now.Header.Revision); err != nil {
		t.Fatal(err)
	}
	f.until("it is another member", func() bool { return f.ids(leader) != before && f.status(out).Running })
	f.whole(1, 2, 3)
	f.put(out, "c", "1")
	if got := f.get(out, "a"); got != "right" {
		t.Errorf("it has %q", got)
	}
	f.until("no alarm", func() bool { s := f.status(f.leader(1, 2, 3)); return len(s.Corrupt)+len(s.Full) == 0 })
}
