package bridge

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
	"kogge.example/agent/workload"
)

// TestNetwork builds the real thing in a network namespace of its own: bridge,
// containers, table; a node address, a neighbour on the LAN; real connections.
func TestNetwork(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	folder := filepath.Join(t.TempDir(), "netns")
	b, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	networks := []workload.Network{{Name: "front"}, {Name: "back", Internal: true}, {Name: "other"}}
	made, err := b.Make(networks)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"front": "10.88.0.0/24", "back": "10.88.1.0/24", "other": "10.88.2.0/24"} {
		if got := made[name].Prefix.String(); got != want {
			t.Errorf("network %s: %s, want %s", name, got, want)
		}
	}
	web, db, other := netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("10.88.1.3"), netip.MustParseAddr("10.88.0.3")
	webAt := []workload.Address{{Network: "front", Addr: web}, {Network: "back", Addr: netip.MustParseAddr("10.88.1.2")}}
	webNS := attach(t, b, "web", webAt)
	otherNS := attach(t, b, "other", []workload.Address{{Network: "front", Addr: other}})
	dbNS := attach(t, b, "db", []workload.Address{{Network: "back", Addr: db}})
	apartNS := attach(t, b, "apart", []workload.Address{{Network: "other", Addr: netip.MustParseAddr("10.88.2.2")}})
	aloneNS := attach(t, b, "alone", nil)
	serve(t, webNS, "web")
	serve(t, otherNS, "other")
	serve(t, dbNS, "db")
	serve(t, "", "node")
	serveOn(t, "", "10.88.0.1:53", "names")
	ports := []workload.Publish{
		{Protocol: workload.TCP, HostPort: 8080, To: netip.AddrPortFrom(web, 80)},
		{Protocol: workload.UDP, HostPort: 8080, To: netip.AddrPortFrom(web, 80)},
		{Protocol: workload.TCP, HostPort: 9000, HostIP: netip.MustParseAddr("127.0.0.1"), To: netip.AddrPortFrom(web, 80)},
		{Protocol: workload.TCP, HostPort: 9000, HostIP: netip.MustParseAddr("192.0.2.1"), To: netip.AddrPortFrom(other, 80)},
		{Protocol: workload.TCP, HostPort: 53, To: netip.AddrPortFrom(web, 80)},
		{Protocol: workload.UDP, HostPort: 53, To: netip.AddrPortFrom(web, 80)},
		{Protocol: workload.TCP, HostPort: 5432, To: netip.AddrPortFrom(db, 80)},
	}
	apply(t, b, ports)
	for _, end := range []struct {
		h    *netlink.Handle
		link string
		want int // IPv6 addresses
	}{
		{&netlink.Handle{}, device("front"), 0}, {&netlink.Handle{}, vethName("web", 0, webAt[0], false), 0},
		{inside(t, webNS), "eth0", 0}, {inside(t, webNS), "eth1", 0}, {inside(t, webNS), "lo", 1},
	} {
		l, err := end.h.LinkByName(end.link)
		must(t, err)
		addrs, err := end.h.AddrList(l, netlink.FAMILY_V6)
		if err != nil || len(addrs) != end.want {
			t.Errorf("%s has IPv6 addresses: %v, %v", end.link, addrs, err)
		}
	}

	const node = ""
	for _, c := range []struct{ name, from, network, addr, want string }{
		{"node to container", node, "tcp4", "10.88.0.2:80", "web"},
		{"node by loopback", node, "tcp4", "127.0.0.1:8080", "web"},
		{"node by its own address", node, "tcp4", "192.0.2.1:8080", "web"},
		{"node by loopback, udp", node, "udp4", "127.0.0.1:8080", "web"},
		{"neighbour", lan, "tcp4", "192.0.2.1:8080", "web"},
		{"neighbour to the node itself", lan, "tcp4", "192.0.2.1:80", "node"},
		{"neighbour, udp", lan, "udp4", "192.0.2.1:8080", "web"},
		{"bound to loopback", node, "tcp4", "127.0.0.1:9000", "web"},
		{"bound to the address", lan, "tcp4", "192.0.2.1:9000", "other"},
		{"container to container", webNS, "tcp4", "10.88.0.3:80", "other"},
		{"container by the node's address", otherNS, "tcp4", "192.0.2.1:8080", "web"},
		{"container to itself by the node's address", webNS, "tcp4", "192.0.2.1:8080", "web"},
		{"container by the gateway", otherNS, "tcp4", "10.88.0.1:8080", "web"},
		{"container to the world", webNS, "tcp4", "192.0.2.2:80", "uplink"},
		{"container to its second network", webNS, "tcp4", "10.88.1.3:80", "db"},
		{"internal network among itself", dbNS, "tcp4", "10.88.1.2:80", "web"},
		{"published port of an internal network", lan, "tcp4", "192.0.2.1:5432", "db"},
		{"published name server", lan, "tcp4", "192.0.2.1:53", "web"},
		{"container to the published name server", otherNS, "udp4", "192.0.2.1:53", "web"},
		{"container to the node's name server", otherNS, "tcp4", "10.88.0.1:53", "names"},
		{"container to the node's name server, udp", otherNS, "udp4", "10.88.0.1:53", "names"},
		{"another network by the node's address", apartNS, "tcp4", "192.0.2.1:8080", "web"},
	} {
		if got, err := ask(t, c.from, c.network, c.addr); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	var together sync.WaitGroup
	for _, c := range []struct{ name, from, addr string }{
		{"port that is not published", lan, "192.0.2.1:8082"},
		{"neighbour straight into the subnet", lan, "10.88.0.2:80"},
		{"port that is not published yet", lan, "192.0.2.1:8081"},
		{"another network", apartNS, "10.88.0.2:80"},
		{"an internal network from another", otherNS, "10.88.1.3:80"},
		{"an internal network to another", dbNS, "10.88.0.3:80"},
		{"an internal network to the world", dbNS, "192.0.2.2:80"},
		{"an internal network to a published port", dbNS, "192.0.2.1:8080"},
		{"no network", aloneNS, "10.88.0.2:80"},
		{"container to its node", webNS, "10.88.0.1:80"},
		{"container to its node's other address", webNS, "192.0.2.1:80"},
		{"an internal network to its node", dbNS, "10.88.1.1:80"},
		{"container to a cloud's metadata", webNS, "169.254.169.254:80"},
	} {
		together.Go(func() {
			if got, err := ask(t, c.from, "tcp4", c.addr); err == nil {
				t.Errorf("%s: got an answer: %q", c.name, got)
			}
		})
	}
	together.Wait()

	t.Run("multicast DNS", func(t *testing.T) {
		for port, want := range map[int]string{5352: "uplink", mdnsPort: ""} {
			var c *net.UDPConn
			must(t, in(t, webNS, func() (err error) {
				c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
				return err
			}))
			defer c.Close()
			_, err := c.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 80})
			must(t, err)
			must(t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
			buf := make([]byte, 64)
			n, _, err := c.ReadFrom(buf)
			if got := string(buf[:n]); got != want {
				t.Errorf("from port %d to the world: %q, %v, want %q", port, got, err, want)
			}
		}
	})
	t.Run("a sender that never pauses", func(t *testing.T) {
		var c *net.UDPConn
		must(t, in(t, lan, func() (err error) {
			c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5140})
			return err
		}))
		defer c.Close()
		says := func() string {
			_, err := c.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5514})
			must(t, err)
			must(t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
			buf := make([]byte, 64)
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return "nothing"
			}
			return string(buf[:n])
		}
		for _, c := range []struct {
			to   netip.Addr
			want string
		}{{netip.Addr{}, "nothing"}, {web, "web"}, {other, "other"}, {netip.Addr{}, "nothing"}, {web, "web"}} {
			now := ports
			if c.to.IsValid() {
				now = append(slices.Clone(ports), workload.Publish{Protocol: workload.UDP, HostPort: 5514, To: netip.AddrPortFrom(c.to, 80)})
			}
			apply(t, b, now)
			if got := says(); got != c.want {
				t.Errorf("led to %s: got %q, want %q", c.to, got, c.want)
			}
		}
	})
	t.Run("replace", func(t *testing.T) {
		apply(t, b, []workload.Publish{{Protocol: workload.TCP, HostPort: 8081, To: netip.AddrPortFrom(web, 80)}})
		if got, err := ask(t, lan, "tcp4", "192.0.2.1:8081"); err != nil || got != "web" {
			t.Errorf("new port: got %q, %v", got, err)
		}
		if got, err := ask(t, lan, "tcp4", "192.0.2.1:8080"); err == nil {
			t.Errorf("old port still answers: %q", got)
		}
	})
	t.Run("a new agent finds it again", func(t *testing.T) {
		again, err := Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := again.Attached()
		found, makeErr := again.Make(networks)
		if err != nil || makeErr != nil || len(ids) != 5 || !maps.Equal(found, made) {
			t.Errorf("found %v in %v, %v, %v", ids, found, err, makeErr)
		}
		before, err := os.Stat(webNS)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Attach("web", webAt, false); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(webNS)
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(before, after) {
			t.Error("the namespace was made anew under a running container")
		}
		if got, err := ask(t, lan, "tcp4", "192.0.2.1:8081"); err != nil || got != "web" {
			t.Errorf("after adoption: got %q, %v", got, err)
		}
	})
	t.Run("apart", func(t *testing.T) { testApart(t, b) })
	t.Run("detach", func(t *testing.T) {
		for range 2 {
			if err := b.Detach("web"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(webNS); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("namespace file: %v", err)
		}
		if _, err := netlink.LinkByName(vethName("web", 0, webAt[0], false)); err == nil {
			t.Error("link is still there")
		}
	})
	t.Run("prune", func(t *testing.T) {
		must(t, b.Detach("apart"))
		must(t, b.Prune(networks[:1]))
		for name, want := range map[string]bool{"front": true, "back": true, "other": false} { // db is still there
			if _, err := netlink.LinkByName(device(name)); (err == nil) != want {
				t.Errorf("network %s: %v", name, err)
			}
		}
		again, err := b.Make(networks)
		if err != nil || again["other"] != made["other"] {
			t.Errorf("made anew: %v, %v", again["other"], err)
		}
	})
}

