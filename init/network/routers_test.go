package network

import (
	"fmt"
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
	"kogge.example/init/network/advert"
	"kogge.example/update/golden"
)

// TestRestartAdvertised starts the service anew where the router speaks only when it is
// asked: its resolvers are back.
func TestRestartAdvertised(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "fe80::1/64", "fd77::1/64")
	s.radvd("UnicastOnly on;", "prefix fd77::/64 {};", "RDNSS fd77::1 {};", "DNSSL lan.test {};")
	const yaml = "network: [{match: lan0, dhcp: false}]"
	there := func() bool { return slices.Equal(resolvers(paths), []string{"fd77::1"}) }
	stop := node(t, yaml, paths)
	until(t, "the router's resolver", there)
	stop()
	must(t, os.Remove(filepath.Join(paths.Etc, "resolv.conf")))
	node(t, yaml, paths)
	until(t, "the router's resolver again", there)
}

// TestRestartWithoutRouter starts the service anew where the router says nothing for a while:
// no name is without a server in between, and it ends if the router has gone.
func TestRestartWithoutRouter(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "fe80::1/64", "fd77::1/64")
	stopRouter := s.radvd("prefix fd77::/64 {};", "RDNSS fd77::1 {};", "DNSSL lan.test {};")
	const yaml = "network: [{match: lan0, dhcp: false}]"
	conf := func() string {
		text, _ := os.ReadFile(filepath.Join(paths.Etc, "resolv.conf"))
		return string(text)
	}
	const whole = "search lan.test\nnameserver fd77::1\n"
	stop := node(t, yaml, paths)
	until(t, "the router's resolver and domain", func() bool { return conf() == whole })
	until(t, "the status", func() bool { n, _ := control.ReadNetwork(paths.Run); return len(n.DNS) == 1 && len(n.Search) == 1 })
	stop()
	stopRouter()
	must(t, os.Remove(filepath.Join(paths.Etc, "resolv.conf")))
	node(t, yaml, paths)
	until(t, "a resolv.conf", func() bool { return conf() != "" })
	if got := conf(); got != whole {
		t.Errorf("after the restart: %q", got)
	}
	until(t, "the end of what no router says again", func() bool { return conf() == "" })
}

// TestRouteInformation has a router that is none for everything advertise a route (RFC 4191).
func TestRouteInformation(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newSegment(t, "lan0", "fe80::1/64", "fd77::1/64", "fd99::1/128", "fd98::1/128")
	s.radvd("AdvDefaultLifetime 0;", "prefix fd77::/64 {};", "route fd99::/48 { AdvRoutePreference high; };", "route fd98::/64 {};")
	s.echo("[fd99::1]:7")
	s.echo("[fd98::1]:7")
	node(t, "network: [{match: lan0, dhcp: false}]", tempPaths(t))
	for _, at := range []string{"[fd99::1]:7", "[fd98::1]:7"} {
		until(t, "the way to "+at, func() bool { _, err := echoed(at); return err == nil })
	}
}

// These move the cable into a network that says less than the one before: its router names no
// resolver, or it has no router at all. Nothing stays of what the other router said.
func TestMovedToSilentRouter(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	hurry(100 * time.Millisecond)
	s, paths := advertisedAll(t)
	s.address("2001:db8:7::1/64", "fe80::7/64")
	s.radvd("prefix 2001:db8:7::/64 {};")
	s.cable(true)
	until(t, "the new network", func() bool { return len(defaults6(t)) == 1 && defaults6(t)[0] == "fe80::7" })
	nothingLeft(t, paths)
	if got := defaults6(t); !slices.Equal(got, []string{"fe80::7"}) {
		t.Errorf("default routes by %v", got)
	}
}

// Whether a lease holds is its server's to say.
func TestMovedToNoRouter(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	hurry(100 * time.Millisecond)
	s, paths := advertisedAll(t)
	s.cable(true)
	nothingLeft(t, paths, "2001:db8:1::54")
	if got := defaults6(t); len(got) > 0 {
		t.Errorf("default routes by %v", got)
	}
}

