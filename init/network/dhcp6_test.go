package network

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestModeOf shows what is asked of DHCPv6 servers, by flags, what was asked before, and
// whether the cable has long been in.
func TestModeOf(t *testing.T) {
	var out strings.Builder
	words := map[Mode]string{NoDHCPv6: "nothing", Stateless: "servers", Stateful: "address"}
	for _, f := range []Flags{{}, {Other: true}, {Managed: true}, {true, true}} {
		for _, before := range []Mode{NoDHCPv6, Stateless, Stateful} {
			fmt.Fprintf(&out, "managed %-5v other %-5v before %-7s → just plugged in %-7s later %-7s ipv6: static %s\n", f.Managed, f.Other, words[before],
				words[ModeOf(nodeconfig.IPv6Auto, f, before, false)], words[ModeOf(nodeconfig.IPv6Auto, f, before, true)], words[ModeOf(nodeconfig.IPv6Static, f, before, true)])
		}
	}
	golden.Compare(t, "mode.txt", out.String())
}

var (
	testMAC    = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	testIAID   = newClient6(Facts{MAC: testMAC.String()}, Stateful).iaid()
	testServer = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
)

// reply is a server's, with these in the one identity association.
func reply(t1, t2 time.Duration, options ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
	m.AddOption(dhcpv6.OptServerID(testServer))
	ia := &dhcpv6.OptIANA{IaId: testIAID, T1: t1, T2: t2}
	for _, o := range options {
		ia.Options.Add(o)
	}
	m.AddOption(ia)
	return m
}

func iaAddress(a string, preferred, valid time.Duration) dhcpv6.Option {
	return &dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a), PreferredLifetime: preferred, ValidLifetime: valid}
}

// TestLease6 shows what becomes of servers' answers.
func TestLease6(t *testing.T) {
	var out strings.Builder
	full := reply(30*time.Minute, 48*time.Minute, iaAddress("2001:db8::5", time.Hour, 2*time.Hour))
	full.AddOption(dhcpv6.OptDNS(net.ParseIP("fe80::1"), net.ParseIP("2001:db8::53"), net.ParseIP("::"), net.ParseIP("ff02::1")))
	dhcpv6.WithDomainSearchList("lan.example", "a b", "LAN.example.")(full)
	full.AddOption(&dhcpv6.OptNTPServer{Suboptions: dhcpv6.Options{(*dhcpv6.NTPSuboptionSrvAddr)(ptr(net.ParseIP("fe80::123")))}})
	refused := reply(0, 0)
	refused.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusUnspecFail})
	foreign := reply(0, 0, iaAddress("2001:db8::5", time.Hour, time.Hour))
	foreign.Options.OneIANA().IaId = [4]byte{9}
	const forever = 0xffffffff * time.Second
	for _, c := range []struct {
		name string
		m    *dhcpv6.Message
	}{
		{"whole", full},
		{"no times", reply(0, 0, iaAddress("2001:db8::5", time.Hour, 2*time.Hour))},
		{"times out of order", reply(2*time.Hour, time.Hour, iaAddress("2001:db8::5", time.Hour, 2*time.Hour))},
		{"a second", reply(0, 0, iaAddress("2001:db8::5", time.Second, time.Second))},
		{"for ever", reply(forever, forever, iaAddress("2001:db8::5", forever, forever))},
		{"renumbered", reply(0, 0, iaAddress("2001:db8::5", 0, time.Hour), iaAddress("2001:db8:1::5", time.Hour, time.Hour))},
		{"phased out", reply(0, 0, iaAddress("2001:db8::5", 0, time.Hour))},
		{"taken back", reply(0, 0, iaAddress("2001:db8::5", 0, 0))},
		{"preferred for longer than valid", reply(0, 0, iaAddress("2001:db8::5", 2*time.Hour, time.Hour))},
		{"link-local", reply(0, 0, iaAddress("fe80::5", time.Hour, time.Hour))},
		{"multicast", reply(0, 0, iaAddress("ff02::5", time.Hour, time.Hour))},
		{"IPv4 in it", reply(0, 0, iaAddress("::ffff:192.0.2.1", time.Hour, time.Hour))},
		{"no binding", reply(0, 0, &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding})},
		{"no address", reply(0, 0)},
		{"another association's", foreign},
		{"refused", refused},
	} {
		l, err := lease6From(c.m, testIAID, t0)
		if err != nil {
			fmt.Fprintf(&out, "%s: %v (refused: %v)\n", c.name, err, errors.Is(err, errNak))
			continue
		}
		fmt.Fprintf(&out, "%s: %s renew %s rebind %s preferred %s valid %s dns %v ntp %v search %v\n", c.name, l.Address, l.Renew, l.Rebind, l.Preferred, l.Valid, l.DNS, l.NTP, l.Search)
	}
	golden.Compare(t, "lease6.txt", out.String())
}

func ptr[T any](v T) *T { return &v }

func FuzzLease6(f *testing.F) {
	for _, m := range []*dhcpv6.Message{
		reply(0, 0, iaAddress("2001:db8::5", time.Hour, 2*time.Hour)),
		reply(time.Minute, time.Hour, &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding}),
	} {
		dhcpv6.WithDNS(net.ParseIP("fe80::1"))(m)
		dhcpv6.WithDomainSearchList("lan.example", "a b\n")(m)
		f.Add(m.ToBytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv6.MessageFromBytes(data)
		if err != nil {
			return
		}
		newClient6(Facts{MAC: testMAC.String()}, Stateful).answers(dhcpv6.MessageTypeReply)(m)
		for _, l := range []*control.Lease{informed(m, t0), first(lease6From(m, testIAID, t0))} {
			if l == nil {
				continue
			}
			if l.Renew <= 0 || l.Renew >= l.Rebind || l.Rebind >= l.Valid || l.Preferred < 0 || l.Preferred > l.Valid || l.Valid < shortest {
				t.Errorf("times out of order: %s %s %s %s", l.Renew, l.Rebind, l.Preferred, l.Valid)
			}
			if a := l.Address.Addr(); l.Address.IsValid() && (!a.Is6() || !usable(a) || a.IsLinkLocalUnicast()) {
				t.Errorf("address %s", l.Address)
			}
			if _, err := hex.DecodeString(l.ServerID); err != nil || len(l.DNS) > 3 || len(l.NTP) > 4 || len(l.Search) > 6 {
				t.Errorf("%+v", l)
			}
			var s control.Network
			merge(&s, []source{{link: "eth0", leases: Leases{V6: l}}})
			checkResolvConf(t, s)
			Diff(Want(nodeconfig.DefaultInterface, Facts{Index: 2}, Leases{V6: l}, t0), State{})
		}
	})
}

func first[T any](v T, _ error) T { return v }

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
	s.cable(false)
	until(t, "the loss of the carrier", func() bool { n, _ := control.ReadNetwork(paths.Run); return !n.Interfaces[0].Carrier })
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
			actual, err := k.read(f)
			must(t, err)
			state.IPv6 = actual.IPv6
			for _, op := range Diff(state, actual) {
				must(t, k.do(f, op))
			}
			actual, err = k.read(f)
			must(t, err)
			return slices.Equal(actual.Addresses, state.Addresses) && actual.Deprecated == want
		})
	}
}
