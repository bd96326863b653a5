package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/fsync"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/part"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
)

// TestEtcdFacts: what the service etcd goes by is the ledger's, with what the agent knows of the
// nodes; where that cannot be read it is told so.
func TestEtcdFacts(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	node, state := identitytest.Adopted(t, f)
	p := &participant{state: state, run: t.TempDir(), node: node}
	if _, err := p.facts(); err == nil {
		t.Error("facts before the founding")
	}
	taken := pinned.Open(ledgerOf(p.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	facts, err := p.facts()
	must(t, err)
	founded := netip.MustParseAddrPort("192.0.2.2:7444")
	if got := fmt.Sprint(facts.Founders, len(facts.Seats), facts.Addresses[2], facts.Grace); got != fmt.Sprint([]int{1, 2, 3}, 3, []netip.AddrPort{founded}, 5*time.Minute) {
		t.Errorf("founded: %s", got)
	}
	moved := netip.MustParseAddrPort("192.0.2.99:7444")
	must(t, control.Seats{Seats: []control.Seat{
		{Number: 2, Addresses: []netip.AddrPort{moved}, Away: true}, {Number: 4, Key: ledgertest.Key(t, "n4").ID().String()}, {Number: 5, Key: ledgertest.Key(t, "n5").ID().String()},
	}}.Write(p.run))
	facts, err = p.facts()
	must(t, err)
	if got := fmt.Sprint(facts.Leaving); got != "[4]" {
		t.Errorf("leaving: %s", got)
	}
	if got := fmt.Sprint(facts.Addresses[2], facts.Addresses[3], facts.Away[2], facts.Away[3]); got != fmt.Sprint([]netip.AddrPort{moved, founded}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.3:7444")}, true, false) {
		t.Errorf("moved: %s", got)
	}
	must(t, os.WriteFile(filepath.Join(p.run, control.SeatsFile), []byte("{"), 0o600))
	if _, err := p.facts(); err == nil {
		t.Error("facts of a file that cannot be read")
	}
}

// TestEtcdReads: what was read of the ledger is not read again at each look, be it good or bad.
func TestEtcdReads(t *testing.T) {
	f := ledgertest.Founded(t, 4, 4)
	node, state := identitytest.Adopted(t, f)
	p := &participant{state: state, run: t.TempDir(), node: node}
	dir := ledgerOf(p.state)
	quiet := func() { // for so long that a file that came would show
		long := time.Now().Add(-time.Hour)
		must(t, os.Chtimes(dir, long, long))
	}
	ask := func(when string, height int64, good bool) {
		t.Helper()
		if _, err := p.facts(); (err == nil) != good || p.taken.State().Height != height {
			t.Errorf("%s: height %d, %v", when, p.taken.State().Height, err)
		}
	}
	taken := pinned.Open(dir, f.Genesis)
	for height := int64(1); height <= 3; height++ {
		must(t, taken.Take(height, f.Entries[height-1]))
		ask("a record has come", height, true)
	}
	second := filepath.Join(dir, "2")
	whole, err := os.ReadFile(second)
	must(t, err)
	must(t, os.WriteFile(second, []byte("x"), 0o600))
	must(t, taken.Take(4, f.Entries[3]))
	ask("another one has come", 4, true)
	quiet()
	p = &participant{state: state, run: p.run, node: node}
	ask("a service that begins with a damaged ledger", 1, false)
	must(t, os.WriteFile(second, whole, 0o600)) // in its place: the folder is as it was
	ask("nothing has come", 1, false)
	p.at = p.at.Add(-readAgain)
	ask("later", 4, true)
}

// TestEtcdPeer is the table of who is a member at the other end.
func TestEtcdPeer(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	node, state := identitytest.Adopted(t, f)
	p := &participant{state: state, run: t.TempDir(), node: node}
	taken := pinned.Open(ledgerOf(p.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	if _, err := p.facts(); err != nil {
		t.Fatal(err)
	}
	connection := func(name string) (tls.ConnectionState, string) {
		key, err := fleet.NewKey()
		must(t, err)
		cert, err := x509.ParseCertificate(f.Sign(t, fleet.KindNode, name, "", &key.PublicKey))
		must(t, err)
		return tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, fleet.KeyID(cert.RawSubjectPublicKeyInfo)
	}
	member, memberKey := connection("n2")
	follower, _ := connection("n4")
	forged, _ := connection("n2") // of a stolen CA, for a name that is listed
	if _, err := p.verify(member); err == nil {
		t.Error("a member before any key is known")
	}
	former, formerKey := connection("n3")
	gone, goneKey := connection("n5")
	claimed, claimedKey := connection("n3") // n1 calls n3's key its own
	must(t, control.Seats{Seats: []control.Seat{
		{Number: 1, Key: ledgertest.Key(t, "n1").ID().String(), TLSKey: claimedKey}, {Number: 2, Key: ledgertest.Key(t, "n2").ID().String(), TLSKey: memberKey},
		{Number: 3, Key: ledgertest.Key(t, "n9").ID().String(), TLSKey: formerKey}, {Number: 5, Key: ledgertest.Key(t, "n5").ID().String(), TLSKey: goneKey},
		{Number: 3, Key: ledgertest.Key(t, "n3").ID().String(), TLSKey: claimedKey},
	}}.Write(p.run))
	for name, c := range map[string]struct {
		state tls.ConnectionState
		seats []int
	}{
		"member": {member, []int{2}}, "follower": {follower, nil}, "listed name, foreign key": {forged, nil}, "no certificate": {tls.ConnectionState{}, nil},
		"of the key that the seat had": {former, nil}, "no seat any more": {gone, nil}, "a key that another one calls its own": {claimed, []int{1, 3}},
	} {
		if seats, err := p.verify(c.state); !slices.Equal(seats, c.seats) || (err == nil) != (c.seats != nil) {
			t.Errorf("%s: seats %d, %v", name, seats, err)
		}
	}
}

// TestEtcdOnDemand: a node is a member by the ledger's word alone, and asks nothing while it has
// none.
func TestEtcdOnDemand(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	node, state := identitytest.Adopted(t, f)
	var now parts
	at := paths{state: state}
	ask := func(when string, is standing, known bool) {
		t.Helper()
		if gotIs, gotKnown := standingOf(at, &now); gotIs != is || gotKnown != known {
			t.Errorf("%s: %s, known %v", when, gotIs, gotKnown)
		}
	}
	ask("no ledger", outsider, true)
	taken := pinned.Open(ledgerOf(at.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	ask("a ledger that nobody has opened", outsider, false)
	now.part.Store(part.New(node, state, t.TempDir(), nil))
	ask("no seat", outsider, true)
	node, at.state = identitytest.Adopted(t, f)
	identitytest.Sit(t, at.state, 1)
	now.part.Store(part.New(node, at.state, t.TempDir(), nil))
	taken = pinned.Open(ledgerOf(at.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	ask("a member", insider, true)
	must(t, os.WriteFile(filepath.Join(ledgerOf(at.state), "1"), []byte("x"), 0o600))
	now.part.Store(part.New(node, at.state, t.TempDir(), nil))
	ask("a damaged ledger", outsider, false)
}

// TestEtcdStanding is the table of what a node has to do with etcd, by its seat and by what lies
// on its disk.
func TestEtcdStanding(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name   string
		seat   roster.Seat
		seated bool
	}{{"no seat", roster.Seat{}, false}, {"follower", roster.Seat{Number: 1, Vote: true}, true}, {"member", roster.Seat{Number: 1, Member: true}, true}, {"spare", roster.Seat{Number: 1, Spare: true}, true}} {
		fmt.Fprintf(&b, "%s: %s, with data %s\n", c.name, standingAs(c.seat, c.seated, false), standingAs(c.seat, c.seated, true))
	}
	want := "no seat: outsider, with data outsider\nfollower: outsider, with data leaving\nmember: insider, with data insider\nspare: insider, with data insider\n"
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	dir := t.TempDir()
	for name, holds := range map[string]bool{"mark.json": false, "aside": false, "data.1.new": false, "data.0": true} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		if etcd.Holds(dir) != holds {
			t.Errorf("with %s it holds data: %v", name, !holds)
		}
		must(t, os.Remove(filepath.Join(dir, name)))
	}
}

// TestEtcdLeaver walks a node that leaves through a day: it runs etcd while that has a leader, and
// where it finds none it does not look for ever.
func TestEtcdLeaver(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var l leaver
	for _, c := range []struct {
		after time.Duration
		led   bool
		runs  bool
	}{
		{0, false, true}, {time.Minute, true, true}, {5 * time.Hour, true, true}, {leaderless - time.Second, false, true}, {time.Second, false, false},
		{restsFor - time.Second, true, false}, {time.Second, false, true}, {leaderless, false, false}, {restsFor, false, true}, {time.Second, true, true}, {leaderless, true, true},
	} {
		if now = now.Add(c.after); l.runs(c.led, now) != c.runs {
			t.Errorf("at %s, led %v: it runs: %v", now.Format("15:04:05"), c.led, !c.runs)
		}
	}
}

// pid1 is what a test has in the place of PID 1: it answers on its socket what it is told to.
type pid1 struct {
	mu       sync.Mutex // guards what follows
	services []control.Service
	orders   []string
}

func newPid1(t *testing.T, run string) *pid1 {
	l, err := net.Listen("unix", pid1Of(run))
	must(t, err)
	p := &pid1{}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.answer(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return p
}

func (p *pid1) answer(conn net.Conn) {
	defer conn.Close()
	out := json.NewEncoder(conn)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		r, err := control.ParseRequest(lines.Bytes())
		if err != nil {
			return
		}
		p.mu.Lock()
		var answer control.Response
		if r.Op == control.OpStatus {
			answer.Status = &control.Status{Services: slices.Clone(p.services)}
		} else {
			p.orders = append(p.orders, string(r.Op)+" "+r.Service)
		}
		p.mu.Unlock()
		_ = out.Encode(answer)
	}
}

func (p *pid1) runs(s ...control.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services = s
}

func (p *pid1) ordered() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.orders)
}

// TestEtcdAgain: an agent that starts anew does not know what the one before has ordered. It asks,
// and stops what is not wanted any more; what does not run it leaves alone.
func TestEtcdAgain(t *testing.T) {
	dir, err := os.MkdirTemp("", "agent") // short: a socket lies in it
	must(t, err)
	defer os.RemoveAll(dir)
	at := paths{state: t.TempDir(), run: dir} // no ledger: nothing is wanted
	p := newPid1(t, dir)
	agent := func() (end func()) {
		return alongside(t.Context(), func(ctx context.Context) { memberOnDemand(ctx, at, &parts{}) })
	}
	p.runs(control.Service{Name: "etcd", State: "running", PID: 9})
	end := agent()
	for deadline := time.Now().Add(time.Minute); len(p.ordered()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not stopped")
		}
	}
	end()
	if got := p.ordered(); !slices.Equal(got, []string{"stop etcd"}) {
		t.Errorf("orders: %q", got)
	}
}

// TestEtcdNow is the table of what is told of the service etcd: what it says itself counts while
// the process runs that says so.
func TestEtcdNow(t *testing.T) {
	dir, err := os.MkdirTemp("", "agent")
	must(t, err)
	defer os.RemoveAll(dir)
	if e, err := etcdNow(t.Context(), dir); err != nil || !strings.Contains(e.Problem, "PID 1") {
		t.Errorf("PID 1 does not answer: %+v, %v", e, err)
	}
	p := newPid1(t, dir)
	service := func(state string, pid int) control.Service {
		return control.Service{Name: "etcd", State: state, PID: pid, Exits: 2, LastExit: "exit status 1", Failing: state == "failed"}
	}
	for _, c := range []struct {
		name     string
		services []control.Service
		said     *control.Etcd
		want     string // "": there is none
	}{
		{"it does not run", nil, nil, ""},
		{"it has been stopped", nil, &control.Etcd{PID: 9, Running: true}, ""},
		{"it starts", []control.Service{service("starting", 9)}, nil, "false the service is starting "},
		{"it runs", []control.Service{service("running", 9)}, &control.Etcd{PID: 9, Running: true, Doing: "at rest"}, "true at rest "},
		{"it was killed", []control.Service{service("backoff", 0)}, &control.Etcd{PID: 9, Running: true, Doing: "at rest"}, "false the service is backoff the service is backoff after 2 exits: exit status 1"},
		{"it starts anew", []control.Service{service("running", 10)}, &control.Etcd{PID: 9, Running: true, Doing: "at rest"}, "false the service is running "},
		{"it fails again and again", []control.Service{service("failed", 0)}, nil, "false the service is failed the service is failed after 2 exits: exit status 1"},
	} {
		p.runs(c.services...)
		_ = os.Remove(filepath.Join(dir, control.EtcdFile))
		if c.said != nil {
			must(t, c.said.Write(dir))
		}
		e, err := etcdNow(t.Context(), dir)
		got := fmt.Sprintf("%v %s %s", e.Running, e.Doing, e.Problem)
		if errors.Is(err, fs.ErrNotExist) {
			got = ""
		} else if err != nil {
			t.Error(err)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestEtcdRole: the role runs etcd where the ledger says so, and says why where it does not.
func TestEtcdRole(t *testing.T) {
	f := ledgertest.Founded(t, 1, 1)
	_, state := identitytest.Adopted(t, f)
	dir, err := os.MkdirTemp("", "etcd") // short: sockets lie in it
	must(t, err)
	defer os.RemoveAll(dir)
	role := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "etcd", "-state", state, "-run", dir, "-listen", "127.0.0.1:0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	if out, err := role().CombinedOutput(); err == nil || !strings.Contains(string(out), "ledger") {
		t.Errorf("before the founding: %v: %s", err, out)
	}
	taken := pinned.Open(ledgerOf(state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	if out, err := role().CombinedOutput(); err == nil || !strings.Contains(string(out), "has no seat") {
		t.Errorf("without a seat: %v: %s", err, out)
	}
	identitytest.Sit(t, state, 1)
	cmd := role()
	var out bytes.Buffer
	cmd.Stderr = &out
	must(t, cmd.Start())
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if e, err := control.ReadEtcd(dir); err == nil && e.Running && e.Leader == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("etcd does not run: %s", out.String())
		}
	}
	var backup bytes.Buffer
	must(t, etcd.Backup(t.Context(), etcd.ClientSocket(filepath.Join(dir, "etcd")), &backup))
	rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid)) // for who wants figures
	t.Logf("backup of %d bytes; memory of the role:\n%s", backup.Len(), rollup)
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v: %s", err, out.String())
	}
	if e, err := control.ReadEtcd(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its end it says %+v, %v", e, err)
	}
}

// TestEtcdFact: what other programs are told is what a member said.
func TestEtcdFact(t *testing.T) {
	e := factOf(etcd.Status{Seat: 2, Running: true, Leader: 1, Doing: "at rest", Snapshots: []etcd.Snapshot{{Revision: 3}, {Revision: 9}}, Probe: fsync.Times{Writes: 64, P99: 20 * time.Millisecond}})
	dir := t.TempDir()
	must(t, e.Write(dir))
	again, err := control.ReadEtcd(dir)
	must(t, err)
	if fmt.Sprint(again) != fmt.Sprint(e) || again.Newest != 9 || again.Fsync != "20ms" || again.Snapshots != 2 {
		t.Errorf("%+v", again)
	}
}
