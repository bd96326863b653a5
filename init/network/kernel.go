package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// ours marks the routes that this package made, so that it removes no others:
// RTPROT_STATIC, "installed by administrator".
const ours = netlink.RouteProtocol(unix.RTPROT_STATIC)

// kernel is the network as the kernel has it.
type kernel struct {
	changed   chan struct{}      // something about links or addresses; holds one
	resolvers chan advertisement // from router advertisements
	failed    chan error         // the messages have ended
}

// openKernel subscribes to the kernel's messages until ctx ends. They only say
// that something changed: what, is read anew, so a lost message costs nothing but
// time.
func openKernel(ctx context.Context) (*kernel, error) {
	k := &kernel{changed: make(chan struct{}, 1), resolvers: make(chan advertisement), failed: make(chan error, 2)}
	links, addrs := make(chan netlink.LinkUpdate, 16), make(chan netlink.AddrUpdate, 16)
	// An overrun ends the library's loop with an error here; the service restarts.
	fail := func(err error) {
		select {
		case k.failed <- err:
		default:
		}
	}
	err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: fail})
	if err != nil {
		return nil, fmt.Errorf("subscribe to links: %w", err)
	}
	err = netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: fail})
	if err != nil {
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	adverts, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_ND_USEROPT)
	if err != nil {
		return nil, fmt.Errorf("subscribe to router advertisements: %w", err)
	}
	go func() {
		for links != nil || addrs != nil {
			select {
			case _, ok := <-links:
				if !ok {
					links = nil
				}
			case _, ok := <-addrs:
				if !ok {
					addrs = nil
				}
			}
			select {
			case k.changed <- struct{}{}:
			default:
			}
		}
	}()
	go func() {
		<-ctx.Done()
		adverts.Close()
	}()
	go k.listen(ctx, adverts)
	return k, nil
}

// listen passes resolvers on until ctx ends.
func (k *kernel) listen(ctx context.Context, s *nl.NetlinkSocket) {
	for ctx.Err() == nil {
		messages, _, err := s.Receive()
		if err != nil {
			// Overrun or end; the next advertisement says it all again.
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWNDUSEROPT {
				continue
			}
			for _, a := range parseAdvertisement(m.Data) {
				select {
				case k.resolvers <- a:
				case <-ctx.Done():
				}
			}
		}
	}
}

func (k *kernel) loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

// dump asks again for a list that changed while the kernel told it.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for tries := 1; ; tries++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || tries == 8 {
			return all, err
		}
	}
}

// links lists all links.
func (k *kernel) links() ([]Facts, error) {
	all, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var facts []Facts
	for _, l := range all {
		a := l.Attrs()
		_, err := os.Stat(filepath.Join("/sys/class/net", a.Name, "phy80211"))
		facts = append(facts, Facts{
			Index: a.Index, Name: a.Name, MAC: a.HardwareAddr.String(),
			Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, MTU: a.MTU,
			// Whatever software makes has a kind: bridge, veth, tun, vlan …
			Wired: l.Type() == "device" && a.EncapType == "ether" && err != nil,
		})
	}
	return facts, nil
}

// read returns the state of a link, as far as it is ours to change.
func (k *kernel) read(f Facts) (State, error) {
	l, err := netlink.LinkByIndex(f.Index)
	if err != nil {
		return State{}, err
	}
	s := State{Up: l.Attrs().RawFlags&unix.IFF_UP != 0, MTU: l.Attrs().MTU, IPv6: readIPv6(f.Name), PassOver: readPassOver(f.Name)}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return s, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		p := prefixOf(a.IPNet)
		// Of IPv6, the link-local address and those with a lifetime are the kernel's.
		if p.Addr().Is6() && (p.Addr().IsLinkLocalUnicast() || a.Flags&unix.IFA_F_PERMANENT == 0) {
			continue
		}
		s.Addresses = append(s.Addresses, p)
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{LinkIndex: f.Index, Protocol: ours, Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return s, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		out := Route{Metric: r.Priority, OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0}
		if r.Gw != nil {
			out.Via = addrOf(r.Gw)
		}
		if r.Dst != nil {
			out.To = prefixOf(r.Dst)
		} else if r.Family == netlink.FAMILY_V4 {
			out.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		} else {
			out.To = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		s.Routes = append(s.Routes, out)
	}
	return s, nil
}

// do carries out one operation.
func (k *kernel) do(f Facts, op Op) error {
	l, err := netlink.LinkByIndex(f.Index)
	if err != nil {
		return err
	}
	switch {
	case op.IPv6 != "":
		return writeIPv6(f.Name, op.IPv6)
	case op.PassOver:
		return writePassOver(f.Name)
	case op.MTU != 0:
		return netlink.LinkSetMTU(l, op.MTU)
	case op.Up:
		return netlink.LinkSetUp(l)
	case op.DelAddress.IsValid():
		return netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(op.DelAddress)})
	case op.AddAddress.IsValid():
		a := &netlink.Addr{IPNet: ipNet(op.AddAddress)}
		if op.AddAddress.Addr().Is6() {
			// The operator chose it: waiting for duplicate detection would only keep
			// services from binding it at boot.
			a.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrReplace(l, a)
	case op.DelRoute != nil:
		return netlink.RouteDel(routeOf(f, *op.DelRoute))
	case op.ReplaceRoute != nil:
		return netlink.RouteReplace(routeOf(f, *op.ReplaceRoute))
	case op.Down:
		return netlink.LinkSetDown(l)
	}
	return nil
}

