package network

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/update/golden"
)

// problemOf is what the status says is wrong with a link.
func problemOf(paths Paths, link string) string {
	n, _ := control.ReadNetwork(paths.Run)
	for _, i := range n.Interfaces {
		if i.Name == link {
			return i.Problem
		}
	}
	return ""
}

// calls says whether a connection from an address of the segment to one of the node's, TCP
// port 7443, comes about.
func (s *segment) calls(from, to string) (ok bool) {
	s.in(func() error {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", net.JoinHostPort(to, "7443"))
		if ok = err == nil; ok {
			c.Close()
		}
		return nil
	})
	return ok
}

// answers7443 takes connections to the node's port 7443.
func answers7443(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", ":7443")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// TestTwins has two networks with the same addresses, as two routers come from the shop, that
// lead to the same further networks, too, and a second cable to one of them. What comes in by
// a link is answered by it, and by no other; the status names what cannot work, and not that
// two cables lead to one network.
func TestTwins(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	twinsAfter = 2 * time.Second
	paths := tempPaths(t)
	a := newSegment(t, "lan0", "192.168.1.1/24", "fd00::1/64", "100.64.0.1/32")
	a.second("lan2")
	b := newPeer(t, "lan1", "192.168.1.1/24", "fd00::1/64", "100.64.0.1/32")
	b.echo("192.168.1.1:7")
	answers7443(t)
	var yaml strings.Builder
	yaml.WriteString("network:\n")
	for i := range 3 {
		fmt.Fprintf(&yaml, "  - {match: lan%[1]d, ipv6: static, addresses: [192.168.1.5%[1]d/24, 'fd00::5%[1]d/64', 192.0.2.9/32], gateway: [192.168.1.1, 'fd00::1'],\n"+
			"     routes: [{to: 100.64.0.0/10, via: 192.168.1.1}]}\n", i)
	}
	node(t, yaml.String(), paths)
	// A network of containers in that of the uplinks is found as ever.
	inner := newPeer(t, "inner", "100.64.5.2/24")
	up(t, "inner")
	l, err := netlink.LinkByName("inner")
	must(t, err)
	must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("100.64.5.1/24"))}))
	inner.in(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("192.168.1.0/24")), Gw: net.IPv4(100, 64, 5, 1)})
	})
	for _, c := range []struct {
		s        *segment
		from, to string
	}{
		{a, "192.168.1.1", "192.168.1.50"}, {b, "192.168.1.1", "192.168.1.51"}, {a, "192.168.1.1", "192.168.1.52"},
		{a, "fd00::1", "fd00::50"}, {b, "fd00::1", "fd00::51"}, {a, "fd00::1", "fd00::52"},
		{a, "100.64.0.1", "192.168.1.50"}, {b, "100.64.0.1", "192.168.1.51"},
		{inner, "100.64.5.2", "192.168.1.50"}, {inner, "100.64.5.2", "192.168.1.51"},
	} {
		until(t, "an answer to "+c.from+" at "+c.s.link+" from "+c.to, func() bool { return c.s.calls(c.from, c.to) })
	}
	lan1, err := netlink.LinkByName("lan1")
	must(t, err)
	until(t, "a packet with the mark of the second network to leave for it", func() bool {
		d := net.Dialer{Timeout: time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, lan1.Attrs().Index) })
			return errors.Join(e, err)
		}}
		c, err := d.Dial("tcp", "192.168.1.1:7")
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = io.ReadAll(c)
		return err == nil
	})
	for _, c := range []struct{ link, others string }{{"lan1", "lan0, lan2"}, {"lan0", "lan1"}, {"lan2", "lan1"}} {
		until(t, "the status to name the twins of "+c.link, func() bool {
			text := problemOf(paths, c.link)
			return strings.Contains(text, "192.168.1.0/24 is on "+c.others+", too, but") && strings.Contains(text, "fd00::/64 is on "+c.others+", too, but") &&
				strings.Contains(text, "192.0.2.9 is an address of "+c.others+", too, and")
		})
	}
}

