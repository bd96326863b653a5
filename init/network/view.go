package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
)

// view is links, addresses and routes as the kernel had them at one moment: each is a
// list that the kernel tells whole, whatever of it is asked for.
type view struct {
	links  []*netlink.LinkAttrs // by index
	kinds  map[int]string       // of links
	addrs  map[int][]netlink.Addr
	routes map[int][]netlink.Route // of the main table
}

// look returns what there is now.
func (k *kernel) look() (view, error) {
	v := view{kinds: make(map[int]string), addrs: make(map[int][]netlink.Addr), routes: make(map[int][]netlink.Route)}
	links, err := dump(netlink.LinkList)
	if err != nil {
		return v, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		v.links = append(v.links, l.Attrs())
		v.kinds[l.Attrs().Index] = l.Type()
	}
	slices.SortFunc(v.links, func(a, b *netlink.LinkAttrs) int { return cmp.Compare(a.Index, b.Index) })
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return v, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		v.addrs[a.LinkIndex] = append(v.addrs[a.LinkIndex], a)
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return v, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		v.routes[r.LinkIndex] = append(v.routes[r.LinkIndex], r)
	}
	return v, nil
}

// link is the one that facts are about.
func (v view) link(f Facts) (*netlink.LinkAttrs, error) {
	i := slices.IndexFunc(v.links, func(a *netlink.LinkAttrs) bool { return a.Index == f.Index })
	if i < 0 {
		return nil, errors.New("the link is gone")
	}
	return v.links[i], nil
}

// facts are those of all links, in the order in which they came.
func (v view) facts() (facts []Facts) {
	for _, a := range v.links {
		// Whatever software makes has a kind: bridge, veth, tun, vlan …
		wired := v.kinds[a.Index] == "device" && a.EncapType == "ether"
		if wired {
			_, err := os.Stat(filepath.Join("/sys/class/net", a.Name, "phy80211"))
			wired = err != nil
		}
		facts = append(facts, Facts{
			Index: a.Index, Name: a.Name, MAC: a.HardwareAddr.String(),
			Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, MTU: a.MTU,
			ARP:   a.EncapType == "ether" && a.RawFlags&unix.IFF_NOARP == 0,
			Wired: wired,
		})
	}
	return facts
}

// state is that of a link, as far as it is ours to change.
func (v view) state(f Facts) (State, error) {
	l, err := v.link(f)
	if err != nil {
		return State{}, err
	}
	s := State{Up: l.RawFlags&unix.IFF_UP != 0, MTU: l.MTU, IPv6: readIPv6(f.Name), PassOver: readPassOver(f.Name)}
	for _, a := range v.addrs[f.Index] {
		p := prefixOf(a.IPNet)
		if a.Flags&unix.IFA_F_DADFAILED != 0 {
			s.Taken = append(s.Taken, p)
			continue
		}
		// Of IPv6, the link-local address and those with a lifetime are the kernel's.
		if p.Addr().Is6() && (p.Addr().IsLinkLocalUnicast() || a.Flags&unix.IFA_F_PERMANENT == 0) {
			if a.Flags&unix.IFA_F_TEMPORARY == 0 {
				s.Made = append(s.Made, madeOf(p, a.Flags, a.ValidLft, a.PreferedLft))
			}
			continue
		}
		s.Addresses = append(s.Addresses, p)
		if a.Flags&unix.IFA_F_DEPRECATED != 0 {
			s.Deprecated = p
		}
	}
	for _, r := range v.routes[f.Index] {
		if r.Protocol == ours {
			s.Routes = append(s.Routes, routeFrom(r))
		}
	}
	return s, nil
}

// uplink is what counts of a link for the choice between several.
func (v view) uplink(f Facts) Uplink {
	u := Uplink{Link: f.Index, Name: f.Name}
	for _, a := range v.addrs[f.Index] {
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			u.Addresses = append(u.Addresses, addrOf(a.IP))
		}
	}
	for _, one := range v.routes[f.Index] {
		r := routeFrom(one)
		r.OnLink = r.Via.IsValid() && (r.Via.Is4() || !r.Via.IsLinkLocalUnicast()) // the table has no other routes that lead to it
		connected := one.Protocol == unix.RTPROT_KERNEL
		switch to := r.To.Addr(); {
		case r.To.Bits() == 0:
			if r.Via.IsValid() {
				u.Defaults = append(u.Defaults, r)
			}
		case to.IsLinkLocalUnicast(), to.IsMulticast(), connected && r.To.IsSingleIP():
		case connected:
			u.Near = append(u.Near, r)
			if slices.ContainsFunc(u.Addresses, r.To.Contains) { // else it is still asked for
				u.Networks = append(u.Networks, r.To)
			}
		case one.Protocol == ours, one.Protocol == unix.RTPROT_RA, one.Protocol == unix.RTPROT_BOOT: // those of routing daemons are too many
			u.Near = append(u.Near, r)
		}
	}
	return u
}

// describe says what the status file has about a link. IPv6 addresses of every
// kind are in it, link-local ones last.
func (v view) describe(f Facts) (control.Interface, error) {
	i := control.Interface{Name: f.Name, MAC: f.MAC, Carrier: f.Carrier}
	l, err := v.link(f)
	if err != nil {
		return i, err
	}
	i.MTU = l.MTU
	for _, a := range v.addrs[f.Index] {
		if a.Flags&unix.IFA_F_TENTATIVE == 0 {
			i.Addresses = append(i.Addresses, prefixOf(a.IPNet))
		}
	}
	slices.SortStableFunc(i.Addresses, func(a, b netip.Prefix) int {
		return btoi(a.Addr().IsLinkLocalUnicast()) - btoi(b.Addr().IsLinkLocalUnicast())
	})
	for _, r := range v.routes[f.Index] {
		if r.Gw != nil && (r.Dst == nil || prefixOf(r.Dst).Bits() == 0) {
			i.Gateway = append(i.Gateway, addrOf(r.Gw))
		}
	}
	return i, nil
}
