package mdns

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
)

// limit bounds waits on a busy machine.
const limit = time.Minute

// lan is a switch with machines on it, each in a network namespace of its own.
type lan struct {
	t        *testing.T
	bridge   *netlink.Bridge
	machines int
}

func newLAN(t *testing.T, name string) *lan {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// Without snooping: a bridge that nobody asks for groups would hold them back.
	off := false
	l := &lan{t: t, bridge: &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}}
	must(t, netlink.LinkAdd(l.bridge))
	must(t, netlink.LinkSetUp(l.bridge))
	return l
}

// machine is one with a link eth0, eth1, … for each LAN that it is on.
type machine struct {
	t     *testing.T
	file  *os.File // its namespace
	links []Link
}

// newMachine makes a machine that is on no LAN yet.
func newMachine(t *testing.T) *machine {
	m := &machine{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is spoilt
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			m.file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		done <- err
	}()
	must(t, <-done)
	t.Cleanup(func() { m.file.Close() })
	return m
}

// plug connects the machine to a LAN.
func (m *machine) plug(l *lan, addresses ...string) *machine {
	l.machines++
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("%s-%d", l.bridge.Name, l.machines)
	name := fmt.Sprintf("eth%d", len(m.links))
	must(m.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(int(m.file.Fd()))}))
	port, err := netlink.LinkByName(attrs.Name)
	must(m.t, err)
	must(m.t, netlink.LinkSetMaster(port, l.bridge))
	must(m.t, netlink.LinkSetUp(port))
	link := Link{Name: name}
	must(m.t, m.in(func() error {
		eth, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, text := range addresses {
			a, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(eth, a); err != nil {
				return err
			}
			link.Addresses = append(link.Addresses, netip.MustParsePrefix(text))
		}
		return netlink.LinkSetUp(eth)
	}))
	m.links = append(m.links, link)
	return m
}

// in runs f on a thread inside of the machine: a socket belongs for ever to the
// namespace that it was made in.
func (m *machine) in(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(m.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// announce has the machine run as a node, until the test ends or what it returns is
// called.
func (m *machine) announce(links func() []Link, said func() Announcement) (stop func()) {
	return m.run(Config{Links: links, Announcement: said})
}

func (m *machine) run(c Config) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() {
		over <- m.in(func() error {
			Run(ctx, c)
			return nil
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		must(m.t, <-over)
	})
	m.t.Cleanup(stop)
	return stop
}

func (m *machine) node(host string) (stop func()) {
	said := example
	said.Host, said.Key = host, fmt.Sprintf("%012d", len(host))
	return m.announce(func() []Link { return m.links }, func() Announcement { return said })
}

// find asks from the machine until what is wanted is found.
func (m *machine) find(want ...string) {
	m.t.Helper()
	var got []string
	for end := time.Now().Add(limit); time.Now().Before(end); {
		got = nil
		must(m.t, m.in(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			all, err := Find(ctx)
			for _, f := range all {
				got = append(got, fmt.Sprint(f.Host, " ", f.Port, " ", f.Fleet, " ", f.Addresses))
			}
			return err
		}))
		if slices.Equal(got, want) {
			return
		}
	}
	m.t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
}

// raw opens a socket of the machine's, at a port.
func (m *machine) raw(port uint16) []*socket {
	var all []*socket
	must(m.t, m.in(func() (err error) {
		all, err = open("eth0", port)
		return err
	}))
	m.t.Cleanup(func() {
		for _, s := range all {
			s.Close()
		}
	})
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func inNamespaces(t *testing.T) bool {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces and bridges")
	}
	t.Parallel() // each is a process of its own, and waits most of the time
	return namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS)
}

