package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/init/network/dhcp"
	"kogge.example/init/nodeconfig"
)

// until waits for a condition, two minutes at most.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lan is the other end of a cable: a network namespace with a DHCP server.
type lan struct {
	ns netns.NsHandle

	mu     sync.Mutex // guards what follows
	offer  netip.Prefix
	silent bool
	asked  []string
}

// newLAN connects link to a namespace where name is the other end. It returns once
// the server listens.
func newLAN(t *testing.T, link, name string, offer string) *lan {
	t.Helper()
	l := &lan{offer: netip.MustParsePrefix(offer)}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: name}
	started := make(chan error)
	var server *server4.Server
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		started <- func() error {
			home, err := netns.Get()
			if err != nil {
				return err
			}
			defer home.Close()
			if l.ns, err = netns.New(); err != nil {
				return err
			}
			// The cable appears in the node's namespace with its end already here.
			if err := netns.Set(home); err != nil {
				return err
			}
			veth.PeerNamespace = netlink.NsFd(int(l.ns))
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			if err := netns.Set(l.ns); err != nil {
				return err
			}
			peer, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			gateway := netip.PrefixFrom(l.gateway(), l.offer.Bits())
			if err := netlink.AddrAdd(peer, &netlink.Addr{IPNet: ipNet(gateway)}); err != nil {
				return err
			}
			if err := netlink.LinkSetUp(peer); err != nil {
				return err
			}
			server, err = server4.NewServer(name, &net.UDPAddr{IP: net.IPv4zero, Port: 67}, l.answer)
			return err
		}()
	}()
	if err := <-started; err != nil {
		t.Fatalf("make a network with a DHCP server: %v", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve() // ends with Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
		l.ns.Close()
	})
	return l
}

func (l *lan) gateway() netip.Addr { return l.offer.Masked().Addr().Next() }

// set changes what the server does from now on.
func (l *lan) set(offer string, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offer, l.silent = netip.MustParsePrefix(offer), silent
}

// log returns the questions so far.
func (l *lan) log() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.asked)
}

func (l *lan) answer(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kind := m.MessageType().String()
	if m.MessageType() == dhcpv4.MessageTypeRequest && m.ServerIdentifier() == nil {
		kind = "CONFIRM"
		if !m.ClientIPAddr.IsUnspecified() {
			kind = "RENEW"
		}
	}
	l.asked = append(l.asked, kind)
	if l.silent {
		return
	}
	reply := dhcpv4.MessageTypeAck
	if m.MessageType() == dhcpv4.MessageTypeDiscover {
		reply = dhcpv4.MessageTypeOffer
	}
	wanted := addrOf(m.RequestedIPAddress())
	if kind == "RENEW" {
		wanted = addrOf(m.ClientIPAddr)
	}
	if reply == dhcpv4.MessageTypeAck && wanted != l.offer.Addr() {
		reply = dhcpv4.MessageTypeNak
	}
	gateway := net.IP(l.gateway().AsSlice())
	options := []dhcpv4.Modifier{dhcpv4.WithMessageType(reply), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway))}
	if reply != dhcpv4.MessageTypeNak {
		options = append(options, dhcpv4.WithYourIP(l.offer.Addr().AsSlice()),
			dhcpv4.WithNetmask(net.CIDRMask(l.offer.Bits(), 32)), dhcpv4.WithLeaseTime(3600),
			dhcpv4.WithOption(dhcpv4.OptRouter(gateway)), dhcpv4.WithOption(dhcpv4.OptDNS(gateway)),
			dhcpv4.WithOption(dhcpv4.OptNTPServers(gateway)), dhcpv4.WithDomainSearchList("lan.example"),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0x78}))
	}
	out, err := dhcpv4.NewReplyFromRequest(m, options...)
	if err != nil {
		return
	}
	to := peer.(*net.UDPAddr)
	if to.IP.IsUnspecified() {
		to = &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
	}
	_, _ = conn.WriteTo(out.ToBytes(), to) // a lost answer is asked for again
}

