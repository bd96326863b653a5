package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
)

// has6 says whether the first link has a lease of DHCPv6 for an address in a network, and
// the kernel the address.
func has6(paths Paths, network string) bool {
	s, err := control.ReadNetwork(paths.Run)
	if err != nil || len(s.Interfaces) == 0 || s.Interfaces[0].Lease6 == nil {
		return false
	}
	a := s.Interfaces[0].Lease6.Address
	return netip.MustParsePrefix(network).Contains(a.Addr()) && has("lan0", a.String())
}

// TestManaged has a router that wants addresses to be asked of DHCPv6, with a server that
// names itself as resolver by its link-local address. The node reaches beyond the router,
// declines an address that somebody has, is renumbered, and keeps its lease over a restart.
func TestManaged(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "2001:db8:1::1/64", "2001:db8:2::1/64", "fe80::1/64", far6+"/128")
	other := s.neighbour("2001:db8:1::100/64")
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	taken := "dhcp-host=id:00:03:00:01:" + l.Attrs().HardwareAddr.String() + ",[2001:db8:1::100]"
	const options = "dhcp-option=option6:dns-server,[fe80::]\ndhcp-option=option6:domain-search,lan.test\ndhcp-option=option6:ntp-server,[fe80::]\naddress=/lan.test/2001:db8:1::1"
	stopServer := s.dnsmasq("dhcp-range=2001:db8:1::100,2001:db8:1::101,64,1h", options, taken)
	s.radvd("AdvManagedFlag on; AdvOtherConfigFlag on;", "prefix 2001:db8:1::/64 { AdvAutonomous off; };", "prefix 2001:db8:2::/64 { AdvAutonomous off; };")
	s.echo(net.JoinHostPort(far6, "7"))
	stop := node(t, "network: [{match: lan0, dhcp: false}]", paths)
	until(t, "the lease declined", func() bool {
		return problem(paths) == "the lease of 2001:db8:1::100 was declined: "+other.mac()+" has the address"
	})
	until(t, "an address that nobody else has", func() bool { return has6(paths, "2001:db8:1::101/128") })
	if has("lan0", "2001:db8:1::100/128") {
		t.Error("somebody else's address is in use")
	}
	until(t, "the way out", func() bool {
		from, err := echoed(net.JoinHostPort(far6, "7"))
		return err == nil && from == "2001:db8:1::101"
	})
	until(t, "a name to resolve", func() bool {
		got, err := lookup(paths, "registry.lan.test")
		return err == nil && slices.Equal(got, []string{"2001:db8:1::1"})
	})
	status, err := control.ReadNetwork(paths.Run)
	if err != nil || !slices.Equal(status.Search, []string{"lan.test"}) || len(status.NTP) != 1 || status.NTP[0].Zone() != "lan0" || status.DNS[0].Zone() != "lan0" {
		t.Errorf("status: %+v, %v", status, err)
	}

	// The service starts anew: the address stays, and is asked about.
	stop()
	if !has("lan0", "2001:db8:1::101/128") {
		t.Error("the end of the service took the address away")
	}
	stop = node(t, "network: [{match: lan0, dhcp: false}]", paths)
	until(t, "the lease again", func() bool { return has6(paths, "2001:db8:1::101/128") })

	// The network is renumbered while the cable is out.
	s.carrier(paths, false)
	stopServer()
	s.dnsmasq("dhcp-range=2001:db8:2::100,2001:db8:2::101,64,1h", options)
	s.cable(true)
	until(t, "an address of the new network alone", func() bool { return has6(paths, "2001:db8:2::/64") && !has("lan0", "2001:db8:1::101/128") })
	stop()
}

// TestOther has a router whose addresses are made up by the nodes, and the rest asked of
// DHCPv6.
func TestOther(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "2001:db8:1::1/64", "fe80::1/64")
	s.dnsmasq("dhcp-range=2001:db8:1::,ra-stateless", "enable-ra", "dhcp-option=option6:dns-server,[2001:db8:1::1]", "dhcp-option=option6:domain-search,lan.test", "address=/lan.test/2001:db8:1::1")
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	until(t, "what the server says", func() bool {
		n, err := control.ReadNetwork(paths.Run)
		return err == nil && len(n.Interfaces) == 1 && n.Interfaces[0].Lease6 != nil && !n.Interfaces[0].Lease6.Address.IsValid() &&
			slices.Contains(resolvers(paths), "2001:db8:1::1") && slices.Equal(n.Search, []string{"lan.test"})
	})
	until(t, "an address of its own", func() bool { n, _ := control.ReadNetwork(paths.Run); a, ok := n.FirstAddress(); return ok && a.Is6() })
}

// TestDeprecate has the kernel prefer other addresses to one whose time is over, and take
// that back.
func TestDeprecate(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	newPeer(t, "lan0")
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	must(t, netlink.LinkSetUp(l))
	k, f := &kernel{}, Facts{Index: l.Attrs().Index, Name: "lan0"}
	p := netip.MustParsePrefix("2001:db8::5/128")
	for _, want := range []netip.Prefix{{}, p, {}} {
		state := State{Up: true, Addresses: []netip.Prefix{p}, Deprecated: want}
		until(t, fmt.Sprintf("deprecated %v", want), func() bool {
			actual, err := read(k, f)
			must(t, err)
			state.IPv6 = actual.IPv6
			for _, op := range Diff(state, actual) {
				must(t, k.do(f, op))
			}
			actual, err = read(k, f)
			must(t, err)
			return slices.Equal(actual.Addresses, state.Addresses) && actual.Deprecated == want
		})
	}
}
