package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/init/network/claim"
)

// forge has the segment answer each question whether somebody has an IPv6 address, so many
// times for each address, or without end for 0, until stop or the test ends it. as is the MAC
// address that says so, "" for the segment's own.
func (s *segment) forge(as string, times int) (stop func()) {
	s.t.Helper()
	const ipv6 = 0xdd86 // in the order of a network
	var fd int
	mac, _ := net.ParseMAC(as)
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		if as == "" {
			mac = l.Attrs().HardwareAddr
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ipv6); err != nil {
			return err
		}
		return errors.Join(
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv6, Ifindex: l.Attrs().Index}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		)
	})
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		answered := make(map[netip.Addr]int)
		for data := make([]byte, 2000); ; {
			select {
			case <-done:
				return
			default:
			}
			const solicitation = 135
			n, _, err := unix.Recvfrom(fd, data, 0)
			if err != nil || n < 78 || data[20] != 58 || data[54] != solicitation || !netip.AddrFrom16([16]byte(data[22:38])).IsUnspecified() {
				continue
			}
			target := netip.AddrFrom16([16]byte(data[62:78]))
			if answered[target]++; times == 0 || answered[target] <= times {
				_, _ = unix.Write(fd, forged(mac, target)) // without a cable nothing is sent
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(done); <-stopped; unix.Close(fd) })
	s.t.Cleanup(stop)
	return stop
}

// forged is a frame in which the machine with that MAC address says to all that a is its own.
//
// Source: RFC 4861, 4.4 and 4.6.1.
func forged(mac net.HardwareAddr, a netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1")
	said := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, a.AsSlice()...)
	said = append(append(said, 2, 1), mac...)
	sum := uint32(len(said)) + 58
	for _, part := range [][]byte{a.AsSlice(), all.AsSlice(), said} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(said[2:], ^uint16(sum))
	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(said)), 58, 255)
	frame = append(append(frame, a.AsSlice()...), all.AsSlice()...)
	return append(frame, said...)
}

// usableOn says whether a link has an address of IPv6 and may send from it.
func usableOn(link, address string) bool {
	a, ok := addressOn(link, netip.MustParsePrefix(address))
	return ok && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
}

// addressOn is an address of a link as the kernel has it.
func addressOn(link string, p netip.Prefix) (a netlink.Addr, ok bool) {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return a, false
	}
	addrs, _ := netlink.AddrList(l, netlink.FAMILY_V6)
	i := slices.IndexFunc(addrs, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p })
	if i < 0 {
		return a, false
	}
	return addrs[i], true
}

