package network

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
)

// This file is the network lab: cables to segments, each a network namespace with the real
// dnsmasq and radvd in it.

// TestMain lets more tests run at a time than there are processors: they wait for networks.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// segment is what is at the other end of a cable: a switch with a machine of its own.
type segment struct {
	t    *testing.T
	ns   netns.NsHandle
	link string // the other end of the cable: the node's, or the switch's of another segment
	at   int    // the number of that link; 0: the kernel's choice
	plug string // this end of it
	port string // where its addresses are
	dir  string

	radvds int // that were started
}

// newSegment makes a segment at the other end of link, which it makes as well, with these
// addresses ("192.0.2.1/24") of its own.
func newSegment(t *testing.T, link string, addresses ...string) *segment {
	t.Helper()
	return newSegmentAt(t, link, 0, addresses...)
}

// newSegmentAt has the link bear that number, as after so many containers have come and gone.
func newSegmentAt(t *testing.T, link string, number int, addresses ...string) *segment {
	t.Helper()
	s := &segment{t: t, link: link, at: number, plug: "plug", port: "port", dir: t.TempDir()}
	s.connect(func(f func() error) { t.Helper(); must(t, f()) })
	s.in(func() error {
		lan := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: s.port}}
		if err := netlink.LinkAdd(lan); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lan); err != nil {
			return err
		}
		return s.enslave(s.plug)
	})
	s.settle(addresses)
	return s
}

// second is a further cable from the segment's switch to the node, as link.
func (s *segment) second(link string) {
	s.t.Helper()
	const plug = "second"
	must(s.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: plug, PeerNamespace: netlink.NsFd(int(s.ns))}))
	s.in(func() error { return s.enslave(plug) })
}

// enslave puts a link into the segment's switch.
func (s *segment) enslave(link string) error {
	lan, err := netlink.LinkByName(s.port)
	if err != nil {
		return err
	}
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(l, lan); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// newPeer makes a machine right at the other end of link, without a switch, which takes a
// second until it passes packets on.
func newPeer(t *testing.T, link string, addresses ...string) *segment {
	t.Helper()
	s := &segment{t: t, link: link, plug: "port", port: "port", dir: t.TempDir()}
	s.connect(func(f func() error) { t.Helper(); must(t, f()) })
	s.cable(true)
	s.settle(addresses)
	return s
}

// neighbour makes a further machine on the switch.
func (s *segment) neighbour(addresses ...string) *segment {
	s.t.Helper()
	n := &segment{t: s.t, link: fmt.Sprintf("to%d", len(s.link)), plug: "port", port: "port", dir: s.t.TempDir()}
	n.connect(s.in)
	s.in(func() error { return s.enslave(n.link) })
	n.cable(true)
	n.settle(addresses)
	return n
}

// connect makes the namespace and the cable; in runs its argument where the other end is.
func (s *segment) connect(in func(func() error)) {
	s.t.Helper()
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		var err error
		s.ns, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		s.t.Fatalf("make a segment: %v", err)
	}
	s.t.Cleanup(func() { s.ns.Close() })
	in(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: s.link, Index: s.at}, PeerName: s.plug, PeerNamespace: netlink.NsFd(int(s.ns))})
	})
}

func (s *segment) settle(addresses []string) {
	s.t.Helper()
	s.in(func() error {
		// Its own addresses are its own: nobody has to be asked.
		if err := os.WriteFile(sysctl("ipv6", s.port, "accept_dad"), []byte("0"), 0); err != nil {
			return err
		}
		if err := os.WriteFile(sysctl("ipv6", "all", "forwarding"), []byte("1"), 0); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	s.address(addresses...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in runs f on a thread in the segment's namespace, and fails the test with its error.
func (s *segment) in(f func() error) {
	s.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is of no more use
		err := netns.Set(s.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		s.t.Fatalf("in the segment of %s: %v", s.link, err)
	}
}

// address gives the segment's port these addresses beside those that it has.
func (s *segment) address(addresses ...string) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		for _, a := range addresses {
			if err == nil {
				err = netlink.AddrReplace(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD})
			}
		}
		return err
	})
}

// remove takes addresses away again.
func (s *segment) remove(addresses ...string) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		for _, a := range addresses {
			if err == nil {
				err = netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a))})
			}
		}
		return err
	})
}