func attach(t *testing.T, b *Bridges, id string, at []workload.Address) (ns string) {
	t.Helper()
	place, err := b.Attach(id, at, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, b.Detach(id)) })
	return place.Net
}

func apply(t *testing.T, b *Bridges, ports []workload.Publish) {
	t.Helper()
	must(t, b.Publish(ports))
}

// lan makes a neighbour, 192.0.2.2, beside the node's 192.0.2.1, and returns its
// namespace. It routes by the node, into the containers' subnet too, as a nosy one would.
func lan(t *testing.T) string {
	t.Helper()
	return neighbour(t, "uplink", "192.0.2.1/24", "192.0.2.2/24")
}

func address(t *testing.T, h *netlink.Handle, link, addr string) {
	t.Helper()
	if h == nil {
		h = &netlink.Handle{}
	}
	l, err := h.LinkByName(link)
	must(t, err)
	a, err := netlink.ParseAddr(addr)
	must(t, err)
	must(t, h.AddrAdd(l, a))
	must(t, h.LinkSetUp(l))
}

func up(t *testing.T, link string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, netlink.LinkSetUp(l))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in runs f on a thread inside the namespace ns, or here if ns is empty. A socket
// belongs for ever to the namespace it was made in.
func in(t *testing.T, ns string, f func() error) error {
	t.Helper()
	if ns == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		file, err := os.Open(ns)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// serve answers every TCP connection and UDP packet on port 80 with name.
func serve(t *testing.T, ns, name string) {
	t.Helper()
	serveOn(t, ns, ":80", name)
}

func serveOn(t *testing.T, ns, addr, name string) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	must(t, in(t, ns, func() (err error) {
		if l, err = net.Listen("tcp4", addr); err != nil {
			return err
		}
		p, err = net.ListenPacket("udp4", addr)
		return err
	}))
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, name)
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name), from)
		}
	}()
}