// madeUp is the address that the kernel makes up for a link in a network of 64 bits.
func madeUp(t *testing.T, link, network string) netip.Prefix {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	mac := l.Attrs().HardwareAddr
	a := netip.MustParsePrefix(network).Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// routed makes the other end of lan0 with a router, which advertises the network 2001:db8:1::
// until the test, or stop, ends it.
func routed(t *testing.T) (s *segment, stop func()) {
	t.Helper()
	s = newPeer(t, "lan0", "2001:db8:1::1/64", "fe80::1/64")
	return s, s.radvd("prefix 2001:db8:1::/64 { };")
}

// changes tells of each change of the kernel's to an address, until the test ends.
func changes(t *testing.T) <-chan netlink.AddrUpdate {
	t.Helper()
	told, done := make(chan netlink.AddrUpdate, 10_000), make(chan struct{})
	must(t, netlink.AddrSubscribe(told, done))
	t.Cleanup(func() { close(done) })
	return told
}

// disputed says whether an address is in use and the status of the link names by as another
// machine that has it.
func disputed(paths Paths, by string, p netip.Prefix) bool {
	return usableOn("lan0", p.String()) && strings.Contains(problem(paths), by+" says that "+p.Addr().String()+" is its own")
}

// TestForgedStatic has a stranger answer for the node's address from node.yaml and for its
// link-local one without end: both come into use, disputed. Neither a cable that is out for a
// moment nor the service's restart has the node lose them, before that or after it. Then the
// stranger is gone.
func TestForgedStatic(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "2001:db8::1/64")
	stopForger := s.forge("", 0)
	const yaml = "network: [{match: lan0, addresses: ['2001:db8::7/64'], gateway: '2001:db8::1', ipv6: static}]"
	static, local := netip.MustParsePrefix("2001:db8::7/64"), madeUp(t, "lan0", "fe80::/64")
	stop := node(t, yaml, paths)
	restart := func() {
		stop()
		n, err := control.ReadNetwork(paths.Run)
		must(t, err)
		n.Interfaces[0].Problem = "until the service has started"
		must(t, n.Write(paths.Run))
		stop = node(t, yaml, paths)
	}
	named := func() bool {
		text := problem(paths)
		return strings.Contains(text, "2001:db8::7 is not used: "+s.mac()+" has it") && strings.Contains(text, local.Addr().String()+" is not used: "+s.mac()+" has it")
	}
	until(t, "the status to name who has them", named)
	s.carrier(paths, false)
	s.carrier(paths, true)
	until(t, "the status to name who has them, after a replug", named)
	restart()
	both := func() bool { return disputed(paths, s.mac(), static) && disputed(paths, s.mac(), local) }
	until(t, "both addresses, disputed", both)
	lost := changes(t)
	s.carrier(paths, false)
	s.carrier(paths, true)
	until(t, "both to be disputed again", both)
	restart()
	until(t, "both to be disputed after the restart", both)
	stopForger()
	restart()
	until(t, "no problem any more", func() bool { return problem(paths) == "" })
	for len(lost) > 0 {
		if u := <-lost; !u.NewAddr {
			t.Errorf("%s was given up", u.LinkAddress.String())
		}
	}
}

// TestForgedMade has a stranger answer without end for the addresses that the kernel makes
// up: by a router's advertisement, and the link-local one. They come into use, disputed.
func TestForgedMade(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "2001:db8:1::1/64", "fe80::1/64", far6+"/128")
	s.forge("", 0)
	s.radvd("prefix 2001:db8:1::/64 { AdvPreferredLifetime 1800; AdvValidLifetime 3600; };")
	s.echo(net.JoinHostPort(far6, "7"))
	made, local := madeUp(t, "lan0", "2001:db8:1::/64"), madeUp(t, "lan0", "fe80::/64")
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	until(t, "both addresses, disputed", func() bool { return disputed(paths, s.mac(), made) && disputed(paths, s.mac(), local) })
	until(t, "the way out", func() bool {
		from, err := echoed(net.JoinHostPort(far6, "7"))
		return err == nil && from == made.Addr().String()
	})
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
	must(t, err)
	for _, a := range addrs {
		if prefixOf(a.IPNet) == made && (a.ValidLft <= 0 || a.ValidLft > 3600 || a.PreferedLft <= 0 || a.PreferedLft > 1800) {
			t.Errorf("valid for %d s, preferred for %d s, not as the router said", a.ValidLft, a.PreferedLft)
		}
	}
}

// TestForgedForEver has a stranger answer the kernel alone, once for each address, where the
// router says that its network is good for ever: on a link of ours and on one of somebody
// else's, the address comes back, stays the kernel's, and is not set at each look of the node
// at its links. A cable that is out for a moment changes nothing of that.
func TestForgedForEver(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	const forEver = " { AdvPreferredLifetime infinity; AdvValidLifetime infinity; };"
	links := []string{"lan0", "lan1"}
	var made []netip.Prefix
	var ends []*segment
	for i, link := range links {
		network := fmt.Sprintf("2001:db8:%d::", i+1)
		s := newPeer(t, link, network+"1/64", "fe80::1/64")
		s.forge("", 1)
		s.radvd("prefix " + network + "/64" + forEver)
		ends, made = append(ends, s), append(made, madeUp(t, link, network+"/64"))
	}
	told := changes(t)
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], dhcp: false}, {match: lan1, dhcp: false, mtu: 1500}]", paths)
	inUse := func(link string, p netip.Prefix) bool {
		a, ok := addressOn(link, p)
		return ok && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED) == 0
	}
	for i, link := range links {
		until(t, "the address of "+link, func() bool { return inUse(link, made[i]) })
		for len(told) > 0 {
			<-told // until here it may have come and gone
		}
		rest(t, link, made[i], told)
	}
	for i, link := range links {
		ends[i].carrier(paths, false)
		ends[i].carrier(paths, true)
		until(t, "the router to name its network again", func() bool { return inUse(link, made[i]) })
		rest(t, link, made[i], told)
	}
}

