package claim

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Frames of neighbour discovery: the headers of Ethernet and IPv6, then the message, a
// solicitation or an advertisement, and its options.
const (
	ethernetSize  = 14
	ipv6Size      = 40
	message       = ethernetSize + ipv6Size
	messageSize   = 24
	solicitation  = 135
	advertisement = 136
	farthest      = 255 // hops: whoever is further away is not listened to
)

// Flags of an advertisement: the sender is a router, it answers a question, it replaces
// what neighbours know.
const router, solicited, override = 0x80, 0x40, 0x20

// ParseND reads a frame with a neighbour solicitation or advertisement. An advertisement,
// and a solicitation that has a sender, say that an address is the sender's; one without a
// sender asks for its target. The MAC address is the frame's. false: it is none of these,
// cut short, or not valid.
//
// Source: RFC 4861, 4.3, 4.4, 7.1.1 and 7.1.2.
func ParseND(frame []byte) (Packet, bool) {
	if len(frame) < message+messageSize || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IPV6 {
		return Packet{}, false
	}
	ip := frame[ethernetSize:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != unix.IPPROTO_ICMPV6 || ip[7] != farthest || size < messageSize || size > len(ip)-ipv6Size {
		return Packet{}, false
	}
	from, to := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	said := ip[ipv6Size : ipv6Size+size]
	about := netip.AddrFrom16([16]byte(said[8:24]))
	if said[1] != 0 || checksum(from, to, said) != 0 || about.IsMulticast() || from.IsMulticast() {
		return Packet{}, false
	}
	for rest := said[messageSize:]; len(rest) > 0; {
		if len(rest) < 8 || rest[1] == 0 || int(rest[1])*8 > len(rest) {
			return Packet{}, false
		}
		rest = rest[int(rest[1])*8:]
	}
	p := Packet{SenderMAC: frame[6:12], Sender: about}
	switch {
	case said[0] == solicitation:
		p.Request, p.Sender, p.Target = true, from, about
		return p, !p.asks() || to == groupOf(about)
	case said[0] == advertisement:
		return p, !(to.IsMulticast() && said[4]&solicited != 0)
	}
	return Packet{}, false
}

// nd is a frame that asks who has the target or, of no request, tells all nodes that the
// sender has its address.
func (p Packet) nd(isRouter bool) []byte {
	to, said := netip.IPv6LinkLocalAllNodes(), []byte{advertisement, 0, 0, 0, override, 0, 0, 0}
	if isRouter {
		said[4] |= router
	}
	about := p.Sender
	if p.Request {
		to, said, about = groupOf(p.Target), []byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, p.Target
	}
	said = append(said, about.AsSlice()...)
	if !p.Request {
		const targetMAC = 2
		said = append(append(said, targetMAC, 1), p.SenderMAC...)
	}
	binary.BigEndian.PutUint16(said[2:], checksum(p.Sender, to, said))
	group := to.As16()
	b := append(net.HardwareAddr{0x33, 0x33}, group[12:]...) // RFC 2464, 7
	b = append(b, p.SenderMAC...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(said)))
	b = append(b, unix.IPPROTO_ICMPV6, farthest)
	b = append(append(b, p.Sender.AsSlice()...), to.AsSlice()...)
	return append(b, said...)
}

// groupOf is the multicast group in which a is asked for.
//
// Source: RFC 4291, 2.7.1.
func groupOf(a netip.Addr) netip.Addr {
	group, bytes := netip.MustParseAddr("ff02::1:ff00:0").As16(), a.As16()
	copy(group[13:], bytes[13:])
	return netip.AddrFrom16(group)
}

// checksum is that of an ICMPv6 message; of one that has it already, 0.
//
// Source: RFC 4443, 2.3.
func checksum(from, to netip.Addr, said []byte) uint16 {
	sum := uint32(len(said)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), said} {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// onlyND has the kernel pass on what [ParseND] may read: all else on the link is much more.
func onlyND() (*unix.SockFprog, error) {
	const most = 1500
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: ethernetSize + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 5},
		bpf.LoadAbsolute{Off: ethernetSize + 7, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: farthest, SkipTrue: 3},
		bpf.LoadAbsolute{Off: message, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: solicitation, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: advertisement, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: most},
	})
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, one := range program {
		filter[i] = unix.SockFilter{Code: one.Op, Jt: one.Jt, Jf: one.Jf, K: one.K}
	}
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}, nil
}
