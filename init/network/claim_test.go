package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
	must(s.t, s.voice().Send(claim.Announce, netip.MustParseAddr(a)))
}

// voice is what the segment speaks ARP with until the test ends.
func (s *segment) voice() (sock *claim.Socket) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err == nil {
			sock, err = claim.Open(l.Attrs().Index, l.Attrs().HardwareAddr, nil)
		}
		return err
	})
	s.t.Cleanup(sock.Close)
	return sock
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

// TestDuplicateStatic has somebody else hold the addresses from node.yaml: neither is used
// at first, and the status says who has it. As it might be a stranger who only says so,
// both are used in the end, and disputed until the other machine is gone.
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
		return strings.Contains(text, "192.0.2.7 is not used: "+other.mac()+" has it") && strings.Contains(text, "2001:db8::7 is not used: "+other.mac()+" has it")
	})
	if has("lan0", "192.0.2.7/24") || has("lan0", "2001:db8::7/64") || len(gateways(t)) > 0 {
		t.Errorf("an address is in use, routers %v", gateways(t))
	}
	until(t, "the addresses to be used all the same, and disputed", func() bool {
		return has("lan0", "192.0.2.7/24") && len(gateways(t)) == 1 && strings.Contains(problem(paths), other.mac()+" says that 192.0.2.7 is its own") &&
			disputed(paths, other.mac(), netip.MustParsePrefix("2001:db8::7/64"))
	})
	other.remove("192.0.2.7/24", "2001:db8::7/64")
	// The cable out and in asks anew, also for those of IPv6.
	s.carrier(paths, false)
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

// TestMovedCable takes a static address along into a network where somebody has it: it is
// kept, and the status says so.
func TestMovedCable(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], ipv6: off}]", paths)
	until(t, "the address", func() bool { return has("lan0", "192.0.2.7/24") })
	s.carrier(paths, false)
	s.address("192.0.2.7/24")
	s.cable(true)
	until(t, "the dispute", func() bool { return strings.Contains(problem(paths), s.mac()+" says that 192.0.2.7 is its own") })
	if !has("lan0", "192.0.2.7/24") {
		t.Error("the address is not in use")
	}
}

// TestStranger has somebody say without end that the node's addresses are his, from before
// its start on. It comes up all the same, and neither a cable that is out for a moment nor
// the service's restart has it lose an address.
func TestStranger(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "192.0.2.1/24")
	leased := newPeer(t, "lan1", "203.0.113.1/24")
	leased.dnsmasq("dhcp-range=203.0.113.50,203.0.113.59,1h")
	done, stopped := make(chan struct{}), make(chan struct{})
	one, two := s.voice(), leased.voice()
	go func() {
		defer close(stopped)
		for every := time.NewTicker(500 * time.Millisecond); ; {
			// Without a cable nothing is sent.
			_ = one.Send(claim.Announce, netip.MustParseAddr("192.0.2.7"))
			for i := range byte(10) {
				_ = two.Send(claim.Announce, netip.AddrFrom4([4]byte{203, 0, 113, 50 + i}))
			}
			select {
			case <-done:
				return
			case <-every.C:
			}
		}
	}()
	t.Cleanup(func() { close(done); <-stopped })
	const yaml = "network: [{match: lan0, addresses: [192.0.2.7/24], gateway: 192.0.2.1, ipv6: off}, {match: lan1, ipv6: off}]"
	stop := node(t, yaml, paths)
	disputed := func(a string) bool {
		n, _ := control.ReadNetwork(paths.Run)
		for _, i := range n.Interfaces {
			for _, p := range i.Addresses {
				if p.String() == a && strings.Contains(i.Problem, "says that "+p.Addr().String()+" is its own") {
					return true
				}
			}
		}
		return false
	}
	until(t, "the static address, disputed", func() bool { return disputed("192.0.2.7/24") })
	lease := ""
	until(t, "a lease, disputed", func() bool {
		n, _ := control.ReadNetwork(paths.Run)
		for _, i := range n.Interfaces {
			if i.Lease != nil && disputed(i.Lease.Address.String()) {
				lease = i.Lease.Address.String()
			}
		}
		return lease != ""
	})
	lost := changes(t)
	for _, c := range []*segment{s, leased} {
		for _, in := range []bool{false, true} {
			c.carrier(paths, in)
		}
	}
	until(t, "both to be disputed again", func() bool { return disputed("192.0.2.7/24") && disputed(lease) })
	stop()
	n, err := control.ReadNetwork(paths.Run)
	must(t, err)
	for i := range n.Interfaces {
		n.Interfaces[i].Problem = "" // or it would be taken for the next run's
	}
	must(t, n.Write(paths.Run))
	node(t, yaml, paths)
	until(t, "both to be disputed after the restart", func() bool { return disputed("192.0.2.7/24") && disputed(lease) })
	for len(lost) > 0 {
		if u := <-lost; !u.NewAddr {
			t.Errorf("%s was given up", u.LinkAddress.String())
		}
	}
}

// TestEmptyFrame sends the node a frame with nothing behind its header: it hears what comes
// after it.
func TestEmptyFrame(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newPeer(t, "lan0", "192.0.2.1/24")
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	must(t, netlink.LinkSetUp(l))
	told := make(chan claim.Heard)
	sock, err := claim.Open(l.Attrs().Index, l.Attrs().HardwareAddr, told)
	must(t, err)
	defer sock.Close()
	sock.Care(addrs("192.0.2.7"))
	voice := s.voice()
	heard := func() bool {
		must(t, voice.Send(claim.Announce, netip.MustParseAddr("192.0.2.7")))
		select {
		case <-told:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	until(t, "the cable", heard)
	const arp = 0x0608 // in the order of a network
	raw, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(raw)
	must(t, unix.Bind(raw, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: l.Attrs().Index}))
	s.in(func() error {
		port, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := append(slices.Concat(l.Attrs().HardwareAddr, port.Attrs().HardwareAddr), 0x08, 0x06)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: port.Attrs().Index})
	})
	until(t, "the frame", func() bool {
		n, _, err := unix.Recvfrom(raw, make([]byte, 100), 0)
		return err == nil && n == 14
	})
	for range 10 {
		heard() // what told was offered before the frame
	}
	until(t, "it to hear again", heard)
}