// node runs the service under test until the test, or stop, ends it.
func node(t *testing.T, yaml string, paths Paths) (stop func()) {
	t.Helper()
	cfg, err := nodeconfig.Parse("node.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, paths) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// TestNoMatch has an entry be about no link, as when the kernel calls it otherwise than
// somebody thought. It is said, until there is one.
func TestNoMatch(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	readyAfter = 100 * time.Millisecond
	paths := tempPaths(t)
	newPeer(t, "lan0")
	node(t, "network: [{match: eth0, dhcp: false, addresses: [192.0.2.7/24]}, {match: 'lan*', dhcp: false}]", paths)
	problem := func() string { n, _ := control.ReadNetwork(paths.Run); return n.Problem }
	until(t, "the problem", func() bool { return problem() == `no link matches "eth0" of node.yaml` })
	newPeer(t, "eth0")
	until(t, "the link", func() bool { return problem() == "" && has("eth0", "192.0.2.7/24") })
}

// has says whether the kernel has an address on a link.
func has(link, address string) bool {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return false
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return prefixOf(a.IPNet).String() == address })
}

// gateways returns the routers of the default routes.
func gateways(t *testing.T) []string {
	t.Helper()
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range routes {
		all = append(all, r.Gw.String())
	}
	return all
}

func tempPaths(t *testing.T) Paths {
	dir := t.TempDir()
	return Paths{Etc: filepath.Join(dir, "etc"), Run: dir}
}

// TestDHCP follows a node through cable faults: a late interface, a lease, a
// restart of the service, a cable pulled and put back, and into another network.
func TestDHCP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	const yaml = "network: [{match: 'lan*'}]"
	stop := node(t, yaml, paths)
	until(t, "loopback is up", func() bool { return has("lo", "127.0.0.1/8") })

	// The interface appears while the service runs.
	office := newLAN(t, "lan0", "port0", "192.0.2.50/24")
	until(t, "an address", func() bool { return has("lan0", "192.0.2.50/24") })
	until(t, "a default route", func() bool { return slices.Equal(gateways(t), []string{"192.0.2.1"}) })
	until(t, "resolv.conf", func() bool {
		data, _ := os.ReadFile(filepath.Join(paths.Etc, "resolv.conf"))
		return string(data) == "search lan.example\nnameserver 192.0.2.1\n"
	})
	var status control.Network
	until(t, "the status file", func() bool {
		status, _ = control.ReadNetwork(paths.Run)
		return len(status.Interfaces) == 1 && len(status.Interfaces[0].Gateway) == 1 && status.Interfaces[0].MTU == 1400
	})
	if len(status.NTP) != 1 || status.NTP[0] != netip.MustParseAddr("192.0.2.1") || status.Interfaces[0].Lease == nil {
		t.Errorf("status: %+v", status)
	}

	// The unicast renewal, half an hour early.
	x := dhcp.NewV4("lan0", status.Interfaces[0].MAC, "n07")
	renewed, err := x.Ask(context.Background(), dhcp.Renew, status.Interfaces[0].Lease)
	if err != nil || !sameLease(renewed, status.Interfaces[0].Lease) {
		t.Errorf("renew: %+v, %v", renewed, err)
	}

	// A restart of the service keeps the address, and asks for nothing new.
	stop()
	if !has("lan0", "192.0.2.50/24") {
		t.Error("the end of the service took the address away")
	}
	before := len(office.log())
	stop = node(t, yaml, paths)
	until(t, "the question whether the lease holds", func() bool { return slices.Contains(office.log()[before:], "CONFIRM") })
	if !has("lan0", "192.0.2.50/24") || slices.Contains(office.log()[before:], "DISCOVER") {
		t.Errorf("after a restart: %v", office.log()[before:])
	}

	// The cable is pulled for a moment: the address stays, and is asked about.
	before = len(office.log())
	cable(t, office, "port0", false)
	until(t, "the status without carrier", func() bool {
		s, _ := control.ReadNetwork(paths.Run)
		return len(s.Interfaces) == 1 && !s.Interfaces[0].Carrier
	})
	if !has("lan0", "192.0.2.50/24") {
		t.Error("a short carrier loss took the address away")
	}
	cable(t, office, "port0", true)
	until(t, "the lease confirmed", func() bool { return slices.Contains(office.log()[before:], "CONFIRM") })
	// Else the next wait would take the status of this loss for that of the next one.
	until(t, "the status with carrier", func() bool {
		s, _ := control.ReadNetwork(paths.Run)
		return len(s.Interfaces) == 1 && s.Interfaces[0].Carrier
	})

	// The cable comes back in another network, whose server refuses the address.
	cable(t, office, "port0", false)
	until(t, "the status without carrier", func() bool {
		s, _ := control.ReadNetwork(paths.Run)
		return len(s.Interfaces) == 1 && !s.Interfaces[0].Carrier
	})
	office.set("198.51.100.9/24", false)
	cable(t, office, "port0", true)
	until(t, "the new address", func() bool { return has("lan0", "198.51.100.9/24") && !has("lan0", "192.0.2.50/24") })

	// The interface goes away and another one comes.
	l, err := netlink.LinkByName("lan0")
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	newLAN(t, "lan1", "port1", "203.0.113.5/24")
	until(t, "the address of the second interface", func() bool { return has("lan1", "203.0.113.5/24") })
	stop()
}

