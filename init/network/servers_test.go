package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/server6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
	"kogge.example/init/network/dhcp"
)

// answer4 is one of a DHCP server: under an identifier, of a type, with an address or "".
type answer4 struct {
	server, address string
	kind            dhcpv4.MessageType
}

// answers4 runs a DHCP server that says to each message what to has for it.
func (s *segment) answers4(to func(m *dhcpv4.DHCPv4) []answer4) {
	s.t.Helper()
	var server *server4.Server
	s.in(func() (err error) {
		server, err = server4.NewServer(s.port, &net.UDPAddr{IP: net.IPv4zero, Port: 67}, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
			for _, a := range to(m) {
				id := net.ParseIP(a.server)
				options := []dhcpv4.Modifier{dhcpv4.WithMessageType(a.kind), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(id))}
				if a.address != "" {
					options = append(options, dhcpv4.WithYourIP(net.ParseIP(a.address)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
						dhcpv4.WithLeaseTime(3600), dhcpv4.WithOption(dhcpv4.OptRouter(id)))
				}
				out, err := dhcpv4.NewReplyFromRequest(m, options...)
				if err != nil {
					continue
				}
				back := peer.(*net.UDPAddr)
				if back.IP.IsUnspecified() {
					back = &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
				}
				_, _ = conn.WriteTo(out.ToBytes(), back) // a lost answer is asked for again
			}
		})
		return err
	})
	s.serve(server.Serve, server.Close)
}

// serve runs a server until the test ends.
func (s *segment) serve(serve, end func() error) {
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = serve() // ends with end
	}()
	s.t.Cleanup(func() { _ = end(); <-served })
}

// up brings a link up and returns its MAC address.
func up(t *testing.T, link string) (mac string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, netlink.LinkSetUp(l))
	return l.Attrs().HardwareAddr.String()
}

// leaseOf is the node's lease of a link; nil: none.
func leaseOf(paths Paths, link string) *control.Lease {
	n, _ := control.ReadNetwork(paths.Run)
	for _, i := range n.Interfaces {
		if i.Name == link {
			return i.Lease
		}
	}
	return nil
}

// TestBadOffers has servers beside a good one, and quicker than it: that offer what is no
// host's address or do not say who they are, that refuse what they have offered, and that say
// no more after their offer. The node has the good one's lease in the end.
func TestBadOffers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.59,1h", "dhcp-reply-delay=1")
	s.neighbour("192.0.2.6/24").answers4(func(m *dhcpv4.DHCPv4) []answer4 {
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			const offer = dhcpv4.MessageTypeOffer
			return []answer4{
				{"192.0.2.6", "0.0.0.0", offer}, {"192.0.2.6", "192.0.2.0", offer}, {"0.0.0.0", "192.0.2.76", offer},
				{"192.0.2.7", "192.0.2.77", offer}, {"192.0.2.8", "192.0.2.78", offer},
			}
		}
		if addrOf(m.ServerIdentifier()).String() == "192.0.2.7" {
			return []answer4{{"192.0.2.7", "", dhcpv4.MessageTypeNak}}
		}
		return nil
	})
	node(t, "network: [{match: lan0, ipv6: off}]", paths)
	until(t, "the lease of the good server", func() bool {
		l := leaseOf(paths, "lan0")
		return l != nil && l.Server == netip.MustParseAddr("192.0.2.1")
	})
}

// TestRefusedOffer has the only server refuse what it has just offered, or give what is no
// host's address, and then keep its word. The refusal says nothing of another lease, which the
// node may have.
func TestRefusedOffer(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	requests := 0
	newPeer(t, "lan0", "192.0.2.1/24").answers4(func(m *dhcpv4.DHCPv4) []answer4 {
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			return []answer4{{"192.0.2.1", "192.0.2.50", dhcpv4.MessageTypeOffer}}
		}
		requests++
		return [][]answer4{{{"192.0.2.1", "", dhcpv4.MessageTypeNak}}, {{"192.0.2.1", "192.0.2.255", dhcpv4.MessageTypeAck}}, {{"192.0.2.1", "192.0.2.50", dhcpv4.MessageTypeAck}}}[min(requests, 3)-1]
	})
	x := dhcp.NewV4("lan0", up(t, "lan0"), "")
	for range 2 {
		_, err := x.Ask(context.Background(), dhcp.Discover, nil)
		if err == nil || errors.Is(err, dhcp.ErrNak) {
			t.Errorf("of a refused offer: %v", err)
		}
	}
	if l, err := x.Ask(context.Background(), dhcp.Discover, nil); err != nil || l.Address.String() != "192.0.2.50/24" {
		t.Errorf("of an offer that is kept: %+v, %v", l, err)
	}
}

