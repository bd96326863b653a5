package etcd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"

	"kogge.example/agent/etcd/membership"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// memberEnv has this program be a member, of that file: a member is a process, so that it can be
// killed.
const memberEnv = "KOGGE_TEST_MEMBER"

func TestMain(m *testing.M) {
	segment = 1 << 20     // many are made
	compare = time.Second // nobody waits long
	if file := os.Getenv(memberEnv); file != "" {
		if err := runMember(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // they wait more than they work
		panic(err)
	}
	os.Exit(m.Run())
}

// world is what all members of a test know; it may change while they run.
type world struct {
	Facts Facts
	Keys  map[string]int // seats by the fingerprints of their TLS keys
	Claim map[string]int // seats that call such a key theirs, and have not got it
}

// setup is one member of a test.
type setup struct {
	Dir, Run, Listen, World, Status string
	Seat                            int
	Quota                           int64
	Certificate, Key                []byte
}

func runMember(file string) error {
	var s setup
	if err := readJSON(file, &s); err != nil {
		return err
	}
	own, err := x509.ParseECPrivateKey(s.Key)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Run(ctx, Config{
		Dir: s.Dir, Run: s.Run, Seat: s.Seat, Listen: s.Listen, Quota: s.Quota, Slowest: time.Minute,
		Certificate: func() (tls.Certificate, error) {
			return tls.Certificate{Certificate: [][]byte{s.Certificate}, PrivateKey: own}, nil
		},
		VerifyPeer: func(state tls.ConnectionState) (seats []int, err error) {
			var w world
			if err := readJSON(s.World, &w); err != nil {
				return nil, err
			}
			key := fleet.KeyID(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
			for _, seat := range []int{w.Claim[key], w.Keys[key]} {
				if seat != 0 {
					seats = append(seats, seat)
				}
			}
			if seats == nil {
				err = fmt.Errorf("key %s has no seat", fleet.Short(key))
			}
			return seats, err
		},
		Facts: func() (Facts, error) {
			var w world
			err := readJSON(s.World, &w)
			return w.Facts, err
		},
		Said: func(status Status) { _ = writeJSON(s.Status, status) },
		Log: func(line string) {
			fmt.Fprintf(os.Stderr, "%s seat %d: %s\n", time.Now().Format("05.000"), s.Seat, line)
		},
	})
}

func readJSON(name string, into any) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func writeJSON(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// testFleet is a fleet whose members are processes on loopback.
type testFleet struct {
	t       *testing.T
	dir     string
	net     [2]byte
	world   world
	setups  map[int]*setup
	running map[int]*exec.Cmd
}

// newTestFleet is a fleet of so many members and spares, of which the first ones are founders.
func newTestFleet(t *testing.T, members, spares, founders int) *testFleet {
	dir, err := os.MkdirTemp("", "etcd") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	f := &testFleet{t: t, dir: dir, setups: make(map[int]*setup), running: make(map[int]*exec.Cmd)}
	f.net = [2]byte{byte(1 + mathrand.N(254)), byte(mathrand.N(255))} // all of 127/8 is loopback
	f.world = world{Keys: make(map[string]int), Facts: Facts{
		Fleet: document.HashOf([]byte("fleet")), First: document.HashOf([]byte("record 1")),
		Grace: 10 * time.Second, Addresses: make(map[int][]netip.AddrPort), Away: make(map[int]bool),
	}}
	for seat := 1; seat <= members+spares; seat++ {
		f.join(seat)
		if seat <= founders {
			f.world.Facts.Founders = append(f.world.Facts.Founders, seat)
		}
	}
	f.seats(members, spares)
	t.Cleanup(func() {
		for seat := range f.running {
			f.kill(seat)
		}
		for seat := range f.setups {
			log, _ := os.ReadFile(f.log(seat)) // there is none of one that was never started
			if bytes.Contains(log, []byte("DATA RACE")) || bytes.Contains(log, []byte("\npanic: ")) || bytes.Contains(log, []byte("\nfatal error: ")) {
				t.Errorf("seat %d has broken down", seat)
			}
		}
		if t.Failed() || os.Getenv("KOGGE_TEST_LOGS") != "" {
			for seat := range f.setups {
				log, _ := os.ReadFile(f.log(seat))
				t.Logf("seat %d:\n%s", seat, log)
			}
		}
		os.RemoveAll(dir)
	})
	return f
}

// join makes a seat's node.
func (f *testFleet) join(seat int) {
	s := &setup{Seat: seat, World: filepath.Join(f.dir, "world"), Quota: 16 << 20}
	home := filepath.Join(f.dir, fmt.Sprint(seat))
	s.Dir, s.Run, s.Status = filepath.Join(home, "state"), filepath.Join(home, "run"), filepath.Join(home, "status")
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, f.net[0], f.net[1], byte(seat)}), 7444)
	s.Listen = address.String()
	var id string
	s.Certificate, s.Key, id = selfSigned(f.t)
	f.world.Facts.Addresses[seat], f.world.Keys[id] = []netip.AddrPort{address}, seat
	f.setups[seat] = s
	if err := os.MkdirAll(home, 0o700); err != nil {
		f.t.Fatal(err)
	}
}