// TestRouterStarts has the network lose its power and come back: the router is a carrier at
// once, and speaks long after three questions. What it said before is there all the while.
func TestRouterStarts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const quick = 50 * time.Millisecond
	hurry(quick, quick, time.Second, time.Second, time.Hour)
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "2001:db8:1::1/64")
	router := []string{"AdvManagedFlag on;", "prefix 2001:db8:1::/64 {};", "RDNSS 2001:db8:1::53 {};"}
	stop := s.radvd(router...)
	stopServer := s.dnsmasq("dhcp-range=2001:db8:1::100,2001:db8:1::101,64,1h")
	made := madeUp(t, "lan0", "2001:db8:1::/64")
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	fresh := func() bool { a, ok := addressOn("lan0", made); return ok && a.Flags&unix.IFA_F_DEPRECATED == 0 }
	there := func() bool {
		n, err := control.ReadNetwork(paths.Run)
		_, made := addressOn("lan0", made)
		return err == nil && len(n.Interfaces) == 1 && n.Interfaces[0].Lease6 != nil && has("lan0", n.Interfaces[0].Lease6.Address.String()) && made &&
			slices.Contains(resolvers(paths), "2001:db8:1::53") && len(defaults6(t)) == 1
	}
	until(t, "all that the router says", func() bool { return there() && fresh() })
	s.cable(false)
	until(t, "the loss of the carrier", func() bool { n, _ := control.ReadNetwork(paths.Run); return !n.Interfaces[0].Carrier })
	stop()
	stopServer()
	asked := s.questions()
	s.cable(true)
	var first time.Time
	until(t, "a question after the long pause", func() bool {
		select {
		case at := <-asked:
			if first.IsZero() {
				first = at
			}
			return at.Sub(first) > soon
		default:
			return false
		}
	})
	if !there() || fresh() {
		t.Error("what the router said is gone before it could speak, or not in doubt")
	}
	s.radvd(router...)
	until(t, "the router to speak", fresh)
	until(t, "the end of the doubt", func() bool { return there() && fresh() })
}

// advertisedAll has a router say all that routers say, then pulls the cable and takes the
// router away.
func advertisedAll(t *testing.T) (*segment, Paths) {
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "fe80::1/64", "2001:db8:1::1/64")
	stop := s.radvd("AdvManagedFlag on;", "prefix 2001:db8:1::/64 {};", "prefix 2001:db8:2::/64 { AdvAutonomous off; };",
		"route 2001:db8:3::/48 {};", "RDNSS 2001:db8:1::53 { AdvRDNSSLifetime 3600; };", "DNSSL old.test {};")
	stopServer := s.dnsmasq("dhcp-range=2001:db8:1::100,2001:db8:1::101,64,1h", "dhcp-option=option6:dns-server,[2001:db8:1::54]")
	node(t, "network: [{match: lan0, dhcp: false, addresses: ['2001:db8:5::7/64']}]", paths)
	until(t, "all that the router says", func() bool {
		n, err := control.ReadNetwork(paths.Run)
		return err == nil && len(n.Interfaces) == 1 && n.Interfaces[0].Lease6 != nil && len(n.Search) == 1 &&
			len(resolvers(paths)) == 2 && len(ofOld(t)) >= 4 && len(defaults6(t)) == 1
	})
	s.carrier(paths, false)
	stop()
	stopServer()
	s.remove("2001:db8:1::1/64", "fe80::1/64")
	return s, paths
}

// hurry has routers asked at these intervals, and sets how long they have to say again what
// was said before.
func hurry(gaps ...time.Duration) {
	for i := range solicitGaps {
		solicitGaps[i] = gaps[min(i, len(gaps)-1)]
	}
	soon = 500 * time.Millisecond
}