// TestTwinServers has two networks of the same addresses and the same server, as two routers
// come from the shop: the lease of either link is renewed by its own.
func TestTwinServers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	links, given := []string{"lan0", "lan1"}, []string{"192.168.1.50", "192.168.1.70"}
	var sides []dhcp.Exchange
	var leases []*control.Lease
	for i, link := range links {
		newPeer(t, link, "192.168.1.1/24").answers4(func(m *dhcpv4.DHCPv4) []answer4 {
			asked := addrOf(m.RequestedIPAddress())
			if !m.ClientIPAddr.IsUnspecified() {
				asked = addrOf(m.ClientIPAddr)
			}
			switch {
			case m.MessageType() == dhcpv4.MessageTypeDiscover:
				return []answer4{{"192.168.1.1", given[i], dhcpv4.MessageTypeOffer}}
			case asked.String() == given[i]:
				return []answer4{{"192.168.1.1", given[i], dhcpv4.MessageTypeAck}}
			}
			return []answer4{{"192.168.1.1", "", dhcpv4.MessageTypeNak}}
		})
		x := dhcp.NewV4(link, up(t, link), "")
		lease, err := x.Ask(context.Background(), dhcp.Discover, nil)
		must(t, err)
		l, err := netlink.LinkByName(link)
		must(t, err)
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(lease.Address)}))
		sides, leases = append(sides, x), append(leases, lease)
	}
	for i, x := range sides {
		if got, err := x.Ask(context.Background(), dhcp.Renew, leases[i]); err != nil || got.Address != leases[i].Address {
			t.Errorf("renew %s on %s: %+v, %v", leases[i].Address, links[i], got, err)
		}
	}
}

// TestSilentAdvertiser has a DHCPv6 server that says no more after its offer, and was there
// before the good one.
func TestSilentAdvertiser(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "fe80::1/64", "2001:db8:1::1/64")
	s.radvd("AdvManagedFlag on;", "prefix 2001:db8:1::/64 { AdvAutonomous off; };")
	requested := make(chan struct{})
	once := sync.OnceFunc(func() { close(requested) })
	s.neighbour("fe80::9/64").answers6(func(m *dhcpv6.Message) []answer6 {
		switch m.MessageType {
		case dhcpv6.MessageTypeSolicit:
			return []answer6{{9, dhcpv6.MessageTypeAdvertise, "2001:db8:1::bad", 0}}
		case dhcpv6.MessageTypeRequest:
			once()
		}
		return nil
	})
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	<-requested
	s.dnsmasq("dhcp-range=2001:db8:1::100,2001:db8:1::101,64,1h")
	until(t, "the lease of the good server", func() bool { return has6(paths, "2001:db8:1::100/127") })
}

// answer6 is one of a DHCPv6 server: under an identifier, of a type, with an address or the
// status that it has none.
type answer6 struct {
	server  byte
	kind    dhcpv6.MessageType
	address string
	status  iana.StatusCode
}

// answers6 runs a DHCPv6 server that says to each message what to has for it.
func (s *segment) answers6(to func(m *dhcpv6.Message) []answer6) {
	s.t.Helper()
	var server *server6.Server
	s.in(func() (err error) {
		server, err = server6.NewServer(s.port, &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547}, func(conn net.PacketConn, peer net.Addr, d dhcpv6.DHCPv6) {
			m, ok := d.(*dhcpv6.Message)
			if !ok {
				return
			}
			for _, a := range to(m) {
				out := &dhcpv6.Message{MessageType: a.kind, TransactionID: m.TransactionID}
				out.AddOption(dhcpv6.OptClientID(m.Options.ClientID()))
				out.AddOption(dhcpv6.OptServerID(duid6(a.server)))
				if a.address == "" {
					out.AddOption(&dhcpv6.OptStatusCode{StatusCode: a.status})
				} else {
					ia := &dhcpv6.OptIANA{IaId: m.Options.OneIANA().IaId}
					ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a.address), PreferredLifetime: time.Hour, ValidLifetime: time.Hour})
					out.AddOption(ia)
				}
				_, _ = conn.WriteTo(out.ToBytes(), peer)
			}
		})
		return err
	})
	s.serve(server.Serve, server.Close)
}

func duid6(server byte) dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, server}}
}

