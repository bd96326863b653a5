package network

import (
	"errors"
	"fmt"
	"maps"
	"syscall"

	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/update/golden"
)

// resolvers are the servers in the node's resolv.conf.
func resolvers(paths Paths) []string {
	text, _ := os.ReadFile(filepath.Join(paths.Etc, "resolv.conf"))
	var all []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			all = append(all, f[1])
		}
	}
	return all
}

// lookup asks the first server of resolv.conf for a name.
func lookup(paths Paths, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		all := resolvers(paths)
		if len(all) == 0 {
			return nil, os.ErrNotExist
		}
		return d.DialContext(ctx, network, net.JoinHostPort(all[0], "53"))
	}}
	return r.LookupHost(ctx, name)
}

// echoed is what the echo at an address says: the address that we ask from.
func echoed(at string) (string, error) {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.Dial("tcp", at)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	text, err := io.ReadAll(c)
	return string(text), err
}

// TestLinkLocalResolver has a router that names its own link-local address as resolver, as
// home routers do, on two links at once, beside one of node.yaml. A name resolves by it.
func TestLinkLocalResolver(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	for i, link := range []string{"lan0", "lan1"} {
		s := newSegment(t, link, "fe80::1/64", []string{"fd77::1/64", "fd78::1/64"}[i])
		s.dnsmasq("address=/lan.test/fd77::1")
		s.radvd([]string{"prefix fd77::/64 {};", "prefix fd78::/64 {};"}[i], "RDNSS fe80::1 {};", "DNSSL lan.test {};")
	}
	node(t, "network: [{match: lan0, dhcp: false}, {match: lan1, dhcp: false}]", paths)
	until(t, "both resolvers, each with its link", func() bool {
		return slices.Equal(resolvers(paths), []string{"fe80::1%lan0", "fe80::1%lan1"})
	})
	until(t, "a name to resolve", func() bool {
		got, err := lookup(paths, "registry.lan.test")
		return err == nil && slices.Equal(got, []string{"fd77::1"})
	})
	status, err := control.ReadNetwork(paths.Run)
	if want := netip.MustParseAddr("fe80::1%lan0"); err != nil || len(status.DNS) != 2 || status.DNS[0] != want {
		t.Errorf("the status says %v, %v", status.DNS, err)
	}
	until(t, "the search domain of the router", func() bool {
		status, _ := control.ReadNetwork(paths.Run)
		return slices.Equal(status.Search, []string{"lan.test"})
	})
}

// TestStaticLinkLocalResolver has it in node.yaml, by address alone and with its link.
func TestStaticLinkLocalResolver(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "fe80::1/64", "fe80::2/64")
	s.dnsmasq("address=/lan.test/fd77::1")
	node(t, "network: [{match: 'lan*', dhcp: false, dns: ['fe80::1', 'fe80::2%lan0']}]", paths)
	until(t, "a name to resolve", func() bool {
		got, err := lookup(paths, "registry.lan.test")
		return err == nil && slices.Equal(got, []string{"fd77::1"}) && slices.Equal(resolvers(paths), []string{"fe80::1%lan0", "fe80::2%lan0"})
	})
}

// These pull the cable of the first of two uplinks, which come by DHCP, stand in node.yaml
// and come by router advertisements in turn. They want the node to reach out by the other,
// to ask the other's resolver first, and all of it back with the cable.
func TestUnpluggedLeases(t *testing.T) {
	unplugged(t, "network: [{match: 'lan*', ipv6: off}]", far4, "192.0.2.", "203.0.113.")
}

func TestUnpluggedStatic(t *testing.T) {
	unplugged(t, `
network:
  - {match: lan0, addresses: [192.0.2.7/24], gateway: 192.0.2.1, dns: [192.0.2.1], ipv6: off}
  - {match: lan1, addresses: [203.0.113.7/24], gateway: 203.0.113.1, dns: [203.0.113.1], ipv6: off}
`, far4, "192.0.2.", "203.0.113.")
}

