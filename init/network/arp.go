package network

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

// arp is a packet about who has an IPv4 address on an Ethernet.
type arp struct {
	request   bool
	senderMAC net.HardwareAddr
	sender    netip.Addr // unspecified in a question of somebody who has no address yet
	target    netip.Addr
}

const arpSize = 28 // of Ethernet and IPv4

// parseARP reads a packet without its Ethernet header; false: it is none of these, or
// cut short.
//
// Source: RFC 826.
func parseARP(data []byte) (arp, bool) {
	const ethernet, ipv4, request, reply = 1, unix.ETH_P_IP, 1, 2
	if len(data) < arpSize || binary.BigEndian.Uint16(data) != ethernet || binary.BigEndian.Uint16(data[2:]) != ipv4 || data[4] != 6 || data[5] != 4 {
		return arp{}, false
	}
	op := binary.BigEndian.Uint16(data[6:])
	return arp{
		request: op == request, senderMAC: net.HardwareAddr(data[8:14]),
		sender: addrOf(data[14:18]), target: addrOf(data[24:28]),
	}, op == request || op == reply
}

// bytes is a request in the form in which it is sent.
func (p arp) bytes() []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(b, p.senderMAC...)
	b = append(b, p.sender.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, p.target.AsSlice()...)
}

// arpSocket hears and sends ARP on one link.
type arpSocket struct {
	file  *os.File
	index int // of the link
	mac   net.HardwareAddr
	cares atomic.Pointer[[]netip.Addr] // only packets about these are told
	done  chan struct{}
}

// openARP tells what it hears about addresses of interest until Close. Whoever is told
// may be busy: then it is forgotten, and said again by whoever said it.
func openARP(f Facts, told chan<- arpEvent) (*arpSocket, error) {
	mac, err := net.ParseMAC(f.MAC)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("watch for duplicate addresses: %q is no Ethernet address", f.MAC)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("watch for duplicate addresses: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: f.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch for duplicate addresses: %w", err)
	}
	s := &arpSocket{file: os.NewFile(uintptr(fd), "arp "+f.Name), index: f.Index, mac: mac, done: make(chan struct{})}
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
			p, ok := parseARP(data[:n])
			if !ok || !s.about(p) {
				continue
			}
			p.senderMAC = append(net.HardwareAddr(nil), p.senderMAC...)
			select {
			case told <- arpEvent{f.Index, p}:
			default:
			}
			time.Sleep(20 * time.Millisecond) // whoever floods the network is not listened to all the time
		}
	}()
	return s, nil
}

// arpEvent is what was heard on link index.
type arpEvent struct {
	index int
	arp   arp
}

// about says whether the packet is about an address of interest, and not from this link.
func (s *arpSocket) about(p arp) bool {
	cares := s.cares.Load()
	if cares == nil || bytes.Equal(p.senderMAC, s.mac) {
		return false
	}
	for _, a := range *cares {
		if p.sender == a || p.target == a && p.sender.IsUnspecified() {
			return true
		}
	}
	return false
}

// send broadcasts a probe for a, or an announcement of it.
func (s *arpSocket) send(what Action, a netip.Addr) error {
	p := arp{senderMAC: s.mac, sender: netip.IPv4Unspecified(), target: a}
	if what == Announce {
		p.sender = a
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: s.index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
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
func (s *arpSocket) Close() {
	s.file.Close()
	<-s.done
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