// TestNakOfAnother6 has a second DHCPv6 server say no, quicker than the lease's says yes: the
// lease stays. Without its own server, the other's word counts. That the own one refuses what
// it has just offered is no word about the lease.
func TestNakOfAnother6(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const address = "2001:db8:1::100"
	var alone, refuses atomic.Bool
	newPeer(t, "lan0", "fe80::1/64").answers6(func(m *dhcpv6.Message) []answer6 {
		no := answer6{9, dhcpv6.MessageTypeReply, "", iana.StatusNotOnLink}
		switch m.MessageType {
		case dhcpv6.MessageTypeSolicit:
			return []answer6{{1, dhcpv6.MessageTypeAdvertise, address, 0}}
		case dhcpv6.MessageTypeRequest:
			if refuses.Load() {
				return []answer6{{1, dhcpv6.MessageTypeReply, "", iana.StatusNotOnLink}}
			}
			return []answer6{no, {1, dhcpv6.MessageTypeReply, address, 0}}
		case dhcpv6.MessageTypeConfirm:
			if alone.Load() {
				return []answer6{no}
			}
			return []answer6{no, {1, dhcpv6.MessageTypeReply, "", iana.StatusSuccess}}
		}
		return []answer6{no, {1, dhcpv6.MessageTypeReply, address, 0}}
	})
	x := dhcp.NewV6("lan0", up(t, "lan0"), dhcp.Stateful)
	until(t, "the link-local address", func() bool { return usableOn("lan0", madeUp(t, "lan0", "fe80::/64").String()) })
	lease, err := x.Ask(context.Background(), dhcp.Discover, nil)
	must(t, err)
	for _, a := range []dhcp.Action{dhcp.Confirm, dhcp.Renew, dhcp.Rebind} {
		if got, err := x.Ask(context.Background(), a, lease); err != nil || got.Address.Addr().String() != address {
			t.Errorf("%s: %+v, %v", a, got, err)
		}
	}
	refuses.Store(true)
	if _, err := x.Ask(context.Background(), dhcp.Discover, lease); err == nil || errors.Is(err, dhcp.ErrNak) {
		t.Errorf("of a refused offer: %v", err)
	}
	alone.Store(true)
	if _, err := x.Ask(context.Background(), dhcp.Confirm, lease); !errors.Is(err, dhcp.ErrNak) {
		t.Errorf("without the lease's server: %v", err)
	}
}

// TestNakOfAnother has a second server say no to whatever is not of its own, quicker than the
// lease's server says yes: over a restart of the service, a replug and a question to all, the
// lease stays. Without its own server, the other's word counts.
func TestNakOfAnother(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	stopServer := s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.59,1h")
	s.neighbour("192.0.2.9/24").answers4(func(m *dhcpv4.DHCPv4) []answer4 {
		if m.MessageType() != dhcpv4.MessageTypeRequest || m.ServerIdentifier() != nil {
			return nil
		}
		return []answer4{{"192.0.2.9", "", dhcpv4.MessageTypeNak}}
	})
	const yaml = "network: [{match: lan0, ipv6: off}]"
	stop := node(t, yaml, paths)
	until(t, "a lease", func() bool { return leaseOf(paths, "lan0") != nil && len(gateways(t)) == 1 })
	lease := leaseOf(paths, "lan0")
	told, done := make(chan netlink.AddrUpdate, 1000), make(chan struct{})
	must(t, netlink.AddrSubscribe(told, done))
	defer close(done)
	confirmed := func(what string) {
		t.Helper()
		until(t, "the lease to be confirmed after "+what, func() bool { l := leaseOf(paths, "lan0"); return l != nil && l.Since.After(lease.Since) })
		lease = leaseOf(paths, "lan0")
	}
	stop()
	stop = node(t, yaml, paths)
	confirmed("a restart")
	s.carrier(paths, false)
	s.carrier(paths, true)
	confirmed("a replug")
	n, err := control.ReadNetwork(paths.Run)
	must(t, err)
	stop()
	x := dhcp.NewV4("lan0", n.Interfaces[0].MAC, "")
	if _, err := x.Ask(context.Background(), dhcp.Rebind, lease); err != nil {
		t.Errorf("rebind: %v", err)
	}
	for len(told) > 0 {
		if u := <-told; !u.NewAddr && u.LinkAddress.IP.To4() != nil {
			t.Errorf("%s was given up", u.LinkAddress.String())
		}
	}
	stopServer()
	if _, err := x.Ask(context.Background(), dhcp.Confirm, lease); !errors.Is(err, dhcp.ErrNak) {
		t.Errorf("without the lease's server: %v", err)
	}
}