func TestUnpluggedAdvertised(t *testing.T) {
	unplugged(t, "network: [{match: 'lan*', dhcp: false}]", far6, "2001:db8:1:", "2001:db8:2:")
}

// TestSameNetwork has two cables to one network: each of the two addresses is the node's,
// though it answers for either by both, and with one cable out all is reached by the other.
func TestSameNetwork(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24", far4+"/32")
	s.second("lan1")
	s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.60,1h")
	near := "192.0.2.1"
	s.echo(net.JoinHostPort(near, "7"))
	s.echo(net.JoinHostPort(far4, "7"))
	node(t, "network: [{match: 'lan*', ipv6: off}]", paths)
	var leases [2]string
	until(t, "both leases", func() bool {
		n, err := control.ReadNetwork(paths.Run)
		if err != nil || len(n.Interfaces) != 2 {
			return false
		}
		for i, one := range n.Interfaces {
			if len(one.Addresses) != 1 || len(one.Gateway) != 1 {
				return false
			}
			leases[i] = one.Addresses[0].Addr().String()
		}
		return true
	})
	by := func(at string, good ...string) func() bool {
		return func() bool {
			from, err := echoed(net.JoinHostPort(at, "7"))
			return err == nil && slices.Contains(good, from)
		}
	}
	for _, plugged := range []bool{true, false, true} {
		s.cable(plugged)
		first, either := leases[1], leases[1:]
		if plugged {
			first, either = leases[0], leases[:] // to a neighbour, that which came up first
		}
		until(t, "the way to a neighbour", by(near, either...))
		until(t, "the way out", by(far4, first))
	}
	if n, err := control.ReadNetwork(paths.Run); err != nil || n.Interfaces[0].Problem+n.Interfaces[1].Problem != "" {
		t.Errorf("%+v, %v", n.Interfaces, err)
	}
}

// far4 and far6 are beyond the routers of both segments.
const far4, far6 = "198.51.100.1", "2001:db8:ffff::1"

// first and other are what the node's addresses at either segment, and its routers', begin
// with.
func unplugged(t *testing.T, yaml, far, first, other string) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	a := newSegment(t, "lan0", "192.0.2.1/24", "2001:db8:1::1/64", "fe80::a/64", far4+"/32", far6+"/128")
	b := newSegment(t, "lan1", "203.0.113.1/24", "2001:db8:2::1/64", "fe80::b/64", far4+"/32", far6+"/128")
	a.dnsmasq("dhcp-range=192.0.2.50,192.0.2.50,1h")
	b.dnsmasq("dhcp-range=203.0.113.50,203.0.113.50,1h")
	a.radvd("AdvDefaultPreference high;", "prefix 2001:db8:1::/64 {};", "RDNSS 2001:db8:1::1 {};")
	b.radvd("prefix 2001:db8:2::/64 {};", "RDNSS 2001:db8:2::1 {};")
	a.echo(net.JoinHostPort(far, "7"))
	b.echo(net.JoinHostPort(far, "7"))
	node(t, yaml, paths)
	by := func(prefix string) func() bool {
		return func() bool {
			from, err := echoed(net.JoinHostPort(far, "7"))
			return err == nil && strings.HasPrefix(from, prefix)
		}
	}
	asks := func(prefix string) func() bool {
		return func() bool { all := resolvers(paths); return len(all) == 2 && strings.HasPrefix(all[0], prefix) }
	}
	until(t, "both uplinks", asks(first))
	until(t, "the way out by the first", by(first))
	pulled := time.Now()
	a.cable(false)
	until(t, "the way out by the other", by(other))
	until(t, "the other's resolver first", asks(other))
	t.Logf("by the other uplink %s after the cable was pulled", time.Since(pulled).Round(time.Millisecond))
	a.cable(true)
	until(t, "the way out by the first again", by(first))
	until(t, "its resolver first again", asks(first))
}