// selfSigned is a node's certificate, and its key.
func selfSigned(t *testing.T) (certificate, key []byte, id string) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour)}
	if certificate, err = x509.CreateCertificate(rand.Reader, template, template, &own.PublicKey, own); err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalECPrivateKey(own); err != nil {
		t.Fatal(err)
	}
	return certificate, key, fleet.KeyID(parsed.RawSubjectPublicKeyInfo)
}

// seats has the roster be so many members and spares.
func (f *testFleet) seats(members, spares int) {
	f.world.Facts.Seats = nil
	for n := 1; n <= members+spares; n++ {
		f.world.Facts.Seats = append(f.world.Facts.Seats, membership.Seat{Number: n, Name: fmt.Sprintf("n%d", n), Spare: n > members})
	}
	f.tell()
}

// tell has all members know the world.
func (f *testFleet) tell() {
	if err := writeJSON(filepath.Join(f.dir, "world"), f.world); err != nil {
		f.t.Fatal(err)
	}
}

func (f *testFleet) log(seat int) string { return filepath.Join(f.dir, fmt.Sprint(seat), "log") }

func (f *testFleet) start(seats ...int) {
	f.t.Helper()
	for _, seat := range seats {
		s := f.setups[seat]
		file := filepath.Join(f.dir, fmt.Sprint(seat), "setup")
		if err := writeJSON(file, s); err != nil {
			f.t.Fatal(err)
		}
		log, err := os.OpenFile(f.log(seat), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			f.t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), memberEnv+"="+file)
		cmd.Stderr, cmd.Stdout = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			f.t.Fatal(err)
		}
		log.Close()
		f.running[seat] = cmd
	}
}

// kill ends members as a power cut does, as far as others see it.
func (f *testFleet) kill(seats ...int) { f.end(syscall.SIGKILL, seats) }

// stop ends members in order.
func (f *testFleet) stop(seats ...int) { f.end(syscall.SIGTERM, seats) }

func (f *testFleet) end(s os.Signal, seats []int) {
	for _, seat := range seats {
		cmd := f.running[seat]
		delete(f.running, seat)
		_ = cmd.Process.Signal(s)
		_ = cmd.Wait() // killed is an error, too
		_ = os.Remove(f.setups[seat].Status)
	}
}

// status is what a member said last; the zero one where it has not spoken.
func (f *testFleet) status(seat int) (s Status) {
	_ = readJSON(f.setups[seat].Status, &s)
	return s
}

// until waits for something with a generous limit.
func (f *testFleet) until(what string, is func() bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > 2*time.Minute {
			f.t.Fatalf("not within two minutes: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// whole waits until the voters are these seats, and all of them run.
func (f *testFleet) whole(seats ...int) time.Duration {
	f.t.Helper()
	return f.until(fmt.Sprintf("voters %v", seats), func() bool {
		for _, seat := range seats {
			s := f.status(seat)
			if !s.Running || s.Leader == 0 || !sameVoters(s.Members, seats) {
				return false
			}
		}
		return true
	})
}

func sameVoters(members []membership.Member, seats []int) bool {
	var voters []int
	for _, m := range members {
		if m.Learner {
			return false
		}
		voters = append(voters, m.Seat)
	}
	return fmt.Sprint(voters) == fmt.Sprint(seats)
}

// leader waits for the seat that leads.
func (f *testFleet) leader(seats ...int) (leader int) {
	f.t.Helper()
	f.until("a leader", func() bool {
		for _, seat := range seats {
			if s := f.status(seat); s.Running && s.Leader == seat {
				leader = seat
				return true
			}
		}
		return false
	})
	return leader
}

// client is a client of a member.
func (f *testFleet) client(seat int) *clientv3.Client {
	f.t.Helper()
	c, err := Connect(ClientSocket(f.setups[seat].Run))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// put writes a key until it is written, and says how long that took.
func (f *testFleet) put(seat int, key, value string) time.Duration {
	f.t.Helper()
	c := f.client(seat)
	return f.until("put "+key, func() bool {
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
		defer cancel()
		_, err := c.Put(ctx, key, value)
		return err == nil
	})
}

// get reads a key.
func (f *testFleet) get(seat int, key string) (value string) {
	f.t.Helper()
	c := f.client(seat)
	f.until("get "+key, func() bool {
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
		defer cancel()
		r, err := c.Get(ctx, key)
		if err == nil && len(r.Kvs) == 1 {
			value = string(r.Kvs[0].Value)
		}
		return err == nil
	})
	return value
}

// voters are the members without the learners.
func voters(all []membership.Member) []membership.Member {
	return slices.DeleteFunc(slices.Clone(all), func(m membership.Member) bool { return m.Learner })
}