// TestSmallLeasedMTU has a DHCP server ask for less than IPv6 needs.
func TestSmallLeasedMTU(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.50,1h", "dhcp-option=26,1200")
	node(t, "network: [{match: lan0}]", paths)
	until(t, "the least MTU of IPv6, and the reason in the status", func() bool {
		n, err := control.ReadNetwork(paths.Run)
		return err == nil && len(n.Interfaces) == 1 && n.Interfaces[0].MTU == 1280 &&
			strings.Contains(n.Interfaces[0].Problem, "the DHCP server asks for an MTU of 1200") && has("lan0", "192.0.2.50/24")
	})
}

// TestGatewayOutside has routers that are in no network of the node, as hosters have them, on
// two uplinks: each is used, also in the table of its own.
func TestGatewayOutside(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for i, router := range [][]string{{"10.0.0.1/32", "2001:db8:a::1/128"}, {"10.0.1.1/32", "2001:db8:b::1/128"}} {
		s := newSegment(t, fmt.Sprintf("lan%d", i), append(router, far4+"/32", far6+"/128")...)
		s.in(func() error {
			port, err := netlink.LinkByName(s.port)
			for _, to := range []string{"192.0.2.7/32", "2001:db8:1::7/128", "192.0.2.8/32", "2001:db8:2::7/128"} {
				if err == nil {
					err = netlink.RouteAdd(&netlink.Route{LinkIndex: port.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(to))})
				}
			}
			return err
		})
		for _, far := range []string{far4, far6} {
			s.echo(net.JoinHostPort(far, "7"))
		}
	}
	node(t, `
network:
  - {match: lan0, ipv6: static, addresses: [192.0.2.7/32, "2001:db8:1::7/128"], gateway: [10.0.0.1, "2001:db8:a::1"]}
  - {match: lan1, ipv6: static, addresses: [192.0.2.8/32, "2001:db8:2::7/128"], gateway: [10.0.1.1, "2001:db8:b::1"]}
`, tempPaths(t))
	for _, from := range []string{"192.0.2.7", "192.0.2.8", "2001:db8:1::7", "2001:db8:2::7"} {
		far := far4
		if strings.Contains(from, ":") {
			far = far6
		}
		until(t, "the way out from "+from, func() bool {
			d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			c, err := d.Dial("tcp", net.JoinHostPort(far, "7"))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	for _, link := range []string{"lan0", "lan1"} {
		l, err := netlink.LinkByName(link)
		must(t, err)
		until(t, "the default routes of the table of "+link, func() bool {
			all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: tableOf(l.Attrs().Index)}, netlink.RT_FILTER_TABLE)
			return err == nil && len(all) == 2
		})
	}
}

// sameLease says whether two leases configure the same; times do not count.
func sameLease(l, o *control.Lease) bool {
	if l == nil || o == nil {
		return l == o
	}
	return l.Address == o.Address && l.MTU == o.MTU && slices.Equal(l.Routes, o.Routes) &&
		slices.Equal(l.DNS, o.DNS) && slices.Equal(l.Search, o.Search) && slices.Equal(l.NTP, o.NTP)
}

