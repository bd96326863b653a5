package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"kogge.example/init/network/advert"
	"kogge.example/init/network/dhcp"
)

// ours marks the routes that this package made, so that it removes no others:
// RTPROT_STATIC, "installed by administrator".
const ours = netlink.RouteProtocol(unix.RTPROT_STATIC)

// kernel is the network as the kernel has it.
type kernel struct {
	changed   chan struct{}     // something about links or routes; holds one
	addressed chan struct{}     // something about addresses; holds one
	resolvers chan advert.Named // from router advertisements
	refused   chan gaveUp       // addresses that the kernel made up and gave up
	routers   chan routerAdvert // that have spoken
	failed    chan error        // the messages have ended
}

// openKernel subscribes to the kernel's messages until ctx ends. They only say
// that something changed: what, is read anew, so a lost message costs nothing but
// time.
func openKernel(ctx context.Context) (*kernel, error) {
	k := &kernel{changed: make(chan struct{}, 1), addressed: make(chan struct{}, 1), resolvers: make(chan advert.Named), routers: make(chan routerAdvert), refused: make(chan gaveUp, 16), failed: make(chan error, 2)}
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
	adverts, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_ND_USEROPT, unix.RTNLGRP_IPV6_IFINFO, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to router advertisements: %w", err)
	}
	go func() {
		for links != nil || addrs != nil {
			var news chan struct{}
			select {
			case _, ok := <-links:
				if news = k.changed; !ok {
					links = nil
				}
			case u, ok := <-addrs:
				if news = k.addressed; !ok {
					addrs = nil
				}
				k.lost(u)
			}
			select {
			case news <- struct{}{}:
			default:
			}
		}
	}()
	go func() {
		<-ctx.Done()
		adverts.Close()
	}()
	go k.listen(ctx, adverts)
	if err := k.hear(ctx); err != nil { // a kernel without IPv6
		log.Printf("network: %v", err)
	}
	return k, nil
}

// gaveUp is an address that the kernel made up on the link of that index, and gave up since
// somebody else says that it is his.
type gaveUp struct {
	index int
	made  Made
}

// lost tells that the kernel gave one up. If nobody has time for it, there is another after the router's next
// advertisement.
func (k *kernel) lost(u netlink.AddrUpdate) {
	if u.NewAddr || u.Flags&unix.IFA_F_DADFAILED == 0 || u.Flags&(unix.IFA_F_PERMANENT|unix.IFA_F_TEMPORARY) != 0 {
		return
	}
	select {
	case k.refused <- gaveUp{u.LinkIndex, madeOf(prefixOf(&u.LinkAddress), u.Flags, u.ValidLft, u.PreferedLft)}:
	default:
	}
}

// madeOf is an address with the flags and the seconds that the kernel tells.
func madeOf(p netip.Prefix, flags, valid, preferred int) Made {
	until := func(seconds int) time.Time {
		if uint32(seconds) == math.MaxUint32 {
			return time.Time{}
		}
		return time.Now().Add(time.Duration(uint32(seconds)) * time.Second)
	}
	return Made{
		Prefix: p, Valid: until(valid), Preferred: until(preferred),
		Tentative: flags&unix.IFA_F_TENTATIVE != 0, Temporaries: flags&unix.IFA_F_MANAGETEMPADDR != 0,
	}
}

// listen passes resolvers on, and that a router's flags or routes changed, until ctx ends.
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
			const protocol = 5 // in struct rtmsg
			route := m.Header.Type == unix.RTM_NEWROUTE || m.Header.Type == unix.RTM_DELROUTE
			if m.Header.Type == unix.RTM_NEWLINK || route && len(m.Data) > protocol && m.Data[protocol] == unix.RTPROT_RA {
				select {
				case k.changed <- struct{}{}:
				default:
				}
			}
			if m.Header.Type != unix.RTM_NEWNDUSEROPT {
				continue
			}
			for _, a := range advert.ParseNamed(m.Data) {
				select {
				case k.resolvers <- a:
				case <-ctx.Done():
				}
			}
		}
	}
}

// uptime is the time since the node's start, by a clock that nobody sets.
func uptime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // every kernel that we run on has it
	return time.Duration(t.Nano())
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

// flags are those of the last router advertisement on each link, by index.
//
// Source: IFLA_INET6_FLAGS in include/uapi/linux/if_link.h, IF_RA_* in include/net/if_inet6.h
// of the kernel tree.
func (k *kernel) flags() (map[int]dhcp.Flags, error) {
	const inet6Flags, otherConf, managed = 1, 0x80, 0x40
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_INET6))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("list routers' flags: %w", err)
	}
	all := make(map[int]dhcp.Flags)
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		index := int(nl.DeserializeIfInfomsg(m).Index)
		attributes, err := nl.ParseRouteAttrAsMap(m[unix.SizeofIfInfomsg:])
		if err != nil {
			continue
		}
		inner, err := nl.ParseRouteAttrAsMap(attributes[unix.IFLA_PROTINFO].Value)
		if v := inner[inet6Flags].Value; err == nil && len(v) == 4 {
			bits := binary.NativeEndian.Uint32(v)
			all[index] = dhcp.Flags{Managed: bits&managed != 0, Other: bits&otherConf != 0}
		}
	}
	return all, nil
}

// routes lists those that match.
func (k *kernel) routes(like *netlink.Route, by uint64) ([]Route, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteListFiltered(netlink.FAMILY_ALL, like, by) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var all []Route
	for _, r := range routes {
		all = append(all, routeFrom(r))
	}
	return all, nil
}