func routeOf(f Facts, r Route) *netlink.Route {
	out := &netlink.Route{LinkIndex: f.Index, Dst: ipNet(r.To), Priority: r.Metric, Protocol: ours, Table: unix.RT_TABLE_MAIN}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		out.Flags = int(netlink.FLAG_ONLINK)
	}
	return out
}

// describe says what the status file has about a link. IPv6 addresses of every
// kind are in it, link-local ones last.
func (k *kernel) describe(f Facts) (control.Interface, error) {
	i := control.Interface{Name: f.Name, MAC: f.MAC, Carrier: f.Carrier}
	l, err := netlink.LinkByIndex(f.Index)
	if err != nil {
		return i, err
	}
	i.MTU = l.Attrs().MTU
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return i, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE == 0 {
			i.Addresses = append(i.Addresses, prefixOf(a.IPNet))
		}
	}
	slices.SortStableFunc(i.Addresses, func(a, b netip.Prefix) int {
		return btoi(a.Addr().IsLinkLocalUnicast()) - btoi(b.Addr().IsLinkLocalUnicast())
	})
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return i, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw != nil && (r.Dst == nil || prefixOf(r.Dst).Bits() == 0) {
			i.Gateway = append(i.Gateway, addrOf(r.Gw))
		}
	}
	return i, nil
}

// settings are the sysctls of a link by what IPv6 is to be. accept_ra 2 holds also
// on a node that forwards packets for its containers.
func settings(v nodeconfig.IPv6) [][2]string {
	switch v {
	case nodeconfig.IPv6Off:
		return [][2]string{{"disable_ipv6", "1"}}
	case nodeconfig.IPv6Static:
		return [][2]string{{"accept_ra", "0"}, {"autoconf", "0"}, {"disable_ipv6", "0"}}
	}
	return [][2]string{{"accept_ra", "2"}, {"autoconf", "1"}, {"disable_ipv6", "0"}}
}

// passOver are the files that say whether routes of a link without a carrier count.
// A kernel without IPv6 lacks the second.
//
// Source: Documentation/networking/ip-sysctl.rst in the kernel tree.
func passOver(link string) []string {
	return []string{sysctl("ipv4", link, "ignore_routes_with_linkdown"), sysctl("ipv6", link, "ignore_routes_with_linkdown")}
}

func readPassOver(link string) bool {
	return !slices.ContainsFunc(passOver(link), func(file string) bool {
		have, err := os.ReadFile(file)
		return !errors.Is(err, os.ErrNotExist) && strings.TrimSpace(string(have)) != "1"
	})
}

func writePassOver(link string) error {
	var all []error
	for _, file := range passOver(link) {
		if err := os.WriteFile(file, []byte("1"), 0); !errors.Is(err, os.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func sysctl(family, link, name string) string {
	return filepath.Join("/proc/sys/net", family, "conf", link, name)
}

// readIPv6 returns which of the three a link is set to, or "" for none. A kernel
// without IPv6 has it off.
func readIPv6(link string) nodeconfig.IPv6 {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return nodeconfig.IPv6Off
	}
	for _, v := range []nodeconfig.IPv6{nodeconfig.IPv6Off, nodeconfig.IPv6Static, nodeconfig.IPv6Auto} {
		if !slices.ContainsFunc(settings(v), func(s [2]string) bool {
			have, err := os.ReadFile(sysctl("ipv6", link, s[0]))
			return err != nil || strings.TrimSpace(string(have)) != s[1]
		}) {
			return v
		}
	}
	return ""
}

func writeIPv6(link string, v nodeconfig.IPv6) error {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return fmt.Errorf("this kernel has no IPv6: %w", err)
	}
	for _, s := range settings(v) {
		if err := os.WriteFile(sysctl("ipv6", link, s[0]), []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