// cable plugs the far end in or out.
func cable(t *testing.T, l *lan, port string, in bool) {
	t.Helper()
	h, err := netlink.NewHandleAt(l.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(port)
	if err == nil && in {
		err = h.LinkSetUp(link)
	} else if err == nil {
		err = h.LinkSetDown(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOtherSettings starts the service anew with settings that match another link,
// and none at all: what the earlier run set up is put back.
func TestOtherSettings(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	newLAN(t, "lan0", "port0", "192.0.2.50/24")
	newLAN(t, "lan1", "port1", "203.0.113.50/24")
	mtu := func(link string) int {
		l, err := netlink.LinkByName(link)
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().MTU
	}
	up := func(link string) bool {
		l, err := netlink.LinkByName(link)
		return err == nil && l.Attrs().Flags&net.FlagUp != 0
	}
	first := mtu("lan0")
	stop := node(t, "network: [{match: lan0, mtu: 1300}]", paths)
	until(t, "an address of lan0", func() bool { return has("lan0", "192.0.2.50/24") && mtu("lan0") == 1300 })
	until(t, "its status", func() bool {
		s, _ := control.ReadNetwork(paths.Run)
		return len(s.Interfaces) == 1 && s.Interfaces[0].Lease != nil
	})
	stop()
	stop = node(t, "network: [{match: lan1, dhcp: false, addresses: [203.0.113.7/24], gateway: 203.0.113.1}]", paths)
	until(t, "the address of lan1", func() bool { return has("lan1", "203.0.113.7/24") })
	until(t, "lan0 put back", func() bool { return !has("lan0", "192.0.2.50/24") && !up("lan0") && mtu("lan0") == first })
	until(t, "one default route", func() bool { return slices.Equal(gateways(t), []string{"203.0.113.1"}) })
	stop()
	stop = node(t, "network: [{match: lan7}]", paths)
	until(t, "lan1 put back", func() bool { return !has("lan1", "203.0.113.7/24") && !up("lan1") })
	until(t, "a status of no links", func() bool {
		s, err := control.ReadNetwork(paths.Run)
		return err == nil && len(s.Interfaces) == 0
	})
	stop()
	stop = node(t, "network: [{match: lan0}]", paths)
	until(t, "lan0 back", func() bool { return has("lan0", "192.0.2.50/24") && mtu("lan0") == 1400 })
	stop()
}

// TestStatic sets a link up by hand, finds it changed behind its back, and repairs
// it.
func TestStatic(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	supervisor, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(paths.Run, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer supervisor.Close()
	t.Setenv("NOTIFY_SOCKET", supervisor.LocalAddr().String())
	newLAN(t, "lan0", "port0", "192.0.2.50/24")
	newLAN(t, "other0", "port1", "203.0.113.50/24")
	node(t, `
hostname: n07
network:
  - match: lan0
    addresses: [192.0.2.7/24, "2001:db8::7/64"]
    gateway: [192.0.2.1, "2001:db8::1"]
    routes: [{to: 10.0.0.0/8, via: 192.0.2.254}, {to: 198.51.100.0/24}]
    dns: [192.0.2.53]
    mtu: 1400
    ipv6: static
    forward: true
`, paths)
	until(t, "both addresses and the route", func() bool {
		return has("lan0", "192.0.2.7/24") && has("lan0", "2001:db8::7/64") && slices.Equal(gateways(t), []string{"192.0.2.1"})
	})
	until(t, "resolv.conf", func() bool {
		data, _ := os.ReadFile(filepath.Join(paths.Etc, "resolv.conf"))
		return string(data) == "nameserver 192.0.2.53\n"
	})
	told := make([]byte, 256)
	if err := supervisor.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := supervisor.Read(told); err != nil || string(told[:n]) != "READY=1\nSTATUS=address 192.0.2.7" {
		t.Errorf("the supervisor was told %q, %v", told[:n], err)
	}
	var s control.Network
	until(t, "the status file", func() bool {
		s, _ = control.ReadNetwork(paths.Run)
		return len(s.Interfaces) == 1 && len(s.Interfaces[0].Gateway) == 2
	})
	if s.Interfaces[0].Problem != "" || s.Interfaces[0].MTU != 1400 || !s.Interfaces[0].Forward {
		t.Errorf("status: %+v", s.Interfaces[0])
	}
	for file, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "disable_ipv6": "0"} {
		got, err := os.ReadFile(sysctl("ipv6", "lan0", file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, %v", file, got, err)
		}
	}
	l, err := netlink.LinkByName("lan0")
	if err == nil {
		err = netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.7/24"))})
	}
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the address back, and its route", func() bool {
		return has("lan0", "192.0.2.7/24") && slices.Equal(gateways(t), []string{"192.0.2.1"})
	})
	// What no entry matches is not touched.
	if other, err := netlink.LinkByName("other0"); err != nil || other.Attrs().Flags&net.FlagUp != 0 {
		t.Errorf("a link that is not ours: %v, %v", other, err)
	}
}

// These have a container's tunnel and its bridge in an entry that is for forwarding alone:
// what the container gave them stays, before and after the node's restart and without the
// entry. What the node gave them before leaves.
func TestForwardTunnel(t *testing.T) {
	forwardOnly(t, &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}, Mode: netlink.TUNTAP_MODE_TUN}, "{match: wg0, forward: true}")
}

func TestForwardBridge(t *testing.T) {
	forwardOnly(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}}, "{match: wg0, dhcp: false, forward: true}")
}