// TestLateSwitch has two cables to a switch that passes nothing on until the links have
// announced their addresses, for either family. They are not named, and a twin elsewhere is.
func TestLateSwitch(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	twinsAfter = 10 * time.Second
	paths := tempPaths(t)
	for _, links := range [][]string{{"lan0", "lan2"}, {"lan3", "lan4"}} {
		s := newSegment(t, links[0])
		s.second(links[1])
		s.in(func() error {
			// Twice the delay, which is in hundredths of a second.
			return exec.Command("ip", "link", "set", s.port, "type", "bridge", "forward_delay", "350", "stp_state", "1").Run()
		})
	}
	newPeer(t, "lan1")
	node(t, `network:
  - {match: lan0, ipv6: off, addresses: [192.168.1.50/24]}
  - {match: lan1, ipv6: static, addresses: [192.168.1.51/24, "fd00::51/64"]}
  - {match: lan2, ipv6: off, addresses: [192.168.1.52/24]}
  - {match: lan3, ipv6: static, addresses: ["fd00::53/64"]}
  - {match: lan4, ipv6: static, addresses: ["fd00::54/64"]}`, paths)
	until(t, "the twin to be named", func() bool {
		for _, link := range []string{"lan0", "lan2", "lan3", "lan4"} {
			if text := problemOf(paths, link); strings.Contains(strings.ReplaceAll(text, "is on lan1, too", ""), " is on ") {
				t.Fatalf("%s: %s", link, text)
			}
		}
		text := problemOf(paths, "lan1")
		return strings.Contains(text, "192.168.1.0/24 is on lan0, lan2, too, but") && strings.Contains(text, "fd00::/64 is on lan3, lan4, too, but")
	})
}

// TestTwinsOf shows what is said of links that have networks and addresses in common.
func TestTwinsOf(t *testing.T) {
	var out strings.Builder
	twin := func(link int, addresses, networks string) Uplink {
		u := Uplink{Link: link, Name: fmt.Sprintf("eth%d", link), Addresses: addrs(addresses)}
		for _, n := range strings.Fields(networks) {
			u.Networks = append(u.Networks, netip.MustParsePrefix(n))
		}
		return u
	}
	for _, c := range []struct {
		name   string
		one    bool // 0 and 1 are known to be one network
		others []Uplink
	}{
		{"another network", false, []Uplink{twin(1, "192.168.2.50", "192.168.2.0/24")}},
		{"the same one, or not known yet", true, []Uplink{twin(1, "192.168.1.51 fe80::1", "192.168.1.0/24")}},
		{"a twin", false, []Uplink{twin(1, "192.168.1.51", "192.168.1.0/24")}},
		{"a twin with the same address", false, []Uplink{twin(1, "192.168.1.50", "192.168.1.0/24")}},
		{"a part", false, []Uplink{twin(1, "192.168.1.130", "192.168.1.128/25")}},
		{"more than it", false, []Uplink{twin(1, "192.168.0.9", "192.168.0.0/16")}},
		{"two twins of both families", false, []Uplink{twin(1, "192.168.1.51 fd00::51", "192.168.1.0/24 fd00::/64"), twin(2, "192.168.1.50 fd00::52", "192.168.1.0/24 fd00::/64")}},
		{"one network by a second cable, and a twin", true, []Uplink{twin(1, "192.168.1.51", "192.168.1.0/24"), twin(2, "192.168.1.52", "192.168.1.0/24")}},
	} {
		fmt.Fprintf(&out, "%s\n", c.name)
		all := append([]Uplink{twin(0, "192.168.1.50 fd00::50 fe80::1", "192.168.1.0/24 fd00::/64")}, c.others...)
		texts := Twins(all, func(a, b int) bool { return !c.one || a+b != 1 })
		for _, u := range all {
			fmt.Fprintf(&out, "  %s: %s\n", u.Name, cmp.Or(texts[u.Link], "-"))
			for _, o := range all {
				if u.Link != o.Link {
					fmt.Fprintf(&out, "    may hear of %s: %v\n", o.Name, overheard(u, o))
				}
			}
		}
	}
	golden.Compare(t, "twins.txt", out.String())
}

// TestManyNetworks has two routers advertise without end: what is kept of it has bounds.
func TestManyNetworks(t *testing.T) {
	links := []Uplink{{Link: 1, Addresses: addrs("2001:db8::1")}, {Link: 2, Addresses: addrs("2001:db8::2")}}
	for i := range 5000 {
		to := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)}), 64)
		for j := range links {
			links[j].Near, links[j].Networks = append(links[j].Near, Route{To: to, Metric: 256}), append(links[j].Networks, to)
		}
	}
	rules, routes := RulesOf(links)
	if len(rules) > 2*(mostShared+1) || len(routes[1]) != mostShared {
		t.Errorf("%d rules, %d routes", len(rules), len(routes[1]))
	}
	if text := Twins(links, func(int, int) bool { return true })[1]; len(text) > 2000 {
		t.Errorf("a text of %d bytes", len(text))
	}
}
