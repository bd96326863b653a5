package mdns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// maxMessage is the longest message that anybody may send (RFC 6762, section 17).
const maxMessage = 9000

const (
	// maxQuestions and maxRecords of one message: those of a network that is joined by a repeater.
	maxQuestions = 32
	maxRecords   = 128
	// budgetRate messages a second are looked at on a socket, and budgetOnce after a rest.
	budgetRate = 100
	budgetOnce = 400
)

// hops is the hop limit of what is said here (section 11).
const hops = 255

// socket speaks one of the two families on one link.
type socket struct {
	*net.UDPConn
	group netip.AddrPort // everybody on the link
}

// open returns the sockets of a link at a port (0: any), beside those of others who speak
// multicast DNS here: for IPv4, IPv6 or both, as the link has them. Each takes nothing
// that comes by another link.
func open(name string, port uint16) ([]*socket, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	var all []*socket
	var failed []error
	for _, family := range []struct {
		network, address string
		group            netip.Addr
		join             func(net.PacketConn, *net.Interface, net.Addr) error
	}{
		{"udp4", "0.0.0.0", group4, join4}, {"udp6", "::", group6.WithZone(name), join6},
	} {
		s, err := listen(family.network, netip.AddrPortFrom(netip.MustParseAddr(family.address), port), name)
		if err == nil {
			s.group = netip.AddrPortFrom(family.group, Port)
			if err = family.join(s, link, net.UDPAddrFromAddrPort(s.group)); err != nil {
				s.Close()
			}
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", family.network, err))
			continue
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, errors.Join(failed...)
	}
	return all, nil // a link may well be without one of the two
}

// listen opens a socket that is bound to a device.
func listen(network string, at netip.AddrPort, device string) (*socket, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if failed == nil {
				failed = unix.BindToDevice(int(fd), device)
			}
		})
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(context.Background(), network, at.String())
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: conn.(*net.UDPConn)}, nil
}

func join4(c net.PacketConn, link *net.Interface, group net.Addr) error {
	p := ipv4.NewPacketConn(c)
	return errors.Join(p.JoinGroup(link, group), p.SetMulticastInterface(link), p.SetMulticastTTL(hops), p.SetTTL(hops), p.SetMulticastLoopback(false))
}

func join6(c net.PacketConn, link *net.Interface, group net.Addr) error {
	p := ipv6.NewPacketConn(c)
	return errors.Join(p.JoinGroup(link, group), p.SetMulticastInterface(link), p.SetMulticastHopLimit(hops), p.SetHopLimit(hops), p.SetMulticastLoopback(false))
}

// send sends a message. Where it cannot be said now, it is asked for again.
func (s *socket) send(m *dns.Msg, to netip.AddrPort) error {
	packed, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = s.WriteToUDPAddrPort(packed, to)
	return err
}

// read reads messages until the socket is closed. What is none is passed over, and so is,
// unread, who is not wanted and what is too much to be looked at. wanted is nil for everybody.
func (s *socket) read(wanted func(from netip.Addr) bool, got func(from netip.AddrPort, m *dns.Msg)) {
	buffer := make([]byte, maxMessage)
	for {
		n, from, err := s.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of something that was sent before: nobody listens there
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if wanted != nil && !wanted(from.Addr()) {
			continue
		}
		if m := unpack(buffer[:n]); m != nil {
			got(from, m)
		}
	}
}

// unpack is the one way in: what a message says, which is no more than [maxQuestions] questions
// and [maxRecords] records. nil is for what is no message, or too much.
func unpack(raw []byte) *dns.Msg {
	m := new(dns.Msg)
	if !moderate(raw) || m.Unpack(raw) != nil {
		return nil
	}
	return m
}

// moderate says whether a message has no more in it than one of a working machine has. Its
// bytes alone bound little: each of a thousand questions can be six bytes that point at one
// name of 255, which are a thousand characters when they are written out.
//
// Source: RFC 1035, section 4.1.1.
func moderate(raw []byte) bool {
	if len(raw) < 12 {
		return false
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(raw[at:])) }
	return count(4) <= maxQuestions && count(6)+count(8)+count(10) <= maxRecords
}

// budget is how much of what a neighbour sends is looked at: so many messages a second, and
// some more at once. Its zero value has nothing yet.
type budget struct {
	left float64
	at   time.Time
}

// take says whether one more may be looked at.
func (b *budget) take(now time.Time) bool {
	b.left = min(budgetOnce, b.left+budgetRate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
