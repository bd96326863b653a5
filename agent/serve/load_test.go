package serve

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// loadEnv names the folder of the node for the run that is the server: a process of
// its own, so that its memory can be told from that of a thousand clients.
const loadEnv = "KOGGE_LOAD_TEST"

// most is what the server may take at any time beyond what it takes when idle, in MiB.
const most = 128

// TestLoad has a node's API under everything that callers can do to it, from many of
// them at once to those who want it to fall: it stays small, answers the others, and
// lets go of everything afterwards.
func TestLoad(t *testing.T) {
	if folder := os.Getenv(loadEnv); folder != "" {
		serveLoad(t, folder)
		return
	}
	if testing.Short() {
		t.Skip("takes a minute: left out by -short")
	}
	f := newFleet(t, "hanse")
	l := newLoaded(t, f)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *loaded)
	}{
		{"1000 clients", thousandClients},
		{"slow readers", slowReaders},
		{"half-open connections", halfOpen},
		{"handshakes that never end", endlessHandshakes},
		{"endless bodies", endlessBodies},
		{"bodies that drip", drippingBodies},
		{"busy connections of one operator", busyOperator},
		{"10000 headers", manyHeaders},
		{"rapid reset", rapidReset},
		{"calls that are cut off", cutCalls},
		{"endless continuation", endlessContinuation},
		{"tiny windows", tinyWindows},
		{"floods of pings and settings", pingFlood},
	} {
		t.Run(test.name, func(t *testing.T) { l.bear(t, test.run) })
	}
}

