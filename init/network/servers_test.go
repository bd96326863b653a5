package network

import (
	"context"
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
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