// rest has the node look at its links ten times: meanwhile it neither removes an address that
// the kernel made up nor sets it each time, and before that it has not removed it either.
func rest(t *testing.T, link string, p netip.Prefix, told <-chan netlink.AddrUpdate) {
	t.Helper()
	const looks = 10
	set := 0
	count := func() {
		for len(told) > 0 {
			u := <-told
			if prefixOf(&u.LinkAddress) != p {
				continue
			}
			if set++; !u.NewAddr && u.Flags&unix.IFA_F_DADFAILED == 0 {
				t.Fatalf("%s was removed", p)
			}
		}
	}
	count()
	set = 0
	for range looks {
		look(t, link)
	}
	count()
	if set > looks/2 { // a router may have spoken, or the node have asked again
		t.Errorf("%s was set or changed %d times in %d looks", p, set, looks)
	}
	if a, ok := addressOn(link, p); !ok || a.Flags&unix.IFA_F_PERMANENT != 0 {
		t.Errorf("%s is no longer the kernel's", p)
	}
}

// look has the node look at its links: it has, when it knows this one's MTU.
func look(t *testing.T, link string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, netlink.LinkSetMTU(l, 1400))
	until(t, "the node to look", func() bool { l, err := netlink.LinkByName(link); return err == nil && l.Attrs().MTU == 1500 })
}

// TestForgedLate has a stranger answer the kernel alone, and say once more that an address is
// his when it has just come back: what the status says is not used is not used. It comes back
// once more.
func TestForgedLate(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s, _ := routed(t)
	s.forge("", 1)
	told := changes(t)
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	both := []netip.Prefix{madeUp(t, "lan0", "2001:db8:1::/64"), madeUp(t, "lan0", "fe80::/64")}
	for _, p := range both {
		until(t, p.String(), func() bool { return usableOn("lan0", p.String()) })
		s.say(p.Addr().String())
	}
	removed := make(map[netip.Prefix]bool)
	until(t, "the node to remove both", func() bool {
		for len(told) > 0 {
			if u := <-told; !u.NewAddr && u.Flags&unix.IFA_F_DADFAILED == 0 {
				removed[prefixOf(&u.LinkAddress)] = true
			}
		}
		return removed[both[0]] && removed[both[1]]
	})
	until(t, "both, and no problem", func() bool {
		return usableOn("lan0", both[0].String()) && usableOn("lan0", both[1].String()) && problem(paths) == ""
	})
}

// TestForgedMoved has a stranger answer the kernel alone, and then moves the cable into a
// network without a router: the address that came back leaves with its network, and stays away.
func TestForgedMoved(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	hurry(100 * time.Millisecond)
	paths := tempPaths(t)
	s, stop := routed(t)
	s.forge("", 1)
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], dhcp: false}]", paths)
	made := madeUp(t, "lan0", "2001:db8:1::/64")
	until(t, "the address", func() bool { return usableOn("lan0", made.String()) })
	s.carrier(paths, false)
	stop()
	told := changes(t)
	s.cable(true)
	until(t, "the old network to be over", func() bool {
		for len(told) > 0 {
			if u := <-told; !u.NewAddr && prefixOf(&u.LinkAddress) == made {
				return true
			}
		}
		return false
	})
	for range 5 {
		look(t, "lan0")
	}
	if _, there := addressOn("lan0", made); there {
		t.Errorf("%s is back", made)
	}
}

// TestForgerStops has a stranger answer twice for each address, and no more: all come into
// use, and nobody is named after that.
func TestForgerStops(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s, _ := routed(t)
	s.forge("", 2)
	usesAll(t)
}