// TestMovedAdvertised takes a link that lives by router advertisements into another
// network: what the old one said counts no more, though its times are not over. Routers
// there have to be asked, as they speak up every ten minutes.
func TestMovedAdvertised(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "2001:db8:1::1/64", "2001:db8:2::1/64", "fe80::1/64", far6+"/128")
	s.echo(net.JoinHostPort(far6, "7"))
	stop := s.radvd("prefix 2001:db8:1::/64 {};", "RDNSS 2001:db8:1::1 {};")
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	by := func(prefix string) func() bool {
		return func() bool {
			from, err := echoed(net.JoinHostPort(far6, "7"))
			return err == nil && strings.HasPrefix(from, prefix)
		}
	}
	until(t, "the way out", by("2001:db8:1:"))
	// In the same network all is as it was.
	s.carrier(paths, false)
	s.carrier(paths, true)
	until(t, "the way out again", by("2001:db8:1:"))
	s.carrier(paths, false)
	stop()
	s.radvd("prefix 2001:db8:2::/64 {};", "RDNSS 2001:db8:2::1 {};")
	s.carrier(paths, true)
	until(t, "the way out from an address of the new network", by("2001:db8:2:"))
	until(t, "the new resolver alone", func() bool { return slices.Equal(resolvers(paths), []string{"2001:db8:2::1"}) })
}

// TestOneMetric has two links want routes to the same networks with the same metric: by DHCP,
// on a node where so many links have come and gone that their numbers are high, and in
// node.yaml. Neither takes the other's away, and with either cable out the other's count.
func TestOneMetric(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	const near4, near6 = "100.64.9.1", "2001:db8:9::1"
	a := newSegmentAt(t, "lan0", 1500, "192.0.2.1/24", "2001:db8:1::1/64", far4+"/32", near4+"/32", near6+"/128")
	b := newSegmentAt(t, "lan1", 1501, "203.0.113.1/24", "2001:db8:2::1/64", far4+"/32", near4+"/32", near6+"/128")
	a.dnsmasq("dhcp-range=192.0.2.50,192.0.2.50,1h")
	b.dnsmasq("dhcp-range=203.0.113.50,203.0.113.50,1h")
	for _, s := range []*segment{a, b} {
		for _, at := range []string{far4, near4, near6} {
			s.echo(net.JoinHostPort(at, "7"))
		}
	}
	node(t, `
network:
  - match: lan0
    dhcp: true
    ipv6: static
    addresses: ["2001:db8:1::7/64"]
    routes: [{to: 100.64.0.0/10, via: 192.0.2.1, metric: 50}, {to: "2001:db8:9::/48", via: "2001:db8:1::1", metric: 50}]
  - match: lan1
    dhcp: true
    ipv6: static
    addresses: ["2001:db8:2::7/64"]
    routes: [{to: 100.64.0.0/10, via: 203.0.113.1, metric: 50}, {to: "2001:db8:9::/48", via: "2001:db8:2::1", metric: 50}]
`, paths)
	by := func(prefix string, at ...string) func() bool {
		return func() bool {
			return !slices.ContainsFunc(at, func(at string) bool {
				from, err := echoed(net.JoinHostPort(at, "7"))
				return err != nil || !strings.HasPrefix(from, prefix)
			})
		}
	}
	until(t, "both leases", func() bool { return has("lan0", "192.0.2.50/24") && has("lan1", "203.0.113.50/24") })
	for _, cut := range []struct {
		s       *segment
		v4, v6  string
		without string
	}{{b, "192.0.2.", "2001:db8:1:", "lan1"}, {a, "203.0.113.", "2001:db8:2:", "lan0"}} {
		cut.s.cable(false)
		until(t, "the way out without "+cut.without, by(cut.v4, far4, near4))
		until(t, "the way out by IPv6 without "+cut.without, by(cut.v6, near6))
		cut.s.cable(true)
		until(t, "the way out by the first", by("192.0.2.", far4, near4))
	}
}

