package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"kogge.example/init/network/advert"
)

// This file is what is said between the node and its routers, and what the kernel keeps of it.

// doubt has the kernel send from other addresses than those that routers of before gave
// the link, unless they advertise them again.
func (k *kernel) doubt(f Facts) error {
	l, err := netlink.LinkByIndex(f.Index)
	if err != nil {
		return err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V6) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var all []error
	for _, a := range addrs {
		if a.Flags&(unix.IFA_F_PERMANENT|unix.IFA_F_DEPRECATED|unix.IFA_F_DADFAILED) == 0 {
			flags := a.Flags & (unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE)
			all = append(all, set(f, prefixOf(a.IPNet), min(uint32(a.ValidLft), longestMade), 0, uint32(flags)))
		}
	}
	return errors.Join(all...)
}

// sweep takes away from a link what routers of before its inquiry said and none has said
// since, and returns how many addresses and routes that were.
func (k *kernel) sweep(f Facts, q inquiry) (int, error) {
	l, err := netlink.LinkByIndex(f.Index)
	if err != nil {
		return 0, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V6) })
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	var have learned
	for _, a := range addrs {
		// The kernel marks those that it makes up for a network so, and their temporary ones.
		if a.Flags&(unix.IFA_F_MANAGETEMPADDR|unix.IFA_F_TEMPORARY) != 0 {
			have.advertised = append(have.advertised, prefixOf(a.IPNet))
		} else {
			have.others = append(have.others, prefixOf(a.IPNet))
		}
		if a.Peer != nil {
			have.others = append(have.others, prefixOf(a.Peer))
		}
	}
	in := func(protocol netlink.RouteProtocol) ([]Route, error) {
		like := &netlink.Route{LinkIndex: f.Index, Protocol: protocol, Table: unix.RT_TABLE_MAIN}
		all, err := k.routes(like, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		return slices.DeleteFunc(all, func(r Route) bool { return r.To.Addr().Is4() }), err
	}
	near, err := in(unix.RTPROT_KERNEL)
	if err != nil {
		return 0, err
	}
	for _, r := range near {
		have.networks = append(have.networks, r.To)
	}
	if have.byRouter, err = in(unix.RTPROT_RA); err != nil {
		return 0, err
	}
	addresses, networks, byRouter := q.stale(have)
	var all []error
	remove := func(r Route, protocol netlink.RouteProtocol) {
		out := routeOf(f, r)
		out.Protocol, out.Scope = protocol, netlink.SCOPE_UNIVERSE
		if err := netlink.RouteDel(out); err != nil && !errors.Is(err, unix.ESRCH) {
			all = append(all, fmt.Errorf("remove route %s of a router that is gone: %w", r, err))
		}
	}
	for _, a := range addresses {
		if err := netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			all = append(all, fmt.Errorf("remove address %s of a router that is gone: %w", a, err))
		}
	}
	for _, r := range near {
		if slices.Contains(networks, r.To) {
			remove(r, unix.RTPROT_KERNEL)
		}
	}
	for _, r := range byRouter {
		remove(r, unix.RTPROT_RA)
	}
	return len(addresses) + len(networks) + len(byRouter), errors.Join(all...)
}

// routerAdvert is that a router has spoken, and which networks it says are at the link.
type routerAdvert struct {
	index    int
	from     netip.Addr // link-local, without a zone
	prefixes []netip.Prefix
}

// hear passes on which routers speak, until ctx ends. The kernel says only what changes by it.
func (k *kernel) hear(ctx context.Context) error {
	c, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return fmt.Errorf("hear routers: %w", err)
	}
	p := ipv6.NewPacketConn(c)
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterAdvertisement)
	if err := errors.Join(p.SetICMPFilter(&f), p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true)); err != nil {
		c.Close()
		return fmt.Errorf("hear routers: %w", err)
	}
	go func() {
		<-ctx.Done()
		c.Close()
	}()
	go func() {
		buf := make([]byte, 1<<16)
		for ctx.Err() == nil {
			n, info, from, err := p.ReadFrom(buf)
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
				continue
			}
			ip, ok := from.(*net.IPAddr)
			prefixes, good := advert.ParseNetworks(buf[:n])
			const most = 255 // hops: it comes from the link itself
			if !ok || !good || info == nil || info.HopLimit != most || !ip.IP.IsLinkLocalUnicast() {
				continue
			}
			select {
			case k.routers <- routerAdvert{info.IfIndex, addrOf(ip.IP), prefixes}:
			case <-ctx.Done():
			}
		}
	}()
	return nil
}

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
