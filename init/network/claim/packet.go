package claim

import (
	"net"
	"net/netip"
)

// Packet is who has an address on an Ethernet: a packet of ARP for IPv4, a neighbour
// solicitation or advertisement for IPv6.
type Packet struct {
	Request   bool
	SenderMAC net.HardwareAddr
	Sender    netip.Addr // whose it is; unspecified in a question of somebody who has no address yet
	Target    netip.Addr // of a question
}

// Heard is what was heard on the link of that index.
type Heard struct {
	Link   int
	Packet Packet
}

// Means says what a packet means for a claim on the address a; own are the MAC addresses
// of the node's links, since one of them may answer for another. "": nothing.
//
// Sources: RFC 5227, 2.1.1 and 2.4; RFC 4862, 5.4.3 and 5.4.4.
func (p Packet) Means(a netip.Addr, own map[string]bool) Event {
	switch {
	case own[p.SenderMAC.String()]:
	case p.Sender == a:
		return Conflict
	case p.asks() && p.Target == a:
		return Asked
	}
	return ""
}

// asks says whether somebody asks who has an address that he wants for himself.
func (p Packet) asks() bool { return p.Request && p.Sender.IsUnspecified() }
