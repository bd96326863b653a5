package claim

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const arpSize = 28 // of Ethernet and IPv4

// ParseARP reads a packet of ARP without its Ethernet header; false: it is none of these, or
// cut short.
//
// Source: RFC 826.
func ParseARP(data []byte) (Packet, bool) {
	const ethernet, ipv4, request, reply = 1, unix.ETH_P_IP, 1, 2
	if len(data) < arpSize || binary.BigEndian.Uint16(data) != ethernet || binary.BigEndian.Uint16(data[2:]) != ipv4 || data[4] != 6 || data[5] != 4 {
		return Packet{}, false
	}
	op := binary.BigEndian.Uint16(data[6:])
	return Packet{
		Request: op == request, SenderMAC: data[8:14],
		Sender: netip.AddrFrom4([4]byte(data[14:18])), Target: netip.AddrFrom4([4]byte(data[24:28])),
	}, op == request || op == reply
}

// arp is a request in the form in which it is sent.
func (p Packet) arp() []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(b, p.SenderMAC...)
	b = append(b, p.Sender.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, p.Target.AsSlice()...)
}
