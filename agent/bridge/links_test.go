package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// TestNodePorts: whatever is published, the node's own ports lead to the node.
func TestNodePorts(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	_, err = b.Make([]workload.Network{{Name: "front"}})
	must(t, err)
	thief := netip.MustParseAddr("10.88.0.2")
	serve(t, attach(t, b, "thief", []workload.Address{{Network: "front", Addr: thief}}), "thief")
	var ports []workload.Publish
	for _, p := range workload.NodePorts {
		serveOn(t, "", fmt.Sprintf(":%d", p.Port), "node")
		for _, at := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")} {
			for _, protocol := range []workload.Protocol{workload.TCP, workload.UDP} {
				ports = append(ports, workload.Publish{Protocol: protocol, HostIP: at, HostPort: p.Port, To: netip.AddrPortFrom(thief, 80)})
			}
		}
	}
	apply(t, b, ports)
	for _, p := range workload.NodePorts {
		network := string(p.Protocol) + "4"
		for from, hosts := range map[string][]string{lan: {"192.0.2.1"}, "": {"192.0.2.1", "127.0.0.1", "10.88.0.1"}} {
			for _, host := range hosts {
				addr := net.JoinHostPort(host, fmt.Sprint(p.Port))
				if got, err := ask(t, from, network, addr); err != nil || got != "node" {
					t.Errorf("%s %s (%s): %q, %v", network, addr, p.What, got, err)
				}
			}
		}
	}
	// Nothing of that is tracked, so that a full table takes none of it away.
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		if _, own := workload.NodeOwns(map[uint8]workload.Protocol{unix.IPPROTO_TCP: workload.TCP, unix.IPPROTO_UDP: workload.UDP}[f.Forward.Protocol], f.Forward.DstPort); own {
			t.Errorf("tracked: %v", f)
		}
	}
	// What is not the node's under that number may be published.
	if got, err := ask(t, lan, "tcp4", "192.0.2.1:5353"); err != nil || got != "thief" {
		t.Errorf("5353/tcp: %q, %v", got, err)
	}
}

// TestRouted: the node routes between its own links only where node.yaml asks for it, at
// both of them, and the containers between do not matter.
func TestRouted(t *testing.T) {
	if !alone(t) {
		return
	}
	office := neighbour(t, "office", "192.0.2.1/24", "192.0.2.2/24")
	machines := neighbour(t, "machines", "198.51.100.1/24", "198.51.100.2/24")
	third := neighbour(t, "third", "203.0.113.1/24", "203.0.113.2/24")
	must(t, writeSetting("ipv4/ip_forward", "0")) // as a node begins
	// A node without containers, whose network service speaks late.
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	if got, ok := first(t, office, time.Second, packet{network: "tcp4", to: "198.51.100.2:80"}); ok {
		t.Errorf("before there is a table: %q", got)
	}
	apply(t, b, nil)
	b.Routed = func() []string { return []string{"machines", "office"} }
	follow(t, b)
	if got, ok := first(t, office, 20*time.Second, packet{network: "tcp4", to: "198.51.100.2:80"}); !ok || got != "machines" {
		t.Errorf("without containers: %q", got)
	}
	_, err = b.Make([]workload.Network{{Name: "front"}})
	must(t, err)
	inside := attach(t, b, "web", []workload.Address{{Network: "front", Addr: netip.MustParseAddr("10.88.0.2")}})
	serve(t, inside, "web")
	var routed []string
	b.Routed = func() []string { return routed }
	apply(t, b, []workload.Publish{{Protocol: workload.TCP, HostPort: 8080, To: netip.MustParseAddrPort("10.88.0.2:80")}})
	flow := datagrams(t, office) // one that goes on all the time
	goes := func(limit time.Duration) bool {
		_, err := flow.WriteTo([]byte("?"), &net.UDPAddr{IP: net.IPv4(198, 51, 100, 2), Port: 80})
		must(t, err)
		must(t, flow.SetReadDeadline(time.Now().Add(limit)))
		_, _, err = flow.ReadFrom(make([]byte, 64))
		return err == nil
	}
	for _, step := range []struct {
		routed []string
		open   bool // between office and machines
	}{{nil, false}, {[]string{"machines", "office"}, true}, {[]string{"machines"}, false}} {
		routed = step.routed
		follow(t, b)
		limit := time.Second
		if step.open {
			limit = 20 * time.Second
		}
		if goes(limit) != step.open {
			t.Errorf("routed %v: a flow goes on: %v", step.routed, !step.open)
		}
		var together sync.WaitGroup
		for _, c := range []struct {
			from, to string
			answered bool
		}{
			{office, "198.51.100.2:80", step.open}, {machines, "192.0.2.2:80", step.open},
			{office, "203.0.113.2:80", false}, {third, "192.0.2.2:80", false}, {third, "198.51.100.2:80", false},
			{office, "192.0.2.1:8080", true}, {third, "203.0.113.1:8080", true}, // published
			{office, "10.88.0.2:80", false},
			{inside, "192.0.2.2:80", true}, {inside, "198.51.100.2:80", true}, {inside, "203.0.113.2:80", true},
		} {
			limit := time.Second
			if c.answered {
				limit = 20 * time.Second
			}
			together.Go(func() {
				if got, ok := first(t, c.from, limit, packet{network: "tcp4", to: c.to}); ok != c.answered {
					t.Errorf("routed %v: from %s to %s: %q", step.routed, filepath.Base(c.from), c.to, got)
				}
			})
		}
		together.Wait()
	}
}

