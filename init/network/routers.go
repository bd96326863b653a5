package network

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/nodeconfig"
)

// inquire asks the routers at the link's cable who they are: what they said to an earlier run
// of this service it does not know. replugged says that the cable has been out. What routers
// of before said is over soon after the first has answered then, unless it is said again.
func (m *manager) inquire(l *link, replugged bool, now time.Time) {
	if cmp.Or(l.entry.IPv6, nodeconfig.IPv6Auto) != nodeconfig.IPv6Auto {
		return
	}
	l.doubted, l.solicits, l.nextSolicit = replugged, len(solicitGaps), now
	if !replugged {
		return
	}
	if err := m.kernel.doubt(l.facts); err != nil {
		log.Printf("network: %s: %v", l.facts.Name, err)
	}
}

// solicit asks once more, when it is time.
func (m *manager) solicit(l *link, now time.Time) {
	if l.solicits == 0 || now.Before(l.nextSolicit) || !l.facts.Carrier {
		return
	}
	l.nextSolicit = now.Add(solicitGaps[len(solicitGaps)-l.solicits])
	l.solicits--
	// Without an address to ask from, the kernel asks as soon as it has one.
	if err := m.kernel.solicit(l.facts); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		log.Printf("network: %s: %v", l.facts.Name, err)
	}
}

// solicitGaps grow: a switch may take half a minute until it passes packets on (RFC 7559).
var solicitGaps = []time.Duration{time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 64 * time.Second, 128 * time.Second}

// solicit asks the routers on a link to advertise themselves: the kernel does so when a link
// is set up, and not when its cable comes back.
//
// Source: RFC 4861, sections 4.1 and 6.3.7.
func (k *kernel) solicit(f Facts) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return fmt.Errorf("solicit routers: %w", err)
	}
	defer unix.Close(fd)
	const solicitation, most = 133, 255 // hops: who is further away is not listened to
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, f.Index),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, most),
		// The kernel puts in the checksum.
		unix.Sendto(fd, []byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, unix.MSG_DONTWAIT,
			&unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::2").As16(), ZoneId: uint32(f.Index)}),
	)
	if err != nil {
		return fmt.Errorf("solicit routers: %w", err)
	}
	return nil
}
