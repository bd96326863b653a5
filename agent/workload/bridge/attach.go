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
)

// MaxNetworks is how many networks a container is on at most.
const MaxNetworks = 16

// Attach gives the container id a network namespace with an interface at each of these
// addresses, whose networks are made, and returns the namespace's file. Its default
// route leads through the first network that is not internal; without any it has
// none, and without addresses nothing but a loopback. What is there already under these
// names and still whole is kept, so that a container that is started anew does not pay
// for it again.
func (b *Bridges) Attach(id string, at []Address) (string, error) {
	file := filepath.Join(b.netns, id)
	if whole(file, id, at) {
		return file, nil
	}
	if err := b.Detach(id); err != nil {
		return "", err
	}
	if err := b.attach(file, id, at); err != nil {
		return "", errors.Join(fmt.Errorf("network of %s: %w", id, err), b.Detach(id))
	}
	return file, nil
}

// whole says whether id has its namespace and every interface.
func whole(file, id string, at []Address) bool {
	for i, a := range at {
		if _, err := netlink.LinkByName(vethName(id, i, a)); err != nil {
			return false
		}
	}
	return isNamespace(file)
}

func (b *Bridges) attach(file, id string, at []Address) error {
	ns, err := newNamespace(file)
	if err != nil {
		return err
	}
	defer ns.Close()
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
	routed := false
	for i, a := range at {
		b.mu.Lock()
		m, ok := b.made[a.Network]
		b.mu.Unlock()
		if !ok {
			return fmt.Errorf("network %s is not there", a.Network)
		}
		p := plug{made: m, veth: vethName(id, i, a), inside: fmt.Sprintf("eth%d", i), addr: a.Addr}
		eth, err := p.in(ns, inside, id)
		if err != nil {
			return fmt.Errorf("%s: %w", p.inside, err)
		}
		if m.Internal || routed {
			continue
		}
		routed = true
		if err := inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(m.Gateway().AsSlice())}); err != nil {
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
}

// in makes the interface and returns the container's end of it.
func (p plug) in(ns *os.File, inside *netlink.Handle, id string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Alias = p.veth, p.link.Index, id
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

// Detach takes the network of container id away; none is no error.
func (b *Bridges) Detach(id string) error {
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

// vethPrefix is a name for id within the 15 bytes of an interface name, with room
// for what vethName adds.
func vethPrefix(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "kg" + hex.EncodeToString(sum[:4]) + "-"
}

// vethName also names which of id's interfaces it is and where it leads, so that a
// link made for another network or address is not taken for whole.
func vethName(id string, i int, a Address) string {
	sum := sha256.Sum256([]byte(a.Network + " " + a.Addr.String()))
	return fmt.Sprintf("%s%x%s", vethPrefix(id), i%MaxNetworks, hex.EncodeToString(sum[:2])[:3])
}