// neighbour makes a link of the node with somebody at its other end, who has a default
// route to the node and answers on port 80, and returns his namespace.
func neighbour(t *testing.T, link, node, his string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), link)
	ns, err := newNamespace(file, workload.Owner{})
	must(t, err)
	t.Cleanup(func() { must(t, removeNamespace(file)) })
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	address(t, nil, link, node)
	h, err := handleAt(ns)
	must(t, err)
	defer h.Close()
	address(t, h, "eth0", his)
	eth, err := h.LinkByName("eth0")
	must(t, err)
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(netip.MustParsePrefix(node).Addr().AsSlice())}))
	serve(t, file, link)
	return file
}

// TestMTU: containers' packets fit through the node's narrowest link, from the beginning,
// after it has become another one, and where they are the server; whoever still says
// more is made to say less.
func TestMTU(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	_, err = b.Make([]workload.Network{{Name: "front"}})
	must(t, err)
	web := attach(t, b, "web", []workload.Address{{Network: "front", Addr: netip.MustParseAddr("10.88.0.2")}})
	serve(t, web, "web")
	apply(t, b, []workload.Publish{{Protocol: workload.TCP, HostPort: 8080, To: netip.MustParseAddrPort("10.88.0.2:80")}})
	set := func(h *netlink.Handle, link string, mtu int) {
		l, err := h.LinkByName(link)
		must(t, err)
		must(t, h.LinkSetMTU(l, mtu))
	}
	const headers = 40
	expect := func(when string, want int, links bool) {
		t.Helper()
		if links {
			for _, end := range []struct {
				h    *netlink.Handle
				link string
			}{{&netlink.Handle{}, device("front")}, {inside(t, web), "eth0"}} {
				l, err := end.h.LinkByName(end.link)
				must(t, err)
				if l.Attrs().MTU != want {
					t.Errorf("%s: %s has MTU %d, want %d", when, end.link, l.Attrs().MTU, want)
				}
			}
		}
		for _, c := range []struct{ who, from, to string }{{"as client", web, "192.0.2.2:80"}, {"as server", lan, "192.0.2.1:8080"}} {
			if got := segment(t, c.from, c.to); got > want-headers {
				t.Errorf("%s, the container %s: segments of %d bytes, want %d", when, c.who, got, want-headers)
			}
		}
	}
	expect("at first", 1500, true)
	uplink := &netlink.Handle{}
	set(uplink, "uplink", 1400)
	expect("a lease says less, and nobody has looked yet", 1400, false)
	follow(t, b)
	expect("once somebody has", 1400, true)
	must(t, b.Detach("web"))
	again, err := b.Attach("web", []workload.Address{{Network: "front", Addr: netip.MustParseAddr("10.88.0.2")}}, false)
	must(t, err)
	serve(t, again.Net, "web")
	expect("a container that starts then", 1400, true)
	neighbour(t, "tunnel", "198.51.100.1/24", "198.51.100.2/24")
	set(uplink, "tunnel", 1280)
	follow(t, b)
	expect("a second link that is narrower", 1280, true)
	tunnel, err := netlink.LinkByName("tunnel")
	must(t, err)
	must(t, netlink.LinkDel(tunnel))
	set(uplink, "uplink", 9000)
	follow(t, b)
	expect("and wider than Ethernet", 1500, true)
	eth, err := netlink.LinkByName("uplink")
	must(t, err)
	_, beyond, err := net.ParseCIDR("203.0.113.0/24")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: beyond, Gw: net.IPv4(192, 0, 2, 2), MTU: 1300}))
	follow(t, b)
	expect("a route that says less", 1300, true)
	_, private, err := net.ParseCIDR("198.18.0.0/24")
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: private, Gw: net.IPv4(192, 0, 2, 2), MTU: 1260, Table: 52}))
	follow(t, b)
	expect("one in the table of a VPN", 1260, true)
}

// segment is the longest one that a connection from ns to there sends, in bytes.
func segment(t *testing.T, ns, to string) (size int) {
	t.Helper()
	var c net.Conn
	must(t, in(t, ns, func() (err error) {
		c, err = net.DialTimeout("tcp4", to, 20*time.Second)
		return err
	}))
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }))
	must(t, err)
	return size
}

// TestNarrowest is the choice of an MTU.
func TestNarrowest(t *testing.T) {
	for _, c := range []struct {
		ways []way
		want int
	}{
		{nil, 1500}, {[]way{{"eth0", 1500}}, 1500}, {[]way{{"eth0", 1500}, {"ppp0", 1492}}, 1492},
		{[]way{{"eth0", 9000}}, 1500}, {[]way{{"sl0", 296}}, 576}, {[]way{{"eth0", 1400}, {"eth1", 9000}}, 1400},
	} {
		if got := narrowest(c.ways); got != c.want {
			t.Errorf("%v: %d, want %d", c.ways, got, c.want)
		}
	}
}

// follow wants no network to move.
func follow(t *testing.T, b *Bridges) {
	t.Helper()
	if moving, err := b.Follow(); err != nil || len(moving) > 0 {
		t.Fatalf("follow: %v, %v", moving, err)
	}
}
