package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"kogge.example/update/fleet/document"
)

// TestReplace: three found etcd at once, the leader is killed, and the spare takes its place. What
// comes back does not disturb them.
func TestReplace(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 1, 3)
	f.start(1, 2, 3, 4)
	t.Logf("three found etcd: %s", f.whole(1, 2, 3).Round(time.Millisecond))
	f.put(1, "a", "1")
	lost := f.leader(1, 2, 3)
	rest := slices.DeleteFunc([]int{1, 2, 3}, func(n int) bool { return n == lost })
	f.kill(lost)
	began := time.Now()
	f.put(rest[0], "b", "2")
	t.Logf("leader killed, next write: %s", time.Since(began).Round(time.Millisecond))
	two := func() bool {
		s := f.status(f.leader(rest...))
		return sameVoters(voters(s.Members), rest)
	}
	f.until("two voters", two)
	alone := time.Now()
	if quiet := alone.Sub(began); quiet < f.world.Facts.Grace {
		t.Errorf("replaced %s after it was killed, before the grace of %s", quiet, f.world.Facts.Grace)
	}
	f.whole(append(rest, 4)...)
	t.Logf("spare in its place: %s after the kill, %s of it with two voters", time.Since(began).Round(time.Millisecond), time.Since(alone).Round(time.Millisecond))
	if got := f.get(4, "b"); got != "2" {
		t.Errorf("the spare has %q", got)
	}
	f.start(lost)
	f.until("the lost one waits", func() bool { s := f.status(lost); return s.Doing != "" && !s.Running && !s.Lost })
	f.put(rest[0], "c", "3")
	f.whole(append(rest, 4)...)
	f.stop(f.leader(rest...)) // in order: it hands over
	began = time.Now()
	f.put(4, "d", "4")
	t.Logf("leader stopped, next write: %s", time.Since(began).Round(time.Millisecond))
}

// TestAway: a member that is silent on purpose is not replaced.
func TestAway(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 1, 3)
	f.start(1, 2, 3, 4)
	f.whole(1, 2, 3)
	f.put(1, "a", "1")
	leader := f.leader(1, 2, 3)
	away := leader%3 + 1
	f.world.Facts.Away[away] = true
	f.tell()
	f.kill(away)
	f.until("it is away", func() bool { return f.status(leader).Doing == fmt.Sprintf("wait %d: it is away", away) })
	f.put(leader, "b", "2")
	f.start(away)
	f.whole(1, 2, 3)
}

// TestYields: a leader that operators want to lead nothing hands over, and is none again while
// another can be.
func TestYields(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	drained := f.leader(1, 2, 3)
	f.world.Facts.Yields = map[int]bool{drained: true}
	f.tell()
	f.until("another one leads", func() bool {
		s := f.status(drained)
		return s.Running && s.Leader != 0 && s.Leader != drained
	})
	f.put(drained, "a", "1")
}

// TestGrow: one node has etcd, then three, then five, and three again; all stay members whatever
// becomes of a data folder.
func TestGrow(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 1, 0, 1)
	f.start(1)
	t.Logf("one: %s", f.whole(1).Round(time.Millisecond))
	f.put(1, "a", "1")
	for seat := 2; seat <= 5; seat++ {
		f.join(seat)
	}
	f.seats(3, 0)
	f.start(2, 3)
	t.Logf("one to three: %s", f.whole(1, 2, 3).Round(time.Millisecond))
	if got := f.get(3, "a"); got != "1" {
		t.Errorf("the third one has %q", got)
	}
	damage(t, f, 2)
	disguise(t, f, 3)
	f.seats(5, 0)
	f.start(4, 5)
	t.Logf("three to five: %s", f.whole(1, 2, 3, 4, 5).Round(time.Millisecond))
	f.put(5, "b", "2")
	f.seats(3, 0)
	t.Logf("five to three: %s", f.whole(1, 2, 3).Round(time.Millisecond))
	if got := f.get(2, "b"); got != "2" {
		t.Errorf("the second one has %q", got)
	}
}

