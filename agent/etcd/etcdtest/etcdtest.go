// Package etcdtest is, for tests, the etcd of a fleet as it runs on the fleet's members: a process
// each, so that one can be killed, or stand still as if it were cut off.
package etcdtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/membership"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// env has a test's program be a member, of that file.
const env = "KOGGE_TEST_ETCD"

// Main is the main of a test's program whose members are processes of it.
func Main(m *testing.M) {
	if !Child() {
		os.Exit(m.Run())
	}
}

// Child is the whole work of a process that is a member; false: it is none.
func Child() bool {
	file := os.Getenv(env)
	if file == "" {
		return false
	}
	if err := run(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// member is one process.
type member struct {
	Seat                   int
	Dir, Run, Listen, Said string
	Keys                   map[string]int // seats by the fingerprints of TLS keys
	Facts                  etcd.Facts
	Certificate, Key       []byte
	Quota                  int64
	process                *exec.Cmd
}

func run(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s member
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	own, err := x509.ParseECPrivateKey(s.Key)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return etcd.Run(ctx, etcd.Config{
		Dir: s.Dir, Run: s.Run, Seat: s.Seat, Listen: s.Listen, Quota: s.Quota, Slowest: time.Minute,
		Certificate: func() (tls.Certificate, error) {
			return tls.Certificate{Certificate: [][]byte{s.Certificate}, PrivateKey: own}, nil
		},
		VerifyPeer: func(state tls.ConnectionState) ([]int, error) {
			if seat := s.Keys[fleet.KeyID(state.PeerCertificates[0].RawSubjectPublicKeyInfo)]; seat != 0 {
				return []int{seat}, nil
			}
			return nil, fmt.Errorf("the key has no seat")
		},
		Facts: func() (etcd.Facts, error) { return s.Facts, nil },
		Said: func(status etcd.Status) {
			if raw, err := json.Marshal(status); err == nil && os.WriteFile(s.Said+".new", raw, 0o600) == nil {
				_ = os.Rename(s.Said+".new", s.Said)
			}
		},
		Log: func(line string) {
			fmt.Fprintf(os.Stderr, "%s seat %d: %s\n", time.Now().Format("05.000"), s.Seat, line)
		},
	})
}

// Fleet is the etcd of a test's fleet.
type Fleet struct {
	t   testing.TB
	dir string
	all []*member // by seat, from 1
}

// New is an etcd with so many members, seats 1 to that, all of which run.
func New(t testing.TB, members int) *Fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	f := &Fleet{t: t, dir: dir}
	t.Cleanup(func() {
		for _, m := range f.all {
			f.end(m, syscall.SIGKILL)
			if log, err := os.ReadFile(f.file(m, "log")); err == nil && t.Failed() && os.Getenv("KOGGE_TEST_LOGS") != "" {
				t.Logf("etcd of seat %d:\n%s", m.Seat, log)
			}
		}
		os.RemoveAll(dir)
	})
	facts := etcd.Facts{
		Fleet: document.HashOf([]byte("fleet")), First: document.HashOf([]byte("record 1")), Grace: 10 * time.Minute,
		Addresses: make(map[int][]netip.AddrPort),
	}
	keys := make(map[string]int)
	net := [2]byte{byte(1 + mathrand.N(254)), byte(mathrand.N(255))} // all of 127/8 is loopback
	for seat := 1; seat <= members; seat++ {
		m := &member{Seat: seat, Quota: 64 << 20, Keys: keys}
		m.Dir, m.Run, m.Said = f.file(m, "state"), f.file(m, "run"), f.file(m, "status")
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, net[0], net[1], byte(seat)}), 7444)
		m.Listen, facts.Addresses[seat] = at.String(), []netip.AddrPort{at}
		var id string
		m.Certificate, m.Key, id = selfSigned(t)
		keys[id] = seat
		facts.Founders = append(facts.Founders, seat)
		facts.Seats = append(facts.Seats, membership.Seat{Number: seat, Name: fmt.Sprintf("n%d", seat)})
		f.all = append(f.all, m)
	}
	for _, m := range f.all {
		m.Facts = facts
		f.Start(m.Seat)
	}
	f.Whole()
	return f
}

func selfSigned(t testing.TB) (certificate, key []byte, id string) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	if certificate, err = x509.CreateCertificate(rand.Reader, template, template, &own.PublicKey, own); err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalECPrivateKey(own); err != nil {
		t.Fatal(err)
	}
	return certificate, key, fleet.KeyID(spki)
}

