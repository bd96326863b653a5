package serve

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet"
)

// An attacker is a process of its own: what it does with its core is no work of the node.
const (
	attackEnv  = "KOGGE_ATTACKER" // SHAPE ADDRESS GENESIS-FILE, for the run that attacks
	attackFor  = "KOGGE_ATTACK"   // a duration, for a long run of [TestAttack]
	attackFrom = 64               // addresses
	attackEach = 4                // connections at a time from each
)

// attacks are the shapes of what strangers do. Each does one thing on one connection, from
// one address, and does it again and again.
var attacks = map[string]func(context.Context, *attacker, *net.Dialer){
	"chains":     func(ctx context.Context, a *attacker, d *net.Dialer) { a.requests(ctx, d, a.chained) },
	"handshakes": func(ctx context.Context, a *attacker, d *net.Dialer) { a.handshake(ctx, d) },
	"slow":       func(ctx context.Context, a *attacker, d *net.Dialer) { a.slow(ctx, d) },
	"refused":    func(ctx context.Context, a *attacker, d *net.Dialer) { a.requests(ctx, d, a.plain) },
}

// TestAttack has strangers who know the fleet's id and the names of its CAs, which every node
// shows, do what they can from 64 addresses: an admin's calls are answered, each on a
// connection of its own and on one that he has, and the node stays small.
//
// With KOGGE_ATTACK=1h they do all of it for an hour, with one core for them and the others
// for the node, and no call takes longer than two seconds; without, what counts is that
// the calls come through.
func TestAttack(t *testing.T) {
	if order := os.Getenv(attackEnv); order != "" {
		attack(t, strings.Fields(order))
		return
	}
	if folder := os.Getenv(loadEnv); folder != "" {
		return // the server is TestLoad's
	}
	if testing.Short() {
		t.Skip("takes half a minute: left out by -short")
	}
	f := newFleet(t, "hanse")
	l := newLoaded(t, f)
	genesis := filepath.Join(t.TempDir(), "genesis")
	if err := os.WriteFile(genesis, f.Genesis.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := os.Getenv(attackFor); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		l.longAttack(t, genesis, limit)
		return
	}
	for _, shape := range []string{"chains", "handshakes", "slow", "refused"} {
		t.Run(shape, func(t *testing.T) {
			l.bear(t, func(t *testing.T, l *loaded) {
				l.attack(t, shape, genesis)
				mine := api.Dial(l.address, "n1", l.fleet.Genesis, l.fleet.Certificate())
				defer mine.Close()
				mine.SetHandshakeLimit(limit)
				for range 8 {
					if _, err := mine.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{})); err != nil {
						t.Errorf("an operator who is connected: %v", err)
					}
					l.answers(t)
				}
			})
		})
	}
}

// attack begins one, which ends with the test.
func (l *loaded) attack(t *testing.T, shape, genesis string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAttack$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", attackEnv+"="+strings.Join([]string{shape, l.address, genesis}, " "))
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		rest, _ := io.ReadAll(out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the attacker: %v", err)
		}
		text, _, _ := bytes.Cut(rest, []byte("PASS"))
		t.Logf("%s: %s", shape, bytes.TrimSpace(text))
	})
	if line, err := bufio.NewReaderSize(out, 16).ReadString('\n'); err != nil || line != "attacks\n" {
		t.Fatalf("the attacker: %q, %v", line, err)
	}
	return cmd
}

// longAttack does it all at once, and tells what the admin had to wait for, beside what he
// waits for on this machine anyway.
func (l *loaded) longAttack(t *testing.T, genesis string, limit time.Duration) {
	l.calls(t, "before", limit/10)
	var theirs unix.CPUSet
	if last := runtime.NumCPU() - 1; last > 0 { // it is for them, and the others for the node
		var node unix.CPUSet
		for i := range last {
			node.Set(i)
		}
		theirs.Set(last)
		onTo(t, l.pid, &node)
	}
	for shape := range attacks {
		if cmd := l.attack(t, shape, genesis); theirs.Count() > 0 {
			onTo(t, cmd.Process.Pid, &theirs)
		}
	}
	if slowest := l.calls(t, "in the attack", limit); slowest > 2*time.Second {
		t.Errorf("a call took %s", slowest)
	}
}