// ask connects from ns and returns what the other side says. The time is short
// where silence is the right answer, and long enough for a busy machine.
func ask(t *testing.T, ns, network, addr string) (answer string, err error) {
	t.Helper()
	var c net.Conn
	err = in(t, ns, func() (err error) {
		d := net.Dialer{Timeout: 2 * time.Second}
		c, err = d.Dial(network, addr)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if network == "udp4" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		return string(buf[:n]), err
	}
	all, err := io.ReadAll(c)
	return string(all), err
}

// testIDs wants a user namespace to have the ids of owner, by a process in it, and to be
// that of its own root.
func testIDs(t *testing.T, owner workload.Owner) {
	t.Helper()
	file, err := os.Open(owner.File)
	must(t, err)
	defer file.Close()
	const getOwner = 0xb704 // NS_GET_OWNER_UID of linux/nsfs.h
	var uid uint32
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), getOwner, uintptr(unsafe.Pointer(&uid))); errno != 0 || uid != owner.First {
		t.Errorf("the namespace is user %d's, want %d: %v", uid, owner.First, errno)
	}
	out, err := exec.Command("nsenter", "--user="+owner.File, "cat", "/proc/self/uid_map", "/proc/self/gid_map").Output()
	must(t, err)
	var want []string
	for range 2 {
		for _, m := range owner.Mappings() {
			want = append(want, fmt.Sprint(m.Inside), fmt.Sprint(m.Node), fmt.Sprint(m.Size))
		}
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
}