func routeFrom(r netlink.Route) Route {
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
	return out
}

// direct makes the rules between firstRule and lastRule these, and the tables of the links
// in routes, or of our rules until now, those. Routes come before the rules that lead to
// them and leave after them.
func (k *kernel) direct(rules []Rule, routes map[int][]Route) error {
	all, err := dump(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	var errs []error
	have := make(map[Rule]bool)
	links := make(map[int]bool)
	for link := range routes {
		links[link] = true
	}
	for _, r := range all {
		if r.Priority < firstRule || r.Priority > lastRule {
			continue
		}
		// The kernel's 0 is no mark.
		one := Rule{Priority: r.Priority, V6: r.Family == netlink.FAMILY_V6, Link: int(r.Mark), Table: r.Table}
		if r.Src != nil {
			one.From = addrOf(r.Src.IP)
		}
		if r.Dst != nil {
			one.To = prefixOf(r.Dst)
		}
		if slices.Contains(rules, one) {
			have[one] = true
			continue
		}
		if r.Table != mainTable {
			links[r.Table-firstTable] = true
		}
		errs = append(errs, netlink.RuleDel(&r))
	}
	for link := range links {
		errs = append(errs, k.table(link, routes[link]))
	}
	for _, r := range rules {
		if have[r] {
			continue
		}
		add := netlink.NewRule()
		add.Priority, add.Table, add.Family, add.Mark = r.Priority, r.Table, netlink.FAMILY_V4, uint32(r.Link)
		if r.V6 {
			add.Family = netlink.FAMILY_V6
		}
		if r.From.IsValid() {
			add.Src = ipNet(netip.PrefixFrom(r.From, r.From.BitLen()))
		}
		if r.To.IsValid() {
			add.Dst = ipNet(r.To)
		}
		add.SuppressPrefixlen = r.passesOver() // -1: nothing
		if err := netlink.RuleAdd(add); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, fmt.Errorf("add rule %s: %w", r, err))
		}
	}
	return errors.Join(errs...)
}

// table makes the routes of a link's own table these.
func (k *kernel) table(link int, want []Route) error {
	like := &netlink.Route{Table: tableOf(link)}
	have, err := k.routes(like, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	same := func(r Route) func(Route) bool {
		return func(o Route) bool { return o.To == r.To && o.Via == r.Via && o.Metric == r.Metric }
	}
	var errs []error
	change := func(r Route, do func(*netlink.Route) error, what string) {
		out := routeOf(Facts{Index: link}, r)
		out.Table = tableOf(link)
		if err := do(out); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("%s route %s of table %d: %w", what, r, out.Table, err))
		}
	}
	for _, r := range have {
		if !slices.ContainsFunc(want, same(r)) {
			change(r, netlink.RouteDel, "remove")
		}
	}
	for _, r := range want {
		if !slices.ContainsFunc(have, same(r)) {
			change(r, netlink.RouteReplace, "set")
		}
	}
	return errors.Join(errs...)
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
		add := &netlink.Addr{IPNet: ipNet(op.AddAddress)}
		if op.AddAddress.Addr().Is6() {
			add.Flags = unix.IFA_F_NODAD // we have asked
		}
		return netlink.AddrReplace(l, add)
	case op.Restore != nil:
		return restore(f, *op.Restore, time.Now())
	case op.Deprecate.IsValid():
		return set(f, op.Deprecate, math.MaxUint32, 0, 0) // it is ours to remove
	case op.DelRoute != nil:
		if err := netlink.RouteDel(routeOf(f, *op.DelRoute)); !errors.Is(err, unix.ESRCH) { // another link's has replaced it
			return err
		}
	case op.ReplaceRoute != nil:
		return netlink.RouteReplace(routeOf(f, *op.ReplaceRoute))
	case op.Down:
		return netlink.LinkSetDown(l)
	}
	return nil
}

// longestMade is for how many seconds an address of the kernel's in a router's network is set,
// if the router says for ever: with one more, the kernel takes it for permanent, as ours are.
// The router's next advertisement says again that it is for ever.
//
// Source: inet6_addr_add and inet6_addr_modify in net/ipv6/addrconf.c of the kernel tree.
const longestMade = math.MaxUint32 - 1

// restore gives back an address that the kernel made up. It is asked for no more, and a
// router goes on saying how long it is good for.
func restore(f Facts, made Made, now time.Time) error {
	longest, flags := uint32(math.MaxUint32), uint32(unix.IFA_F_NODAD)
	if !made.Prefix.Addr().IsLinkLocalUnicast() {
		longest = longestMade
		flags |= unix.IFA_F_NOPREFIXROUTE // the router's advertisement made it
	}
	seconds := func(t time.Time) uint32 {
		if t.IsZero() {
			return longest
		}
		return uint32(max(t.Sub(now)/time.Second, 0))
	}
	if made.Temporaries {
		flags |= unix.IFA_F_MANAGETEMPADDR
	}
	return set(f, made.Prefix, max(seconds(made.Valid), 1), seconds(made.Preferred), flags)
}

// set gives a link an address, or changes it, which is valid for so many seconds and sent
// from for so many of them; on 32-bit computers netlink.Addr has no room for all of them.
func set(f Facts, p netip.Prefix, valid, preferred, flags uint32) error {
	m := nl.NewIfAddrmsg(unix.AF_INET6)
	m.Index, m.Prefixlen = uint32(f.Index), uint8(p.Bits())
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(m)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
	times := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: valid, Prefered: preferred}}
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, times.Serialize()))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
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

func prefixOf(n *net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
