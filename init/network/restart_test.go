package network

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
)

// TestClockStep sets the node's clock by a day, either way, while the service is away and its
// DHCP server silent: the lease is as old as it was. What the file says of the time by that
// clock is wrong then.
func TestClockStep(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	office := newLAN(t, "lan0", "port0", "192.0.2.50/24")
	const yaml = "network: [{match: lan0, ipv6: off}]"
	status := func() (i control.Interface) {
		if n, err := control.ReadNetwork(paths.Run); err == nil && len(n.Interfaces) == 1 {
			i = n.Interfaces[0]
		}
		return i
	}
	stop := node(t, yaml, paths)
	until(t, "a lease", func() bool { return has("lan0", "192.0.2.50/24") && status().Lease != nil })
	office.set("192.0.2.50/24", true)
	for _, step := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		stop()
		n, err := control.ReadNetwork(paths.Run)
		must(t, err)
		n.Interfaces[0].Lease.Since = n.Interfaces[0].Lease.Since.Add(-step)
		must(t, n.Write(paths.Run))
		before := len(office.log())
		began := time.Now()
		stop = node(t, yaml, paths)
		until(t, "a question", func() bool { return len(office.log()) > before })
		if q := office.log()[before]; q != "CONFIRM" || !has("lan0", "192.0.2.50/24") {
			t.Errorf("the clock was set by %s: the node asks %s, and has its address: %v", step, q, has("lan0", "192.0.2.50/24"))
		}
		until(t, "the lease to be as old as it was, by the clock that was set by "+step.String(), func() bool {
			l := status().Lease
			return l != nil && !l.Since.After(began) && !l.Since.Before(began.Add(-10*time.Minute))
		})
	}
}

// These have an adaptor come back that was away in this run of the service, or from its start
// on, and in another network by now: it asks for a lease anew.
func TestReturned(t *testing.T)      { returned(t, false) }
func TestReturnedLater(t *testing.T) { returned(t, true) }

func returned(t *testing.T, awayAtStart bool) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	office := newLAN(t, "usb0", "port0", "192.0.2.50/24")
	const yaml = "network: [{match: 'usb*', ipv6: off}]"
	known := func(links int) func() bool {
		return func() bool {
			n, err := control.ReadNetwork(paths.Run)
			return err == nil && len(n.Interfaces) == links && (links == 0 || n.Interfaces[0].Lease != nil)
		}
	}
	stop := node(t, yaml, paths)
	until(t, "a lease", func() bool { return has("usb0", "192.0.2.50/24") && known(1)() })
	usb, err := netlink.LinkByName("usb0")
	must(t, err)
	stop()
	if awayAtStart {
		must(t, netlink.LinkDel(usb))
	}
	node(t, yaml, paths)
	if !awayAtStart {
		until(t, "the lease confirmed", func() bool { return slices.Contains(office.log(), "CONFIRM") && known(1)() })
		must(t, netlink.LinkDel(usb))
	}
	until(t, "the adaptor gone", known(0))
	elsewhere := newLAN(t, "new0", "port1", "203.0.113.50/24")
	back, err := netlink.LinkByName("new0")
	must(t, err)
	must(t, netlink.LinkSetHardwareAddr(back, usb.Attrs().HardwareAddr))
	must(t, netlink.LinkSetName(back, "usb0"))
	until(t, "a lease there", func() bool { return has("usb0", "203.0.113.50/24") })
	if log := elsewhere.log(); log[0] != "DISCOVER" {
		t.Errorf("an adaptor that comes back asks %v", log)
	}
}

// These give a link another name, or another address of Ethernet, while it has an MTU by DHCP:
// where the next server says none, it has that which the driver had at first.
func TestRenamed(t *testing.T) {
	changed(t, func(usb netlink.Link) error { return netlink.LinkSetName(usb, "usb1") })
}

func TestOtherMAC(t *testing.T) {
	changed(t, func(usb netlink.Link) error {
		return netlink.LinkSetHardwareAddr(usb, net.HardwareAddr{2, 0, 0, 0, 0, 77})
	})
}

func changed(t *testing.T, change func(netlink.Link) error) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "usb0", "192.0.2.1/24")
	stop := s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.59,1h", "dhcp-option=26,1400")
	node(t, "network: [{match: 'usb*', ipv6: off}]", paths)
	usb, err := netlink.LinkByName("usb0")
	must(t, err)
	status := func() (i control.Interface) {
		if n, err := control.ReadNetwork(paths.Run); err == nil && len(n.Interfaces) == 1 {
			i = n.Interfaces[0]
		}
		return i
	}
	until(t, "the server's MTU", func() bool { return status().Lease != nil && status().MTU == 1400 })
	before := status()
	stop()
	s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.59,1h")
	must(t, change(usb))
	until(t, "a lease as what it is now", func() bool {
		now := status()
		return now.Lease != nil && (now.Name != before.Name || now.MAC != before.MAC) && now.Lease.MTU == 0
	})
	until(t, "the driver's MTU", func() bool { return status().MTU == 1500 && status().FirstMTU == 1500 })
}
