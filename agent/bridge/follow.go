package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Follow brings what rests on the node's own links up to date: how long packets of
// containers may be, and between which links the node routes. It also says which networks
// are to move, by name, and in words why: the node has an address in their subnets by now,
// or has had a route into them or a server there for a while (see patience), and Make gives
// them others. A network that would have to and cannot is an error. Where networks are is
// written to the file Last.
func (b *Bridges) Follow() (moving map[string]string, err error) {
	b.mu.Lock()
	err = b.fit()
	b.mu.Unlock()
	b.remember()
	moving, stuck := b.moving()
	return moving, errors.Join(err, b.route(), stuck)
}

// route is for the links between which the node routes. Before the first Publish there is
// no table.
func (b *Bridges) route() error {
	if b.applied == nil {
		return nil
	}
	r := *b.applied
	r.Routed = b.routed()
	if slices.Equal(r.Routed, b.applied.Routed) {
		return nil
	}
	if err := Apply(r); err != nil {
		return err
	}
	b.applied = &r
	return nil
}

// Limits of an MTU, in bytes: containers' links have no more than Ethernet has, and no
// less than every host must take (RFC 791).
const (
	mostMTU  = 1500
	leastMTU = 576
)

// way is a route that leads out of the node by a link of its own.
type way struct {
	link string
	mtu  int // of the link, or of the route if it says less
}

// narrowest is the MTU of the narrowest way, within the limits.
func narrowest(ways []way) int {
	mtu := mostMTU
	for _, w := range ways {
		mtu = min(mtu, w.mtu)
	}
	return max(mtu, leastMTU)
}

// ways are the IPv4 routes of the node by other links than ours and the loopback.
func ways() ([]way, error) {
	links, err := list()
	if err != nil {
		return nil, err
	}
	own := make(map[int]netlink.Link)
	for _, l := range links {
		if !strings.HasPrefix(l.Attrs().Name, Prefix) && l.Attrs().Name != "lo" {
			own[l.Attrs().Index] = l
		}
	}
	routes, err := routes()
	if err != nil {
		return nil, err
	}
	var all []way
	for _, r := range routes {
		indexes := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
		for _, i := range indexes {
			if l := own[i]; l != nil {
				w := way{link: l.Attrs().Name, mtu: l.Attrs().MTU}
				if r.MTU > 0 {
					w.mtu = min(w.mtu, r.MTU)
				}
				all = append(all, w)
			}
		}
	}
	return all, nil
}

// routes are the node's IPv4 routes, and those that refuse packets. They are of all tables:
// a VPN may have its own, which is asked before the main one. Left out are the node's own
// addresses, and what a table leaves to the next one. The tables that init/network makes
// have routes of the main one, to everything and to networks that several links lead to,
// which say nothing new.
func routes() ([]netlink.Route, error) {
	for try := 0; ; try++ {
		all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 100 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		return slices.DeleteFunc(all, func(r netlink.Route) bool {
			return r.Table == unix.RT_TABLE_LOCAL || r.Type != unix.RTN_UNICAST && !refuses(r)
		}), nil
	}
}

// refuses says whether a route leads nowhere, and to no other table either.
func refuses(r netlink.Route) bool {
	return r.Type == unix.RTN_BLACKHOLE || r.Type == unix.RTN_UNREACHABLE || r.Type == unix.RTN_PROHIBIT
}

// fit gives every bridge, and both ends of every link to it, the MTU of the node's
// narrowest way out. Links that are made later have it from the beginning. Whoever calls
// it has the lock.
func (b *Bridges) fit() error {
	out, err := ways()
	if err != nil {
		return err
	}
	b.mtu = narrowest(out)
	links, err := list()
	if err != nil {
		return err
	}
	ids, err := b.Attached()
	if err != nil {
		return err
	}
	bridges := make(map[int]bool)
	for _, l := range links {
		if l.Type() == "bridge" && strings.HasPrefix(l.Attrs().Name, Prefix) {
			bridges[l.Attrs().Index] = true
		}
	}
	var failed []error
	for _, l := range links {
		a := l.Attrs()
		if !bridges[a.Index] && !bridges[a.MasterIndex] || a.MTU == b.mtu {
			continue
		}
		// The container's end first: when ours says so, both have it.
		if bridges[a.MasterIndex] {
			i := slices.IndexFunc(ids, func(id string) bool { return strings.HasPrefix(a.Name, vethPrefix(id)) })
			if i < 0 {
				continue // of a container that is just leaving
			}
			err = b.fitInside(ids[i], a.ParentIndex)
		}
		if err == nil {
			err = netlink.LinkSetMTU(l, b.mtu)
		}
		var missing netlink.LinkNotFoundError
		if err != nil && !errors.As(err, &missing) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) { // it has gone meanwhile
			failed = append(failed, fmt.Errorf("link %s: set MTU %d: %w", a.Name, b.mtu, err))
		}
		err = nil
	}
	return errors.Join(failed...)
}

// fitInside is for the container's end, of that index there, of a link of ours.
func (b *Bridges) fitInside(id string, index int) error {
	ns, err := os.Open(filepath.Join(b.netns, id))
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := handleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	eth, err := inside.LinkByIndex(index)
	if err != nil {
		return err
	}
	return inside.LinkSetMTU(eth, b.mtu)
}
