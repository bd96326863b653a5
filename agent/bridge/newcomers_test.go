package bridge

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNewcomers: a stranger on a link of the node's own who speaks in many names makes few of
// them known, and keeps none of those away that were there before.
func TestNewcomers(t *testing.T) {
	if !alone(t) {
		return
	}
	his := neighbour(t, "wide", "198.18.0.1/16", "198.18.0.2/16")
	must(t, writeSetting("ipv6/conf/wide/accept_dad", "0"))
	address(t, nil, "wide", "fd00::1/64")
	must(t, in(t, his, func() error { return writeSetting("ipv6/conf/eth0/accept_dad", "0") }))
	address(t, inside(t, his), "eth0", "fd00::2/64")
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	b.bounds.newcomers = 10
	apply(t, b, nil)
	for _, file := range []string{"ipv4/neigh/default/gc_thresh3", "ipv6/neigh/default/gc_thresh3"} {
		if text, err := os.ReadFile("/proc/sys/net/" + file); err == nil { // this machine's first namespace alone has it
			t.Logf("%s: %s", file, text)
		}
	}
	eth, err := inside(t, his).LinkByName("eth0")
	must(t, err)
	mac := eth.Attrs().HardwareAddr
	arp := func(from netip.Addr) []byte {
		return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac, from.AsSlice(), make([]byte, 6), []byte{198, 18, 0, 1})
	}
	node := netip.MustParseAddr("fd00::1")
	solicit := func(from netip.Addr) []byte {
		return icmp6(from, node, slices.Concat([]byte{neighbourSolicitation, 0, 0, 0, 0, 0, 0, 0}, node.AsSlice(), []byte{1, 1}, mac))
	}
	echo := func(from netip.Addr) []byte { return icmp6(from, node, []byte{128, 0, 0, 0, 0, 1, 0, 1}) }
	for _, c := range []struct {
		name        string
		family      int
		known, from netip.Addr
		protocol    uint16
		packet      func(from netip.Addr) []byte
	}{
		{"what the node answers", netlink.FAMILY_V6, netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::8:0"), unix.ETH_P_IPV6, echo},
		{"arp", netlink.FAMILY_V4, netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.7.0"), unix.ETH_P_ARP, arp},
		{"neighbour discovery", netlink.FAMILY_V6, netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::7:0"), unix.ETH_P_IPV6, solicit},
	} {
		t.Run(c.name, func(t *testing.T) {
			send(t, his, c.protocol, eth.Attrs().Index, c.packet(c.known))
			until(t, "the first one to be known", func() bool { return knowsOf(t, "wide", c.family, c.known) })
			begun := time.Now()
			before := neighboursOf(t, "wide", c.family)
			var all [][]byte
			for range 500 {
				c.from = c.from.Next()
				all = append(all, c.packet(c.from), c.packet(c.known))
			}
			send(t, his, c.protocol, eth.Attrs().Index, all...)
			n, most := neighboursOf(t, "wide", c.family)-before, 10+10*int(time.Since(begun).Seconds()+1)
			if n < 5 || n > most {
				t.Errorf("%d newcomers are known, 5 to %d may be", n, most)
			}
			if !knowsOf(t, "wide", c.family, c.known) {
				t.Error("the one from before is not known")
			}
		})
	}
}

func neighboursOf(t *testing.T, link string, family int) int {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	all, err := netlink.NeighList(l.Attrs().Index, family)
	must(t, err)
	return len(slices.DeleteFunc(all, func(n netlink.Neigh) bool { return n.State == netlink.NUD_NOARP }))
}

func knowsOf(t *testing.T, link string, family int, addr netip.Addr) bool {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	all, err := netlink.NeighList(l.Attrs().Index, family)
	must(t, err)
	return slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.IP.String() == addr.String() })
}

// icmp6 is a packet with a message of ICMPv6 whose sum is 0 still.
func icmp6(from, to netip.Addr, message []byte) []byte {
	sum := uint32(unix.IPPROTO_ICMPV6 + len(message))
	for all := slices.Concat(from.AsSlice(), to.AsSlice(), message); len(all) > 0; all = all[2:] {
		sum += uint32(binary.BigEndian.Uint16(all))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum>>16+sum))
	return slices.Concat([]byte{6 << 4, 0, 0, 0, 0, byte(len(message)), unix.IPPROTO_ICMPV6, 255}, from.AsSlice(), to.AsSlice(), message)
}

// send sends packets to all on a link of a namespace.
func send(t *testing.T, ns string, protocol uint16, link int, packets ...[]byte) {
	t.Helper()
	all := unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: link, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	must(t, in(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, &all); err != nil {
				return err
			}
		}
		return nil
	}))
}