// nothingLeft waits until nothing is left of what the old router said. With the lease, if that
// holds, its resolvers stay.
func nothingLeft(t *testing.T, paths Paths, leased ...string) {
	t.Helper()
	until(t, "the old router's words to be over", func() bool {
		n, err := control.ReadNetwork(paths.Run)
		if err != nil || !slices.Equal(resolvers(paths), leased) || len(n.Search) > 0 || slices.Contains(defaults6(t), "fe80::1") {
			return false
		}
		lease := n.Interfaces[0].Lease6
		if lease == nil {
			return len(leased) == 0 && len(ofOld(t)) == 0
		}
		return len(leased) > 0 && !slices.ContainsFunc(ofOld(t), func(one string) bool { return strings.TrimPrefix(one, "to ") != lease.Address.String() })
	})
	if !has("lan0", "2001:db8:5::7/64") {
		t.Error("the address of node.yaml is gone")
	}
	if l, err := netlink.LinkByName("lan0"); err == nil {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: l.Attrs().Index}, netlink.RT_FILTER_OIF)
		if err != nil || !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.String() == "2001:db8:5::/64" }) {
			t.Errorf("the network of node.yaml is gone: %v, %v", routes, err)
		}
	}
}

// ofOld are addresses and routes of lan0 that came with the old router.
func ofOld(t *testing.T) (all []string) {
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
	must(t, err)
	old := []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/48"), netip.MustParsePrefix("2001:db8:2::/48"), netip.MustParsePrefix("2001:db8:3::/48")}
	among := func(a netip.Addr) bool {
		return slices.ContainsFunc(old, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, a := range addrs {
		if among(addrOf(a.IP)) {
			all = append(all, a.IPNet.String())
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		if r.Dst != nil && among(addrOf(r.Dst.IP)) {
			all = append(all, "to "+r.Dst.String())
		}
	}
	return all
}

// defaults6 are the routers of lan0's default routes.
func defaults6(t *testing.T) (all []string) {
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		if r.Gw != nil && (r.Dst == nil || prefixOf(r.Dst).Bits() == 0) {
			all = append(all, r.Gw.String())
		}
	}
	return all
}

// TestInquiry walks through what may happen after a cable came: when routers are asked, when
// what was said before is doubted, and what comes of it.
func TestInquiry(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct {
		name      string
		replugged bool
		spoke     []time.Duration
	}{
		{"at the start, a router answers", false, []time.Duration{2 * time.Second}},
		{"at the start, nobody answers", false, nil},
		{"replugged, two routers answer", true, []time.Duration{300 * time.Millisecond, 4 * time.Second}},
		{"replugged, nobody answers", true, nil},
		{"replugged, a router answers when the switch lets it", true, []time.Duration{30 * time.Second}},
		{"replugged, a router answers just before the end", true, []time.Duration{68 * time.Second}},
		{"replugged, a router takes minutes to start", true, []time.Duration{100 * time.Second}},
	} {
		fmt.Fprintf(&out, "%s\n", c.name)
		say := func(at time.Time, words ...any) {
			fmt.Fprintf(&out, "  %7s %s\n", at.Sub(t0), fmt.Sprint(words...))
		}
		q := begin(c.replugged, t0)
		for spoke := c.spoke; ; {
			next := q.next()
			if len(spoke) > 0 && (next.IsZero() || t0.Add(spoke[0]).Before(next)) {
				now := t0.Add(spoke[0])
				spoke = spoke[1:]
				if q.spoke(now) {
					say(now, "doubt, a router has spoken")
				}
				continue
			}
			if next.IsZero() {
				break
			}
			now := next
			ask, doubt := q.ask(now)
			if ask {
				say(now, "ask")
			}
			if doubt {
				say(now, "doubt, nobody answers")
			}
			if q.over(now) {
				say(now, "over, doubt goes on: ", q.doubted)
			}
		}
	}
	golden.Compare(t, "inquiry.txt", out.String())
}

// TestStale shows what goes when its router has not spoken.
func TestStale(t *testing.T) {
	prefixes := func(text string) (all []netip.Prefix) {
		for _, one := range strings.Fields(text) {
			all = append(all, netip.MustParsePrefix(one))
		}
		return all
	}
	have := learned{
		advertised: prefixes("2001:db8:1::abcd/64 2001:db8:2::abcd/64"),
		others:     prefixes("fe80::abcd/64 2001:db8:5::7/64 2001:db8:1::100/128"),
		networks:   prefixes("fe80::/64 ff00::/8 2001:db8:1::/64 2001:db8:2::/64 2001:db8:4::/64 2001:db8:5::/64 2001:db8:1::100/128"),
		byRouter: []Route{
			{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fe80::1"), Metric: 1024},
			{To: netip.MustParsePrefix("2001:db8:9::/48"), Via: netip.MustParseAddr("fe80::2"), Metric: 1024},
		},
	}
	var out strings.Builder
	for _, c := range []struct {
		name, routers, named string
	}{
		{"nobody", "", ""},
		{"the same as before", "fe80::1 fe80::2", "2001:db8:1::/64 2001:db8:2::/64 2001:db8:4::/64"},
		{"another router of one of the networks", "fe80::3", "2001:db8:2::/64"},
		{"the same router with other networks", "fe80::1", "2001:db8:7::/64"},
	} {
		q := begin(true, t0)
		for i, from := range addrs(c.routers) {
			a := routerAdvert{from: from}
			if i == 0 {
				a.prefixes = prefixes(c.named)
			}
			q.named(a)
		}
		addresses, networks, byRouter := q.stale(have)
		fmt.Fprintf(&out, "%s\n  addresses %v\n  networks  %v\n  routes    %v\n", c.name, addresses, networks, byRouter)
	}
	golden.Compare(t, "stale.txt", out.String())
}

// TestNamedWithoutEnd has many routers name many networks: so many are kept, and no more.
func TestNamedWithoutEnd(t *testing.T) {
	var q inquiry
	for i := range byte(20) {
		a := routerAdvert{from: netip.AddrFrom16([16]byte{0xfe, 0x80, 15: i})}
		for j := range byte(20) {
			a.prefixes = append(a.prefixes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, i, j}), 64))
		}
		q.named(a)
	}
	if len(q.routers) != maxRouters || len(q.prefixes) != advert.MaxNetworks {
		t.Errorf("%d routers and %d networks kept", len(q.routers), len(q.prefixes))
	}
}

// TestStaticAfterAuto has an entry say that its link is to listen to routers no more: nothing
// stays of what they said.
func TestStaticAfterAuto(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "2001:db8:1::1/64")
	s.radvd("prefix 2001:db8:1::/64 {};", "prefix 2001:db8:2::/64 { AdvAutonomous off; };", "route 2001:db8:3::/48 {};", "RDNSS 2001:db8:1::53 {};")
	stop := node(t, "network: [{match: lan0, dhcp: false}]", paths)
	until(t, "what the router says", func() bool { return len(ofOld(t)) >= 4 && len(defaults6(t)) == 1 && len(resolvers(paths)) == 1 })
	stop()
	node(t, "network: [{match: lan0, dhcp: false, ipv6: static, addresses: ['2001:db8:5::7/64'], gateway: '2001:db8:5::1'}]", paths)
	until(t, "the addresses of node.yaml alone", func() bool {
		return has("lan0", "2001:db8:5::7/64") && len(ofOld(t)) == 0 && slices.Equal(defaults6(t), []string{"2001:db8:5::1"}) && len(resolvers(paths)) == 0
	})
	if _, ok := addressOn("lan0", madeUp(t, "lan0", "fe80::/64")); !ok {
		t.Error("the link-local address is gone")
	}
}