// cable plugs the cable in or out at the segment's end.
func (s *segment) cable(in bool) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.plug)
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}

// carrier plugs the cable in or out, until the node's status says so of its end.
func (s *segment) carrier(paths Paths, in bool) {
	s.t.Helper()
	s.cable(in)
	until(s.t, fmt.Sprintf("the carrier of %s to be %t", s.link, in), func() bool {
		n, err := control.ReadNetwork(paths.Run)
		return err == nil && slices.ContainsFunc(n.Interfaces, func(i control.Interface) bool { return i.Name == s.link && i.Carrier == in })
	})
}

// start runs a program in the segment until the test, or stop, ends it. Its output is in
// the log of a test that fails.
func (s *segment) start(name string, args ...string) (stop func()) {
	s.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // not in everybody's PATH
	}
	out, err := os.CreateTemp(s.dir, name)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		err := netns.Set(s.ns)
		if err == nil {
			// The thread waits for it, or its end would be the program's.
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("start %s in the segment of %s (make test-deps installs it): %v", name, s.link, err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		<-ended
		out.Close()
		if text, err := os.ReadFile(out.Name()); err == nil && s.t.Failed() {
			s.t.Logf("%s at %s:\n%s", name, s.link, text)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

// dnsmasq runs dnsmasq with these lines of its configuration.
func (s *segment) dnsmasq(lines ...string) (stop func()) {
	s.t.Helper()
	own := []string{
		"interface=" + s.port, "bind-dynamic", "no-resolv", "no-hosts", "no-ping", "log-dhcp", "log-queries", "dhcp-authoritative",
		"dhcp-leasefile=" + filepath.Join(s.dir, "leases"),
	}
	return s.start("dnsmasq", "--no-daemon", "--conf-file="+s.file("dnsmasq.conf", append(own, lines...)...))
}

// radvd advertises what lines, of the section of the interface, say.
func (s *segment) radvd(lines ...string) (stop func()) {
	s.t.Helper()
	text := append([]string{"interface " + s.port + " {", "AdvSendAdvert on; MinRtrAdvInterval 200; MaxRtrAdvInterval 600;"}, lines...)
	conf := s.file("radvd.conf", append(text, "};")...)
	// A helper of it lives, and locks the file, for a moment longer than it.
	s.radvds++
	return s.start("radvd", "-n", "-m", "stderr", "-p", fmt.Sprintf("%s.%d.pid", conf, s.radvds), "-C", conf)
}

func (s *segment) file(name string, lines ...string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// echo answers on an address of the segment, TCP, with the address of who asks.
func (s *segment) echo(at string) {
	s.t.Helper()
	var l net.Listener
	s.in(func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s", c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	s.t.Cleanup(func() { l.Close(); <-done })
}

// questions says of each question to the routers at the segment when it came.
func (s *segment) questions() <-chan time.Time {
	s.t.Helper()
	var c net.PacketConn
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		if c, err = net.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
			return err
		}
		p := ipv6.NewPacketConn(c)
		var f ipv6.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv6.ICMPTypeRouterSolicitation)
		return errors.Join(p.SetICMPFilter(&f), p.JoinGroup(&net.Interface{Index: l.Attrs().Index}, &net.IPAddr{IP: net.IPv6linklocalallrouters}))
	})
	s.t.Cleanup(func() { c.Close() })
	asked := make(chan time.Time, 1000)
	go func() {
		for {
			if _, _, err := c.ReadFrom(make([]byte, 1500)); err != nil {
				return
			}
			asked <- time.Now()
		}
	}()
	return asked
}

// inNamespace runs the calling test again in a network of its own, beside others, and says
// whether this is that run. Without root a user namespace gives the rights for it.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const marker = "KOGGE_TEST_NETNS"
	if os.Getenv(marker) != "" {
		return true
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Fatalf("this kernel gives no network namespace to uid %d: %v\nrun as root, or: sysctl user.max_user_namespaces=10000 user.max_net_namespaces=10000 "+
			"(Debian: kernel.unprivileged_userns_clone=1, Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)", os.Getuid(), err)
	case err != nil:
		t.Errorf("in the namespace: %v\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// read is the state of a link now.
func read(k *kernel, f Facts) (State, error) {
	v, err := k.look()
	if err != nil {
		return State{}, err
	}
	return v.state(f)
}
