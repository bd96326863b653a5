package claim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is an ARP packet: who has an IPv4 address on an Ethernet.
type Packet struct {
	Request   bool
	SenderMAC net.HardwareAddr
	Sender    netip.Addr // unspecified in a question of somebody who has no address yet
	Target    netip.Addr
}

const arpSize = 28 // of Ethernet and IPv4

// Parse reads a packet without its Ethernet header; false: it is none of these, or
// cut short.
//
// Source: RFC 826.
func Parse(data []byte) (Packet, bool) {
	const ethernet, ipv4, request, reply = 1, unix.ETH_P_IP, 1, 2
	if len(data) < arpSize || binary.BigEndian.Uint16(data) != ethernet || binary.BigEndian.Uint16(data[2:]) != ipv4 || data[4] != 6 || data[5] != 4 {
		return Packet{}, false
	}
	op := binary.BigEndian.Uint16(data[6:])
	return Packet{
		Request: op == request, SenderMAC: net.HardwareAddr(data[8:14]),
		Sender: netip.AddrFrom4([4]byte(data[14:18])), Target: netip.AddrFrom4([4]byte(data[24:28])),
	}, op == request || op == reply
}

// bytes is a request in the form in which it is sent.
func (p Packet) bytes() []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(b, p.SenderMAC...)
	b = append(b, p.Sender.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, p.Target.AsSlice()...)
}

// Socket hears and sends ARP on one link.
type Socket struct {
	file  *os.File
	link  int // its index
	mac   net.HardwareAddr
	cares atomic.Pointer[[]netip.Addr]
	done  chan struct{}
}

// Open tells what it hears on the link of that index about the addresses of [Socket.Care],
// until Close. mac is the link's own. Whoever is told may be busy: then it is forgotten, and
// said again by whoever said it.
func Open(link int, mac net.HardwareAddr, told chan<- Heard) (*Socket, error) {
	if len(mac) != 6 {
		return nil, fmt.Errorf("watch for duplicate addresses: %q is no Ethernet address", mac)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("watch for duplicate addresses: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: link}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch for duplicate addresses: %w", err)
	}
	s := &Socket{file: os.NewFile(uintptr(fd), "arp"), link: link, mac: mac, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		data := make([]byte, 64)
		for {
			n, err := s.file.Read(data)
			if errors.Is(err, unix.ENETDOWN) {
				continue // the link was down in between
			}
			if err != nil {
				return
			}
			p, ok := Parse(data[:n])
			if !ok || !s.about(p) {
				continue
			}
			p.SenderMAC = append(net.HardwareAddr(nil), p.SenderMAC...)
			select {
			case told <- Heard{link, p}:
			default:
			}
			time.Sleep(20 * time.Millisecond) // whoever floods the network is not listened to all the time
		}
	}()
	return s, nil
}

// Heard is what was heard on the link of that index.
type Heard struct {
	Link   int
	Packet Packet
}

// Means says what a packet means for a claim on the address a; own are the MAC addresses
// of the node's links, since one of them may answer for another. "": nothing.
//
// Sources: RFC 5227, 2.1.1 and 2.4.
func (p Packet) Means(a netip.Addr, own map[string]bool) Event {
	switch {
	case own[p.SenderMAC.String()]:
	case p.Sender == a:
		return Conflict
	case p.Request && p.Sender.IsUnspecified() && p.Target == a:
		return Asked
	}
	return ""
}

// Care makes these the addresses that are told about.
func (s *Socket) Care(about []netip.Addr) { s.cares.Store(&about) }

// about says whether the packet is about an address of interest, and not from this link.
func (s *Socket) about(p Packet) bool {
	cares := s.cares.Load()
	if cares == nil || bytes.Equal(p.SenderMAC, s.mac) {
		return false
	}
	for _, a := range *cares {
		if p.Sender == a || p.Target == a && p.Sender.IsUnspecified() {
			return true
		}
	}
	return false
}

// Send broadcasts a probe for a, or an announcement of it.
func (s *Socket) Send(what Action, a netip.Addr) error {
	p := Packet{SenderMAC: s.mac, Sender: netip.IPv4Unspecified(), Target: a}
	if what == Announce {
		p.Sender = a
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: s.link, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	c, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = c.Control(func(fd uintptr) {
		// That the link was down once is told once, to whoever comes first.
		if sent = unix.Sendto(int(fd), p.bytes(), unix.MSG_DONTWAIT, to); sent == unix.ENETDOWN {
			sent = unix.Sendto(int(fd), p.bytes(), unix.MSG_DONTWAIT, to)
		}
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("%s %s: %w", what, a, err)
	}
	return nil
}

// Close ends the listening and waits for it.
func (s *Socket) Close() {
	s.file.Close()
	<-s.done
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
