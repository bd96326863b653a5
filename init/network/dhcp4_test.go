package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"kogge.example/init/control"
	"kogge.example/init/network/dhcp"
)

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