// testApart: a network that belongs to a user namespace of its own, with ids that no
// other has.
func testApart(t *testing.T, b *Bridges) {
	at := []workload.Address{{Network: "front", Addr: netip.MustParseAddr("10.88.0.77")}}
	first, err := b.Attach("first", at, true)
	must(t, err)
	second, err := b.Attach("se.cond", nil, true)
	must(t, err)
	if first.Owner.First != workload.IDs || second.Owner.First != 2*workload.IDs || first.Owner.File == second.Owner.File {
		t.Errorf("ids begin at %d and %d", first.Owner.First, second.Owner.First)
	}
	ns, err := os.Open(first.Net)
	must(t, err)
	defer ns.Close()
	const getUserns = 0xb701 // NS_GET_USERNS of linux/nsfs.h
	owner, err := unix.IoctlRetInt(int(ns.Fd()), getUserns)
	must(t, err)
	its := os.NewFile(uintptr(owner), "user namespace")
	defer its.Close()
	one, err := its.Stat()
	must(t, err)
	other, err := os.Stat(first.Owner.File)
	must(t, err)
	if !os.SameFile(one, other) {
		t.Error("the network belongs to another user namespace")
	}
	if got, err := ask(t, first.Net, "tcp4", "10.88.0.3:80"); err != nil || got != "other" {
		t.Errorf("from apart: %q, %v", got, err)
	}
	again, err := b.Attach("first", at, true)
	if err != nil || again != first {
		t.Errorf("made anew: %v, %v, was %v", again, err, first)
	}
	testIDs(t, first.Owner)
	const more = "65536:1,70000:2,1516583083:1"
	further, err := b.Attach("first", at, true, more)
	if err != nil || further.Owner == first.Owner || further.Owner.More != more {
		t.Errorf("with further ids: %v, %v", further, err)
	}
	testIDs(t, further.Owner)
	if again, err := b.Attach("first", at, true, more); err != nil || again != further {
		t.Errorf("with further ids, once more: %v, %v, was %v", again, err, further)
	}
	if other, err := b.Attach("first", at, true, "70000:1"); err != nil || other.Owner == further.Owner {
		t.Errorf("with others: %v, %v", other, err)
	}
	if all, err := os.ReadDir(b.users); err != nil || len(all) != 2 {
		t.Errorf("there are %v, %v", all, err)
	}
	together, err := b.Attach("first", at, false)
	if err != nil || together.Owner != (workload.Owner{}) {
		t.Errorf("no longer apart: %v, %v", together, err)
	}
	for _, id := range []string{"first", "se.cond"} {
		must(t, b.Detach(id))
	}
	if left, err := os.ReadDir(b.users); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// alone runs a test in network and mount namespaces of its own, with a loopback that is up,
// and says whether it is the one inside. It needs root, as make test is in CI.
func alone(t *testing.T) (inside bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces, bridges and an nftables table")
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return false
	}
	up(t, "lo")
	return true
}