// TestFindNodes has an operator's computer find nodes on two networks, by IPv4 and
// IPv6, and lose one that is switched off.
func TestFindNodes(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home, lab := newLAN(t, "home"), newLAN(t, "lab")
	n1 := newMachine(t).plug(home, "192.0.2.7/24", "2001:db8::7/64")
	n2 := newMachine(t).plug(home, "192.0.2.8/24").plug(lab, "198.51.100.8/24")
	n3 := newMachine(t).plug(lab, "2001:db8:1::9/64")
	operator := newMachine(t).plug(home, "192.0.2.1/24", "2001:db8::1/64").plug(lab, "198.51.100.1/24", "2001:db8:1::1/64")
	n1.node("n1")
	n2.node("n2")
	stop := n3.node("n3")
	all := []string{"n1 7443 hanse [192.0.2.7 2001:db8::7]", "n2 7443 hanse [192.0.2.8 198.51.100.8]", "n3 7443 hanse [2001:db8:1::9]"}
	operator.find(all...)
	must(t, operator.in(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		for host, want := range map[string]string{"n1.local": "[192.0.2.7 2001:db8::7]", "N3.local.": "[2001:db8:1::9]"} {
			if got, err := Lookup(ctx, host); err != nil || fmt.Sprint(got) != want {
				t.Errorf("%s: %v, %v, want %s", host, got, err, want)
			}
		}
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := Lookup(short, "n9.local"); err == nil || !strings.Contains(err.Error(), "no machine on this computer's networks has the name") {
			t.Errorf("n9.local: %v", err)
		}
		return nil
	}))
	// On its other network n2 says the address that it has there, and no other.
	for _, link := range []string{"eth0", "eth1"} {
		var sockets []*socket
		must(t, operator.in(func() (err error) { sockets, err = open(link, 0); return err }))
		got := fmt.Sprint(slices.Compact(hear(sockets, question([]string{"n2.local."}, []uint16{dns.TypeA}, 0), time.Second))) // by IPv4 and IPv6
		if want := map[string]string{"eth0": "[n2.local. A 192.0.2.8]", "eth1": "[n2.local. A 198.51.100.8]"}[link]; got != want {
			t.Errorf("%s: %s, want %s", link, got, want)
		}
	}
	stop()
	operator.find(all[:2]...)
}

// hear sends a question and returns the addresses that come within a time.
func hear(sockets []*socket, m *dns.Msg, within time.Duration) []string {
	var mu sync.Mutex
	var got []string
	var reading sync.WaitGroup
	for _, s := range sockets {
		time.AfterFunc(within, func() { s.Close() }) // which ends the reader
		reading.Go(func() {
			s.read(nil, func(_ netip.AddrPort, m *dns.Msg) {
				mu.Lock()
				defer mu.Unlock()
				for _, rr := range m.Answer {
					if a, ok := address(rr); ok && m.Response {
						got = append(got, fmt.Sprint(rr.Header().Name, " ", dns.TypeToString[rr.Header().Rrtype], " ", a))
					}
				}
			})
		})
		_ = s.send(m, s.group)
	}
	reading.Wait()
	return got
}

// TestSameName has machines that are called alike on one network: each is found, by a
// name of its own. A network that is joined later settles it too.
func TestSameName(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home, shed := newLAN(t, "home"), newLAN(t, "shed")
	operator := newMachine(t).plug(home, "192.0.2.1/24")
	newMachine(t).plug(home, "192.0.2.7/24").node("pi")
	operator.find("pi 7443 hanse [192.0.2.7]")
	newMachine(t).plug(home, "192.0.2.8/24").node("pi")
	operator.find("pi 7443 hanse [192.0.2.7]", "pi-2 7443 hanse [192.0.2.8]")
	newMachine(t).plug(shed, "192.0.2.9/24").node("pi")
	visitor := newMachine(t).plug(shed, "192.0.2.2/24")
	visitor.find("pi 7443 hanse [192.0.2.9]")
	// A cable between the two: the one that moves announces itself anew.
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cable"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "cable-shed"}))
	for name, bridge := range map[string]*netlink.Bridge{"cable": home.bridge, "cable-shed": shed.bridge} {
		l, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetMaster(l, bridge))
		must(t, netlink.LinkSetUp(l))
	}
	end := time.Now().Add(limit)
	for {
		var names []string
		must(t, operator.in(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			all, err := Find(ctx)
			for _, f := range all {
				names = append(names, fmt.Sprint(f.Host, " ", f.Addresses))
			}
			return err
		}))
		taken := make(map[string]bool)
		for _, n := range names {
			taken[strings.Fields(n)[0]] = true
		}
		if len(names) == 3 && len(taken) == 3 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("found %v", names)
		}
	}
}

