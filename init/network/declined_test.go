package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"

	"kogge.example/init/network/dhcp"
)

// TestDeclinedServers has two servers that are quicker than the good one and give addresses
// that others have: once those are declined, it is the good one's turn.
func TestDeclinedServers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const slow = 200 * time.Millisecond
	good := newSegment(t, "lan0", "192.0.2.1/24", "fe80::1/64")
	bad := good.neighbour("192.0.2.6/24", "fe80::6/64")
	serve := func(s *segment, wait time.Duration, servers ...byte) {
		s.answers4(func(m *dhcpv4.DHCPv4) (all []answer4) {
			time.Sleep(wait)
			for _, n := range servers {
				server, address := fmt.Sprintf("192.0.2.%d", n), fmt.Sprintf("192.0.2.%d", 70+n)
				switch {
				case m.MessageType() == dhcpv4.MessageTypeDiscover:
					all = append(all, answer4{server, address, dhcpv4.MessageTypeOffer})
				case m.MessageType() == dhcpv4.MessageTypeRequest && m.ServerIdentifier().Equal(net.ParseIP(server)):
					all = append(all, answer4{server, address, dhcpv4.MessageTypeAck})
				}
			}
			return all
		})
		s.answers6(func(m *dhcpv6.Message) (all []answer6) {
			time.Sleep(wait)
			for _, n := range servers {
				address := fmt.Sprintf("2001:db8:1::%d", n)
				switch {
				case m.MessageType == dhcpv6.MessageTypeSolicit:
					all = append(all, answer6{n, dhcpv6.MessageTypeAdvertise, address, 0})
				case m.Options.ServerID() != nil && m.Options.ServerID().Equal(duid6(n)):
					all = append(all, answer6{n, dhcpv6.MessageTypeReply, address, 0})
				}
			}
			return all
		})
	}
	serve(bad, 0, 6, 7)
	serve(good, slow, 1)
	mac := up(t, "lan0")
	until(t, "the link-local address", func() bool { return usableOn("lan0", madeUp(t, "lan0", "fe80::/64").String()) })
	for _, c := range []struct {
		x    dhcp.Exchange
		want netip.Addr
	}{{dhcp.NewV4("lan0", mac, ""), netip.MustParseAddr("192.0.2.71")}, {dhcp.NewV6("lan0", mac, dhcp.Stateful), netip.MustParseAddr("2001:db8:1::1")}} {
		var got []netip.Addr
		for range 3 {
			lease, err := c.x.Ask(context.Background(), dhcp.Discover, nil)
			must(t, err)
			if got = append(got, lease.Address.Addr()); got[len(got)-1] == c.want {
				break
			}
			must(t, c.x.Decline(context.Background(), lease))
		}
		if got[len(got)-1] != c.want {
			t.Errorf("leases of %v, never %s", got, c.want)
		}
	}
}

// TestOneAddressForTwo has two routers give the node the same address: one of the links uses
// it, and the other declines its lease.
func TestOneAddressForTwo(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const address = "192.168.1.50"
	paths := tempPaths(t)
	var declined [2]atomic.Bool
	for i := range declined {
		newPeer(t, fmt.Sprint("lan", i), "192.168.1.1/24").answers4(func(m *dhcpv4.DHCPv4) []answer4 {
			switch m.MessageType() {
			case dhcpv4.MessageTypeDiscover:
				return []answer4{{"192.168.1.1", address, dhcpv4.MessageTypeOffer}}
			case dhcpv4.MessageTypeRequest:
				return []answer4{{"192.168.1.1", address, dhcpv4.MessageTypeAck}}
			case dhcpv4.MessageTypeDecline:
				declined[i].Store(m.RequestedIPAddress().String() == address)
			}
			return nil
		})
	}
	node(t, "network: [{match: 'lan*', ipv6: off}]", paths)
	until(t, "one of the leases to be declined", func() bool { return declined[0].Load() || declined[1].Load() })
	uses, other := "lan0", "lan1"
	if declined[0].Load() {
		uses, other = other, uses
	}
	want := fmt.Sprintf("the lease of %s was declined: %s has the address", address, uses)
	until(t, want, func() bool {
		return problemOf(paths, other) == want && has(uses, address+"/24") && !has(other, address+"/24")
	})
	if declined[0].Load() && declined[1].Load() || problemOf(paths, uses) != "" {
		t.Errorf("both were declined, or %s: %q", uses, problemOf(paths, uses))
	}
}
