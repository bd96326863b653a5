// Package bridge is the network of the containers of one node: a bridge, a
// network namespace with an address for each container, and one nftables table
// that leads the node's ports to them.
//
// In come container names, addresses and published ports; out come namespaces to
// start containers in. Everything lives in the kernel, so containers keep their
// network while the agent is down, and a new agent finds it again by name.
//
// It leaves every other interface, route and table of the node alone. Containers
// have IPv4; published ports answer on IPv4 (a container without an IPv6 address
// cannot be the target of an IPv6 translation).
package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Name is the bridge's interface name.
const Name = "kogge0"

// Subnets are tried in this order; the first that no other interface of the node
// has a route into is taken. They are private (RFC 1918) and rarely handed out.
var Subnets = []netip.Prefix{
	netip.MustParsePrefix("10.88.0.0/24"),
	netip.MustParsePrefix("172.29.88.0/24"),
	netip.MustParsePrefix("192.168.188.0/24"),
	netip.MustParsePrefix("10.188.0.0/24"),
}

// ErrNoSubnet means that the node has routes into all of [Subnets].
var ErrNoSubnet = errors.New("every container subnet is in use on this node's network")

// Bridge is the containers' network, set up.
type Bridge struct {
	Subnet netip.Prefix
	link   *netlink.Bridge
	netns  string // folder of the namespace files
}

// Gateway is the node's own address on the bridge, the first of the subnet.
func (b *Bridge) Gateway() netip.Addr { return b.Subnet.Addr().Next() }

// Open makes the bridge, or finds the one that an earlier agent made and keeps
// its subnet, and lets the node forward. Namespace files go to the folder netns,
// which is made if it is missing.
func Open(netns string) (*Bridge, error) {
	if err := os.MkdirAll(netns, 0o755); err != nil {
		return nil, fmt.Errorf("folder of network namespaces: %w", err)
	}
	b := &Bridge{netns: netns}
	if err := b.adopt(); err != nil {
		return nil, err
	}
	if !b.Subnet.IsValid() {
		subnet, err := pick()
		if err != nil {
			return nil, err
		}
		b.Subnet = subnet
		addr := &netlink.Addr{IPNet: ipNet(b.Gateway(), subnet.Bits())}
		if err := netlink.AddrAdd(b.link, addr); err != nil {
			return nil, fmt.Errorf("bridge %s: add address %s: %w", Name, addr, err)
		}
	}
	// Otherwise a container could make itself the node's IPv6 router.
	if err := noIPv6(Name); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(b.link); err != nil {
		return nil, fmt.Errorf("bridge %s: set up: %w", Name, err)
	}
	for file, value := range map[string]string{
		"ip_forward": "1",
		// 127.0.0.1:PORT of the node leads to containers too; the table drops
		// what comes from a container with such a destination.
		"conf/" + Name + "/route_localnet": "1",
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0o644); err != nil {
			return nil, fmt.Errorf("net.ipv4 setting %s: %w", file, err)
		}
	}
	return b, nil
}

// noIPv6 makes link ignore IPv6, on a kernel that knows it at all.
func noIPv6(link string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("1"), 0o644)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("link %s: disable IPv6: %w", link, err)
	}
	return nil
}

// adopt finds or makes the link, and reads the subnet of one that has an address.
func (b *Bridge) adopt() error {
	link, err := netlink.LinkByName(Name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		attrs := netlink.NewLinkAttrs()
		attrs.Name = Name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("bridge %s: add: %w", Name, err)
		}
		if link, err = netlink.LinkByName(Name); err != nil {
			return fmt.Errorf("bridge %s: %w", Name, err)
		}
	case err != nil:
		return fmt.Errorf("bridge %s: %w", Name, err)
	}
	br, ok := link.(*netlink.Bridge)
	if !ok {
		return fmt.Errorf("interface %s is a %s, not a bridge", Name, link.Type())
	}
	b.link = br
	addrs, err := netlink.AddrList(br, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("bridge %s: list addresses: %w", Name, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			ones, _ := a.Mask.Size()
			b.Subnet = netip.PrefixFrom(ip, ones).Masked()
		}
	}
	return nil
}

