package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
	"kogge.example/init/network/claim"
)

// listen hears in a segment what is said about addresses until the test ends.
func (s *segment) listen(about ...string) <-chan claim.Heard {
	s.t.Helper()
	told := make(chan claim.Heard, 100)
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		sock, err := claim.Open(l.Attrs().Index, l.Attrs().HardwareAddr, told)
		if err == nil {
			sock.Care(addrs(strings.Join(about, " ")))
			s.t.Cleanup(sock.Close)
		}
		return err
	})
	return told
}

// say sends an announcement of a from the segment.
func (s *segment) say(a string) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		sock, err := claim.Open(l.Attrs().Index, l.Attrs().HardwareAddr, nil)
		if err != nil {
			return err
		}
		defer sock.Close()
		return sock.Send(claim.Announce, netip.MustParseAddr(a))
	})
}

func (s *segment) mac() (mac string) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err == nil {
			mac = l.Attrs().HardwareAddr.String()
		}
		return err
	})
	return mac
}

// problem is what the status says about the first link.
func problem(paths Paths) string {
	s, err := control.ReadNetwork(paths.Run)
	if err != nil || len(s.Interfaces) == 0 {
		return ""
	}
	return s.Interfaces[0].Problem
}

// TestProbed wants a static address to be asked for before it is used, and announced; and
// to be defended later.
func TestProbed(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "192.0.2.1/24")
	told := s.listen("192.0.2.7")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], gateway: 192.0.2.1, ipv6: off}]", paths)
	next := func(what string) (p claim.Packet) {
		t.Helper()
		select {
		case e := <-told:
			p = e.Packet
		case <-time.After(2 * time.Minute):
			t.Fatalf("no %s", what)
		}
		return p
	}
	for range 3 {
		if p := next("probe"); !p.Request || !p.Sender.IsUnspecified() || p.Target.String() != "192.0.2.7" {
			t.Fatalf("no probe: %+v", p)
		}
	}
	announced := func(what string) {
		t.Helper()
		if p := next(what); p.Sender.String() != "192.0.2.7" || p.Target != p.Sender || !has("lan0", "192.0.2.7/24") {
			t.Fatalf("no %s, or not in use: %+v", what, p)
		}
	}
	announced("announcement")
	next("late probe")
	announced("second announcement")
	next("last probe")
	// Somebody takes it later, once the node holds it.
	last := time.Now()
	until(t, "the address to be disputed and kept", func() bool {
		if time.Since(last) > 5*time.Second {
			s.say("192.0.2.7")
			last = time.Now()
		}
		return strings.Contains(problem(paths), s.mac()+" says that 192.0.2.7 is its own")
	})
	announced("defence")
	if !has("lan0", "192.0.2.7/24") || !slices.Equal(gateways(t), []string{"192.0.2.1"}) {
		t.Error("a static address was given up")
	}
}

// TestDuplicateStatic has somebody else hold the addresses from node.yaml: neither is used,
// the status says who has it, and once he is gone they are taken.
func TestDuplicateStatic(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	other := s.neighbour("192.0.2.7/24", "2001:db8::7/64")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24, '2001:db8::7/64'], gateway: 192.0.2.1, ipv6: static}]", paths)
	until(t, "the status to name both", func() bool {
		text := problem(paths)
		return strings.Contains(text, "192.0.2.7 is not used: "+other.mac()+" has it") && strings.Contains(text, "2001:db8::7 is not used: another machine has it")
	})
	if has("lan0", "192.0.2.7/24") || len(gateways(t)) > 0 {
		t.Errorf("the address is in use, routers %v", gateways(t))
	}
	other.remove("192.0.2.7/24", "2001:db8::7/64")
	until(t, "the address that is free now", func() bool { return has("lan0", "192.0.2.7/24") && len(gateways(t)) == 1 })
	// The cable out and in asks anew, also for those of IPv6.
	s.cable(false)
	until(t, "the loss of the carrier", func() bool { n, _ := control.ReadNetwork(paths.Run); return !n.Interfaces[0].Carrier })
	s.cable(true)
	until(t, "no problem any more", func() bool { return problem(paths) == "" })
}

// TestDuplicateLease has a server give out an address that somebody has: the node declines
// it and takes the next.
func TestDuplicateLease(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	other := s.neighbour("192.0.2.50/24")
	l, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.51,1h", "dhcp-host="+l.Attrs().HardwareAddr.String()+",192.0.2.50")
	node(t, "network: [{match: lan0, ipv6: off}]", paths)
	until(t, "the status to say so", func() bool {
		return problem(paths) == "the lease of 192.0.2.50 was declined: "+other.mac()+" has the address"
	})
	if has("lan0", "192.0.2.50/24") {
		t.Error("the address is in use")
	}
	until(t, "another lease", func() bool { return has("lan0", "192.0.2.51/24") && problem(paths) == "" })
}

// TestMovedCable takes a static address along into a network where somebody has it.
func TestMovedCable(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], ipv6: off}]", paths)
	until(t, "the address", func() bool { return has("lan0", "192.0.2.7/24") })
	s.cable(false)
	until(t, "the loss of the carrier", func() bool { n, _ := control.ReadNetwork(paths.Run); return !n.Interfaces[0].Carrier })
	s.address("192.0.2.7/24")
	s.cable(true)
	until(t, "the address given up", func() bool {
		return !has("lan0", "192.0.2.7/24") && strings.Contains(problem(paths), "192.0.2.7 is not used: "+s.mac()+" has it")
	})
}