// TestTwoRoutes has node.yaml name two routers for one network: both routes are there, and the
// first counts.
func TestTwoRoutes(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	newSegment(t, "lan0", "192.0.2.1/24", "192.0.2.2/24")
	node(t, "network: [{match: lan0, ipv6: off, addresses: [192.0.2.7/24], routes: [{to: 10.0.0.0/8, via: 192.0.2.1}, {to: 10.0.0.0/8, via: 192.0.2.2}]}]", tempPaths(t))
	var got []string
	until(t, "both routes", func() bool {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.0.0.0/8"))}, netlink.RT_FILTER_DST)
		slices.SortFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
		got = nil
		for _, r := range routes {
			got = append(got, r.Gw.String())
		}
		return err == nil && len(got) == 2
	})
	if !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
		t.Errorf("routers in the order of their metrics: %v", got)
	}
}

// TestRulesOf shows by which rules and routes several uplinks are kept apart.
func TestRulesOf(t *testing.T) {
	to := func(via string, metric int) Route {
		a := netip.MustParseAddr(via)
		return Route{To: everything(a), Via: a, Metric: metric}
	}
	a := Uplink{Link: 2, Addresses: addrs("192.0.2.50 2001:db8:1::50 fe80::50"), Defaults: []Route{to("192.0.2.1", 102), to("fe80::a", 1024)}}
	b := Uplink{Link: 3, Addresses: addrs("203.0.113.50 203.0.113.51 2001:db8:2::50"), Defaults: []Route{to("203.0.113.1", 103), to("fe80::b", 1024)}}
	on := func(link int, addresses, networks string) Uplink {
		u := Uplink{Link: link, Addresses: addrs(addresses)}
		for _, n := range strings.Fields(networks) {
			p := netip.MustParsePrefix(n)
			u.Networks, u.Near = append(u.Networks, p), append(u.Near, Route{To: p})
		}
		return u
	}
	by := func(u Uplink, network, via string, metric int) Uplink {
		u.Near = append(slices.Clone(u.Near), Route{To: netip.MustParsePrefix(network), Via: netip.MustParseAddr(via), Metric: metric, OnLink: true})
		return u
	}
	var out strings.Builder
	for _, c := range []struct {
		name string
		all  []Uplink
	}{
		{"none", nil},
		{"one", []Uplink{a}},
		{"one, and a link that leads nowhere", []Uplink{a, {Link: 3, Addresses: b.Addresses}}},
		{"two", []Uplink{a, b}},
		{"two, of which one has two routers of each family", []Uplink{a, {Link: 3, Addresses: b.Addresses, Defaults: []Route{
			to("203.0.113.2", 103), to("203.0.113.1", 103), to("203.0.113.9", 50), to("fe80::c", 1024), to("fe80::b", 1024), to("fe80::9", 512),
		}}}},
		{"two, of which one has no IPv6", []Uplink{a, {Link: 3, Addresses: b.Addresses, Defaults: b.Defaults[:1]}}},
		{"two of the same network", []Uplink{on(2, "192.168.1.50 fd00::50", "192.168.1.0/24 fd00::/64"), on(3, "192.168.1.50 fd00::51", "192.168.1.0/24 fd00::/64")}},
		{"one within the other", []Uplink{on(2, "10.0.0.5", "10.0.0.0/8"), on(3, "10.1.2.5", "10.1.2.0/24")}},
		{"one within what the other has by a route, as of a tunnel", []Uplink{on(2, "10.1.2.5", "10.1.2.0/24"), by(on(3, "192.0.2.5", "192.0.2.0/24"), "10.0.0.0/8", "192.0.2.1", 100)}},
		{"the same by routers, and of one of them a part by another", []Uplink{
			by(on(2, "192.0.2.5", "192.0.2.0/24"), "10.0.0.0/8", "192.0.2.1", 100),
			by(by(by(on(3, "203.0.113.5", "203.0.113.0/24"), "10.0.0.0/8", "203.0.113.2", 120), "10.0.0.0/8", "203.0.113.1", 110), "10.1.0.0/16", "203.0.113.3", 110),
		}},
	} {
		rules, routes := RulesOf(c.all)
		fmt.Fprintf(&out, "%s\n", c.name)
		for _, r := range rules {
			fmt.Fprintf(&out, "  %s\n", r)
		}
		for _, link := range slices.Sorted(maps.Keys(routes)) {
			for _, r := range routes[link] {
				fmt.Fprintf(&out, "  table %d: %s\n", tableOf(link), r)
			}
		}
	}
	golden.Compare(t, "rules.txt", out.String())
}