// usesAll runs a node, and wants it to use 2001:db8::7 from node.yaml, the address in the
// router's network and the link-local one, and to have no problem.
func usesAll(t *testing.T) {
	t.Helper()
	paths := tempPaths(t)
	node(t, "network: [{match: lan0, dhcp: false, addresses: ['2001:db8::7/64']}]", paths)
	made, local := madeUp(t, "lan0", "2001:db8:1::/64"), madeUp(t, "lan0", "fe80::/64")
	until(t, "all addresses, and no problem", func() bool {
		return usableOn("lan0", "2001:db8::7/64") && usableOn("lan0", made.String()) && usableOn("lan0", local.String()) && problem(paths) == ""
	})
}

// TestForgedMAC has a stranger answer without end under the node's own MAC address, which the
// kernel believes: all addresses come into use.
func TestForgedMAC(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s, _ := routed(t)
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	s.forge(l.Attrs().HardwareAddr.String(), 0)
	usesAll(t)
}

// TestForgedLease6 has a stranger answer for whatever address DHCPv6 gives: three leases in
// a row are declined, the next is used, disputed.
func TestForgedLease6(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "2001:db8:1::1/64", "fe80::1/64")
	s.forge("", 0)
	s.dnsmasq("dhcp-range=2001:db8:1::100,2001:db8:1::1ff,64,1h")
	s.radvd("AdvManagedFlag on;", "prefix 2001:db8:1::/64 { AdvAutonomous off; };")
	node(t, "network: [{match: lan0, dhcp: false}]", paths)
	declined := make(map[string]bool)
	until(t, "a lease, disputed", func() bool {
		text := problem(paths)
		if i := strings.Index(text, "the lease of 2001:db8:1::1"); i >= 0 && strings.Contains(text, "was declined: "+s.mac()+" has the address") {
			declined[strings.Fields(text[i:])[3]] = true
		}
		n, _ := control.ReadNetwork(paths.Run)
		return len(n.Interfaces) == 1 && n.Interfaces[0].Lease6 != nil && disputed(paths, s.mac(), n.Interfaces[0].Lease6.Address)
	})
	if len(declined) != 3 {
		t.Errorf("declined were %v, not three", declined)
	}
}

// TestStaticLinkLocal has a link-local address in node.yaml: it is set once, and not at each
// look of the node at its links.
func TestStaticLinkLocal(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	newPeer(t, "lan0", "fe80::1/64")
	told := changes(t)
	node(t, "network: [{match: lan0, addresses: ['fe80::7/64'], dhcp: false}]", paths)
	until(t, "both addresses", func() bool {
		return usableOn("lan0", "fe80::7/64") && usableOn("lan0", madeUp(t, "lan0", "fe80::/64").String())
	})
	for range 5 {
		look(t, "lan0")
	}
	times := 0
	for len(told) > 0 {
		if u := <-told; prefixOf(&u.LinkAddress).String() == "fe80::7/64" {
			times++
		}
	}
	if times > 2 {
		t.Errorf("the address was set or changed %d times", times)
	}
}

// TestAnnounced6 has the kernel judge an announcement of ours: it gives up an address that it
// is about to use.
func TestAnnounced6(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newPeer(t, "lan0", "2001:db8::1/64")
	l, err := netlink.LinkByName("lan0")
	must(t, err)
	must(t, os.WriteFile(sysctl("ipv6", "lan0", "dad_transmits"), []byte("100"), 0))
	must(t, netlink.LinkSetUp(l))
	const address = "2001:db8::9/64"
	must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(address))}))
	voice := s.voice()
	until(t, "the kernel to believe it", func() bool {
		_ = voice.Send(claim.Announce, netip.MustParsePrefix(address).Addr()) // at first, there is no carrier
		actual, err := read(&kernel{}, Facts{Index: l.Attrs().Index, Name: "lan0"})
		return err == nil && slices.Contains(actual.Taken, netip.MustParsePrefix(address))
	})
}
