package claim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Socket hears and sends ARP and neighbour discovery on one link.
type Socket struct {
	arp, nd *os.File
	member  int // of the groups in which the addresses of Care are asked for; -1: no IPv6
	groups  []netip.Addr
	link    int // its index
	mac     net.HardwareAddr
	cares   atomic.Pointer[[]netip.Addr]
	done    sync.WaitGroup
}

// Open tells what it hears on the link of that index about the addresses of [Socket.Care],
// until Close. mac is the link's own. Whoever is told may be busy: then it is forgotten, and
// said again by whoever said it.
func Open(link int, mac net.HardwareAddr, told chan<- Heard) (*Socket, error) {
	s, err := open(link, mac)
	if err != nil {
		return nil, fmt.Errorf("watch for duplicate addresses: %w", err)
	}
	s.done.Go(func() { s.hear(s.arp, ParseARP, told) })
	s.done.Go(func() { s.hear(s.nd, ParseND, told) })
	return s, nil
}

func open(link int, mac net.HardwareAddr) (*Socket, error) {
	if len(mac) != 6 {
		return nil, fmt.Errorf("%q is no Ethernet address", mac)
	}
	filter, err := onlyND()
	if err != nil {
		return nil, err
	}
	s := &Socket{link: link, mac: mac}
	if s.arp, err = packets(link, unix.SOCK_DGRAM, unix.ETH_P_ARP, nil); err != nil {
		return nil, err
	}
	if s.nd, err = packets(link, unix.SOCK_RAW, unix.ETH_P_IPV6, filter); err != nil {
		s.arp.Close()
		return nil, err
	}
	s.member, _ = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return s, nil
}

// packets is a socket for all packets of a protocol on a link that pass the filter.
func packets(link, kind int, protocol uint16, filter *unix.SockFprog) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if filter != nil {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: link})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packets"), nil
}

// hear tells what comes from a file, until it is closed.
func (s *Socket) hear(file *os.File, parse func([]byte) (Packet, bool), told chan<- Heard) {
	data := make([]byte, 1500)
	for {
		n, err := file.Read(data)
		if errors.Is(err, unix.ENETDOWN) {
			continue // the link was down in between
		}
		if err != nil {
			return
		}
		p, ok := parse(data[:n])
		if !ok || !s.about(p) {
			continue
		}
		p.SenderMAC = bytes.Clone(p.SenderMAC)
		select {
		case told <- Heard{s.link, p}:
		default:
		}
		time.Sleep(20 * time.Millisecond) // whoever floods the network is not listened to all the time
	}
}

// Care makes these the addresses that are told about. Of overheard ones is told what is said to
// all.
func (s *Socket) Care(about []netip.Addr, overheard ...netip.Addr) {
	all := slices.Concat(about, overheard)
	s.cares.Store(&all)
	var groups []netip.Addr
	for _, a := range about {
		if a.Is6() && !slices.Contains(groups, groupOf(a)) {
			groups = append(groups, groupOf(a))
		}
	}
	// Answers come to all nodes and are heard without it, so a failure is none. The next
	// call tries again.
	change := func(option int, group netip.Addr) error {
		return unix.SetsockoptIPv6Mreq(s.member, unix.IPPROTO_IPV6, option, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(s.link)})
	}
	s.groups = slices.DeleteFunc(s.groups, func(group netip.Addr) bool {
		return !slices.Contains(groups, group) && change(unix.IPV6_LEAVE_GROUP, group) == nil
	})
	for _, group := range groups {
		if !slices.Contains(s.groups, group) && change(unix.IPV6_JOIN_GROUP, group) == nil {
			s.groups = append(s.groups, group)
		}
	}
}

// about says whether the packet is about an address of interest, and not from this link.
func (s *Socket) about(p Packet) bool {
	cares := s.cares.Load()
	if cares == nil || bytes.Equal(p.SenderMAC, s.mac) {
		return false
	}
	return slices.ContainsFunc(*cares, func(a netip.Addr) bool { return p.Sender == a || p.Target == a && p.asks() })
}

// Send asks all whether they have a, or announces to them that it is ours.
func (s *Socket) Send(what Action, a netip.Addr) error {
	p := Packet{Request: true, SenderMAC: s.mac, Sender: netip.IPv6Unspecified(), Target: a}
	if a.Is4() {
		p.Sender = netip.IPv4Unspecified()
	}
	if what == Announce {
		p.Sender, p.Request = a, a.Is4() // ARP announces by a question
	}
	file, data := s.arp, []byte(nil)
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: s.link, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	if a.Is4() {
		data = p.arp()
	} else {
		file, data = s.nd, p.nd(!p.Request && forwards(s.link))
		to = &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IPV6), Ifindex: s.link}
	}
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = c.Control(func(fd uintptr) {
		// That the link was down once is told once, to whoever comes first.
		if sent = unix.Sendto(int(fd), data, unix.MSG_DONTWAIT, to); sent == unix.ENETDOWN {
			sent = unix.Sendto(int(fd), data, unix.MSG_DONTWAIT, to)
		}
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("%s %s: %w", what, a, err)
	}
	return nil
}

// forwards says whether the node is a router on the link of that index. Neighbours take it
// from each advertisement, so all have to say the same as the kernel's.
func forwards(link int) bool {
	i, err := net.InterfaceByIndex(link)
	if err != nil {
		return false
	}
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", i.Name, "forwarding"))
	return err == nil && strings.TrimSpace(string(text)) != "0"
}

// Close ends the listening and waits for it.
func (s *Socket) Close() {
	s.arp.Close()
	s.nd.Close()
	if s.member >= 0 {
		unix.Close(s.member)
	}
	s.done.Wait()
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