// TestNodeChanges: a node that is adopted, or gets another address, says so; one on
// two sockets of a single network does not take itself for another.
func TestNodeChanges(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home := newLAN(t, "home")
	operator := newMachine(t).plug(home, "192.0.2.1/24")
	n := newMachine(t).plug(home, "192.0.2.7/24").plug(home, "192.0.2.17/24")
	var mu sync.Mutex
	said, links := Announcement{Host: "kogge-012345", Port: 7443}, n.links
	n.announce(func() []Link {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(links)
	}, func() Announcement {
		mu.Lock()
		defer mu.Unlock()
		return said
	})
	operator.find("kogge-012345 7443  [192.0.2.7 192.0.2.17]")
	mu.Lock()
	said.Fleet, said.Node = "hanse", "n1"
	links = links[:1]
	mu.Unlock()
	operator.find("kogge-012345 7443 hanse [192.0.2.7]")
	mu.Lock()
	said.Host = "web"
	mu.Unlock()
	operator.find("web 7443 hanse [192.0.2.7]")
}

// TestFlood has a neighbour ask without end, and somebody from elsewhere ask once: the
// node says little, and nothing to the second.
func TestFlood(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home := newLAN(t, "home")
	operator := newMachine(t).plug(home, "192.0.2.1/24")
	n := newMachine(t).plug(home, "192.0.2.7/24")
	n.node("n1")
	operator.find("n1 7443 hanse [192.0.2.7]")
	for _, port := range []uint16{Port, 0} {
		sockets := operator.raw(port)
		m := question([]string{"n1.local."}, []uint16{dns.TypeA}, port)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
				for _, s := range sockets {
					_ = s.send(m, s.group)
				}
			}
		}()
		got := hear(sockets, m, 3*time.Second)
		<-done
		if len(got) < 1 || len(got) > 8 { // in each family once a second
			t.Errorf("port %d: %d answers within three seconds", port, len(got))
		}
	}
	// Packets that are none, from a neighbour.
	junk := operator.raw(0)
	for i := range 1000 {
		_, _ = junk[0].WriteToUDPAddrPort([]byte(strings.Repeat("\xc0", i)), junk[0].group)
	}
	operator.find("n1 7443 hanse [192.0.2.7]")
	// From an address that is of no network there.
	must(t, operator.in(func() error {
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("203.0.113.9/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(eth, a)
	}))
	var away *net.UDPConn
	must(t, operator.in(func() (err error) {
		away, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(203, 0, 113, 9)})
		return err
	}))
	defer away.Close()
	must(t, n.in(func() error { return exec.Command("ip", "route", "add", "203.0.113.0/24", "dev", "eth0").Run() }))
	raw, err := question([]string{"n1.local."}, []uint16{dns.TypeA}, 0).Pack()
	must(t, err)
	for _, to := range []string{"192.0.2.7:5353", "224.0.0.251:5353"} {
		_, err := away.WriteToUDPAddrPort(raw, netip.MustParseAddrPort(to))
		must(t, err)
	}
	must(t, away.SetReadDeadline(time.Now().Add(2*time.Second)))
	if size, from, err := away.ReadFromUDP(make([]byte, maxMessage)); err == nil {
		t.Errorf("an answer of %d bytes from %s to a stranger", size, from)
	}
}

// TestMissingLink: a link that is not there is said once, and tried again.
func TestMissingLink(t *testing.T) {
	var said strings.Builder
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	r := &responder{links: make(map[string]*link), failed: make(map[string]string), Config: Config{
		Links:        func() []Link { return []Link{{"nowhere0", []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}} },
		Announcement: func() Announcement { return example },
	}}
	for range 3 {
		r.refresh(t0)
		r.work(t0)
	}
	if n := strings.Count(said.String(), "mdns: nowhere0: the link does not exist"); n != 1 || len(r.links) != 0 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
}
