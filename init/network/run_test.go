package network

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
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

// logged is what the log says.
type logged struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// TestNoMatch has entries be about no link, as when the kernel calls it otherwise than
// somebody thought. It is said, until there is one. What other boards have, or a container makes
// later, is only logged.
func TestNoMatch(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	readyAfter = 100 * time.Millisecond
	paths := tempPaths(t)
	newPeer(t, "other")
	var lines logged
	log.SetOutput(io.MultiWriter(log.Writer(), &lines))
	node(t, "network: [{match: eth0, dhcp: false, addresses: [192.0.2.7/24]}, {match: 'wg0', dhcp: false}]", paths)
	problem := func() string { n, _ := control.ReadNetwork(paths.Run); return n.Problem }
	until(t, "the problem", func() bool { return problem() == `no link matches "eth0", "wg0" of node.yaml` })
	newPeer(t, "eth0")
	until(t, "the link", func() bool { return problem() == "" && has("eth0", "192.0.2.7/24") })
	until(t, "the other in the log", func() bool { return lines.has(`no link matches "wg0" of node.yaml`) })
	if p := problem(); p != "" {
		t.Errorf("a link that may come: %s", p)
	}
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
