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

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// Attach gives the container id a network namespace with an interface at each of these
// addresses, whose networks are made, and returns where that is. Its default
// route leads through the first network that is not internal; without any it has
// none, and without addresses nothing but a loopback. If it is to be apart, all of that
// belongs to a user namespace of its own, which has ids beyond those that all have if more
// says so. What is there already under these names and
// still whole is kept, so that a container that is started anew does not pay for it again;
// but for the flows of the one before.
func (b *Bridges) Attach(id string, at []workload.Address, apart bool, more ...workload.Extents) (workload.Namespaces, error) {
	ids := workload.Extents("")
	if len(more) > 0 {
		ids = more[0]
	}
	p := workload.Namespaces{Net: filepath.Join(b.netns, id)}
	plugs, err := b.plugs(id, at)
	if err != nil {
		return workload.Namespaces{}, fmt.Errorf("network of %s: %w", id, err)
	}
	var same bool
	if p.Owner, same, err = b.ownerOf(id, ids); err != nil {
		return workload.Namespaces{}, err
	}
	if whole(p.Net, plugs) && apart == (p.Owner.File != "") && (!apart || same && isNamespace(p.Owner.File)) {
		its := make(flowsOf)
		for _, a := range at {
			its[a.Addr] = true
		}
		return p, its.forget()
	}
	if err := b.Detach(id); err != nil {
		return workload.Namespaces{}, err
	}
	p.Owner = workload.Owner{}
	if apart {
		p.Owner, err = b.newOwner(id, ids)
	}
	if err == nil {
		err = connect(p, id, plugs)
	}
	if err != nil {
		return workload.Namespaces{}, errors.Join(fmt.Errorf("network of %s: %w", id, err), b.Detach(id))
	}
	return p, nil
}

// plugs are the interfaces of id at these addresses.
func (b *Bridges) plugs(id string, at []workload.Address) ([]plug, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []plug
	for i, a := range at {
		m, ok := b.made[a.Network]
		if !ok {
			return nil, fmt.Errorf("network %s does not exist", a.Network)
		}
		all = append(all, plug{made: m, veth: vethName(id, i, a, m.Internal), inside: fmt.Sprintf("eth%d", i), addr: a.Addr, mtu: b.mtu})
	}
	return all, nil
}

// whole says whether there is the namespace and every interface.
func whole(file string, plugs []plug) bool {
	for _, p := range plugs {
		if _, err := netlink.LinkByName(p.veth); err != nil {
			return false
		}
	}
	return isNamespace(file)
}

func connect(at workload.Namespaces, id string, plugs []plug) error {
	ns, err := newNamespace(at.Net, at.Owner)
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := handleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	// Its links get no IPv6 addresses; its loopback, which is there, has one.
	if err := within(ns, func() error { return errors.Join(noIPv6("default"), setting("core/optmem_max", optionMemory, atMost)) }); err != nil {
		return err
	}
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: set up: %w", err)
	}
	routed := false
	for _, p := range plugs {
		eth, err := p.in(ns, inside, id)
		if err != nil {
			return fmt.Errorf("%s: %w", p.inside, err)
		}
		if p.Internal || routed {
			continue
		}
		routed = true
		if err := inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(p.Gateway().AsSlice())}); err != nil {
			return fmt.Errorf("%s: default route: %w", p.inside, err)
		}
	}
	return nil
}

// plug is one interface of a container.
type plug struct {
	made
	veth, inside string // its names on the node, and in the container
	addr         netip.Addr
	mtu          int
}

// in makes the interface and returns the container's end of it.
func (p plug) in(ns *os.File, inside *netlink.Handle, id string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Alias, attrs.MTU = p.veth, p.link.Index, id, p.mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: p.inside, PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("add link %s: %w", p.veth, err)
	}
	eth, err := inside.LinkByName(p.inside)
	if err != nil {
		return nil, err
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(p.addr, p.Bits())}); err != nil {
		return nil, fmt.Errorf("add address %s: %w", p.addr, err)
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	if err := noIPv6(p.veth); err != nil {
		return nil, err
	}
	// The host's end comes up last: only then does the container's route work.
	link, err := netlink.LinkByName(p.veth)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", p.veth, err)
	}
	// A container that asks for its own published port gets back what it sent.
	if err := netlink.LinkSetHairpin(link, true); err != nil {
		return nil, fmt.Errorf("link %s: hairpin: %w", p.veth, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("link %s: set up: %w", p.veth, err)
	}
	return eth, nil
}

// Detach takes the network of container id away, and what the kernel knows of its flows:
// whoever gets its addresses next is not their end. None is no error.
func (b *Bridges) Detach(id string) error {
	its, err := b.addressesOf(id)
	if err != nil {
		return err
	}
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
	return errors.Join(its.forget(), removeNamespace(filepath.Join(b.netns, id)), b.disown(id))
}

// vethPrefix is a name for id within the 15 bytes of an interface name, with room
// for what vethName adds.
func vethPrefix(id string) string {
	sum := sha256.Sum256([]byte(id))
	return nodeconfig.VethPrefix + hex.EncodeToString(sum[:4]) + "-"
}

// vethName also names which of id's interfaces it is and where it leads, so that a
// link made for another network or address is not taken for whole, nor a namespace
// whose default route leads into a network that is internal by now.
func vethName(id string, i int, a workload.Address, internal bool) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %v", a.Network, a.Addr, internal))
	return fmt.Sprintf("%s%x%s", vethPrefix(id), i%workload.MaxNetworks, hex.EncodeToString(sum[:2])[:3])
}