// serveLoad is the server. Each line on its input has it clean up and tell how many
// goroutines are left.
func serveLoad(t *testing.T, folder string) {
	debug.SetMemoryLimit(128 << 20) // the most that the agent sets for itself
	n, err := identity.OpenNode(filepath.Join(folder, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("serves", start(t, n, func(c *Config) { c.LogDir = folder }))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		runtime.GC()
		debug.FreeOSMemory()
		fmt.Println("goroutines", runtime.NumGoroutine())
	}
}

// loaded is the server under load.
type loaded struct {
	fleet   *keyring.Keyring
	address string
	pid     int
	ask     func() int // goroutines, after it has cleaned up
	clients []*api.Client
}

// dial makes a client that is closed when the load is over.
func (l *loaded) dial(certificate tls.Certificate) *api.Client {
	c := api.Dial(l.address, "n1", l.fleet.Genesis, certificate)
	c.SetHandshakeLimit(limit) // it waits for its turn
	l.clients = append(l.clients, c)
	return c
}

func newLoaded(t *testing.T, f *keyring.Keyring) *loaded {
	t.Helper()
	folder := t.TempDir()
	n, err := identity.OpenNode(filepath.Join(folder, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := f.NewToken(keyring.Terms{}, now)
	if err == nil {
		err = n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token})
	}
	if err != nil {
		t.Fatal(err)
	}
	adoptNode(t, f, n, "n1")
	line := strings.Repeat("x", 1023) + "\n"
	write(t, filepath.Join(folder, "db.log.1"), strings.Repeat(line, 1<<10))
	write(t, filepath.Join(folder, "db.log"), strings.Repeat(line, 1<<10))
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLoad$")
	cmd.Env = append(os.Environ(), loadEnv+"="+folder)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	lines := bufio.NewScanner(out)
	said := func(what string) string {
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), what+" "); ok {
				return rest
			}
		}
		t.Fatalf("the server ended before it said %q", what)
		return ""
	}
	l := &loaded{fleet: f, pid: cmd.Process.Pid}
	l.address = said("serves")
	l.ask = func() int {
		fmt.Fprintln(in)
		n, err := strconv.Atoi(said("goroutines"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return l
}

// bear runs what loads the server, and holds it to its promises.
func (l *loaded) bear(t *testing.T, run func(*testing.T, *loaded)) {
	goroutines, files, before := l.ask(), l.files(t), l.memory(t)
	over, watched := make(chan struct{}), make(chan int)
	go func() {
		peak := 0
		for {
			peak = max(peak, l.memory(t))
			select {
			case <-over:
				watched <- peak
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	t.Run("load", func(t *testing.T) { run(t, l) }) // its clients are gone at the end of it
	close(over)
	peak := <-watched
	l.answers(t)
	end := time.Now().Add(limit)
	for {
		for _, c := range l.clients {
			c.Close() // of its connections those whose streams have ended
		}
		g, n := l.ask(), l.files(t)
		if g <= goroutines+4 && n <= files+2 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d goroutines and %d files are left, before it were %d and %d", g, n, goroutines, files)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	after := l.memory(t)
	t.Logf("memory: %d MiB before, %d at most, %d after", before, peak, after)
	if peak > before+most || after > before+most/4 {
		t.Errorf("memory: %d MiB before, %d at most, %d after: want at most %d and %d", before, peak, after, before+most, before+most/4)
	}
}

// memory is what the server has for itself, in MiB.
func (l *loaded) memory(t *testing.T) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid))
	_, rest, found := strings.Cut(string(text), "RssAnon:")
	if err != nil || !found {
		t.Errorf("memory of the server: %v", err)
		return 0
	}
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kib >> 10
}

func (l *loaded) files(t *testing.T) int {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// answers wants an answer for an operator who comes now.
func (l *loaded) answers(t *testing.T) {
	t.Helper()
	c := api.Dial(l.address, "n1", l.fleet.Genesis, l.fleet.Certificate())
	defer c.Close()
	began := time.Now()
	if _, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{})); err != nil {
		t.Errorf("another operator: %v", err)
	}
	t.Logf("another operator waited %s", time.Since(began).Round(time.Millisecond))
}

// raw connects without a handshake.
func (l *loaded) raw(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// speak connects as somebody who speaks protocol (h2, http/1.1).
func (l *loaded) speak(t *testing.T, protocol string, certificates ...tls.Certificate) *tls.Conn {
	t.Helper()
	conn := tls.Client(l.raw(t), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, Certificates: certificates})
	if err := conn.HandshakeContext(timeout(t)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func thousandClients(t *testing.T, l *loaded) {
	const clients = 1000
	certificates := make([]tls.Certificate, clients)
	for i := range certificates {
		certificates[i] = operator(t, l.fleet, fleet.RoleReader, now)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex // guards failed and again
	var failed []error
	again := 0
	for _, certificate := range certificates {
		c := l.dial(certificate) // keeps its connection until all had theirs
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 4*limit) // for all of them together
			defer cancel()
			for {
				_, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
				mu.Lock()
				switch {
				case err == nil:
				case (connect.CodeOf(err) == connect.CodeUnavailable || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) && ctx.Err() == nil:
					// Too slow for its handshake, on a busy machine: it had to make room.
					again++
					mu.Unlock()
					continue
				default:
					failed = append(failed, err)
				}
				mu.Unlock()
				return
			}
		})
	}
	wait.Wait()
	t.Logf("%d times a client had to try again", again)
	if len(failed) > 0 {
		t.Errorf("%d of %d clients failed: %v", len(failed), clients, failed[0])
	}
	l.answers(t)
}

func slowReaders(t *testing.T, l *loaded) {
	refused := 0
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	for range 5 {
		certificate := operator(t, l.fleet, fleet.RoleReader, now)
		for range 30 {
			c := l.dial(certificate)
			stream, err := c.Logs(ctx, connect.NewRequest(&apiv1.LogsRequest{Container: "db", Follow: true}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { stream.Close() })
			if !stream.Receive() { // the first lines, and no more
				if connect.CodeOf(stream.Err()) != connect.CodeResourceExhausted {
					t.Fatal(stream.Err())
				}
				refused++
			}
		}
	}
	if want := 5*30 - door.MaxStreamsOfAll; refused != want {
		t.Errorf("%d of %d streams were refused, want %d", refused, 5*30, want)
	}
	l.answers(t)
	cancel()
}

func halfOpen(t *testing.T, l *loaded) {
	for range 2 * door.MaxConnections {
		l.raw(t)
	}
	l.answers(t)
}

func endlessHandshakes(t *testing.T, l *loaded) {
	for range 2 * door.MaxConnections {
		// A record that announces a ClientHello of 16 KiB, and its beginning.
		if _, err := l.raw(t).Write([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}); err != nil {
			t.Fatal(err)
		}
	}
	l.answers(t)
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func endlessBodies(t *testing.T, l *loaded) {
	for name, certificates := range map[string][]tls.Certificate{"a stranger": nil, "an operator": {operator(t, l.fleet, fleet.RoleOperator, now)}} {
		for _, http2 := range []bool{false, true} {
			client := &http.Client{Timeout: limit, Transport: &http.Transport{
				ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates},
			}}
			var wait sync.WaitGroup
			for range door.MaxCallsOfKey {
				wait.Go(func() {
					r, err := client.Post("https://"+l.address+"/kogge.v1.NodeService/Status", "application/proto", endless{})
					if err != nil {
						return // it hung up while we sent
					}
					defer r.Body.Close()
					if r.StatusCode == http.StatusOK {
						t.Errorf("%s was answered", name)
					}
				})
			}
			l.answers(t)
			began := time.Now()
			wait.Wait()
			t.Logf("%s, HTTP/2 %v: refused after %s", name, http2, time.Since(began).Round(time.Millisecond))
			client.CloseIdleConnections()
		}
	}
}

func drippingBodies(t *testing.T, l *loaded) {
	certificate := operator(t, l.fleet, fleet.RoleReader, now)
	for range 2 * door.MaxCalls {
		conn := l.speak(t, "http/1.1", certificate)
		if _, err := io.WriteString(conn, "POST /kogge.v1.NodeService/Status HTTP/1.1\r\nHost: n1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	l.answers(t)
}

// busyOperator has one certificate call on more connections than a node serves: those
// beyond its share are told so, and take no place from the others.
func busyOperator(t *testing.T, l *loaded) {
	certificate := operator(t, l.fleet, fleet.RoleReader, now)
	told := 0
	for range 2 * door.MaxConnections {
		conn := l.speak(t, "http/1.1", certificate)
		if _, err := io.WriteString(conn, "POST /kogge.v1.WorkloadService/Logs HTTP/1.1\r\nHost: n1\r\nContent-Type: application/connect+json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		// Who has a place hears nothing before his call is whole.
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			body, err := io.ReadAll(answer.Body)
			if !strings.Contains(string(body), "connections are busy with your certificate") {
				t.Fatalf("%s: %s, %v", answer.Status, body, err)
			}
			told++
		}
	}
	t.Logf("%d of %d were told", told, 2*door.MaxConnections)
	if told == 0 {
		t.Error("nobody was told that there are too many")
	}
	l.answers(t)
}

func manyHeaders(t *testing.T, l *loaded) {
	for _, http2 := range []bool{false, true} {
		client := &http.Client{Timeout: limit, Transport: &http.Transport{
			ForceAttemptHTTP2: http2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{l.fleet.Certificate()}},
		}}
		r, err := http.NewRequest("POST", "https://"+l.address+"/kogge.v1.NodeService/Status", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			r.Header.Set(fmt.Sprintf("X-%d", i), "x")
		}
		answer, err := client.Do(r)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("HTTP/2 %v: %s", http2, answer.Status)
			}
		}
		client.CloseIdleConnections()
	}
	l.answers(t)
}

// framer speaks HTTP/2 by hand. Nobody reads what the server says, but for a goroutine
// that lets it say it.
func (l *loaded) framer(t *testing.T, settings ...http2.Setting) (*http2.Framer, func(path string) []byte) {
	t.Helper()
	return l.framerOn(t, l.speak(t, "h2", operator(t, l.fleet, fleet.RoleReader, now)), settings...)
}

func (l *loaded) framerOn(t *testing.T, conn net.Conn, settings ...http2.Setting) (*http2.Framer, func(path string) []byte) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(limit))
	f := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	return f, func(path string) []byte {
		block.Reset()
		for _, h := range [][2]string{
			{":method", "POST"}, {":scheme", "https"}, {":authority", "n1"}, {":path", path},
			{"content-type", "application/connect+json"}, {"connect-protocol-version", "1"},
		} {
			_ = encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		return bytes.Clone(block.Bytes())
	}
}

// cutCalls ends connections while calls on each of them have begun: nothing of them may be left
// until a timer ends that nobody needs.
func cutCalls(t *testing.T, l *loaded) {
	certificate := operator(t, l.fleet, fleet.RoleReader, now)
	for range 1500 {
		conn := l.speak(t, "h2", certificate)
		f, headers := l.framerOn(t, conn)
		var err error
		for id := uint32(1); err == nil && id < 2*maxStreams; id += 2 {
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers("/kogge.v1.NodeService/Status"), EndHeaders: true})
		}
		if err == nil {
			err = f.WritePing(false, [8]byte{1})
		}
		for err == nil { // until the server has seen the calls
			var said http2.Frame
			if said, err = f.ReadFrame(); err == nil {
				if ping, ok := said.(*http2.PingFrame); ok && ping.IsAck() {
					break
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

func rapidReset(t *testing.T, l *loaded) {
	var wait sync.WaitGroup
	for range 4 {
		f, headers := l.framer(t)
		wait.Go(func() {
			for id := uint32(1); id < 20_000; id += 2 {
				err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers("/kogge.v1.WorkloadService/Logs"), EndHeaders: true})
				if err == nil {
					err = f.WriteRSTStream(id, http2.ErrCodeCancel)
				}
				if err != nil {
					return // it had enough
				}
			}
		})
	}
	l.answers(t)
	wait.Wait()
}

func endlessContinuation(t *testing.T, l *loaded) {
	f, headers := l.framer(t)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers("/")}); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for fragment := headers("/" + strings.Repeat("x", 8<<10)); sent < 100_000; sent++ {
		if f.WriteContinuation(1, false, fragment) != nil {
			break
		}
	}
	if sent == 100_000 {
		t.Error("the server took headers without an end")
	}
	l.answers(t)
}

func tinyWindows(t *testing.T, l *loaded) {
	for range 8 {
		f, headers := l.framer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		for id := uint32(1); id < 2*maxStreams; id += 2 {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers("/kogge.v1.WorkloadService/Logs"), EndHeaders: true}); err != nil {
				t.Fatal(err)
			}
			message := []byte(`{"container":"db","follow":true}`)
			if err := f.WriteData(id, true, append([]byte{0, 0, 0, 0, byte(len(message))}, message...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.answers(t)
}

func pingFlood(t *testing.T, l *loaded) {
	var wait sync.WaitGroup
	for range 4 {
		f, _ := l.framer(t)
		wait.Go(func() {
			for range 50_000 { // the answers pile up: nobody reads them
				if f.WritePing(false, [8]byte{}) != nil || f.WriteSettings() != nil {
					return
				}
			}
		})
	}
	l.answers(t)
	wait.Wait()
}