// pick asks the kernel's routing table which subnets are taken.
func pick() (netip.Prefix, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list routes: %w", err)
	}
	var taken []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue // the default route overlaps with everything and means nothing
		}
		if ip, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok {
			ones, _ := r.Dst.Mask.Size()
			taken = append(taken, netip.PrefixFrom(ip, ones))
		}
	}
	return choose(Subnets, taken)
}

// choose returns the first of subnets that overlaps with none of taken, default
// routes (/0) left out.
func choose(subnets, taken []netip.Prefix) (netip.Prefix, error) {
next:
	for _, s := range subnets {
		for _, t := range taken {
			if t.Bits() > 0 && s.Overlaps(t) {
				continue next
			}
		}
		return s, nil
	}
	return netip.Prefix{}, ErrNoSubnet
}

// Free returns the lowest address of subnet that is neither the network, the
// gateway, the broadcast address nor in used.
func Free(subnet netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error) {
	first := subnet.Masked().Addr().Next().Next()
	for a := first; subnet.Contains(a) && subnet.Contains(a.Next()); a = a.Next() {
		if !used[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("subnet %s: no free address", subnet)
}

// Attach gives the container id a network namespace with addr and returns the
// namespace's file. What is there already under these names and still whole is
// kept, so that a container that is started anew does not pay for it again.
func (b *Bridge) Attach(id string, addr netip.Addr) (string, error) {
	file := filepath.Join(b.netns, id)
	veth := vethName(id, addr)
	if _, err := netlink.LinkByName(veth); err == nil && isNamespace(file) {
		return file, nil
	}
	if err := b.Detach(id); err != nil {
		return "", err
	}
	if err := b.attach(file, veth, addr); err != nil {
		return "", errors.Join(fmt.Errorf("network of %s: %w", id, err), b.Detach(id))
	}
	return file, nil
}

func (b *Bridge) attach(file, veth string, addr netip.Addr) error {
	ns, err := newNamespace(file)
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Alias = veth, b.link.Index, filepath.Base(file)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add link %s: %w", veth, err)
	}
	inside, err := handleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: set up: %w", err)
	}
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(addr, b.Subnet.Bits())}); err != nil {
		return fmt.Errorf("eth0: add address %s: %w", addr, err)
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return fmt.Errorf("eth0: set up: %w", err)
	}
	if err := noIPv6(veth); err != nil {
		return err
	}
	// The host's end comes up last: only then does the container's route work.
	link, err := netlink.LinkByName(veth)
	if err != nil {
		return fmt.Errorf("link %s: %w", veth, err)
	}
	// A container that asks for its own published port gets back what it sent.
	if err := netlink.LinkSetHairpin(link, true); err != nil {
		return fmt.Errorf("link %s: hairpin: %w", veth, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: set up: %w", veth, err)
	}
	if err := inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(b.Gateway().AsSlice())}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// Detach takes the network of container id away; none is no error.
func (b *Bridge) Detach(id string) error {
	links, err := list()
	if err != nil {
		return err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, vethPrefix(id)) {
			if err := netlink.LinkDel(l); err != nil {
				return fmt.Errorf("delete link %s: %w", l.Attrs().Name, err)
			}
		}
	}
	return removeNamespace(filepath.Join(b.netns, id))
}

// list returns all links. The kernel may say that some came or went meanwhile, as
// they do while other containers start: then it is asked again.
func list() ([]netlink.Link, error) {
	for try := 0; ; try++ {
		links, err := netlink.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 100 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		return links, nil
	}
}

// Attached lists the containers that have a namespace file here.
func (b *Bridge) Attached() ([]string, error) {
	entries, err := os.ReadDir(b.netns)
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// vethPrefix is a name for id within the 15 bytes of an interface name, with room
// for what vethName adds.
func vethPrefix(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "kg" + hex.EncodeToString(sum[:4]) + "-"
}

// vethName also names the address, so that a link made for another one is not
// taken for whole.
func vethName(id string, addr netip.Addr) string {
	raw := addr.As4()
	return vethPrefix(id) + hex.EncodeToString(raw[2:])
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(bits, 32)}
}