// calls has an admin call for so long, on a connection that he keeps and on new ones, and
// returns what the slowest one took.
func (l *loaded) calls(t *testing.T, when string, limit time.Duration) (slowest time.Duration) {
	mine := api.Dial(l.address, "n1", l.fleet.Genesis, l.fleet.Certificate())
	defer mine.Close()
	peak := 0
	ask := func(c *api.Client) time.Duration {
		began := time.Now()
		if _, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{})); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		return time.Since(began)
	}
	var kept, fresh []time.Duration
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		kept = append(kept, ask(mine))
		other := api.Dial(l.address, "n1", l.fleet.Genesis, l.fleet.Certificate())
		fresh = append(fresh, ask(other))
		other.Close()
		peak = max(peak, l.memory(t))
	}
	for name, all := range map[string][]time.Duration{"on his connection": kept, "on a new one": fresh} {
		slices.Sort(all)
		last := all[len(all)-1]
		slowest = max(slowest, last)
		t.Logf("%s: %d calls %s: middle %s, one in a hundred %s, slowest %s; memory %d MiB", when, len(all), name,
			all[len(all)/2].Round(time.Millisecond), all[len(all)*99/100].Round(time.Millisecond), last.Round(time.Millisecond), peak)
	}
	if peak > most {
		t.Errorf("%s: the node took %d MiB, and %d are wanted", when, peak, most)
	}
	return slowest
}

// onTo has the threads of a process run on some processors alone.
func onTo(t *testing.T, pid int, on *unix.CPUSet) {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range threads {
		var id int
		if _, err := fmt.Sscan(one.Name(), &id); err != nil {
			t.Fatal(err)
		}
		_ = unix.SchedSetaffinity(id, on) // a thread may have ended
	}
}

// attacker is the other side.
type attacker struct {
	address        string
	chained, plain tls.Certificate
}

// attack is its process. It ends when its input does.
func attack(t *testing.T, order []string) {
	raw, err := os.ReadFile(order[2])
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := fleet.ParseGenesis(raw)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{address: order[1], chained: pretender(t, genesis, 12), plain: pretender(t, genesis, 0)}
	do := attacks[order[0]]
	ctx, stop := context.WithCancel(t.Context())
	did, begun := make(chan int), make(chan struct{}, 2*attackFrom*attackEach)
	for i := range attackFrom {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}, Timeout: 10 * time.Second}
		for range attackEach {
			go func() {
				n := 0
				for ; ctx.Err() == nil; n++ {
					select {
					case begun <- struct{}{}:
					default:
					}
					do(ctx, a, from)
				}
				did <- n
			}()
		}
	}
	for range cap(begun) { // every one of them came back for more
		<-begun
	}
	fmt.Println("attacks")
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop()
	all := 0
	for range attackFrom * attackEach {
		all += <-did
	}
	fmt.Printf("%d times\n", all)
}

// pretender is a certificate as an admin of the fleet has it, by a CA that has the name of
// the fleet's, and so have more of them that come along.
func pretender(t *testing.T, genesis *fleet.Genesis, more int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ca := genesis.OperatorCA
	sign := func(c *x509.Certificate, public any) []byte {
		c.NotBefore, c.NotAfter = ca.NotBefore, ca.NotAfter
		der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{RawSubject: ca.RawSubject}, public, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	name, err := url.Parse("kogge:" + genesis.ID() + "/operator/eve?role=admin")
	if err != nil {
		t.Fatal(err)
	}
	all := [][]byte{sign(&x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, own.Public())}
	for i := range more {
		all = append(all, sign(&x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), RawSubject: ca.RawSubject, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}, key.Public()))
	}
	return tls.Certificate{Certificate: all, PrivateKey: own}
}

// dial connects, and shows a certificate.
func (a *attacker) dial(ctx context.Context, from *net.Dialer, show tls.Certificate) *tls.Conn {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := from.DialContext(ctx, "tcp", a.address)
	if err != nil {
		return nil
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{show}})
	if conn.HandshakeContext(ctx) != nil {
		raw.Close()
		return nil
	}
	return conn
}

// requests calls 32 methods at a time until the connection is gone.
func (a *attacker) requests(ctx context.Context, from *net.Dialer, show tls.Certificate) {
	conn := a.dial(ctx, from, show)
	if conn == nil {
		return
	}
	defer conn.Close()
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	c, err := transport.NewClientConn(ctx, "https", a.address)
	if err != nil {
		return
	}
	defer c.Close()
	over := make(chan struct{})
	for range maxStreams {
		go func() {
			defer func() { over <- struct{}{} }()
			for ctx.Err() == nil {
				r, err := http.NewRequestWithContext(ctx, "POST", "https://n1/kogge.v1.NodeService/Status", strings.NewReader("{}"))
				if err != nil {
					return
				}
				answer, err := c.RoundTrip(r)
				if err != nil {
					return
				}
				answer.Body.Close()
			}
		}()
	}
	for range maxStreams {
		<-over
	}
}

// handshake makes one, and leaves.
func (a *attacker) handshake(ctx context.Context, from *net.Dialer) {
	if conn := a.dial(ctx, from, a.plain); conn != nil {
		conn.NetConn().Close()
	}
}

// slow says nothing, or the beginning of a handshake byte by byte, for as long as it may.
func (a *attacker) slow(ctx context.Context, from *net.Dialer) {
	conn, err := from.DialContext(ctx, "tcp", a.address)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}); err != nil {
		return
	}
	for {
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		var one [1]byte
		if _, err := conn.Read(one[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if _, err := conn.Write(one[:]); err != nil {
			return
		}
	}
}
