// Package bridge is the network of the containers of one node: a bridge for each
// network, a namespace with its addresses for each container, and one nftables table
// that leads the node's ports to them and keeps networks apart.
//
// In come networks, container names, addresses and published ports; out come
// namespaces to start containers in. Everything lives in the kernel, so containers
// keep their network while the agent is down, and a new agent finds it again by name.
// Which subnets networks have outlives a boot (last.go).
//
// The keeper says which ports there are, whenever a container begins or ends to run
// (publishPorts in agent/keeper/ports.go). [Bridges.Publish] replaces the whole table with
// them in one transaction (ports.go; table.go builds it). So nothing removes a port: the
// next table lacks it. UDP flows that it led are forgotten; TCP connections go on.
//
// It leaves every other interface, route and table of the node alone. Containers
// have IPv4; published ports answer on IPv4 (a container without an IPv6 address
// cannot be the target of an IPv6 translation).
package bridge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// Prefix begins the interface name of every bridge of ours, and of nothing else.
const Prefix = nodeconfig.BridgePrefix

// unreachable are destinations that no container has any business with: the node's
// loopback, and link-local addresses, which no router may forward to (RFC 3927).
var unreachable = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16")}

// Bridges are the containers' networks of this node. Its methods may be called from
// any goroutine.
type Bridges struct {
	// Pool are the networks that those of containers are made in. Default: some that are
	// private, see pools.
	Pool []netip.Prefix
	// Asked are servers that the node is to ask, for its containers as well. They may lie
	// behind a router where the node sees no network. Default: none.
	Asked func() []netip.Addr
	// Routed are the node's own links between which it routes, by name. Default: none.
	Routed func() []string
	// Last is the file that keeps which subnets networks have: they have the same at the next
	// boot, if those are free. Default: none.
	Last string

	netns  string // folder of the namespace files
	users  string // that of user namespaces
	bounds bounds // of each network
	now    func() time.Time

	mu       sync.Mutex // guards what follows, and changes of bridges
	made     map[string]made
	mtu      int                  // of containers' links; see fit
	left     flowsIn              // subnets that networks have moved from
	since    map[string]time.Time // when a conflict that a network has was first seen, by name
	last     subnets              // what the file says
	recalled bool                 // it was read
	told     string               // why it could not be written, in words

	// For Publish and Follow alone, which are not called at one time.
	udp     bool     // a UDP port is published, or may have been
	applied *Ruleset // the last one; nil before the first Publish
}

// made is a network that is set up.
type made struct {
	workload.Subnet
	link *netlink.Bridge
}

// Open returns the networks of this node. Namespace files go to the folder netns, and
// userns beside it, which are made if they are missing.
func Open(netns string) (*Bridges, error) {
	users := filepath.Join(filepath.Dir(netns), "userns")
	for _, folder := range []string{netns, users} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("folder of namespaces: %w", err)
		}
	}
	all, err := memory()
	if err != nil {
		return nil, err
	}
	return &Bridges{netns: netns, users: users, bounds: boundsFor(all), now: time.Now, made: make(map[string]made), since: make(map[string]time.Time)}, nil
}

// enable turns a setting of net.ipv4 on.
func enable(file string) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("net.ipv4 setting %s: %w", file, err)
	}
	return nil
}

// Make makes the networks, or finds those that an earlier agent made, and returns all of
// them by name. A subnet stays unless something is in its way; see [Bridges.Follow].
// Others stay as they are; see Prune.
func (b *Bridges) Make(wanted []workload.Network) (map[string]workload.Subnet, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]workload.Subnet, len(wanted))
	b.recall()
	out, err := ways()
	if err != nil {
		return nil, err
	}
	b.mtu = narrowest(out)
	for _, n := range wanted {
		m, err := b.open(n)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
		b.made[n.Name], all[n.Name] = m, m.Subnet
	}
	return all, nil
}

func (b *Bridges) open(n workload.Network) (made, error) {
	m := made{Subnet: workload.Subnet{Network: n, Device: device(n.Name)}}
	if err := m.adopt(); err != nil {
		return m, err
	}
	if err := b.settle(&m); err != nil {
		return m, err
	}
	if err := netlink.LinkSetMTU(m.link, b.mtu); err != nil {
		return m, fmt.Errorf("bridge %s: set MTU %d: %w", m.Device, b.mtu, err)
	}
	// Otherwise a container could make itself the node's IPv6 router.
	if err := noIPv6(m.Device); err != nil {
		return m, err
	}
	if err := netlink.LinkSetUp(m.link); err != nil {
		return m, fmt.Errorf("bridge %s: set up: %w", m.Device, err)
	}
	// 127.0.0.1:PORT of the node leads to containers too; the table drops what comes
	// from a container with such a destination.
	return m, enable("conf/" + m.Device + "/route_localnet")
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
func (m *made) adopt() error {
	link, err := netlink.LinkByName(m.Device)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		attrs := netlink.NewLinkAttrs()
		attrs.Name = m.Device
		attrs.Alias = m.Name // for people: ip link shows it
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("bridge %s: add: %w", m.Device, err)
		}
		if link, err = netlink.LinkByName(m.Device); err != nil {
			return fmt.Errorf("bridge %s: %w", m.Device, err)
		}
	case err != nil:
		return fmt.Errorf("bridge %s: %w", m.Device, err)
	}
	br, ok := link.(*netlink.Bridge)
	if !ok {
		return fmt.Errorf("interface %s is a %s, not a bridge", m.Device, link.Type())
	}
	m.link = br
	addrs, err := netlink.AddrList(br, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("bridge %s: list addresses: %w", m.Device, err)
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			m.Prefix = p.Masked()
		}
	}
	return nil
}

// Prune removes the bridges of ours that are not wanted and to which no container is
// attached any more.
func (b *Bridges) Prune(wanted []workload.Network) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	links, err := list()
	if err != nil {
		return err
	}
	busy := make(map[int]bool)
	for _, l := range links {
		busy[l.Attrs().MasterIndex] = true
	}
	keep := make(map[string]bool)
	for _, n := range wanted {
		keep[device(n.Name)] = true
	}
	var failed []error
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "bridge" || !strings.HasPrefix(name, Prefix) || keep[name] || busy[l.Attrs().Index] {
			continue
		}
		if err := netlink.LinkDel(l); err != nil {
			failed = append(failed, fmt.Errorf("delete bridge %s: %w", name, err))
		}
		maps.DeleteFunc(b.made, func(_ string, m made) bool { return m.Device == name })
	}
	return errors.Join(failed...)
}

// Attached lists the containers that have a namespace file here.
func (b *Bridges) Attached() ([]string, error) {
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

// subnets are the networks that are set up, by name.
func (b *Bridges) subnets() []workload.Subnet {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []workload.Subnet
	for _, m := range b.made {
		all = append(all, m.Subnet)
	}
	slices.SortFunc(all, func(a, b workload.Subnet) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// device is the name of a network's bridge, within the 15 bytes of an interface name.
func device(network string) string {
	sum := sha256.Sum256([]byte(network))
	return Prefix + "-" + hex.EncodeToString(sum[:4])
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

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(bits, 32)}
}

// prefix is the other way round; false for what is none.
func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(ip, ones), ok
}