// TestTwoRouters has two routers advertise themselves at one of two uplinks: its own table
// settles on one of them.
func TestTwoRouters(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	a := newSegment(t, "lan0", "2001:db8:1::1/64", "fe80::a/64")
	b := newSegment(t, "lan1", "2001:db8:2::1/64", "fe80::b/64")
	other := b.neighbour("fe80::c/64")
	a.radvd("prefix 2001:db8:1::/64 {};")
	b.radvd("prefix 2001:db8:2::/64 {};")
	other.radvd("prefix 2001:db8:2::/64 {};")
	node(t, "network: [{match: 'lan*', dhcp: false}]", paths)
	lan1, err := netlink.LinkByName("lan1")
	must(t, err)
	defaults := func(table int) (all []string) {
		routes, _ := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: lan1.Attrs().Index, Table: table}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		for _, r := range routes {
			if r.Gw != nil && (r.Dst == nil || prefixOf(r.Dst).Bits() == 0) {
				all = append(all, r.Gw.String())
			}
		}
		slices.SortFunc(all, func(a, b string) int { return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b)) })
		return all
	}
	own := tableOf(lan1.Attrs().Index)
	until(t, "both routers, and the lower one in the link's own table", func() bool {
		all := defaults(unix.RT_TABLE_MAIN)
		return len(all) == 2 && slices.Equal(defaults(own), all[:1])
	})
	done, changes := make(chan struct{}), make(chan netlink.RouteUpdate, 1000)
	defer close(done)
	must(t, netlink.RouteSubscribe(changes, done))
	// Each further link has the node look at all of it again.
	for range 3 {
		more := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan9"}}
		for _, c := range []struct {
			links int
			do    func(netlink.Link) error
		}{{3, netlink.LinkAdd}, {2, netlink.LinkDel}} {
			must(t, c.do(more))
			until(t, "the node to know", func() bool { n, _ := control.ReadNetwork(paths.Run); return len(n.Interfaces) == c.links })
		}
	}
	for len(changes) > 0 {
		if u := <-changes; u.Table == own && u.LinkIndex == lan1.Attrs().Index {
			t.Errorf("table %d: %v", own, u.Route)
		}
	}
}