func (f *Fleet) file(m *member, name string) string {
	return filepath.Join(f.dir, fmt.Sprint(m.Seat), name)
}

// Dir is a member's folder Dir, and Socket where it serves clients.
func (f *Fleet) Dir(seat int) string    { return f.all[seat-1].Dir }
func (f *Fleet) Socket(seat int) string { return etcd.ClientSocket(f.all[seat-1].Run) }

// Start starts members that do not run.
func (f *Fleet) Start(seats ...int) {
	f.t.Helper()
	for _, seat := range seats {
		m := f.all[seat-1]
		if err := os.MkdirAll(filepath.Dir(m.Dir), 0o700); err != nil {
			f.t.Fatal(err)
		}
		raw, err := json.Marshal(m)
		if err == nil {
			err = os.WriteFile(f.file(m, "setup"), raw, 0o600)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		log, err := os.OpenFile(f.file(m, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			f.t.Fatal(err)
		}
		m.process = exec.Command(os.Args[0])
		m.process.Env = append(os.Environ(), env+"="+f.file(m, "setup"))
		m.process.Stderr, m.process.Stdout = log, log
		m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := m.process.Start(); err != nil {
			f.t.Fatal(err)
		}
		log.Close()
	}
}

// Kill ends members as a power cut does, Stop in order.
func (f *Fleet) Kill(seats ...int) { f.signal(syscall.SIGKILL, seats) }
func (f *Fleet) Stop(seats ...int) { f.signal(syscall.SIGTERM, seats) }

func (f *Fleet) signal(s syscall.Signal, seats []int) {
	for _, seat := range seats {
		f.end(f.all[seat-1], s)
	}
}

func (f *Fleet) end(m *member, s syscall.Signal) {
	if m.process == nil {
		return
	}
	_ = m.process.Process.Signal(s)
	_ = m.process.Process.Signal(syscall.SIGCONT)
	_ = m.process.Wait() // killed is an error, too
	m.process = nil
	_ = os.Remove(m.Said)
}

// Freeze has a member stand still, and Thaw go on.
func (f *Fleet) Freeze(seat int) { _ = f.all[seat-1].process.Process.Signal(syscall.SIGSTOP) }
func (f *Fleet) Thaw(seat int)   { _ = f.all[seat-1].process.Process.Signal(syscall.SIGCONT) }

// Process is the process id of a member.
func (f *Fleet) Process(seat int) int { return f.all[seat-1].process.Process.Pid }

// Status is what a member said last; the zero one where it has not spoken.
func (f *Fleet) Status(seat int) (s etcd.Status) {
	if raw, err := os.ReadFile(f.all[seat-1].Said); err == nil {
		_ = json.Unmarshal(raw, &s)
	}
	return s
}

// Leader waits for the seat that leads, of those that run.
func (f *Fleet) Leader() (leader int) {
	f.t.Helper()
	f.Until("a leader", func() bool {
		for _, m := range f.all {
			if s := f.Status(m.Seat); m.process != nil && s.Running && s.Leader == m.Seat {
				leader = m.Seat
				return true
			}
		}
		return false
	})
	return leader
}

// Whole waits until all members run that were started, and know a leader.
func (f *Fleet) Whole() {
	f.t.Helper()
	f.Until("all members run", func() bool {
		for _, m := range f.all {
			if s := f.Status(m.Seat); m.process != nil && (!s.Running || s.Leader == 0) {
				return false
			}
			if _, err := os.Stat(f.Socket(m.Seat)); m.process != nil && err != nil {
				return false
			}
		}
		return true
	})
}

// Restore has the members begin anew, the first of them from a snapshot, as a fleet orders it.
func (f *Fleet) Restore(snapshot []byte) {
	f.t.Helper()
	for _, m := range f.all {
		f.end(m, syscall.SIGTERM)
	}
	tell := func() error {
		for _, m := range f.all {
			m.Facts.Ordered++ // the others give up their data for it, by order
		}
		return nil
	}
	if err := etcd.PlaceRestore(f.all[0].Dir, bytes.NewReader(snapshot), f.all[0].Facts.Ordered, tell); err != nil {
		f.t.Fatal(err)
	}
	for _, m := range f.all {
		f.Start(m.Seat)
	}
	f.Whole()
}

// untilLimit is for a machine that has much else to do.
const untilLimit = 10 * time.Minute

// Until waits for something with a generous limit.
func (f *Fleet) Until(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(untilLimit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within %s: %s", untilLimit, what)
		}
	}
}