func forwardOnly(t *testing.T, link netlink.Link, entry string) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	must(t, netlink.LinkAdd(link))
	known := func(links int) {
		t.Helper()
		until(t, "the node to know", func() bool { n, err := control.ReadNetwork(paths.Run); return err == nil && len(n.Interfaces) == links })
	}
	// looked is after a whole look of the node at all links.
	looked := func(links int) {
		t.Helper()
		one := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other"}}
		must(t, netlink.LinkAdd(one))
		known(links + 1)
		must(t, netlink.LinkDel(one))
		known(links)
	}
	const other = "{match: other, dhcp: false}"
	stop := node(t, "network: ["+other+", {match: wg0, addresses: [192.0.2.9/24]}]", paths)
	until(t, "the address of node.yaml", func() bool { return has("wg0", "192.0.2.9/24") })
	stop()
	yaml := "network: [" + other + ", " + entry + "]"
	stop = node(t, yaml, paths)
	until(t, "it to leave", func() bool { return !has("wg0", "192.0.2.9/24") })
	wg, err := netlink.LinkByName("wg0")
	must(t, err)
	for _, a := range []string{"10.9.0.1/24", "fd09::1/64"} {
		must(t, netlink.AddrAdd(wg, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD}))
	}
	must(t, netlink.LinkSetMTU(wg, 1380))
	stays := func(when string) {
		t.Helper()
		wg, err := netlink.LinkByName("wg0")
		must(t, err)
		if !has("wg0", "10.9.0.1/24") || !has("wg0", "fd09::1/64") || wg.Attrs().Flags&net.FlagUp == 0 || wg.Attrs().MTU != 1380 {
			t.Errorf("%s the container's link is not as it made it: %+v", when, wg.Attrs())
		}
	}
	looked(1)
	stays("at run time")
	stop()
	stop = node(t, yaml, paths)
	looked(1)
	stays("after a restart")
	stop()
	node(t, "network: ["+other+"]", paths)
	looked(0)
	stays("without an entry")
}

// TestPassesOver has entries that fit the containers' bridges as well: those are the agent's,
// and keep their addresses.
func TestPassesOver(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const bridge, veth = "kogge-0badcafe", "kg0badcafe-0abc" // as agent/bridge names them
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}}))
	br, err := netlink.LinkByName(bridge)
	must(t, err)
	must(t, netlink.LinkSetUp(br))
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: veth, MasterIndex: br.Attrs().Index}, PeerName: "inside"}))
	must(t, netlink.AddrAdd(br, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.88.0.1/24"))}))
	for _, match := range []string{"*", "k*", "?ogge-*", "kg*", "02:00:00:00:00:09"} {
		paths := tempPaths(t)
		other := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "kept0"}}
		must(t, netlink.LinkAdd(other))
		stop := node(t, "network: [{match: '"+match+"', ipv6: off}, {match: kept0, addresses: [192.0.2.7/24]}]", paths)
		until(t, "a look at all links", func() bool {
			n, err := control.ReadNetwork(paths.Run)
			return err == nil && len(n.Interfaces) > 0 && has("kept0", "192.0.2.7/24")
		})
		n, err := control.ReadNetwork(paths.Run)
		must(t, err)
		for _, i := range n.Interfaces {
			if i.Name == bridge || i.Name == veth {
				t.Errorf("match %s: the node has taken %s", match, i.Name)
			}
		}
		if !has(bridge, "10.88.0.1/24") {
			t.Errorf("match %s: the containers' bridge has lost its address", match)
		}
		stop()
		must(t, netlink.LinkDel(other))
	}
}