// damage has a member find its log damaged: it keeps the data aside, and gets them from the others.
func damage(t *testing.T, f *testFleet, seat int) {
	spoil(t, f, seat)
	f.start(seat)
	t.Logf("damaged: %s", f.whole(1, 2, 3).Round(time.Millisecond))
	f.said(seat, "cannot be read")
	aside(t, f, seat)
}

// spoil stops a member, and changes a byte in the middle of its log.
func spoil(t *testing.T, f *testFleet, seat int) {
	f.stop(seat)
	log, err := filepath.Glob(filepath.Join(f.setups[seat].Dir, "data.0/member/wal/*.wal"))
	if err != nil || len(log) == 0 {
		t.Fatalf("no log of seat %d: %v", seat, err)
	}
	raw, err := os.ReadFile(log[0])
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.LastIndexFunc(raw, func(r rune) bool { return r != 0 })
	raw[end/2] ^= 0xff
	if err := os.WriteFile(log[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// disguise has a member find data of another fleet.
func disguise(t *testing.T, f *testFleet, seat int) {
	f.stop(seat)
	foreign := folder{dir: f.setups[seat].Dir, disk: machine{}, mine: mark{Fleet: document.HashOf([]byte("other")), First: document.HashOf([]byte("other 1")), Seat: 9}}
	if err := foreign.write(mark{Begun: true}); err != nil {
		t.Fatal(err)
	}
	f.start(seat)
	t.Logf("foreign: %s", f.whole(1, 2, 3).Round(time.Millisecond))
	f.said(seat, "is of seat 9 of fleet")
	aside(t, f, seat)
}

func aside(t *testing.T, f *testFleet, seat int) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(f.setups[seat].Dir, asideName, "member", "wal")); err != nil {
		t.Errorf("seat %d has kept nothing aside: %v", seat, err)
	}
}

// said wants a line in a member's log.
func (f *testFleet) said(seat int, text string) {
	f.t.Helper()
	if log, err := os.ReadFile(f.log(seat)); err != nil || !bytes.Contains(log, []byte(text)) {
		f.t.Errorf("seat %d does not say %q: %v\n%s", seat, text, err, log)
	}
}

// TestFull: etcd fills up, takes no write, and takes them again without hands.
func TestFull(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	c := f.client(1)
	value := strings.Repeat("x", 64<<10)
	var err error
	for n := 0; err == nil || !errors.Is(err, rpctypes.ErrNoSpace); n++ { // one key again and again: history fills it
		if n > 2000 {
			t.Fatalf("not full after %d writes: %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = c.Put(ctx, "key", value)
		cancel()
	}
	began := time.Now()
	f.put(2, "small", "1")
	t.Logf("full, next write: %s", time.Since(began).Round(time.Millisecond))
	f.until("no alarm, and small databases", func() bool {
		for seat := 1; seat <= 3; seat++ {
			if s := f.status(seat); len(s.Full) > 0 || s.Size > s.Quota/2 {
				return false
			}
		}
		return true
	})
	f.whole(1, 2, 3)
}

// TestRestore: two of three members are lost. The third begins anew, from what it has; one that
// comes back joins it. Then all go back to a backup that is older.
func TestRestore(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	f.put(1, "a", "1")
	var backup bytes.Buffer
	if err := Backup(t.Context(), ClientSocket(f.setups[1].Run), &backup); err != nil {
		t.Fatal(err)
	}
	f.put(1, "a", "2")
	f.kill(1, 3)
	f.stop(2) // all that it has is in its database then
	if err := PlaceRestore(f.setups[2].Dir, nil, 0, told); err != nil {
		t.Fatal(err)
	}
	f.start(2)
	t.Logf("one of three, from its own data: %s", f.whole(2).Round(time.Millisecond))
	if got := f.get(2, "a"); got != "2" {
		t.Errorf("restored from its own data: %q", got)
	}
	f.put(2, "b", "3")
	f.order(1)
	f.start(1, 3) // they have a quorum of what was before
	f.whole(1, 2, 3)
	if got := f.get(3, "b"); got != "3" {
		t.Errorf("who came back has %q", got)
	}
	before := f.revision(1)

	f.stop(1, 2, 3)
	if err := PlaceRestore(f.setups[1].Dir, &backup, 4, told); err != nil {
		t.Fatal(err)
	}
	f.order(5)
	f.start(1, 2, 3)
	f.until("the backup counts everywhere", func() bool {
		for seat := 1; seat <= 3; seat++ {
			if f.status(seat).Generation != 5 { // above all that is known
				return false
			}
		}
		return true
	})
	f.whole(1, 2, 3)
	if got := f.get(3, "a"); got != "1" {
		t.Errorf("restored from the backup: %q", got)
	}
	if after := f.revision(1); after <= before {
		t.Errorf("revision %d after %d", after, before)
	}

	f.stop(1)
	if err := PlaceRestore(f.setups[1].Dir, strings.NewReader("no snapshot"), 5, told); err != nil {
		t.Fatal(err)
	}
	f.start(1)
	f.whole(1, 2, 3)
	f.said(1, "restore: ")
	refused := func() bool { return strings.Contains(f.status(1).Problem, "etcd was to begin anew here, and cannot") }
	f.until("it says that it could not", refused)
	f.kill(1)
	f.start(1)
	f.whole(1, 2, 3)
	f.until("it goes on saying so", refused)
	f.order(6)
	if err := PlaceRestore(f.setups[1].Dir, nil, 5, told); err != nil {
		t.Fatal(err)
	}
	f.stop(1)
	f.start(1)
	f.until("another order is carried out", func() bool { s := f.status(1); return s.Generation == 6 && s.Problem == "" })
	f.whole(1, 2, 3)
}

// told is who tells others of an order, and has.
func told() error { return nil }

// TestBackupAlone: two of three members are lost, and the third boots. It has no leader, and cannot
// have one; what it has can be copied all the same, and etcd begins anew from that.
func TestBackupAlone(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	f.put(3, "a", "1")
	f.kill(1, 2)
	f.stop(3) // all that it has is in its database then
	f.start(3)
	var backup bytes.Buffer
	took := f.until("a backup", func() bool {
		backup.Reset()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return Backup(ctx, ClientSocket(f.setups[3].Run), &backup) == nil
	})
	t.Logf("a backup %s after it was started", took.Round(time.Millisecond))
	f.until("it says how far it is", func() bool { return f.status(3).Revision > 1 })
	if s := f.status(3); s.Leader != 0 {
		t.Errorf("seat %d leads", s.Leader)
	}
	f.kill(3)
	if err := PlaceRestore(f.setups[3].Dir, &backup, 0, told); err != nil {
		t.Fatal(err)
	}
	f.start(3)
	f.whole(3)
	if got := f.get(3, "a"); got != "1" {
		t.Errorf("restored: %q", got)
	}
}

// order has all members know that a restore was ordered.
func (f *testFleet) order(generation int) {
	f.world.Facts.Ordered = generation
	f.tell()
}

func (f *testFleet) revision(seat int) int64 { return f.status(seat).Revision }

// TestStranger: whoever has no key with a seat gets no answer, by whichever way he comes; a seat
// whose key is taken out is cut off while it is connected.
func TestStranger(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 3, 0, 3)
	certificate, key, _ := selfSigned(t)
	f.start(1, 2, 3)
	f.whole(1, 2, 3)
	own, err := x509.ParseECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"no certificate":      {},
		"another certificate": {Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: own}}},
		"TLS 1.2":             {MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: own}}},
	} {
		config.InsecureSkipVerify = true // he does not care whom he talks to
		conn, err := tls.Dial("tcp", f.setups[1].Listen, config)
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = conn.Write([]byte("GET /kogge/status HTTP/1.1\r\nHost: x\r\n\r\n"))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	leader := f.leader(1, 2, 3)
	out := leader%3 + 1
	for id, seat := range f.world.Keys {
		if seat == out {
			delete(f.world.Keys, id)
		}
	}
	f.tell()
	f.until("it has no leader", func() bool { s := f.status(out); return s.Running && s.Leader == 0 })
	f.put(leader, "a", "1")
}