// TestAnswers calls the node from behind the routers of both of its uplinks, each of which
// knows nothing of the other's callers.
func TestAnswers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	a := newSegment(t, "lan0", "192.0.2.1/24", "2001:db8:1::1/64", "fe80::a/64", "198.51.100.10/32", "2001:db8:fa::1/128", far4+"/32")
	b := newSegment(t, "lan1", "203.0.113.1/24", "2001:db8:2::1/64", "fe80::b/64", "198.51.100.20/32", "2001:db8:fb::1/128", far4+"/32")
	a.dnsmasq("dhcp-range=192.0.2.50,192.0.2.50,1h")
	stopDHCP := b.dnsmasq("dhcp-range=203.0.113.50,203.0.113.50,1h")
	a.radvd("prefix 2001:db8:1::/64 {};")
	b.radvd("prefix 2001:db8:2::/64 {};")
	b.echo(net.JoinHostPort(far4, "7"))
	l, err := net.Listen("tcp", ":7443")
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("node"))
			c.Close()
		}
	}()
	node(t, "network: [{match: 'lan*'}]", paths)
	// call calls an address of the node on a link, of a family, from one of the segment.
	call := func(s *segment, from, link string, v6 bool) bool {
		n, err := control.ReadNetwork(paths.Run)
		if err != nil {
			return false
		}
		for _, i := range n.Interfaces {
			for _, p := range i.Addresses {
				if i.Name != link || p.Addr().Is6() != v6 || p.Addr().IsLinkLocalUnicast() {
					continue
				}
				text := ""
				s.in(func() error {
					d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
					c, err := d.Dial("tcp", net.JoinHostPort(p.Addr().String(), "7443"))
					if err != nil {
						return nil // asked again
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(time.Second))
					got, _ := io.ReadAll(c)
					text = string(got)
					return nil
				})
				return text == "node"
			}
		}
		return false
	}
	for _, c := range []struct {
		s          *segment
		from, link string
		v6         bool
	}{
		{a, "198.51.100.10", "lan0", false}, {b, "198.51.100.20", "lan1", false},
		{a, "2001:db8:fa::1", "lan0", true}, {b, "2001:db8:fb::1", "lan1", true},
	} {
		until(t, "an answer to "+c.from+" by "+c.link, func() bool { return call(c.s, c.from, c.link, c.v6) })
	}
	// What bears the mark of a link leaves by it, as answers of containers do.
	lan1, err := netlink.LinkByName("lan1")
	must(t, err)
	until(t, "a packet with the mark of the second uplink to leave by it", func() bool {
		d := net.Dialer{Timeout: time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, lan1.Attrs().Index) })
			return errors.Join(e, err)
		}}
		c, err := d.Dial("tcp", net.JoinHostPort(far4, "7"))
		if err != nil {
			return false
		}
		defer c.Close()
		from, err := io.ReadAll(c)
		return err == nil && string(from) == "203.0.113.50"
	})
	// One uplink is gone: nothing is left of the rules.
	stopDHCP()
	must(t, netlink.LinkDel(lan1))
	until(t, "no rules", func() bool {
		all, err := netlink.RuleList(netlink.FAMILY_ALL)
		return err == nil && !slices.ContainsFunc(all, func(r netlink.Rule) bool { return r.Priority >= firstRule && r.Priority <= lastRule })
	})
}

// TestLateLease has a DHCP server that begins to serve when the node has long been up, and
// refuses the lease once the network is another one.
func TestLateLease(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	node(t, "network: [{match: lan0, ipv6: off}]", paths)
	carrier := func(up bool) {
		t.Helper()
		until(t, "the carrier", func() bool {
			n, err := control.ReadNetwork(paths.Run)
			return err == nil && len(n.Interfaces) == 1 && n.Interfaces[0].Carrier == up
		})
	}
	carrier(true)
	stop := s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.50,2m", "domain=old.test")
	until(t, "a lease, its router and its domain", func() bool {
		n, _ := control.ReadNetwork(paths.Run)
		return has("lan0", "192.0.2.50/24") && slices.Equal(gateways(t), []string{"192.0.2.1"}) && slices.Equal(n.Search, []string{"old.test"})
	})
	s.cable(false)
	carrier(false)
	stop()
	s.remove("192.0.2.1/24")
	s.address("203.0.113.1/24")
	s.dnsmasq("dhcp-range=203.0.113.50,203.0.113.50,2m", "domain=new.test")
	s.cable(true)
	until(t, "the new lease alone", func() bool {
		n, _ := control.ReadNetwork(paths.Run)
		return has("lan0", "203.0.113.50/24") && !has("lan0", "192.0.2.50/24") && slices.Equal(gateways(t), []string{"203.0.113.1"}) &&
			slices.Equal(resolvers(paths), []string{"203.0.113.1"}) && slices.Equal(n.Search, []string{"new.test"})
	})
}