// TestSocket: etcd's sockets are root's alone.
func TestSocket(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 1, 0, 1)
	f.start(1)
	f.whole(1)
	f.put(1, "a", "1")
	for name, want := range map[string]os.FileMode{"": 0o700, "client.sock": 0o600, "peers": 0o700} {
		info, err := os.Stat(filepath.Join(f.setups[1].Run, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestAlone: the only member loses its data. It begins anew: from its newest snapshot that is one, or
// from nothing if none is, and never as the etcd that it was. One that cannot be read now is waited
// for.
func TestAlone(t *testing.T) {
	t.Parallel()
	f := newTestFleet(t, 1, 0, 1)
	f.start(1)
	f.whole(1)
	lose := func(generation int) {
		t.Helper()
		f.kill(1)
		if err := os.RemoveAll(filepath.Join(f.setups[1].Dir, fmt.Sprintf("data.%d", generation))); err != nil {
			t.Fatal(err)
		}
		f.start(1)
		f.whole(1)
		if s := f.status(1); s.Generation != generation+1 {
			t.Errorf("generation %d", s.Generation)
		}
	}
	lose(0)
	f.put(1, "a", "1")
	var backup bytes.Buffer
	if err := Backup(t.Context(), ClientSocket(f.setups[1].Run), &backup); err != nil {
		t.Fatal(err)
	}
	here := &folder{dir: f.setups[1].Dir, disk: machine{}, mine: mark{First: f.world.Facts.First}}
	for n := range int64(keptSnapshots + 1) {
		copied := bytes.NewReader(backup.Bytes()[:backup.Len()-int(n)]) // the newest ones are torn
		if err := here.keep(1, n+1, copied); err != nil {
			t.Fatal(err)
		}
	}
	if kept := here.snapshots(); len(kept) != keptSnapshots || kept[0].Revision != 2 {
		t.Fatalf("kept: %v", kept)
	}
	lose(1)
	if got := f.get(1, "a"); got != "" {
		t.Errorf("of torn snapshots: %q", got)
	}
	f.put(1, "b", "2")
	backup.Reset()
	if err := Backup(t.Context(), ClientSocket(f.setups[1].Run), &backup); err != nil {
		t.Fatal(err)
	}
	whole := backup.Bytes()
	if err := here.keep(2, 8, bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	if kept := here.snapshots(); kept[len(kept)-1].Generation != 2 {
		t.Errorf("an etcd that counts from the start has no snapshots: %v", kept)
	}
	lose(2)
	if got := f.get(1, "b"); got != "2" {
		t.Errorf("of a snapshot: %q", got)
	}

	unread := filepath.Join(here.path(snapshotsName), here.snapshotName(3, 9))
	if err := os.Symlink(unread, unread); err != nil { // a loop
		t.Fatal(err)
	}
	f.kill(1)
	if err := os.RemoveAll(here.data(3)); err != nil {
		t.Fatal(err)
	}
	f.start(1)
	f.until("it says which one cannot be read", func() bool { return strings.Contains(f.status(1).Problem, unread) })
	if s := f.status(1); s.Running {
		t.Errorf("it has begun without it: %+v", s)
	}
	f.stop(1)
	if err := os.Remove(unread); err != nil {
		t.Fatal(err)
	}
	f.start(1)
	f.whole(1)
	if got := f.get(1, "b"); got != "2" {
		t.Errorf("of the one before: %q", got)
	}
}
